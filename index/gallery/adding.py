"""An embeddings folder, and a table of metadata -> items of a gallery."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from index.answers.metadata import metadata_of, read_metadata
from index.gallery.protocol import Gallery
from vssl.embeddings.arrays import iter_embeddings
from vssl.errors import InputError, shown


@dataclass(frozen=True)
class Added:
    """images: how many were added; unmatched: what a table and the images lack of one another, or an empty text."""

    images: int
    unmatched: str


def add_embeddings(
    gallery: Gallery, embeddings: Path, *, replace: bool = False, metadata: Path | None = None
) -> Added:
    """Add the images of an embeddings folder or file, all or none of each part.

    metadata: a table of metadata by id (see index.answers.metadata). Raises what `Gallery.add` does,
    and InputError when none of the table's ids is among the images.
    """
    known = read_metadata(metadata) if metadata is not None else {}
    if metadata is not None:
        _check_some(known, embeddings, metadata)
    added, unused = 0, dict.fromkeys(known)
    for rows, _, model_id in iter_embeddings(embeddings):
        gallery.add(rows, replace=replace, model_id=model_id, metadata=metadata_of(rows.ids, known))
        added += len(rows)
        for id_ in rows.ids:
            unused.pop(id_, None)
    return Added(added, _unmatched(added, len(known), list(unused)) if metadata is not None else "")


def _check_some(known: Mapping[str, object], embeddings: Path, metadata: Path) -> None:
    first: str | None = None
    for rows, _, _ in iter_embeddings(embeddings):
        first = first or next(iter(rows.ids), None)
        if any(id_ in known for id_ in rows.ids):
            return
    theirs = f", such as {next(iter(known))!r}" if known else ""
    raise InputError(
        f"metadata {metadata}: none of its {len(known)} ids{theirs}, is among the images of {embeddings}, "
        f"such as {first!r}; its column 'id' must hold the ids of the embeddings"
    )


def _unmatched(images: int, known: int, unused: Sequence[str]) -> str:
    without = images - (known - len(unused))
    told = [f"{without} of {images} images have none"] if without else []
    if unused:
        told.append(f"{len(unused)} of {known} ids of the table are no image, such as {shown(unused[0])}")
    return f"metadata: {', '.join(told)}" if told else ""
