"""Images that were embedded together -> their Gaussians, and apart from them those that failed.

Shape letters: M images embedded, D embedding dimension, F feature dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vssl.embeddings.gaussian import Floats, GaussianEmbedding
from vssl.embeddings.store import Rows
from vssl.errors import InputError
from vssl.model.card import ModelCard


@dataclass(frozen=True)
class Failed:
    """One image that was not embedded: its position in the request, name, error code and message."""

    position: int
    name: str
    code: str
    message: str


@dataclass(frozen=True, eq=False)
class Embedded:
    """M embedded images; `len` counts these, `failures` lists the others.

    names, paths, labels: of the M images, None for no label; positions (M,): where each stood in the request;
    gaussians: (M, D); features: (M, F), None where they were not asked for; model_id, card: of the model,
    empty and None in an answer that does not name it.
    """

    names: list[str]
    positions: NDArray[np.int64]
    gaussians: GaussianEmbedding
    failures: list[Failed]
    model_id: str
    card: ModelCard | None = None
    paths: list[str] | None = None
    labels: list[str | None] | None = None
    features: Floats | None = None

    def __post_init__(self) -> None:
        columns = (self.names, self.positions, self.gaussians, self.paths, self.labels, self.features)
        lengths = {len(column) for column in columns if column is not None}
        if len(lengths) != 1:
            raise InputError(f"embedded images: columns differ in length: {sorted(lengths)}")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def mean(self) -> Floats:
        """The means, (M, D)."""
        return self.gaussians.mean

    @property
    def variance(self) -> Floats:
        """The variances, (M, D), positive."""
        return self.gaussians.variance

    @property
    def uncertainty(self) -> Floats:
        """One number an image in 0..1, (M,); higher = less sure."""
        return self.gaussians.uncertainty

    def rows(self) -> Rows:
        """Return the M images as a gallery takes them in; their names are their ids."""
        paths, labels = self.paths or self.names, self.labels or [None] * len(self)
        return Rows(self.names, paths, labels, self.gaussians, self.features)

    @classmethod
    def concatenate(cls, parts: Sequence[Embedded]) -> Embedded:
        """Join parts of one request, at least one; positions are of the parts' own request and stay."""
        whole = [part for part in parts if len(part)] or list(parts[:1])
        features = [part.features for part in whole if part.features is not None]
        return cls(
            [name for part in whole for name in part.names],
            np.concatenate([part.positions for part in whole]),
            GaussianEmbedding.concatenate([part.gaussians for part in whole]),
            [failure for part in parts for failure in part.failures],
            whole[0].model_id,
            whole[0].card,
            [path for part in whole for path in part.paths or part.names],
            [label for part in whole for label in part.labels or [None] * len(part)],
            np.concatenate(features) if len(features) == len(whole) else None,
        )
