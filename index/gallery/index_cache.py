"""The store of record -> the indexes of a gallery: taken from saved files, built when asked for, saved."""

from __future__ import annotations

import threading
from pathlib import Path

from index.answers.view import SearchIndex, View, begins_with, follow, mapped_view, read_view, with_ghosts
from index.calibration.fit import Fitting
from index.distances import DistanceParameters
from index.gallery.derived import Derived, find_derived, save_derived
from index.gallery.store import Records
from index.search.approximate import CandidateIndex, Recipe
from index.search.exact import ExactIndex
from index.search.vectors import MEAN, Vectors
from vssl.errors import FormatError

GHOSTS = 0.2  # above this share of removed rows a view and its indexes are built anew
FEW_GHOSTS = 64
MAPPED = 256 * 1024 * 1024  # vectors of more bytes are saved beside the index, and mapped when it is opened


class Shelf:
    """The indexes of one gallery folder.

    distance: the gallery's own, whose index is saved. fitting: the constants that distances are
    built with, None where none were fitted: then they are the defaults. recipe: how that one finds candidates, None
    for an exact index; every other distance is exact. damage: why the saved index was passed
    over, None when it was not. device: where exact indexes search (index.search.gpu).
    """

    def __init__(self, path: Path, records: Records, *, normalise: bool, device: str = "auto") -> None:
        recipe = records.fact("recipe")
        self.recipe = Recipe.from_json(recipe) if recipe else None
        self.damage: str | None = None
        self.distance = "cosine"
        self.fitting: Fitting | None = None
        self._path = path
        self._records = records
        self._normalise = normalise
        self.device = device
        self._building = threading.Lock()
        self._declared: tuple[str | None, str | None] = (None, None)
        self.settle()

    def settle(self) -> bool:
        """Take over what the store declares of distance and constants; say whether it changed."""
        with self._records.snapshot():
            declared = self._records.fact("distance"), self._records.fact("fitting")
        if declared == self._declared:
            return False
        self._declared = declared
        self.distance = declared[0] or "cosine"
        self.fitting = Fitting.from_json(declared[1]) if declared[1] else None
        return True

    def constants(self, distance: str) -> DistanceParameters | None:
        """Return the constants that were fitted for a distance, None for the defaults."""
        return self.fitting.constants.get(distance) if self.fitting else None

    def read(self) -> View:
        """Read the store, without any index."""
        return read_view(self._records, normalise=self._normalise)

    def load(self) -> View:
        """Read the store, and the saved index where it is whole and holds rows of this store.

        A large gallery's vectors were saved beside its index: they are mapped, and not read.
        """
        saved, self.damage = find_derived(self._path, self.distance)
        view: View | None = None
        try:
            if saved is not None and (saved.folder / MEAN).is_file():
                view = self._mapped(saved)
            view = view or self.read()
            return self._with_saved(view, saved) if saved is not None else view
        except FormatError as error:
            if saved is None:
                raise
            self.damage = str(error)
            return self.read()

    def _mapped(self, saved: Derived) -> View | None:
        vectors, ghosts = Vectors.mapped(saved.folder), self.recipe is not None
        normalise = self._normalise
        return mapped_view(self._records, saved.rows, saved.crc, vectors, ghosts=ghosts, normalise=normalise)

    def _with_saved(self, view: View, saved: Derived) -> View:
        kept = len(saved.rows)
        index: SearchIndex | None = None
        if self.recipe is None:
            if begins_with(view, saved.rows, saved.crc):
                index = ExactIndex.load(saved.folder, view.items)
        else:  # a graph takes long to build: keep it while most of its rows are there
            old = (
                view if begins_with(view, saved.rows, saved.crc) else with_ghosts(view, saved.rows, saved.crc)
            )
            if old is not None and old.count >= (1 - GHOSTS) * len(old.rows):
                view, index = old, CandidateIndex.load(saved.folder, old.items)
        wanted = self.constants(self.distance)
        if index is not None and (wanted is None or index.parameters.digest == wanted.digest):
            if kept < len(view.rows):
                index.extend()
            view.indexes[self.distance] = index
        return view

    def follow(self, view: View) -> View:
        """Bring a view up to the store; it is read anew after a compaction or many removals."""
        level = follow(view, self._records, normalise=self._normalise)
        if self.settle():
            view.indexes.clear()
        ghosts = len(view.rows) - view.count
        return view if level and ghosts <= GHOSTS * len(view.rows) + FEW_GHOSTS else self.load()

    def index(self, view: View, distance: str) -> SearchIndex:
        """Return the index of a distance over a view, built at its first use."""
        with self._building:
            if distance not in view.indexes:
                constants = self.constants(distance)
                if self.recipe is not None and distance == self.distance:
                    index = CandidateIndex.build(distance, view.items, self.recipe, parameters=constants)
                    view.indexes[distance] = index
                else:
                    view.indexes[distance] = ExactIndex.build(distance, view.items, parameters=constants)
            found = view.indexes[distance]
            if isinstance(found, ExactIndex):
                found.device = self.device
            return found

    def saved(self) -> Derived | None:
        """Return the saved index when its files are whole."""
        return find_derived(self._path, self.distance)[0]

    def tidy(self, view: View) -> View:
        """Return a view that may be saved: an exact index holds no removed rows, a graph few."""
        ghosts = len(view.rows) - view.count
        return self.read() if ghosts > (GHOSTS * len(view.rows) if self.recipe else 0) else view

    def save(self, view: View) -> None:
        """Write the index of the gallery's own distance, with checksums."""
        index = self.index(view, self.distance)

        def write(folder: Path) -> None:
            index.save(folder)
            if view.items.nbytes > MAPPED:
                view.items.save(folder)

        save_derived(self._path, self.distance, view.generation, view.rows, view.crc, write)
