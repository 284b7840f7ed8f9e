"""A gallery and queries -> arrays side by side, ready to be searched and measured.

Shape letters: Q queries, K neighbours, N items, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from index.answers.validation import check_distance
from index.arrays import Float64s, Int64s
from index.evaluation.dataset import Dataset, check_together
from index.metrics.vote import TEMPERATURE, class_codes
from index.search.exact import ExactIndex
from index.search.neighbour_graph import leave_out_own
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.errors import InputError

FITTED_ON = 4000  # gallery images that ask one another when something is fitted
SHOWN = 10  # neighbours that recall, hubness and match probability look at


@dataclass(frozen=True)
class Settings:
    """What an evaluation may be asked.

    k, temperature: of the vote; distance: None is the gallery's own; resamples, seed: of the
    bootstrap; max_risk: the share of wrong answers to abstain for, None for no abstention;
    compare: measure every distance; one_class: take each class of the gallery in turn as normal.
    """

    k: int = 20
    temperature: float = TEMPERATURE
    distance: str | None = None
    resamples: int = 1000
    seed: int = 0
    max_risk: float | None = None
    compare: bool = False
    one_class: bool = False

    def __post_init__(self) -> None:
        if self.k < 1 or self.resamples < 1 or not self.temperature > 0 or self.seed < 0:
            raise InputError(
                f"found k = {self.k}, {self.resamples} resamples, temperature {self.temperature}, seed {self.seed}; "
                "expected positive numbers"
            )


@dataclass(frozen=True, eq=False)
class EvaluationContext:
    """Both sides as arrays.

    gallery_codes (N,), query_codes (Q,): classes, -1 unknown; classes: C; own (Q,): each query's
    own row in the gallery by id, -1 for none; items, query_gaussians: the Gaussians as compared; control:
    the index by cosine; index: the one by the distance evaluated.
    """

    gallery: Dataset
    queries: Dataset
    gallery_codes: Int64s
    query_codes: Int64s
    classes: int
    own: Int64s
    items: GaussianEmbedding
    query_gaussians: GaussianEmbedding
    control: ExactIndex
    index: ExactIndex

    @property
    def labelled(self) -> Int64s:
        """The queries with a label, none where the gallery has no labels."""
        if not (self.gallery_codes >= 0).any():
            return np.empty(0, np.int64)
        return np.flatnonzero(self.query_codes >= 0)

    @property
    def uncertainty(self) -> Float64s:
        """Of the queries, (Q,)."""
        return self.queries.gaussians.uncertainty.astype(np.float64)

    def search(self, index: ExactIndex, which: Int64s, k: int, *, labelled: bool) -> tuple[Int64s, Float64s]:
        """Return rows and distances (Q, K) of some queries' nearest others, labelled ones only if asked."""
        known = self.gallery_codes >= 0
        keep = known if labelled and not known.all() else None
        searched = index.search(self.query_gaussians[which], k + 1, keep=keep)
        distances, rows = leave_out_own(*searched, self.own[which], k)
        return rows, distances

    def among_itself(
        self, k: int, seed: int, *, control: bool, most: int = FITTED_ON
    ) -> tuple[Int64s, Int64s, Float64s]:
        """Search the gallery with its own labelled images: queries (n,), rows and distances (n, K).

        Up to `most`, drawn at random; by the control's distance or by the one evaluated.
        """
        known = self.gallery_codes >= 0
        asking = np.sort(np.random.default_rng(seed).permutation(np.flatnonzero(known))[:most])
        index = self.control if control else self.index
        searched = index.search(self.items[asking], k + 1, keep=None if known.all() else known)
        distances, rows = leave_out_own(*searched, asking, k)
        return asking, rows, distances

    def codes(self, rows: Int64s) -> Int64s:
        """Return the classes of gallery rows, -1 for none."""
        return np.where(rows >= 0, self.gallery_codes[rows], -1)


def make_context(gallery: Dataset, queries: Dataset, settings: Settings) -> EvaluationContext:
    """Bring both sides together. Raises MismatchError for two models, InputError for an empty side."""
    check_together(gallery, queries)
    check_distance(gallery.place, gallery.card, settings.distance)
    codes = class_codes([*gallery.labels, *queries.labels])
    items = gallery.as_compared(gallery.gaussians)
    control = ExactIndex.build("cosine", items)
    name = settings.distance or gallery.distance
    index = control
    if name != "cosine":
        index = ExactIndex.build(name, items, parameters=gallery.constants.get(name))
    return EvaluationContext(
        gallery,
        queries,
        codes[: len(gallery)],
        codes[len(gallery) :],
        int(codes.max()) + 1,
        own_rows(gallery, queries),
        items,
        gallery.as_compared(queries.gaussians),
        control,
        index,
    )


def own_rows(gallery: Dataset, queries: Dataset) -> Int64s:
    """Return the gallery row of each query's own id, -1 for none.

    From elsewhere, ids may be no more than numbers of rows: there the vectors must be the same, too.
    """
    row = {id_: number for number, id_ in enumerate(gallery.ids)}
    own = np.array([row.get(id_, -1) for id_ in queries.ids], np.int64)
    if not gallery.card.from_elsewhere:
        return own
    same = (gallery.gaussians.mean[own] == queries.gaussians.mean).all(axis=1)
    return np.where(same, own, -1)
