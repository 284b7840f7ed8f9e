"""Queries -> neighbours that say how sure they are, from a store of record and the indexes over it.

Searches run on an index in memory that follows the store: a reader sees what another process
wrote at its next search. Shape letters: Q queries, K neighbours, N items, D embedding dimension.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from index.answers.filters import Scalar, parse_filter
from index.answers.result_building import Matches, left_out, own_rule, results, without_neighbours
from index.answers.results import GalleryItem, SearchResult
from index.answers.view import View
from index.calibration.abstention import Rule
from index.calibration.fit import Fitting
from index.calibration.match import MatchModel
from index.calibration.whitening import whitened
from index.distances import NAMES
from index.gallery.derived import find_derived
from index.gallery.index_cache import Shelf
from index.gallery.locks import ReadWriteLock
from index.gallery.store import Records
from index.search.exact import ExactIndex
from index.search.neighbour_graph import Neighbourhood, neighbourhood
from index.search.vectors import Vectors
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.embeddings.store import Rows
from vssl.errors import InputError, MismatchError
from vssl.model.card import ModelCard
from vssl.model.identity import short_id


class Answers:
    """What a gallery folder answers; `index.gallery.gallery.Gallery` opens it, and changes it.

    Methods may be called from several threads.
    """

    def __init__(self, path: Path, records: Records, *, writable: bool, device: str = "auto") -> None:
        self.path = path
        self._records = records
        self.model_id = records.fact("model_id") or ""
        self.card = ModelCard.from_json(records.fact("card") or "")
        self.normalise = records.fact("normalise") == "1"
        self._shelf = Shelf(path, records, normalise=self.normalise, device=device)
        self._gate = ReadWriteLock()
        self._matches = Matches(records, writable=writable)
        self._view = self._shelf.load()

    def close(self) -> None:
        """Let go of the gallery."""
        self._records.close()

    def __enter__(self) -> Self:
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
    def distance(self) -> str:
        """The distance that a search uses unless it names another."""
        return self._shelf.distance

    @property
    def fitting(self) -> Fitting | None:
        """The constants that were fitted to this gallery and why it has its distance, or None."""
        return self._shelf.fitting

    @property
    def stale(self) -> str | None:
        """Why the fitted constants no longer fit what the gallery holds, or None while they do."""
        with self._current() as view:
            return self.fitting.stale(view.count, view.last_row) if self.fitting else None

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

    def neighbourhood(self, k: int, *, white: bool = False) -> Neighbourhood:
        """Return the `k` nearest others of every item, by the gallery's own distance.

        white: by cosine of whitened means (index.calibration.whitening) where the gallery is large enough.
        """
        with self._current() as view:
            means = whitened(view.items, view.alive) if white and k else None
            if means is None:
                return neighbourhood(view, self._shelf.index(view, self.distance), k)
            points = Vectors(means)
            index = ExactIndex.build("cosine", points)
            index.device = self._shelf.device
            return neighbourhood(view, index, k, points)

    def match_model(self, distance: str) -> MatchModel | None:
        """Return the match calibration of a distance, fitted where it is not there yet."""
        with self._current() as view:
            return self._matches.of(view, self._shelf.index(view, distance), distance) if view.count else None

    def abstention(self, max_risk: float, distance: str | None = None) -> Rule:
        """Return when to answer so that at most `max_risk` of the answers have a wrong nearest image.

        Calibrated on 4,000 to 10,000 labelled images, as many as there are, that ask the others
        (index.calibration.abstention). Raises InputError where there are none.
        """
        check_distance(distance or "cosine")
        with self._current() as view:
            return own_rule(view, self._shelf.index(view, distance or self.distance), max_risk)

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
                "fitting": self._fitted(view),
                "uncertainty": {
                    name: float(np.quantile(shown, q))
                    for name, q in (("p10", 0.1), ("median", 0.5), ("p90", 0.9))
                }
                if len(shown)
                else None,
                "match_calibration": json.loads(match.to_json()) if match else None,
                "bytes": sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file()),
            }

    def _fitted(self, view: View) -> dict[str, Any] | None:
        if self.fitting is None:
            return None
        return {**self.fitting.facts(), "stale": self.fitting.stale(view.count, view.last_row)}

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
        asked = self._asked(queries, distance, model_id)
        with self._current() as view:
            distance = distance or self.distance
            keep = self._keep(view, max_uncertainty, where)
            available = int(np.count_nonzero(keep))
            wanted = min(k + (exclude is not None), available)
            if wanted == 0 or not len(queries):
                return without_neighbours(view, queries)
            index = self._shelf.index(view, distance)
            distances, found = index.search(asked, wanted, keep=None if available == len(keep) else keep)
            if exclude is not None:
                distances, found = left_out(view, exclude, distances, found, k)
            match = self._matches.of(view, index, distance)
            metadata = self._records.metadata_of(view.rows[np.unique(found[found >= 0])].tolist())
            return results(view, match, queries, asked, distances, found, metadata)

    def _asked(
        self, queries: GaussianEmbedding, distance: str | None, model_id: str | None
    ) -> GaussianEmbedding:
        """Check what is asked; return the queries as they are compared."""
        self.check_model(model_id, "the queries")
        self._check_dim(queries)
        check_distance(distance or "cosine")
        return queries.normalised() if self.normalise else queries

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


def check_distance(name: str) -> None:
    """Raise InputError unless there is a distance of that name."""
    if name not in NAMES:
        raise InputError(f"distance: found {name!r}, expected one of {', '.join(NAMES)}")
