"""A gallery and queries -> arrays side by side, ready to be searched and measured.

Shape letters: Q queries, K neighbours, N items, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index.evaluation.dataset import Corpus, check_together
from index.evaluation.vote import TEMPERATURE, without
from index.search.exact import ExactIndex
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.errors import InputError

Rows = NDArray[np.int64]
Doubles = NDArray[np.float64]
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
        if self.k < 1 or self.resamples < 1 or not self.temperature > 0:
            raise InputError(
                f"found k = {self.k}, {self.resamples} resamples, temperature {self.temperature}; "
                "expected positive numbers"
            )


@dataclass(frozen=True, eq=False)
class Setting:
    """Both sides as arrays.

    gallery_codes (N,), query_codes (Q,): classes, -1 unknown; classes: C; own (Q,): each query's
    own row in the gallery by id, -1 for none; items, asked: the Gaussians as compared; control:
    the index by cosine; index: the one by the distance evaluated.
    """

    gallery: Corpus
    queries: Corpus
    gallery_codes: Rows
    query_codes: Rows
    classes: int
    own: Rows
    items: GaussianEmbedding
    asked: GaussianEmbedding
    control: ExactIndex
    index: ExactIndex

    @property
    def labelled(self) -> Rows:
        """The queries with a label, none where the gallery has no labels."""
        if not (self.gallery_codes >= 0).any():
            return np.empty(0, np.int64)
        return np.flatnonzero(self.query_codes >= 0)

    @property
    def uncertainty(self) -> Doubles:
        """Of the queries, (Q,)."""
        return self.queries.gaussians.uncertainty.astype(np.float64)

    def search(self, index: ExactIndex, which: Rows, k: int, *, labelled: bool) -> tuple[Rows, Doubles]:
        """Return rows and distances (Q, K) of some queries' nearest others, labelled ones only if asked."""
        known = self.gallery_codes >= 0
        keep = known if labelled and not known.all() else None
        distances, rows = index.search(self.asked[which], k + 1, keep=keep)
        return without(rows, distances, self.own[which], k)

    def among_itself(
        self, k: int, seed: int, *, control: bool, most: int = FITTED_ON
    ) -> tuple[Rows, Rows, Doubles]:
        """Let labelled gallery images ask one another: who asks (n,), rows and distances (n, K).

        Up to `most`, drawn at random; by the control's distance or by the one evaluated.
        """
        known = self.gallery_codes >= 0
        asking = np.sort(np.random.default_rng(seed).permutation(np.flatnonzero(known))[:most])
        index = self.control if control else self.index
        distances, rows = index.search(self.items[asking], k + 1, keep=None if known.all() else known)
        return asking, *without(rows, distances, asking, k)

    def codes(self, rows: Rows) -> Rows:
        """Return the classes of gallery rows, -1 for none."""
        return np.where(rows >= 0, self.gallery_codes[rows], -1)


def arrange(gallery: Corpus, queries: Corpus, settings: Settings) -> Setting:
    """Bring both sides together. Raises MismatchError for two models, InputError for an empty side."""
    check_together(gallery, queries)
    code = class_codes([*gallery.labels, *queries.labels])
    items = gallery.compared
    control = ExactIndex.build("cosine", items)
    name = settings.distance or gallery.distance
    index = control
    if name != "cosine":
        index = ExactIndex.build(name, items, parameters=gallery.constants.get(name))
    return Setting(
        gallery,
        queries,
        coded(gallery.labels, code),
        coded(queries.labels, code),
        len(code),
        own_rows(gallery, queries),
        items,
        as_compared(gallery, queries.gaussians),
        control,
        index,
    )


def as_compared(gallery: Corpus, gaussians: GaussianEmbedding) -> GaussianEmbedding:
    """Return queries as this gallery compares them."""
    return gaussians.normalised() if gallery.normalise else gaussians


def own_rows(gallery: Corpus, queries: Corpus) -> Rows:
    """Return the gallery row of each query's own id, -1 for none."""
    row = {id_: number for number, id_ in enumerate(gallery.ids)}
    return np.array([row.get(id_, -1) for id_ in queries.ids], np.int64)


def class_codes(labels: Sequence[str | None]) -> dict[str, int]:
    """Number the labels in alphabetical order."""
    return {name: number for number, name in enumerate(sorted({x for x in labels if x is not None}))}


def coded(labels: Sequence[str | None], code: dict[str, int]) -> Rows:
    """Return the number of each label, -1 where there is none."""
    return np.array([-1 if label is None else code[label] for label in labels], np.int64)
