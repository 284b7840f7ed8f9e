"""An embeddings folder, or a file of embeddings -> a gallery, whole or not at all.

The gallery grows under a temporary name next to its place and is renamed when it is finished, so
an interrupted build leaves what was there before.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from index.answers.validation import check_distance
from index.calibration.fit import BEST, Fitting
from index.gallery.adding import add_embeddings
from index.gallery.folder.gallery import FolderGallery
from index.gallery.folder.store import STORE
from index.search.autotune import Budget, Selection
from vssl.embeddings.arrays import iter_embeddings
from vssl.errors import ExistsError, InputError
from vssl.files import atomic_folder, is_free


@dataclass(frozen=True, eq=False)
class BuildReport:
    """What was built: the number of items, what was fitted to them, and the index when a budget chose it.

    unmatched: see `index.gallery.adding.Added`.
    """

    count: int
    unmatched: str
    fitting: Fitting
    selection: Selection | None


def build_gallery(
    embeddings: Path,
    path: Path,
    *,
    distance: str | None = None,
    normalise: bool = True,
    overwrite: bool = False,
    budget: Budget | None = None,
    metadata: Path | None = None,
) -> BuildReport:
    """Build a gallery from an embeddings folder, or a file of embeddings (vssl.embeddings.arrays).

    distance: its own; None or "best" for the one that ranks held-out images best (index.calibration.fit).
    metadata: a table of metadata by id (see index.answers.metadata).
    budget: choose the index by measuring (see index.search.autotune).

    Raises ExistsError when `path` exists and `overwrite` is false, or is no gallery; InputError
    when the folder holds no embeddings, or the table none of their ids.
    """
    _check_place(path, overwrite=overwrite)
    _check_apart(embeddings.resolve(), path.resolve())
    first = next(iter_embeddings(embeddings), None)
    if first is None:
        raise InputError(f"{str(embeddings)!r} holds no embeddings: every image failed; see its failures")
    _, card, model_id = first
    check_distance(str(embeddings), card, None if distance == BEST else distance)
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    with atomic_folder(path) as partial:
        with FolderGallery.create(partial, card=card, model_id=model_id, normalise=normalise) as gallery:
            added = add_embeddings(gallery, embeddings, metadata=metadata)
            fitting = gallery.fit(distance or BEST)
            selection = gallery.choose_index(budget) if budget is not None else None
        if not is_free(path):
            path.rename(old)
    shutil.rmtree(old, ignore_errors=True)
    return BuildReport(added.images, added.unmatched, fitting, selection)


def _check_apart(embeddings: Path, gallery: Path) -> None:
    """Refuse a gallery within its embeddings or around them: replacing the one would take the other away."""
    if gallery.is_relative_to(embeddings) or embeddings.is_relative_to(gallery):
        raise InputError(
            f"the gallery {str(gallery)!r} and the embeddings {str(embeddings)!r} lie within each other; "
            f"write it beside them: {embeddings.parent / 'gallery'}"
        )


def _check_place(path: Path, *, overwrite: bool) -> None:
    if is_free(path):
        return
    if not overwrite:
        raise ExistsError(f"{path} exists already; choose another output or add --overwrite")
    if not (path / STORE).is_file():
        raise ExistsError(f"{path} exists and is no gallery; --overwrite replaces galleries only")
    FolderGallery.lock(path).release()  # refuses while another process writes
