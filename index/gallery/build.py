"""An embeddings folder -> a gallery, whole or not at all.

The gallery grows under a temporary name beside its place and is renamed when it is finished, so
an interrupted build leaves what was there before.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from index.answers.metadata import metadata_of, read_metadata
from index.calibration.fit import BEST, Fitting
from index.gallery.answering import check_distance
from index.gallery.gallery import Gallery
from index.gallery.store import STORE
from index.search.autotune import Budget, Choice
from vssl.embeddings.store import iter_parts
from vssl.errors import ExistsError, InputError
from vssl.files import put_in_place


@dataclass(frozen=True, eq=False)
class Built:
    """What was built: the number of items, what was fitted to them, and the index when a budget chose it."""

    count: int
    fitting: Fitting
    choice: Choice | None


def build_gallery(
    embeddings: Path,
    path: Path,
    *,
    distance: str | None = None,
    normalise: bool = True,
    overwrite: bool = False,
    budget: Budget | None = None,
    metadata: Path | None = None,
) -> Built:
    """Build a gallery from an embeddings folder.

    distance: its own; None or "best" for the one that ranks held-out images best (index.calibration.fit).
    metadata: a table of metadata by id (see index.answers.metadata).
    budget: choose the index by measuring (see index.search.autotune).

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
    if distance not in (None, BEST):
        check_distance(str(distance))
    known = read_metadata(metadata) if metadata is not None else {}
    try:
        gallery = None
        for rows, card, model_id in iter_parts(embeddings):
            if gallery is None:
                partial.parent.mkdir(parents=True, exist_ok=True)
                gallery = Gallery.create(partial, card=card, model_id=model_id, normalise=normalise)
            gallery.add(rows, model_id=model_id, metadata=metadata_of(rows.ids, known))
        if gallery is None:
            raise InputError(f"{str(embeddings)!r} holds no embeddings: every image failed; see its failures")
        with gallery:
            count = len(gallery)
            fitting = gallery.fit(distance or BEST)
            choice = gallery.choose_index(budget) if budget is not None else None
        _swap(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Built(count, fitting, choice)


def _swap(partial: Path, path: Path) -> None:
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    if path.exists():
        path.rename(old)
    put_in_place(partial, path)
    shutil.rmtree(old, ignore_errors=True)
