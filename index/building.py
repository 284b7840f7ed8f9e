"""An embeddings folder -> a gallery, whole or not at all.

The gallery grows under a temporary name beside its place and is renamed when it is finished, so
an interrupted build leaves what was there before.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from index.budget import Budget, Choice
from index.derived import flush
from index.gallery import Gallery
from index.records import STORE
from index.sidecar import metadata_of, read_metadata
from vssl.errors import ExistsError, InputError
from vssl.store import iter_parts


def build_gallery(
    embeddings: Path,
    path: Path,
    *,
    distance: str = "cosine",
    normalise: bool = True,
    overwrite: bool = False,
    budget: Budget | None = None,
    metadata: Path | None = None,
) -> tuple[int, Choice | None]:
    """Build a gallery from an embeddings folder; returns the number of items.

    metadata: a table of metadata by id (see index.sidecar).
    budget: choose the index by measuring (see index.budget); what was chosen is returned too.

    Raises ExistsError when `path` exists and `overwrite` is false, or is no gallery; InputError
    when the folder holds no embeddings.
    """
    if path.exists():
        if not overwrite:
            raise ExistsError(f"{path} exists already; choose another output or add --overwrite")
        if not (path / STORE).is_file():
            raise ExistsError(f"{path} exists and is no gallery; --overwrite replaces galleries only")
        Gallery.lock(path).release()  # refuses while another process writes
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(partial, ignore_errors=True)
    known = read_metadata(metadata) if metadata is not None else {}
    try:
        gallery = None
        for rows, card, model_id in iter_parts(embeddings):
            if gallery is None:
                partial.parent.mkdir(parents=True, exist_ok=True)
                gallery = Gallery.create(
                    partial, card=card, model_id=model_id, distance=distance, normalise=normalise
                )
            gallery.add(rows, model_id=model_id, metadata=metadata_of(rows.ids, known))
        if gallery is None:
            raise InputError(f"{str(embeddings)!r} holds no embeddings: every image failed; see its failures")
        with gallery:
            count = len(gallery)
            choice = gallery.choose_index(budget) if budget is not None else None
        _swap(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return count, choice


def _swap(partial: Path, path: Path) -> None:
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    if path.exists():
        path.rename(old)
    partial.rename(path)
    flush(path.parent)
    shutil.rmtree(old, ignore_errors=True)
