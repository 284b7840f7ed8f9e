"""Gaussian embeddings -> a durable gallery -> neighbours that say how sure they are.

    gallery/
      store.db      the store of record (index.gallery.folder.store)
      writer.lock   names the process that writes
      derived/      indexes built from the store, checksummed, disposable (index.gallery.folder.derived)

What `add` and `remove` acknowledge is on the disk. Searches run on an index in memory that
follows the store: a reader sees what another process wrote at its next search.
Shape letters: Q queries, K neighbours, N items, D embedding dimension.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from index.answers.filters import parse_filter
from index.answers.validation import Metadata, as_held, check_distance, compared, distances_of
from index.calibration.fit import BEST, Fitting, fit
from index.gallery.folder.derived import FOLDER, find_derived
from index.gallery.folder.locks import WriterLock
from index.gallery.folder.reader import GalleryReader
from index.gallery.folder.store import STORE, Store
from index.gallery.protocol import common_info, first_facts, match_info
from index.search.autotune import Budget, Selection
from index.search.gpu import checked_device
from vssl.embeddings.store import Rows
from vssl.errors import ExistsError, InputError
from vssl.files import atomic_folder, is_free
from vssl.model.card import ModelCard

LOCK = "writer.lock"


class FolderGallery(GalleryReader):
    """One gallery folder, open for reading, or for reading and writing: a `Gallery` (index.gallery.protocol).

    Open with `FolderGallery.open` or `FolderGallery.create`; close it, or use it in a `with` block.
    Methods may be called from several threads.
    """

    def __init__(self, path: Path, store: Store, lock: WriterLock | None, device: str = "auto") -> None:
        super().__init__(path, store, writable=lock is not None, device=device)
        self._lock = lock

    # --- opening and closing -----------------------------------------------------------

    @classmethod
    def create(
        cls,
        path: Path | str,
        *,
        card: ModelCard,
        model_id: str,
        distance: str = "cosine",
        normalise: bool = True,
    ) -> FolderGallery:
        """Make an empty gallery and open it for writing.

        Raises ExistsError when there is one, InputError for an unknown distance.
        """
        path = Path(path)
        facts = first_facts(card, model_id, distance, normalise=normalise)
        if path.exists() and (not path.is_dir() or (path / STORE).exists()):
            raise ExistsError(f"{path} exists already; choose another output or add --overwrite")
        path.mkdir(parents=True, exist_ok=True)
        lock = WriterLock(path / LOCK)
        try:
            return cls(path, Store.create(path / STORE, facts), lock)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def open(cls, path: Path | str, *, read_only: bool = False, device: str = "auto") -> FolderGallery:
        """Open a gallery; for writing only one process at a time (LockedError names the other).

        device: where exact searches of many queries run: `cpu`, `cuda` (InputError where FAISS has
        none) or `auto`, a GPU when there is one.
        """
        path = Path(path)
        checked_device(device)
        if not (path / STORE).is_file():
            Store(path / STORE)  # raises the error that says what to type
        lock = None if read_only else WriterLock(path / LOCK)
        try:
            return cls(path, Store(path / STORE, read_only=read_only), lock, device)
        except BaseException:
            if lock:
                lock.release()
            raise

    @staticmethod
    def lock(path: Path) -> WriterLock:
        """Take the right to write to a gallery folder, or raise LockedError that names its holder."""
        return WriterLock(path / LOCK)

    def close(self) -> None:
        """Save what a later opening would have to build again, and let go of the gallery."""
        try:
            if self._lock:
                saved = self._cache.saved()
                if saved is None or saved.generation != self.generation:
                    self.save()
        finally:
            self._store.close()
            if self._lock:
                self._lock.release()
                self._lock = None

    def info(self) -> dict[str, Any]:
        """Return what a person asks about a gallery, as plain values."""
        saved, damage = find_derived(self.path, self.distance)
        with self._cache.current() as view:
            shown = view.uncertainty[view.alive]
            labels = {label for label, there in zip(view.labels, view.alive, strict=True) if there and label}
        quantiles = {"p10": 0.1, "median": 0.5, "p90": 0.9}
        recipe = self._cache.recipe
        return common_info(self) | {
            "labels": len(labels),
            "index": "flat, exact" if recipe is None else dataclasses.asdict(recipe),
            "index_generation": saved.generation if saved else None,
            "index_damage": damage,
            "uncertainty": {n: float(np.quantile(shown, q)) for n, q in quantiles.items()}
            if len(shown) and self.card.has_variance
            else None,
            "match_calibration": match_info(self._calibrations.stored_match(self.distance)),
            "bytes": sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file()),
        }

    # --- writing -----------------------------------------------------------------------

    def _writable(self) -> None:
        if self._lock is None:
            raise InputError(f"{self.path} is open for reading only; open it for writing to change it")

    def add(
        self,
        rows: Rows,
        *,
        replace: bool = False,
        metadata: Sequence[Metadata] | None = None,
        model_id: str | None = None,
    ) -> None:
        """Add N embedded images, all or none; they are on the disk when this returns. See `Gallery.add`."""
        self._writable()
        self.check_model(model_id, "these embeddings")
        rows = dataclasses.replace(rows, gaussians=as_held(self.card, rows.gaussians))
        compared(
            rows.gaussians, self.place, self.card.dim, normalise=self.normalise
        )  # refuses before it stores
        self._store.add(rows, metadata, replace=replace)
        self._cache.reload()

    def remove(self, ids: Sequence[str]) -> int:
        """Remove items by id, durably; returns how many of them were there."""
        self._writable()
        gone = self._store.remove(ids)
        self._cache.reload()
        return gone

    def remove_where(self, where: Mapping[str, object]) -> int:
        """Remove the items that a filter keeps (see index.answers.filters); returns how many."""
        self._writable()
        tree = parse_filter(where)
        with self._cache.current() as view:
            ids = [view.ids[i] for i in view.positions(self._store.select(tree))]
        return self.remove(ids)

    def save(self) -> None:
        """Write the index next to the store, and the match calibration into it."""
        self._writable()
        self._cache.save()
        self.match_model(self.distance)

    def fit(self, distance: str | None = None) -> Fitting:
        """Fit the constants of every distance to the stored images, durably, and choose the distance.

        distance: a name, or "best" for the one that ranks held-out labelled images best; None
            keeps a distance that a person named before. See index.calibration.fit.
        """
        self._writable()
        with self._cache.current() as view:
            if distance is None:
                named = self.fitting.given if self.fitting else self.distance != "cosine"
                distance = self.distance if named else BEST
            check_distance(self.place, self.card, None if distance == BEST else distance)
            there = np.flatnonzero(view.alive)
            items = view.items[:] if len(there) == len(view.rows) else view.items[there]
            labels = [view.labels[row] for row in there]
            found = fit(items, labels, distance=distance, names=distances_of(self.card))
            found = dataclasses.replace(
                found, generation=view.generation, rows=view.count, last_row=view.last_row
            )
        self.adopt(found)
        return found

    def adopt(self, fitting: Fitting) -> None:
        """Use these constants and their distance from here on; one write, as durable as any."""
        self._writable()
        facts = {"distance": fitting.distance, "fitting": fitting.to_json()}
        self._store.set_facts(facts, dropping="match.")  # calibrations were of the distances before
        self._calibrations.invalidate()
        self._cache.reload()
        self.save()

    def choose_index(self, budget: Budget) -> Selection:
        """Measure indexes on the gallery's own vectors and keep the one within the budget.

        Raises InputError when none is; the gallery then stays as it was.
        """
        self._writable()
        selection = self._cache.choose(budget)
        self.save()
        return selection

    def compact(self) -> None:
        """Drop what removed items left behind, on disk and in memory; build and save the index again."""
        self._writable()
        self._store.compact()
        self._calibrations.invalidate()
        self._cache.compact()
        self.save()

    def snapshot(self, path: Path | str) -> None:
        """Write a copy of the gallery as it is now, while others read and write this one.

        Raises ExistsError when there is something at `path`, InputError when that is within the gallery.
        """
        path = Path(path)
        check_outside(path, self.path)
        if not is_free(path):
            raise ExistsError(f"{path} exists already; choose another place for the snapshot")
        with atomic_folder(path) as partial:
            self._store.copy_to(partial / STORE)
            # Indexes are copied as they lie: what does not match the copied rows is not used.
            with contextlib.suppress(OSError, shutil.Error):
                shutil.copytree(self.path / FOLDER, partial / FOLDER)


def check_outside(copy: Path, gallery: Path) -> None:
    """Refuse a copy within its gallery: whoever builds that again would take it away."""
    if copy.resolve().is_relative_to(gallery.resolve()):
        raise InputError(f"{str(copy)!r} lies within the gallery {str(gallery)!r}; choose a place beside it")
