"""Items and queries -> encodings that another engine ranks by inner product, and what is left to check.

The constants are fixed by the first items and travel as text; later items only widen the bounds.
Shape letters: N items, Q queries, D embedding dimension, E encoded dimension.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from index.arrays import Float64s
from index.distances.encoding import Anchor, Distance
from index.distances.parameters import Densities, DistanceParameters
from index.distances.prior import completed
from index.distances.table import named
from index.search.certificate import slack
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.errors import InputError


@dataclass(frozen=True, eq=False)
class Encoding:
    """One distance's encoding; widest (E,): the largest magnitude of each encoded coordinate."""

    name: str
    parameters: DistanceParameters
    anchor: Anchor
    widest: Float64s

    @classmethod
    def of(
        cls, name: str, items: GaussianEmbedding, parameters: DistanceParameters | None = None
    ) -> Encoding:
        """Fix the constants: those given, and what they leave open by the first items (N, D)."""
        parameters = completed(name, parameters, items)
        distance = named(name)
        return cls(name, parameters, Anchor.of(_prepared(distance, items, parameters)), np.zeros(0))

    def items(self, items: GaussianEmbedding) -> tuple[NDArray[np.float32], Encoding]:
        """Return encodings (N, E) and the constants widened by these items.

        Raises InputError when float32 cannot hold them.
        """
        distance = named(self.name)
        prepared = _prepared(distance, items, self.parameters)
        anchor = self.anchor.widened(prepared)
        with np.errstate(over="ignore"):
            encoded = distance.encode_items(prepared, anchor, self.parameters).astype(np.float32)
        if not np.isfinite(encoded).all():
            raise InputError(f"the distance {self.name} of these items leaves the range of float32")
        widest = np.abs(encoded).max(axis=0).astype(np.float64)
        if len(self.widest):
            widest = np.maximum(widest, self.widest)
        return encoded, replace(self, anchor=anchor, widest=widest)

    def queries(self, queries: GaussianEmbedding) -> tuple[NDArray[np.float32], Float64s]:
        """Return encodings (Q, E) and the offsets (Q,) that turn a score into a lower bound (see `left`)."""
        distance = named(self.name)
        prepared = _prepared(distance, queries, self.parameters)
        phi, offset = distance.encode_queries(prepared, self.anchor, self.parameters)
        return phi.astype(np.float32), offset - slack(phi, offset, self.widest)

    def left(self, offset: Float64s, score: Float64s) -> Float64s:
        """Return (Q,): no item of at most this score is nearer than this."""
        return named(self.name).decode(offset - score, self.anchor, self.parameters)

    def to_texts(self) -> dict[str, str]:
        """Return the constants as named texts."""
        return {
            "parameters": json.dumps(self.parameters.to_dict()),
            "anchor": json.dumps({key: array.tolist() for key, array in asdict(self.anchor).items()}),
            "widest": json.dumps(self.widest.tolist()),
        }

    @classmethod
    def from_texts(cls, name: str, texts: Mapping[str, str]) -> Encoding | None:
        """Read `to_texts`'s form; None when no items have fixed the constants yet."""
        if "anchor" not in texts:
            return None
        anchor = {key: np.array(array) for key, array in json.loads(texts["anchor"]).items()}
        parameters = DistanceParameters.from_dict(json.loads(texts["parameters"]))
        return cls(name, parameters, Anchor(**anchor), np.array(json.loads(texts["widest"])))


def _prepared(distance: Distance, items: GaussianEmbedding, parameters: DistanceParameters) -> Densities:
    return distance.prepared(parameters.scaled(items), parameters)
