"""What a model says about N images -> columns of numbers, with the error of each image that has none.

Columns, and not an object an image: an answer is written from them as it is. Shape letters: N images, D embedding
dimension, F feature dimension.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vssl.embeddings.gaussian import Floats, GaussianEmbedding
from vssl.errors import ImageError, InputError, VsslError


@dataclass(frozen=True, eq=False)
class EmbeddedImage:
    """One image's Gaussian: mean (D,), variance (D,), uncertainty, features (F,)."""

    mean: Floats
    variance: Floats
    uncertainty: float
    features: Floats


@dataclass(eq=False, slots=True)
class EmbeddedImages:
    """Answers about N images: mean (N, D), variance (N, D), features (N, F), uncertainty (N,), all float32.

    predicted: whether the uncertainty is an output of the model, not derived from mean and variance.
    errors: of the images that failed, by position; the numbers in their rows mean nothing.
    """

    mean: Floats
    variance: Floats
    features: Floats
    uncertainty: Floats
    predicted: bool
    errors: dict[int, VsslError] = field(default_factory=dict)

    @classmethod
    def of_outputs(
        cls, mean: Floats, variance: Floats, features: Floats, predicted: Floats | None = None
    ) -> EmbeddedImages:
        """Take a model's outputs; a row that is no Gaussian becomes the error `no_embedding`."""
        try:
            spread = GaussianEmbedding(mean, variance, predicted).uncertainty
            if np.isfinite(features).all():
                return cls(mean, variance, features, spread, predicted is not None)
        except InputError:
            pass  # some row is no Gaussian
        sound = sound_rows(mean, variance, features, predicted)
        spread = np.zeros(len(mean), np.float32) if predicted is None else predicted
        if predicted is None:
            spread[sound] = GaussianEmbedding(mean[sound], variance[sound]).uncertainty
        errors: dict[int, VsslError] = {int(n): no_embedding() for n in np.flatnonzero(~sound)}
        return cls(mean, variance, features, spread, predicted is not None, errors)

    @classmethod
    def assembled(
        cls,
        shapes: Mapping[str, tuple[int, ...]],
        count: int,
        parts: Sequence[tuple[Sequence[int], EmbeddedImages]],
        errors: Mapping[int, VsslError],
    ) -> EmbeddedImages:
        """Put the answers of one model about some of `count` images in their positions.

        shapes: of the model's outputs by name (`ModelCard.output_shapes`), for when there are none. errors: of
        other images, by position.
        """
        if len(parts) == 1 and not errors and list(parts[0][0]) == list(range(count)):
            return parts[0][1]
        mean, variance, features = (
            np.zeros((count, *shapes[name]), np.float32) for name in ("mean", "variance", "features")
        )
        spread = np.zeros(count, np.float32)
        made = cls(mean, variance, features, spread, "uncertainty" in shapes, dict(errors))
        for positions, part in parts:
            for name in ("mean", "variance", "features", "uncertainty"):
                getattr(made, name)[positions] = getattr(part, name)
            made.errors |= {positions[n]: error for n, error in part.errors.items()}
        return made

    def __len__(self) -> int:
        return len(self.mean)

    def __getitem__(self, position: int) -> EmbeddedImage | VsslError:
        error = self.errors.get(position)
        if error is not None:
            return error
        row = self.mean[position], self.variance[position]
        return EmbeddedImage(*row, float(self.uncertainty[position]), self.features[position])

    def __iter__(self) -> Iterator[EmbeddedImage | VsslError]:
        return (self[position] for position in range(len(self)))

    def between(self, start: int, stop: int) -> EmbeddedImages:
        """Return the answers from one position to before another."""
        if (start, stop) == (0, len(self)):
            return self
        rows = slice(start, stop)
        part = self.mean[rows], self.variance[rows], self.features[rows], self.uncertainty[rows]
        errors = {n - start: error for n, error in self.errors.items() if start <= n < stop}
        return EmbeddedImages(*part, self.predicted, errors)

    @property
    def embedded(self) -> list[int]:
        """The positions of the images that have an embedding."""
        rows = range(len(self.mean))
        return [n for n in rows if n not in self.errors] if self.errors else list(rows)

    @property
    def gaussians(self) -> GaussianEmbedding:
        """The Gaussians of the images that have one, in order."""
        predicted = self.uncertainty if self.predicted else None
        if not self.errors:
            return GaussianEmbedding(self.mean, self.variance, predicted)
        rows = self.embedded
        return GaussianEmbedding(
            self.mean[rows], self.variance[rows], None if predicted is None else predicted[rows]
        )


def sound_rows(
    mean: Floats, variance: Floats, features: Floats, predicted: Floats | None = None
) -> NDArray[np.bool_]:
    """Return (N,) bool: rows that are finite, with positive variance and an uncertainty in 0..1."""
    finite = [np.isfinite(values).all(axis=1) for values in (mean, variance, features)]
    if predicted is not None:
        finite.append((predicted >= 0) & (predicted <= 1))
    rows: NDArray[np.bool_] = np.logical_and.reduce([*finite, (variance > 0).all(axis=1)])
    return rows


def no_embedding() -> ImageError:
    """Return the error of an image whose Gaussian is not finite."""
    return ImageError("no_embedding", "the model answers this image with numbers that are not finite")
