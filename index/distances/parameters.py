"""Fitted constants -> the variance and the prior that a distance sees.

Shape letters: N rows, D embedding dimension.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

from index.arrays import Float64s, Int64s
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.errors import FormatError, InputError

FLOOR = 1e-6


@dataclass(frozen=True, eq=False)
class Densities:
    """Diagonal Gaussians in float64 with any leading axes: `mean` and `variance` (..., D)."""

    mean: Float64s
    variance: Float64s

    def at(self, rows: Int64s) -> Densities:
        """Return some rows of (N, D)."""
        return Densities(self.mean[rows], self.variance[rows])

    def across(self) -> Densities:
        """Return (Q, 1, D) arrays, to be met with items of shape (N, D) or (Q, K, D)."""
        return Densities(self.mean[:, None, :], self.variance[:, None, :])


@dataclass(frozen=True)
class DistanceParameters:
    """What a distance needs besides the two Gaussians; part of its definition.

    alpha: every variance is multiplied by it first; 1 for a calibrated variance.
    floor: the variance is then raised to at least this by the distances that divide by it
        (all but cosine, euclidean, expected and wasserstein). The default suits means of unit
        norm in some hundred dimensions, where it is a ten-thousandth of a mean's square.
    dof: degrees of freedom of `student-t`.
    between, within, centre: the prior of `posterior`, one number per dimension each: the
        variance of class centres, the variance of embeddings about their class centre beyond
        the encoder's own, and the mean of the class centres. Empty: not fitted.
    """

    alpha: float = 1.0
    floor: float = FLOOR
    dof: float = 4.0
    between: tuple[float, ...] = ()
    within: tuple[float, ...] = ()
    centre: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("alpha", "floor", "dof"):
            found = getattr(self, name)
            if not (np.isfinite(found) and found > 0):
                raise InputError(f"distance parameters: found {name} {found}, expected a positive number")
        if not len(self.between) == len(self.within) == len(self.centre):
            raise InputError("distance parameters: between, within and centre must be of one length")
        prior = np.array([self.between, self.within])
        if prior.size and not (np.isfinite(prior).all() and prior.min() > 0):
            raise InputError("distance parameters: between and within must be positive numbers")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; `from_dict` reads them back exactly."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DistanceParameters:
        """Read `to_dict`'s form. Raises FormatError for anything else."""
        try:
            unknown = set(values) - {f.name for f in fields(cls)}
            if unknown:
                raise FormatError(f"distance parameters: unknown entries {sorted(unknown)}")
            known: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
            return cls(**known)
        except (TypeError, AttributeError) as error:
            raise FormatError(
                f"distance parameters: not readable ({error}); build the index again"
            ) from error

    def key(self) -> str:
        """Return one text for one set of constants, to compare two sets by."""
        return json.dumps(self.to_dict(), sort_keys=True)

    @cached_property
    def digest(self) -> str:
        """A short name of this set of constants."""
        return hashlib.sha256(self.key().encode()).hexdigest()[:16]

    def scaled(self, embedding: GaussianEmbedding) -> Densities:
        """Return the Gaussians in float64 with variance times alpha."""
        return Densities(
            embedding.mean.astype(np.float64), embedding.variance.astype(np.float64) * self.alpha
        )

    def floored(self, densities: Densities) -> Densities:
        """Return the Gaussians with every variance at least `floor`."""
        return Densities(densities.mean, np.maximum(densities.variance, self.floor))

    def prior(self, dim: int) -> tuple[Float64s, Float64s, Float64s]:
        """Return (between, within, centre), each (D,). Raises InputError when they are not fitted."""
        if len(self.between) != dim:
            raise InputError(
                f"the distance posterior needs a prior of {dim} dimensions, found {len(self.between)}; "
                "fit one with index.distances.prior.fit_prior(items, labels)"
            )
        return np.array(self.between), np.array(self.within), np.array(self.centre)
