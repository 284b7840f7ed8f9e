"""Gaussian embeddings -> a durable gallery -> neighbours that say how sure they are.

    gallery/
      store.db      the store of record (index.records)
      writer.lock   who writes
      derived/      indexes built from the store, checksummed, disposable (index.derived)

What `add` and `remove` acknowledge is on the disk. Searches run on an index in memory that
follows the store: a reader sees what another process wrote at its next search.
Shape letters: Q queries, K neighbours, N items, D embedding dimension.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.admission import Metadata
from index.budget import Budget, Choice, choose
from index.derived import FOLDER, find_derived, flush
from index.distances import NAMES
from index.filters import Scalar, parse_filter
from index.locks import ReadWriteLock, WriterLock
from index.matching import MatchModel
from index.neighbourhood import Neighbourhood, neighbourhood
from index.records import STORE, Records
from index.results import GalleryItem, Neighbour, SearchResult
from index.scores import Matches, left_out, results, without_neighbours
from index.shelf import Shelf
from index.view import View
from vssl.card import ModelCard
from vssl.errors import ExistsError, InputError, MismatchError
from vssl.gaussian import GaussianEmbedding
from vssl.identity import short_id
from vssl.store import Rows

__all__ = ["Gallery", "GalleryItem", "Neighbour", "SearchResult"]

LOCK = "writer.lock"


class Gallery:
    """One gallery folder, open for reading, or for reading and writing.

    Open with `Gallery.open` or `Gallery.create`; close it, or use it in a `with` block. Methods
    may be called from several threads.
    """

    def __init__(self, path: Path, records: Records, lock: WriterLock | None) -> None:
        self.path = path
        self._records = records
        self._lock = lock
        self.model_id = records.fact("model_id") or ""
        self.card = ModelCard.from_json(records.fact("card") or "")
        self.distance = records.fact("distance") or "cosine"
        self.normalise = records.fact("normalise") == "1"
        self._shelf = Shelf(path, records, distance=self.distance, normalise=self.normalise)
        self._gate = ReadWriteLock()
        self._matches = Matches(records, writable=lock is not None)
        self._view = self._shelf.load()

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
        _check_distance(distance)
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
    def open(cls, path: Path | str, *, read_only: bool = False) -> Gallery:
        """Open a gallery; for writing only one process at a time (LockedError names the other)."""
        path = Path(path)
        if not (path / STORE).is_file():
            Records(path / STORE)  # raises the error that says what to type
        lock = None if read_only else WriterLock(path / LOCK)
        try:
            return cls(path, Records(path / STORE, read_only=read_only), lock)
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

    def __enter__(self) -> Gallery:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self._records.count()

    @property
    def generation(self) -> int:
        """How many writes the gallery has seen."""
        return self._records.generation()

    @property
    def damage(self) -> str | None:
        """Why the saved index was not used, None when it was or when there is none."""
        return self._shelf.damage

    @contextlib.contextmanager
    def _current(self) -> Iterator[View]:
        """Hold a view that is level with the store, together with other searches."""
        if self._records.generation() != self._view.generation:
            self._follow()
        with self._gate.reading():
            yield self._view

    def _follow(self) -> None:
        with self._gate.writing():
            self._view = self._shelf.follow(self._view)

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
        """Remove the items that a filter keeps (see index.filters); returns how many."""
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

    def choose_index(self, budget: Budget) -> Choice:
        """Measure indexes on the gallery's own vectors and keep the one within the budget.

        Raises InputError when none is; the gallery then stays as it was.
        """
        self._writable()
        with self._gate.writing():
            view = self._shelf.read()
            choice = choose(self.distance, view.items[:], budget)
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
            flush(partial)
            partial.rename(path)
            flush(path.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    # --- reading -----------------------------------------------------------------------

    def get(self, id_: str) -> GalleryItem:
        """Return one item. Raises InputError when there is none of that id."""
        batch, metadata = self._records.get(id_)
        return GalleryItem(
            batch.ids[0],
            batch.labels[0],
            batch.paths[0],
            batch.gaussians.mean[0],
            batch.gaussians.variance[0],
            float(batch.uncertainty[0]),
            metadata,
        )

    def contents(self) -> tuple[Rows, list[dict[str, Scalar]]]:
        """Return every item and its metadata as they were added, in the order they were."""
        with self._records.snapshot():
            batch, metadata = self._records.read(), self._records.metadata()
        return Rows(batch.ids, batch.paths, batch.labels, batch.gaussians), metadata

    def neighbourhood(self, k: int) -> Neighbourhood:
        """Return the `k` nearest others of every item, by the gallery's own distance."""
        with self._current() as view:
            return neighbourhood(view, self._shelf.index(view, self.distance), k)

    def match_model(self, distance: str) -> MatchModel | None:
        """Return the match calibration of a distance, fitted where it is not there yet."""
        with self._current() as view:
            return self._matches.of(view, self._shelf.index(view, distance), distance) if view.count else None

    def info(self) -> dict[str, Any]:
        """Return what a person asks about a gallery, as plain values."""
        with self._current() as view:
            saved, damage = find_derived(self.path, self.distance)
            match = self._matches.stored(self.distance)
            shown = view.uncertainty[view.alive]
            labels = {label for label, there in zip(view.labels, view.alive, strict=True) if there and label}
            return {
                "path": str(self.path),
                "format": int(self._records.fact("format") or 0),
                "model_id": self.model_id,
                "model": self.card.name,
                "items": view.count,
                "dim": self.card.dim,
                "labels": len(labels),
                "distance": self.distance,
                "normalise": self.normalise,
                "generation": view.generation,
                "index": "flat, exact" if self._shelf.recipe is None else asdict(self._shelf.recipe),
                "index_generation": saved.generation if saved else None,
                "index_damage": damage,
                "uncertainty": {
                    name: float(np.quantile(shown, q))
                    for name, q in (("p10", 0.1), ("median", 0.5), ("p90", 0.9))
                }
                if len(shown)
                else None,
                "match_calibration": json.loads(match.to_json()) if match else None,
                "bytes": sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file()),
            }

    def search(
        self,
        queries: GaussianEmbedding,
        k: int = 10,
        *,
        distance: str | None = None,
        max_uncertainty: float | None = None,
        where: Mapping[str, object] | None = None,
        model_id: str | None = None,
        exclude: Sequence[str | None] | None = None,
    ) -> list[SearchResult]:
        """Return the `k` nearest items of each of Q queries, as many as there are.

        distance: one of `index.distances.NAMES`, the gallery's own by default.
        max_uncertainty, where: only items this sure, and that the filter keeps; both are applied
            inside the index, so k results come back when k exist.
        exclude: one id (or None) a query, which that query does not return: itself, usually.
        model_id: of the queries; MismatchError when it is not the gallery's.
        """
        if k < 1:
            raise InputError(f"k: found {k}, expected at least 1")
        if exclude is not None and len(exclude) != len(queries):
            raise InputError(f"exclude: found {len(exclude)} ids for {len(queries)} queries")
        distance, asked = self._asked(queries, distance, model_id)
        with self._current() as view:
            keep = self._keep(view, max_uncertainty, where)
            available = int(np.count_nonzero(keep))
            wanted = min(k + (exclude is not None), available)
            if wanted == 0 or not len(queries):
                return without_neighbours(view, queries)
            index = self._shelf.index(view, distance)
            distances, found = index.search(asked, wanted, keep=None if available == len(keep) else keep)
            if exclude is not None:
                distances, found = left_out(view, exclude, distances, found, k)
            return results(view, self._matches.of(view, index, distance), queries, asked, distances, found)

    def within(
        self,
        queries: GaussianEmbedding,
        radius: float,
        *,
        limit: int = 1000,
        distance: str | None = None,
        max_uncertainty: float | None = None,
        where: Mapping[str, object] | None = None,
        model_id: str | None = None,
    ) -> list[SearchResult]:
        """Return every item at most `radius` from each of Q queries, nearest first, at most `limit`.

        The other arguments are those of `search`. A list of `limit` neighbours may have been cut.
        """
        if limit < 1:
            raise InputError(f"limit: found {limit}, expected at least 1")
        distance, asked = self._asked(queries, distance, model_id)
        with self._current() as view:
            keep = self._keep(view, max_uncertainty, where)
            available = int(np.count_nonzero(keep))
            if available == 0 or not len(queries):
                return without_neighbours(view, queries)
            index = self._shelf.index(view, distance)
            selection = None if available == len(keep) else keep
            # Ask for more until the farthest found lies outside: exact, and cheap for small radii.
            wanted = min(64, limit, available)
            while True:
                distances, found = index.search(asked, wanted, keep=selection)
                if wanted == min(limit, available) or (distances[:, -1] > radius).all():
                    break
                wanted = min(8 * wanted, limit, available)
            found = np.where(distances <= radius, found, -1)
            return results(view, self._matches.of(view, index, distance), queries, asked, distances, found)

    def _asked(
        self, queries: GaussianEmbedding, distance: str | None, model_id: str | None
    ) -> tuple[str, GaussianEmbedding]:
        """Check what is asked; return the distance and the queries as they are compared."""
        self.check_model(model_id, "the queries")
        self._check_dim(queries)
        distance = distance or self.distance
        _check_distance(distance)
        return distance, queries.normalised() if self.normalise else queries

    def _keep(
        self, view: View, max_uncertainty: float | None, where: Mapping[str, object] | None
    ) -> NDArray[np.bool_]:
        """Return (N,): the items that are there and that a search may return."""
        keep = view.alive
        if max_uncertainty is not None:
            keep = keep & (view.uncertainty <= np.float32(max_uncertainty))
        if where is not None:
            tree = parse_filter(where)
            chosen = view.chosen.get(tree)
            if chosen is None:
                chosen = np.zeros(len(view.rows), bool)
                chosen[view.positions(self._records.select(tree))] = True
                view.remember(tree, chosen)
            keep = keep & chosen
        return keep

    def check_model(self, model_id: str | None, what: str) -> None:
        """Raise MismatchError when `model_id` is given and is not the gallery's."""
        if model_id is not None and model_id != self.model_id:
            raise MismatchError(
                f"{what} are of model {short_id(model_id)}, the gallery {self.path} of {short_id(self.model_id)} "
                f"({self.card.name}); use that model, or build a gallery for the new one: "
                "vssl extract IMAGES EMBEDDINGS --model model.onnx, then vssl index EMBEDDINGS GALLERY"
            )

    def _check_dim(self, gaussians: GaussianEmbedding) -> None:
        if gaussians.dim != self.card.dim:
            raise InputError(
                f"found vectors of {gaussians.dim} dimensions, the gallery {self.path} holds {self.card.dim}"
            )


def _check_distance(name: str) -> None:
    if name not in NAMES:
        raise InputError(f"distance: found {name!r}, expected one of {', '.join(NAMES)}")
