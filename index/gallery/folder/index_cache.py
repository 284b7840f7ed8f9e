"""The store of record -> the view and the indexes of a gallery: taken from saved files, built when asked for, saved."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from index.answers.view import SearchIndex, View, begins_with, with_tombstones
from index.calibration.fit import Fitting
from index.distances import DistanceParameters
from index.gallery.folder.derived import Derived, find_derived, save_derived
from index.gallery.folder.locks import ReadWriteLock
from index.gallery.folder.store import Store
from index.gallery.folder.store_view import follow, mapped_view, read_view
from index.search.approximate import ApproximateIndex, Recipe
from index.search.autotune import Budget, Selection, choose
from index.search.exact import ExactIndex
from index.search.vectors import MEAN, Vectors
from vssl.errors import FormatError

TOMBSTONES = 0.2  # above this share of removed rows a view and its indexes are built again
FEW_TOMBSTONES = 64
MAPPED = 256 * 1024 * 1024  # vectors of more bytes are saved next to the index, and mapped when it is opened


class IndexCache:
    """One gallery folder in memory: a view that follows the store, and indexes over it.

    distance: the gallery's own, whose index is saved. fitting: the constants that distances are
    built with, None where none were fitted: then they are the defaults. recipe: how that one finds candidates, None
    for an exact index; every other distance is exact. damage: why the saved index was passed
    over, None when it was not. device: where exact indexes search (index.search.gpu).
    """

    def __init__(self, path: Path, store: Store, *, normalise: bool, device: str = "auto") -> None:
        recipe = store.fact("recipe")
        self.recipe = Recipe.from_json(recipe) if recipe else None
        self.damage: str | None = None
        self.distance = "cosine"
        self.fitting: Fitting | None = None
        self._path = path
        self._store = store
        self._normalise = normalise
        self.device = device
        self._gate = ReadWriteLock()
        self._building = threading.Lock()
        self._declared: tuple[str | None, str | None] = (None, None)
        self._reload_declared()
        self._view = self._load()

    # --- the view ----------------------------------------------------------------------

    @contextlib.contextmanager
    def current(self) -> Iterator[View]:
        """Hold a view that is level with the store, together with other searches."""
        if self._store.generation() != self._view.generation:
            self.reload()
        with self._gate.reading():
            yield self._view

    def reload(self) -> None:
        """Bring the view up to the store; it is read again after a compaction or many removals."""
        with self._gate.writing():
            view = self._view
            level = follow(view, self._store, normalise=self._normalise)
            if self._reload_declared():
                view.indexes.clear()
            if not level or view.tombstones > TOMBSTONES * len(view.rows) + FEW_TOMBSTONES:
                self._view = self._load()

    def compact(self) -> None:
        """Read the store again, without tombstones and without any index."""
        with self._gate.writing():
            self._view = self._read()

    def _reload_declared(self) -> bool:
        """Take over what the store declares of distance and constants; say whether it changed."""
        with self._store.snapshot():
            declared = self._store.fact("distance"), self._store.fact("fitting")
        if declared == self._declared:
            return False
        self._declared = declared
        self.distance = declared[0] or "cosine"
        self.fitting = Fitting.from_json(declared[1]) if declared[1] else None
        return True

    def _read(self) -> View:
        return read_view(self._store, normalise=self._normalise)

    def _load(self) -> View:
        """Read the store, and the saved index where it is whole and holds rows of this store.

        A large gallery's vectors were saved next to its index: they are mapped, and not read.
        """
        saved, self.damage = find_derived(self._path, self.distance)
        view: View | None = None
        try:
            if saved is not None and (saved.folder / MEAN).is_file():
                view = self._mapped(saved)
            view = view or self._read()
            return self._with_saved(view, saved) if saved is not None else view
        except FormatError as error:
            if saved is None:
                raise
            self.damage = str(error)
            return self._read()

    def _mapped(self, saved: Derived) -> View | None:
        vectors, graph = Vectors.mapped(saved.folder), self.recipe is not None
        return mapped_view(
            self._store, saved.rows, saved.crc, vectors, tombstones=graph, normalise=self._normalise
        )

    # --- the indexes -------------------------------------------------------------------

    def index(self, view: View, distance: str) -> SearchIndex:
        """Return the index of a distance over a view, built at its first use."""
        with self._building:
            if distance not in view.indexes:
                constants = self.constants(distance)
                if self.recipe is not None and distance == self.distance:
                    index = ApproximateIndex.build(distance, view.items, self.recipe, parameters=constants)
                    view.indexes[distance] = index
                else:
                    view.indexes[distance] = ExactIndex.build(distance, view.items, parameters=constants)
            found = view.indexes[distance]
            if isinstance(found, ExactIndex):
                found.device = self.device
            return found

    def constants(self, distance: str) -> DistanceParameters | None:
        """Return the constants that were fitted for a distance, None for the defaults."""
        return self.fitting.constants.get(distance) if self.fitting else None

    def choose(self, budget: Budget) -> Selection:
        """Measure indexes of the gallery's own distance and use the one within the budget from here on.

        Raises InputError when none is; everything then stays as it was.
        """
        with self._gate.writing():
            view = self._read()
            selection = choose(self.distance, view.items, budget, parameters=self.constants(self.distance))
            self.recipe = recipe = selection.measured.recipe
            self._store.set_fact("recipe", recipe.to_json() if recipe else "")
            view.indexes[self.distance] = selection.index
            self._view = view
        return selection

    def _with_saved(self, view: View, saved: Derived) -> View:
        """Return the view with the saved index over it, where that is of these rows and constants."""
        index: SearchIndex | None = None
        begins = begins_with(view, saved.rows, saved.crc)
        if self.recipe is None:
            if begins:
                index = ExactIndex.load(saved.folder, view.items)
        else:  # a graph takes long to build: keep it while most of its rows are there
            old = view if begins else with_tombstones(view, saved.rows, saved.crc)
            if old is not None and old.tombstones <= TOMBSTONES * len(old.rows):
                view, index = old, ApproximateIndex.load(saved.folder, old.items)
        wanted = self.constants(self.distance)
        if index is not None and (wanted is None or index.parameters.digest == wanted.digest):
            if len(saved.rows) < len(view.rows):
                index.extend()
            view.indexes[self.distance] = index
        return view

    def saved(self) -> Derived | None:
        """Return the saved index when its files are whole."""
        return find_derived(self._path, self.distance)[0]

    def save(self) -> None:
        """Write the index of the gallery's own distance, with checksums.

        An exact index is saved without tombstones, a graph with few.
        """
        with self._gate.writing():
            view = self._view
            if view.tombstones > (TOMBSTONES * len(view.rows) if self.recipe else 0):
                self._view = self._read()
        with self.current() as view:
            if not view.count:
                return
            index = self.index(view, self.distance)

            def write(folder: Path) -> None:
                index.save(folder)
                if view.items.nbytes > MAPPED:
                    view.items.save(folder)

            save_derived(self._path, self.distance, view.generation, view.rows, view.crc, write)
