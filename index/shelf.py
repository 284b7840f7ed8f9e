"""The store of record -> the indexes of a gallery: taken from saved files, built when asked for, saved."""

from __future__ import annotations

import threading
from pathlib import Path

from index.candidates import CandidateIndex, Recipe
from index.derived import Derived, find_derived, save_derived
from index.exact import ExactIndex
from index.records import Records
from index.view import SearchIndex, View, begins_with, follow, read_view, with_ghosts
from vssl.errors import FormatError

GHOSTS = 0.2  # above this share of removed rows a view and its indexes are built anew
FEW_GHOSTS = 64


class Shelf:
    """The indexes of one gallery folder.

    distance: the gallery's own, whose index is saved. recipe: how that one finds candidates, None
    for an exact index; every other distance is exact. damage: why the saved index was passed
    over, None when it was not.
    """

    def __init__(self, path: Path, records: Records, *, distance: str, normalise: bool) -> None:
        recipe = records.fact("recipe")
        self.recipe = Recipe.from_json(recipe) if recipe else None
        self.damage: str | None = None
        self._path = path
        self._records = records
        self._distance = distance
        self._normalise = normalise
        self._building = threading.Lock()

    def read(self) -> View:
        """Read the store, without any index."""
        return read_view(self._records, normalise=self._normalise)

    def load(self) -> View:
        """Read the store, and the saved index where it is whole and holds rows of this store."""
        view = self.read()
        saved, self.damage = find_derived(self._path, self._distance)
        if saved is None:
            return view
        try:
            return self._with_saved(view, saved)
        except FormatError as error:
            self.damage = str(error)
            return view

    def _with_saved(self, view: View, saved: Derived) -> View:
        kept = len(saved.rows)
        index: SearchIndex | None = None
        if self.recipe is None:
            if begins_with(view, saved.rows, saved.crc):
                index = ExactIndex.load(saved.folder, view.items[:kept])
        else:  # a graph takes long to build: keep it while most of its rows are there
            old = with_ghosts(view, saved.rows, saved.crc)
            if old is not None and old.count >= (1 - GHOSTS) * len(old.rows):
                view, index = old, CandidateIndex.load(saved.folder, old.items[:kept])
        if index is not None:
            if kept < len(view.rows):
                index.add(view.items[kept:])
            view.indexes[self._distance] = index
        return view

    def follow(self, view: View) -> View:
        """Bring a view up to the store; it is read anew after a compaction or many removals."""
        level = follow(view, self._records, normalise=self._normalise)
        ghosts = len(view.rows) - view.count
        return view if level and ghosts <= GHOSTS * len(view.rows) + FEW_GHOSTS else self.load()

    def index(self, view: View, distance: str) -> SearchIndex:
        """Return the index of a distance over a view, built at its first use."""
        with self._building:
            if distance not in view.indexes:
                items = view.items[:]
                if self.recipe is not None and distance == self._distance:
                    view.indexes[distance] = CandidateIndex.build(distance, items, self.recipe)
                else:
                    view.indexes[distance] = ExactIndex.build(distance, items)
            return view.indexes[distance]

    def saved(self) -> Derived | None:
        """Return the saved index when its files are whole."""
        return find_derived(self._path, self._distance)[0]

    def tidy(self, view: View) -> View:
        """Return a view that may be saved: an exact index holds no removed rows, a graph few."""
        ghosts = len(view.rows) - view.count
        return self.read() if ghosts > (GHOSTS * len(view.rows) if self.recipe else 0) else view

    def save(self, view: View) -> None:
        """Write the index of the gallery's own distance, with checksums."""
        index = self.index(view, self._distance)
        save_derived(self._path, self._distance, view.generation, view.rows, view.crc, index.save)
