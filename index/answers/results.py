"""The values that a gallery answers with: an item, a neighbour, a search result, every item's neighbours.

Shape letters: N items, K neighbours, D embedding dimension.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from index.answers.filters import Scalar
from index.search.neighbour_graph import NeighbourGraph
from vssl.embeddings.gaussian import Floats


@dataclass(frozen=True, eq=False)
class GalleryItem:
    """One stored image: mean and variance (D,) as they were added, before any normalisation."""

    id: str
    label: str | None
    path: str
    mean: Floats
    variance: Floats
    uncertainty: float
    metadata: dict[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True)
class Neighbour:
    """One result, nearest first.

    distance: smaller is nearer, in the unit of the distance asked for.
    variance_score: the share of the expected squared distance that is variance, in 0..1; higher =
        less sure.
    match_probability: calibrated P(same label), None where the gallery cannot calibrate it.
    uncertainty: of the stored image; metadata: what else the gallery knows of it.
    """

    id: str
    label: str | None
    path: str
    distance: float
    variance_score: float
    match_probability: float | None
    uncertainty: float
    metadata: dict[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True)
class SearchResult:
    """The answer to one query.

    uncertainty: of the query; uncertainty_percentile: the share of the gallery, 0..100, that is
    surer than the query, None for an empty gallery; neighbours: ascending in distance; risk: the
    share of the gallery's own answers, 0..1, that are safer than this one, None where the gallery
    cannot calibrate it (index.calibration.risk); abstain: not to be trusted at the risk that was
    given, None where none was.
    """

    uncertainty: float
    uncertainty_percentile: float | None
    neighbours: list[Neighbour]
    risk: float | None = None
    abstain: bool | None = None


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """N items and the K nearest others of each: columns of length N, and their `graph`."""

    ids: list[str]
    labels: list[str | None]
    paths: list[str]
    uncertainty: Floats
    graph: NeighbourGraph

    def __len__(self) -> int:
        return len(self.ids)
