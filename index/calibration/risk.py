"""What a search finds -> how risky it is to trust the nearest image; no labels.

Three things are added: how far the nearest lies, how much the further neighbours dissent from it, and how
uncertain query and neighbours are. To dissent is to lie in another cluster of the gallery's means than the
nearest, over several clusterings. A neighbour that lies much further than the nearest says little
(index.calibration.nearness), and the uncertainty counts as far as others lie about as near: what stands out
needs no doubt. It weighs most, where images differ in it, and dissent least, which means little where kinds are
many more than clusters. The sum becomes a rank among the gallery's own images that search it: 0.9 means riskier
than nine tenths of their answers. docs/measurements/encoders.md has the comparison.
Shape letters: Q queries, K neighbours, N items, C directions of all clusterings, D embedding dimension.
"""

from __future__ import annotations

import base64
import json
from dataclasses import asdict, dataclass, replace
from typing import Any

import faiss
import numpy as np

from index.arrays import Float64s, Int64s
from index.calibration.nearness import TINY, length_scale, nearness
from index.search.vectors import Vectors
from vssl.embeddings.gaussian import Floats
from vssl.errors import FormatError

CLUSTERS, SEEDS, ROUNDS = (8, 16, 32), 3, 15
FEWEST = 10 * CLUSTERS[-1]  # items below which clusters say nothing
CLUSTERED, FIT_QUERIES = 4000, 1000  # items at most that are clustered, and that search the others
KNOTS = 201
WEIGHTS = (1.0, 0.75, 1.5)  # of distance, dissent and uncertainty, each in units of its deviation


@dataclass(frozen=True, eq=False)
class RiskModel:
    """Directions (C, D), centre and scale (3,) of what is added, and the sum's quantiles in the gallery.

    scale: the deviation of each over its weight. is_logarithmic: the distance is never negative, and enters as
    its logarithm. length: of `nearness`; 0 in a model of before, which is fitted again. generation, rows,
    last_row, constants: of the gallery and the distance it was fitted on.
    """

    directions: Floats
    centre: Float64s
    scale: Float64s
    quantiles: Float64s
    is_logarithmic: bool
    length: float = 0.0
    generation: int = 0
    rows: int = 0
    last_row: int = 0
    constants: str = ""

    @property
    def is_current(self) -> bool:
        """Whether it was fitted as this version does."""
        return self.length > 0

    def scores(
        self, items: Vectors, distances: Float64s, found: Int64s, query: Floats, item: Floats
    ) -> Float64s:
        """Return (Q,) of what was found (Q, K), -1 for nothing: numbers of no fixed scale, higher = riskier.

        query (Q,), item (N,): their uncertainties.
        """
        parts = self._parts(items, distances, found, query, item)
        scores: Float64s = ((parts - self.centre) / self.scale).sum(axis=1)
        return scores

    def risk(
        self, items: Vectors, distances: Float64s, found: Int64s, query: Floats, item: Floats
    ) -> Float64s:
        """Return (Q,) in 0..1: the share of the gallery's own answers that are safer."""
        scores = self.scores(items, distances, found, query, item)
        return np.interp(scores, self.quantiles, np.linspace(0.0, 1.0, len(self.quantiles)))

    def _parts(
        self, items: Vectors, distances: Float64s, found: Int64s, query: Floats, item: Floats
    ) -> Float64s:
        there = found >= 0
        rows, at = np.unique(np.maximum(found, 0), return_inverse=True)
        kinds = _kinds(_unit(items.means(rows)), self.directions)[at.reshape(found.shape)]
        differ = (kinds != kinds[:, :1]).mean(axis=2)
        weight = nearness(distances, self.length, signed=not self.is_logarithmic) * there
        weight[:, 0] = 0.0  # of the others alone
        total, others = weight.sum(axis=1), np.maximum(1, there.sum(axis=1) - 1)
        dissent = (weight * differ).sum(axis=1) / (1 + total)
        spread = (item[np.maximum(found, 0)] * there).sum(axis=1, dtype=np.float64) + query
        crowded = total / others * spread / (1 + there.sum(axis=1))
        reach = distances[:, 0]
        reach = np.log(np.maximum(reach, TINY)) if self.is_logarithmic else reach
        return np.stack([reach, dissent, crowded], axis=1)

    def to_json(self) -> str:
        """Return the model as JSON."""
        values = {name: v.tolist() if isinstance(v, np.ndarray) else v for name, v in asdict(self).items()}
        half = self.directions.astype(np.float16)
        packed = {"shape": half.shape, "float16": base64.b64encode(half.tobytes()).decode()}
        return json.dumps(values | {"directions": packed})

    @classmethod
    def from_json(cls, text: str) -> RiskModel:
        """Parse `to_json`'s form."""
        try:
            values: dict[str, Any] = json.loads(text)
            packed = values["directions"]
            half = np.frombuffer(base64.b64decode(packed["float16"]), np.float16).reshape(packed["shape"])
            arrays = {name: np.array(values[name], np.float64) for name in ("centre", "scale", "quantiles")}
            return cls(**(values | arrays | {"directions": half.astype(np.float32)}))
        except (ValueError, TypeError, KeyError) as error:
            raise FormatError(
                f"the risk's calibration is not readable ({error}); run: vssl gallery compact GALLERY"
            ) from error


def fit_risk(
    means: Floats,
    items: Vectors,
    distances: Float64s,
    found: Int64s,
    query: Floats,
    item: Floats,
    *,
    signed: bool = False,
) -> RiskModel | None:
    """Fit on what Q of a gallery's items find among the others (Q, K); None for fewer than 320 means.

    means (M, D): of items to cluster; signed: the distance may be negative.
    """
    if len(means) < FEWEST or not len(found):
        return None
    unit = _unit(means[:CLUSTERED])
    directions = np.concatenate([_clusters(unit, count, seed) for count in CLUSTERS for seed in range(SEEDS)])
    directions = directions.astype(np.float16).astype(np.float32)  # as they are kept
    length = length_scale(distances, signed=signed)
    plain = RiskModel(directions, np.zeros(3), np.ones(3), np.zeros(1), not signed, length)
    parts = plain._parts(items, distances, found, query, item)
    weights = WEIGHTS if np.ptp(item) > 0 else (1.0, 1.0, 1.0)
    centre, scale = parts.mean(axis=0), np.maximum(parts.std(axis=0), TINY) / weights
    quantiles = np.quantile(((parts - centre) / scale).sum(axis=1), np.linspace(0.0, 1.0, KNOTS))
    return replace(plain, centre=centre, scale=scale, quantiles=quantiles)


def _unit(means: Floats) -> Floats:
    unit: Floats = means / np.maximum(np.linalg.norm(means, axis=-1, keepdims=True), TINY)
    return unit


def _kinds(unit: Floats, directions: Floats) -> Int64s:
    """Return the nearest direction of each clustering: (R, D) -> (R, clusterings)."""
    cosines = unit @ directions.T
    ends = np.cumsum([count for count in CLUSTERS for _ in range(SEEDS)])[:-1]
    return np.stack([part.argmax(axis=1) for part in np.split(cosines, ends, axis=1)], axis=1)


def _clusters(unit: Floats, count: int, seed: int) -> Floats:
    """Return the directions (count, D) that unit vectors gather around: k-means on the sphere."""
    means = faiss.Kmeans(
        unit.shape[1], count, niter=ROUNDS, seed=seed, spherical=True, min_points_per_centroid=1
    )
    means.train(unit)
    return np.asarray(means.centroids, np.float32)
