"""A gallery folder -> what it answers: neighbours that say how sure they are, items, and what a person asks.

Searches run on an index in memory that follows the store: a reader sees what another process
wrote at its next search. Shape letters: Q queries, K neighbours, N items, D embedding dimension.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np

from index.answers.calibrations import Calibrations
from index.answers.filters import Filter, Scalar, parse_filter
from index.answers.listing import Listing
from index.answers.metadata_columns import Columns
from index.answers.result_building import (
    match_probabilities,
    results,
    risks,
    with_abstention,
    without_excluded,
    without_neighbours,
)
from index.answers.results import GalleryItem, Neighbourhood, SearchResult
from index.answers.validation import (
    as_added,
    as_answered,
    as_held,
    check_asked,
    check_distance,
    check_model,
    check_search,
    compared,
    item_as_answered,
)
from index.answers.view import View
from index.arrays import Bools
from index.calibration.abstention import NEIGHBOURS, AbstentionRule
from index.calibration.fit import Fitting
from index.calibration.match import MatchModel
from index.calibration.whitening import whitened
from index.gallery.folder.derived import FOLDER
from index.gallery.folder.index_cache import IndexCache
from index.gallery.folder.store import Store
from index.search.exact import ExactIndex
from index.search.neighbour_graph import nearest_others
from index.search.vectors import Vectors
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.embeddings.store import Rows
from vssl.model.card import ModelCard


class GalleryReader:
    """What a gallery folder answers; `index.gallery.folder.gallery.FolderGallery` opens it, and changes it.

    Methods may be called from several threads.
    """

    def __init__(self, path: Path, store: Store, *, writable: bool, device: str = "auto") -> None:
        self.path = path
        self.model_id = store.fact("model_id") or ""
        self.card = ModelCard.from_json(store.fact("card") or "")
        self.normalise = store.fact("normalise") == "1"
        self._store = store
        self._calibrations = Calibrations(store, path / FOLDER, writable=writable)
        self._columns: tuple[int, Columns] | None = None
        self._listing: Listing | None = None
        self._cache = IndexCache(path, store, normalise=self.normalise, device=device)

    def close(self) -> None:
        """Let go of the gallery."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # --- describing --------------------------------------------------------------------

    def __len__(self) -> int:
        return self._store.count()

    @property
    def place(self) -> str:
        """The folder."""
        return str(self.path)

    @property
    def generation(self) -> int:
        """How many writes the gallery has seen."""
        return self._store.generation()

    @property
    def distance(self) -> str:
        """The distance that a search uses unless it names another."""
        return self._cache.distance

    @property
    def fitting(self) -> Fitting | None:
        """The constants that were fitted to this gallery and why it has its distance, or None."""
        return self._cache.fitting

    @property
    def stale(self) -> str | None:
        """Why the fitted constants no longer fit what the gallery holds, or None while they do."""
        with self._cache.current() as view:
            return self.fitting.stale(view.count, view.last_row, self.place) if self.fitting else None

    @property
    def damage(self) -> str | None:
        """Why the saved index was not used, None when it was or when there is none."""
        return self._cache.damage

    def columns(self) -> Columns:
        """Return the names of its metadata, and how many items have a value of each kind there; reads it all."""
        generation = self.generation
        if self._columns is None or self._columns[0] != generation:
            self._columns = generation, self._store.columns_of_metadata()
        return self._columns[1]

    # --- reading -----------------------------------------------------------------------

    def get(self, id_: str) -> GalleryItem:
        """Return one item. Raises InputError when there is none of that id."""
        batch, metadata = self._store.get(id_)
        item = GalleryItem(
            batch.ids[0],
            batch.labels[0],
            batch.paths[0],
            batch.gaussians.mean[0],
            batch.gaussians.variance[0],
            float(batch.uncertainty[0]),
            metadata,
        )
        return item_as_answered(self.card, item)

    def contents(self) -> tuple[Rows, list[dict[str, Scalar]]]:
        """Return every item and its metadata as they were added, in the order they were."""
        with self._store.snapshot():
            batch, metadata = self._store.read(), self._store.metadata()
        gaussians = as_added(self.card, batch.gaussians, batch.uncertainty)
        return Rows(batch.ids, batch.paths, batch.labels, gaussians), metadata

    def check_model(self, model_id: str | None, what: str) -> None:
        """Raise MismatchError when `model_id` is given and is not the gallery's."""
        check_model(self.place, self.card, self.model_id, model_id, what)

    def match_model(self, distance: str) -> MatchModel | None:
        """Return the match calibration of a distance, fitted where it is not there yet."""
        with self._cache.current() as view:
            return self._calibrations.match(view, self._cache.index(view, distance)) if view.count else None

    def abstention(self, max_risk: float, distance: str | None = None) -> AbstentionRule:
        """See `Gallery.abstention`; 4,000 to 10,000 labelled images ask the others, and what they found is kept."""
        check_distance(self.place, self.card, distance)
        with self._cache.current() as view:
            index = self._cache.index(view, distance or self.distance)
            return self._calibrations.rule(view, index, max_risk)

    def neighbourhood(self, k: int, *, white: bool = False) -> Neighbourhood:
        """See `Gallery.neighbourhood`."""
        with self._cache.current() as view:
            means = whitened(view.items, view.alive) if white and k else None
            if means is None:
                index, points = self._cache.index(view, "cosine" if white else self.distance), view.items
            else:
                points = Vectors(means)
                index = ExactIndex.build("cosine", points)
                index.device = self._cache.device
            held = view.take(np.flatnonzero(view.alive))
            return Neighbourhood(
                held.ids,
                held.labels,
                held.paths,
                held.uncertainty if self.card.has_variance else None,
                nearest_others(index, view.items, view.alive, k, points),
            )

    def listing(self) -> Listing:
        """Return every item without its Gaussian, as columns to browse and filter by."""
        with self._cache.current() as view:
            known = self._listing
            if known is not None and known.generation == view.generation:
                return known
            held, metadata = view.take(np.flatnonzero(view.alive)), self._store.metadata_of()
            self._listing = Listing(
                view.generation,
                held.ids,
                held.labels,
                held.paths,
                held.uncertainty if self.card.has_variance else np.full(view.count, np.nan, np.float32),
                {at: metadata[row] for at, row in enumerate(held.rows.tolist()) if row in metadata},
            )
            return self._listing

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
        max_risk: float | None = None,
    ) -> list[SearchResult]:
        """Return the `k` nearest items of each of Q queries, as `Gallery.search` says.

        Filters are applied inside the index.
        """
        self.check_model(model_id, "the queries")
        check_search(k, exclude, len(queries))
        queries = as_held(self.card, queries)
        compared_queries = compared(queries, self.place, self.card.dim, normalise=self.normalise)
        tree = parse_filter(where) if where is not None else None
        check_asked(self.place, self.card, distance, max_uncertainty, where)
        with self._cache.current() as view:
            name = distance or self.distance
            keep = self._kept(view, max_uncertainty, tree)
            available = int(np.count_nonzero(keep))
            if not available or not len(queries):
                nothing = without_neighbours(queries, view.percentiles(queries.uncertainty), max_risk)
                return as_answered(self.card, nothing)
            index = self._cache.index(view, name)
            rule = self._calibrations.rule(view, index, max_risk) if max_risk is not None else None
            wide = max(k, NEIGHBOURS)
            distances, found = index.search(
                compared_queries,
                min(wide + (exclude is not None), available),
                keep=None if available == len(keep) else keep,
            )
            if exclude is not None:
                distances, found = without_excluded(view, exclude, distances, found, wide)
            match, unsure = self._calibrations.match(view, index), queries.uncertainty
            matches = match_probabilities(match, view, distances, found, unsure)
            shares = risks(self._calibrations.risk(view, index), view, queries, distances, found)
            if rule is None:
                distances, found = distances[:, :k], found[:, :k]
            metadata = self._store.metadata_of(view.rows[np.unique(found[found >= 0])].tolist())
            answers = results(
                view, matches, queries, compared_queries, distances, found, metadata=metadata, risks=shares
            )
            answers = answers if rule is None else with_abstention(answers, rule, k)
            return as_answered(self.card, answers)

    def _kept(self, view: View, max_uncertainty: float | None, tree: Filter | None) -> Bools:
        """Return (N,): the items that are there and that a search may return."""
        keep = view.alive
        if max_uncertainty is not None:
            keep = keep & (view.uncertainty <= np.float32(max_uncertainty))
        if tree is not None:
            chosen = view.chosen.get(tree)
            if chosen is None:
                chosen = np.zeros(len(view.rows), bool)
                chosen[view.positions(self._store.select(tree))] = True
                view.cache_mask(tree, chosen)
            keep = keep & chosen
        return keep
