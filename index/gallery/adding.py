"""An embeddings folder, and a table of metadata -> items of a gallery."""

from __future__ import annotations

from pathlib import Path

from index.answers.metadata import metadata_of, read_metadata
from index.gallery.protocol import Gallery
from vssl.embeddings.arrays import iter_embeddings
from vssl.errors import InputError


def add_embeddings(
    gallery: Gallery, embeddings: Path, *, replace: bool = False, metadata: Path | None = None
) -> int:
    """Add the images of an embeddings folder or file, all or none of each part; return how many.

    metadata: a table of metadata by id (see index.answers.metadata). Raises what `Gallery.add` does,
    and InputError when none of the table's ids is among the images.
    """
    known = read_metadata(metadata) if metadata is not None else {}
    if metadata is not None:
        first: str | None = None
        for rows, _, _ in iter_embeddings(embeddings):
            first = first or next(iter(rows.ids), None)
            if any(id_ in known for id_ in rows.ids):
                break
        else:
            theirs = f", such as {next(iter(known))!r}" if known else ""
            raise InputError(
                f"metadata {metadata}: none of its {len(known)} ids{theirs}, is among the images of {embeddings}, "
                f"such as {first!r}; its column 'id' must hold the ids of the embeddings"
            )
    added = 0
    for rows, _, model_id in iter_embeddings(embeddings):
        gallery.add(rows, replace=replace, model_id=model_id, metadata=metadata_of(rows.ids, known))
        added += len(rows)
    return added
