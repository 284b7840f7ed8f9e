"""The values that a gallery answers with: an item, a neighbour, a search result, every item's neighbours.

Shape letters: N items, K neighbours, D embedding dimension.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from index.answers.filters import Scalar
from index.search.neighbour_graph import NeighbourGraph
from vssl.embeddings.gaussian import Floats, GaussianEmbedding


@dataclass(frozen=True, eq=False)
class GalleryItem:
    """One stored image: mean and variance (D,) as they were added, before any normalisation.

    variance, uncertainty: None in a gallery of means without variances.
    """

    id: str
    label: str | None
    path: str
    mean: Floats
    variance: Floats | None
    uncertainty: float | None
    metadata: dict[str, Scalar] = field(default_factory=dict)

    @property
    def gaussian(self) -> GaussianEmbedding:
        """Return it as a query, or as it is added: (1, D)."""
        if self.variance is None:
            return GaussianEmbedding.of_means(self.mean[None])
        return GaussianEmbedding(
            self.mean[None], self.variance[None], np.array([self.uncertainty], np.float32)
        )


@dataclass(frozen=True)
class Neighbour:
    """One result, nearest first.

    distance: smaller is nearer, in the unit of the distance asked for.
    variance_score: the share of the expected squared distance that is variance, in 0..1; higher =
        less sure.
    match_probability: calibrated P(same label), None where the gallery cannot calibrate it.
    uncertainty: of the stored image; metadata: what else the gallery knows of it.
    variance_score and uncertainty are None in a gallery of means without variances.
    """

    id: str
    label: str | None
    path: str
    distance: float
    variance_score: float | None
    match_probability: float | None
    uncertainty: float | None
    metadata: dict[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True)
class SearchResult:
    """The answer to one query.

    uncertainty: of the query, None in a gallery of means without variances; uncertainty_percentile:
    the share of the gallery, 0..100, that is surer, None for an empty gallery; neighbours: ascending in
    distance; risk: the share of the gallery's own answers, 0..1, that are safer than this one, None where the
    gallery cannot calibrate it (index.calibration.risk); abstain: not to be trusted at the risk that was
    given, None where none was.
    """

    uncertainty: float | None
    uncertainty_percentile: float | None
    neighbours: list[Neighbour]
    risk: float | None = None
    abstain: bool | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as `vssl search --json` and `POST /search` give them: without the paths."""
        neighbours = [{k: v for k, v in vars(n).items() if k != "path"} for n in self.neighbours]
        values = vars(self) | {"neighbours": neighbours}
        return {k: v for k, v in values.items() if k != "abstain" or v is not None}


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """N items and the K nearest others of each: columns of length N (uncertainty None without variances), `graph`."""

    ids: list[str]
    labels: list[str | None]
    paths: list[str]
    uncertainty: Floats | None
    graph: NeighbourGraph

    def __len__(self) -> int:
        return len(self.ids)

    def item(self, row: int) -> tuple[str, str, str | None]:
        """Return the id, the path and the label of an item."""
        return self.ids[row], self.paths[row], self.labels[row]

    @property
    def uncertainty_or_zero(self) -> Floats:
        """The uncertainties (N,), 0 for all without variances, as what was calibrated on them takes them."""
        return np.zeros(len(self), np.float32) if self.uncertainty is None else self.uncertainty

    def uncertainty_of(self, row: int) -> float | None:
        """Return an item's uncertainty, None without variances."""
        return None if self.uncertainty is None else float(self.uncertainty[row])
