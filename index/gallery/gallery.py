"""Gaussian embeddings -> a durable gallery -> neighbours that say how sure they are.

    gallery/
      store.db      the store of record (index.gallery.store)
      writer.lock   who writes
      derived/      indexes built from the store, checksummed, disposable (index.gallery.derived)

What `add` and `remove` acknowledge is on the disk. Searches run on an index in memory that
follows the store: a reader sees what another process wrote at its next search.
Shape letters: Q queries, K neighbours, N items, D embedding dimension.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from index.answers.filters import parse_filter
from index.answers.results import GalleryItem, Neighbour, SearchResult
from index.answers.validation import Metadata
from index.calibration.fit import BEST, Fitting, fit
from index.gallery.answering import Answers, check_distance
from index.gallery.derived import FOLDER
from index.gallery.locks import WriterLock
from index.gallery.store import STORE, Records
from index.search.autotune import Budget, Choice, choose
from index.search.gpu import checked_device
from vssl.embeddings.store import Rows
from vssl.errors import ExistsError, InputError
from vssl.files import put_in_place
from vssl.model.card import ModelCard

__all__ = ["Gallery", "GalleryItem", "Neighbour", "SearchResult"]

LOCK = "writer.lock"


class Gallery(Answers):
    """One gallery folder, open for reading, or for reading and writing.

    Open with `Gallery.open` or `Gallery.create`; close it, or use it in a `with` block. Methods
    may be called from several threads.
    """

    def __init__(self, path: Path, records: Records, lock: WriterLock | None, device: str = "auto") -> None:
        super().__init__(path, records, writable=lock is not None, device=device)
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
    ) -> Gallery:
        """Make an empty gallery and open it for writing.

        Raises ExistsError when there is one, InputError for an unknown distance.
        """
        path = Path(path)
        check_distance(distance)
        if path.exists() and (not path.is_dir() or (path / STORE).exists()):
            raise ExistsError(f"{path} exists already; choose another output or add --overwrite")
        path.mkdir(parents=True, exist_ok=True)
        lock = WriterLock(path / LOCK)
        try:
            facts = {
                "dim": str(card.dim),
                "model_id": model_id,
                "card": card.to_json(),
                "distance": distance,
                "normalise": "1" if normalise else "0",
            }
            return cls(path, Records.create(path / STORE, facts), lock)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def open(cls, path: Path | str, *, read_only: bool = False, device: str = "auto") -> Gallery:
        """Open a gallery; for writing only one process at a time (LockedError names the other).

        device: where exact searches of many queries run: `cpu`, `cuda` (InputError where FAISS has
        none) or `auto`, a GPU when there is one.
        """
        path = Path(path)
        checked_device(device)
        if not (path / STORE).is_file():
            Records(path / STORE)  # raises the error that says what to type
        lock = None if read_only else WriterLock(path / LOCK)
        try:
            return cls(path, Records(path / STORE, read_only=read_only), lock, device)
        except BaseException:
            if lock:
                lock.release()
            raise

    @staticmethod
    def lock(path: Path) -> WriterLock:
        """Take the right to write to a gallery folder, or raise LockedError that names who has it."""
        return WriterLock(path / LOCK)

    def close(self) -> None:
        """Save what a later opening would have to build again, and let go of the gallery."""
        try:
            if self._lock:
                saved = self._shelf.saved()
                if saved is None or saved.generation != self.generation:
                    self.save()
        finally:
            self._records.close()
            if self._lock:
                self._lock.release()
                self._lock = None

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
        """Add N embedded images, all or none; they are on the disk when this returns.

        metadata: one flat mapping a row, for filters. Raises ExistsError for an id that is there
        when `replace` is false, InputError for an id given twice or vectors of another size,
        MismatchError when `model_id` is given and is not the gallery's.
        """
        self._writable()
        self.check_model(model_id, "these embeddings")
        self._check_dim(rows.gaussians)
        if self.normalise:
            rows.gaussians.normalised()  # refuses a mean without a direction before it is stored
        self._records.add(rows, metadata, replace=replace)
        self._follow()

    def remove(self, ids: Sequence[str]) -> int:
        """Remove items by id, durably; returns how many of them were there."""
        self._writable()
        gone = self._records.remove(ids)
        self._follow()
        return gone

    def remove_where(self, where: Mapping[str, object]) -> int:
        """Remove the items that a filter keeps (see index.answers.filters); returns how many."""
        tree = parse_filter(where)
        with self._current() as view:
            ids = [view.ids[i] for i in view.positions(self._records.select(tree))]
        return self.remove(ids)

    def save(self) -> None:
        """Write the index beside the store, and the match calibration into it."""
        self._writable()
        with self._gate.writing():
            self._view = self._shelf.tidy(self._view)
        with self._current() as view:
            if view.count:
                self._matches.of(view, self._shelf.index(view, self.distance), self.distance)
                self._shelf.save(view)

    def fit(self, distance: str | None = None) -> Fitting:
        """Fit the constants of every distance to the stored images, durably, and choose the distance.

        distance: a name, or "best" for the one that ranks held-out labelled images best; None
            keeps a distance that a person named before. See index.calibration.fit.
        """
        self._writable()
        with self._current() as view:
            if distance is None:
                named = self.fitting.given if self.fitting else self.distance != "cosine"
                distance = self.distance if named else BEST
            there = np.flatnonzero(view.alive)
            items = view.items[:] if len(there) == len(view.rows) else view.items[there]
            found = fit(items, [view.labels[row] for row in there], distance=distance)
            found = replace(found, generation=view.generation, rows=view.count, last_row=view.last_row)
        self.adopt(found)
        return found

    def adopt(self, fitting: Fitting) -> None:
        """Use these constants and their distance from here on; one write, as durable as any."""
        self._writable()
        facts = {"distance": fitting.distance, "fitting": fitting.to_json()}
        self._records.declare(facts, without="match.")  # calibrations were of the distances before
        self._matches.forget()
        self._follow()
        self.save()

    def choose_index(self, budget: Budget) -> Choice:
        """Measure indexes on the gallery's own vectors and keep the one within the budget.

        Raises InputError when none is; the gallery then stays as it was.
        """
        self._writable()
        with self._gate.writing():
            view = self._shelf.read()
            constants = self._shelf.constants(self.distance)
            choice = choose(self.distance, view.items, budget, parameters=constants)
            self._shelf.recipe = recipe = choice.measured.recipe
            self._records.note("recipe", recipe.to_json() if recipe else "")
            view.indexes[self.distance] = choice.index
            self._view = view
        self.save()
        return choice

    def compact(self) -> None:
        """Drop what removed items left behind, on disk and in memory; build and save the index anew."""
        self._writable()
        self._records.compact()
        self._matches.forget()
        with self._gate.writing():
            self._view = self._shelf.read()
        self.save()

    def snapshot(self, path: Path | str) -> None:
        """Write a copy of the gallery as it is now, while others read and write this one.

        Raises ExistsError when there is something at `path`.
        """
        path = Path(path)
        if path.exists():
            raise ExistsError(f"{path} exists already; choose another place for the snapshot")
        partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            self._records.copy_to(partial / STORE)
            # Indexes are copied as they lie: what does not match the copied rows is not used.
            with contextlib.suppress(OSError, shutil.Error):
                shutil.copytree(self.path / FOLDER, partial / FOLDER)
            put_in_place(partial, path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
