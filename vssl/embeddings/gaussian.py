"""Arrays -> GaussianEmbedding: a batch of diagonal Gaussians, checked once when built.

Shape letters: N rows, D embedding dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vssl.errors import InputError

Floats = NDArray[np.float32]
UNKNOWN = np.float32(1e-12)  # stands for a variance that nobody gave


@dataclass(frozen=True, eq=False)
class GaussianEmbedding:
    """N diagonal Gaussians: `mean` (N, D) float32 and `variance` (N, D) float32 > 0.

    predicted_uncertainty: (N,) float32 in 0..1, the output of a model that predicts its uncertainty
    apart from its variance; None for a model whose uncertainty is derived from mean and variance.

    Always batched. Raises InputError when the arrays differ in shape, are not float32,
    hold a non-finite value, a variance that is not positive or an uncertainty outside of 0..1.
    """

    mean: Floats
    variance: Floats
    predicted_uncertainty: Floats | None = None

    def __post_init__(self) -> None:
        for name, array in (("mean", self.mean), ("variance", self.variance)):
            if not isinstance(array, np.ndarray) or array.dtype != np.float32 or array.ndim != 2:
                found = f"{getattr(array, 'dtype', type(array))} of shape {getattr(array, 'shape', None)}"
                raise InputError(f"{name}: found {found}, expected a float32 array of shape (N, D)")
            if not np.isfinite(array).all():
                raise InputError(f"{name}: found NaN or infinity, expected finite numbers only")
        if self.mean.shape != self.variance.shape:
            raise InputError(
                f"mean and variance differ in shape: found {self.mean.shape} and {self.variance.shape}"
            )
        if self.variance.size and self.variance.min() <= 0:
            raise InputError(f"variance: found {self.variance.min()}, expected positive numbers only")
        if self.predicted_uncertainty is not None:
            _check_uncertainty(self.predicted_uncertainty, len(self.mean))

    @classmethod
    def from_lists(cls, mean: object, variance: object) -> GaussianEmbedding:
        """Build from nested lists or arrays of any float type; one row may be given unbatched."""
        try:
            arrays = [np.atleast_2d(np.asarray(a, dtype=np.float64)) for a in (mean, variance)]
        except (TypeError, ValueError) as error:
            raise InputError(f"mean and variance: expected lists of numbers, found {error}") from None
        with np.errstate(over="ignore"):
            return cls(arrays[0].astype(np.float32), arrays[1].astype(np.float32))

    @classmethod
    def of_means(cls, mean: Floats) -> GaussianEmbedding:
        """Build from means (N, D) without variances: one constant stands for them, and 0 for every uncertainty.

        The numbers say nothing; the card of such rows says that they have no variance (`ModelCard.has_variance`).
        """
        return cls(mean, np.full(mean.shape, UNKNOWN), np.zeros(len(mean), np.float32))

    @classmethod
    def concatenate(cls, parts: Sequence[GaussianEmbedding]) -> GaussianEmbedding:
        """Stack batches of the same dimension into one.

        Raises InputError when some rows have a predicted uncertainty and others have none: the two
        kinds of uncertainty do not compare.
        """
        predicted = [p.predicted_uncertainty for p in parts if p.predicted_uncertainty is not None]
        if predicted and sum(map(len, predicted)) < sum(map(len, parts)):
            raise InputError(
                "uncertainty: found rows of a model that predicts it together with rows without it; "
                "embed all images with one model"
            )
        return cls(
            np.concatenate([p.mean for p in parts]),
            np.concatenate([p.variance for p in parts]),
            np.concatenate(predicted) if predicted else None,
        )

    def __len__(self) -> int:
        return len(self.mean)

    def __getitem__(
        self, rows: slice | NDArray[np.int64] | NDArray[np.bool_] | list[int]
    ) -> GaussianEmbedding:
        predicted = self.predicted_uncertainty
        return GaussianEmbedding(
            self.mean[rows], self.variance[rows], None if predicted is None else predicted[rows]
        )

    @property
    def dim(self) -> int:
        """D, the embedding dimension."""
        return int(self.mean.shape[1])

    def normalised(self) -> GaussianEmbedding:
        """Divide each mean by its norm n and its variance by n squared: they are one object.

        Raises InputError for a row whose mean is the zero vector.
        """
        norm = np.linalg.norm(self.mean.astype(np.float64), axis=1, keepdims=True)
        if len(norm) and norm.min() == 0:
            raise InputError(f"row {int(norm.argmin())}: its mean is the zero vector and has no direction")
        variance = (self.variance / norm**2).astype(np.float32)
        smallest = np.finfo(np.float32).tiny
        return GaussianEmbedding(
            (self.mean / norm).astype(np.float32), np.maximum(variance, smallest), self.predicted_uncertainty
        )

    @property
    def uncertainty(self) -> Floats:
        """Return (N,) numbers in 0..1; higher = less sure.

        What the model predicts, if it does; else the expected cosine spread of the Gaussian.
        """
        return self.expected_spread if self.predicted_uncertainty is None else self.predicted_uncertainty

    @property
    def expected_spread(self) -> Floats:
        """Return (N,) numbers in [0, 1): the expected cosine spread.

        The expected loss of cosine similarity between an embedding drawn from the Gaussian
        and its own mean: 1 - 1/sqrt(1 + t), where t is the trace of the variance across the
        mean's direction, over the squared norm. It does not change when the pair is
        normalised, and is 0 for a variance of 0.
        """
        mean, variance = self.mean.astype(np.float64), self.variance.astype(np.float64)
        square = (mean**2).sum(axis=1)
        square = np.maximum(square, np.finfo(np.float64).tiny)
        along = (mean**2 * variance).sum(axis=1) / square
        with np.errstate(over="ignore"):
            across = np.minimum(np.maximum(variance.sum(axis=1) - along, 0.0) / square, 1e300)
        root = np.sqrt(1.0 + across)
        # t / (root * (root + 1)) is 1 - 1/root without cancellation for small t.
        spread: Floats = (across / (root * (root + 1.0))).astype(np.float32)
        return spread


def _check_uncertainty(found: Floats, rows: int) -> None:
    if not isinstance(found, np.ndarray) or found.dtype != np.float32 or found.shape != (rows,):
        shape = f"{getattr(found, 'dtype', type(found))} of shape {getattr(found, 'shape', None)}"
        raise InputError(f"uncertainty: found {shape}, expected a float32 array of shape ({rows},)")
    if not ((found >= 0) & (found <= 1)).all():  # also catches NaN
        raise InputError("uncertainty: found a number outside of 0..1")
