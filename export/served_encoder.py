"""Encoder + heads -> the network that is served: images in, mean, variance, features, uncertainty out.

Shape letters: B batch, S side, D embedding dimension, F feature dimension, P inputs of the head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from export.calibration.ambiguity import Ambiguity
from export.calibration.quality import COUNT, quality
from train.models.encoder import EncoderOutput
from vssl.errors import InputError

Encode = Callable[[Tensor], EncoderOutput]
"""Pictures (B, S, S, 3) in 0..255 -> features (B, F) and mean: a network, or its graph in onnxruntime."""

LOG_RANGE = 12.0
"""The head may move a log variance this far from the mean one, so that no input overflows it."""

TINY = 1e-12

OUTLIER = 8.0
"""Standard deviations beyond which an input of the uncertainty's damage map counts as no more."""

FAR = 4.0
"""The same for the variance of a good picture: a straight line goes wrong far from where it was fitted."""

NEIGHBOURHOOD = 0.5
"""What the indecision of a picture's neighbours weighs beside its own."""

LOGIT_RANGE = 15.0
"""Keeps the largest uncertainties apart in float32."""

NO_DAMAGE = -30.0
"""Softplus of this is nothing: what an untrained head says of damage."""


class ServedOutput(NamedTuple):
    """mean (B, D), variance (B, D) > 0, features (B, F), uncertainty (B,) in 0..1 or None, all float32."""

    mean: Tensor
    variance: Tensor
    features: Tensor
    uncertainty: Tensor | None


class VarianceHead(nn.Module):
    """Inputs (B, P), features and picture quality, and the served mean (B, D) -> variance (B, D).

    The variance of a good picture, whose logarithm is linear in mean and quality, times what the picture's
    damage adds: no less than 1, and 1 where no more damage is seen than `quiet`. An untrained head is the
    constant variance `base`.
    """

    shift: Tensor
    scale: Tensor
    base: Tensor
    mean_scale: Tensor
    quiet: Tensor

    def __init__(self, inputs: int, dim: int, hidden: int = 128) -> None:
        super().__init__()
        self.register_buffer("shift", torch.zeros(inputs))
        self.register_buffer("scale", torch.ones(inputs))
        self.register_buffer("base", torch.zeros(dim))
        self.register_buffer("mean_scale", torch.ones(()))
        self.register_buffer("quiet", torch.zeros(()))
        self.good = nn.Linear(dim + min(COUNT, inputs), dim)
        nn.init.zeros_(self.good.weight)
        nn.init.zeros_(self.good.bias)
        self.damage = _two_layers(inputs, hidden, dim, NO_DAMAGE)

    def signals(self, inputs: Tensor, mean: Tensor) -> Tensor:
        """Return what the variance of a good picture is linear in (B, D + 23): its mean and quality."""
        standard = (inputs[:, -COUNT:] - self.shift[-COUNT:]) * self.scale[-COUNT:]
        return torch.cat([mean * self.mean_scale, standard], dim=1).clamp(-FAR, FAR)

    def forward(self, inputs: Tensor, mean: Tensor) -> Tensor:
        """Return variance (B, D) > 0."""
        added = self.damage_seen((inputs - self.shift) * self.scale)
        share = torch.relu(1.0 - self.quiet / added.mean(dim=1, keepdim=True).clamp_min(TINY))
        return torch.exp(self._log_variance(inputs, mean) + added * share)

    def undamaged(self, inputs: Tensor, mean: Tensor) -> Tensor:
        """Return the variance (B, D) > 0 that the picture would have without damage."""
        return torch.exp(self._log_variance(inputs, mean))

    def _log_variance(self, inputs: Tensor, mean: Tensor) -> Tensor:
        offset: Tensor = self.good(self.signals(inputs, mean)).clamp(-LOG_RANGE, LOG_RANGE)
        return self.base + offset

    def damage_seen(self, standard: Tensor) -> Tensor:
        """Standardised inputs (B, P) -> what damage would add to the log variance (B, D), 0 or more."""
        return torch.nn.functional.softplus(self.damage(standard)).clamp(max=LOG_RANGE)

    def begin_damage(self, level: float) -> None:
        """Set what damage adds to the log variance, before it is fitted: softplus(level)."""
        with torch.no_grad():
            self.damage.get_parameter("2.bias").fill_(level)


def _two_layers(inputs: int, hidden: int, outputs: int, start: float) -> nn.Sequential:
    """Build a map that is one number until it is trained."""
    last = nn.Linear(hidden, outputs)
    nn.init.zeros_(last.weight)
    nn.init.constant_(last.bias, start)
    return nn.Sequential(nn.Linear(inputs, hidden), nn.SiLU(), last)


def head_inputs(features: Tensor, images: Tensor) -> Tensor:
    """Features (B, F) and the pictures (B, S, S, 3) in 0..255 they were made of -> (B, P)."""
    return torch.cat([features.float(), quality(images)], dim=1)


class ServedMean(nn.Module):
    """An encoder's output -> what is served as its mean (B, D).

    space: `features` or `projector`; centre (E): what all images have in common, taken off; matrix
    (E, D): applied to the rest, E being the space's own dimension. Without them the embedding is served as it is.
    """

    centre: Tensor | None
    matrix: Tensor | None

    def __init__(self, space: str, centre: Tensor | None = None, matrix: Tensor | None = None) -> None:
        super().__init__()
        if space not in ("features", "projector"):
            raise InputError(f"space: found {space!r}, expected 'features' or 'projector'")
        self.space = space
        self.register_buffer("centre", centre)
        self.register_buffer("matrix", matrix)

    def forward(self, output: EncoderOutput) -> Tensor:
        """Return (B, D)."""
        mean = output.features if self.space == "features" else output.mean
        if self.centre is not None:
            mean = mean - self.centre
        return mean if self.matrix is None else mean @ self.matrix


class UncertaintyHead(nn.Module):
    """The variance head's inputs (B, P) and the served mean (B, D) -> uncertainty (B,) in 0..1.

    How undecided the picture is between the clusters of the images that the head was fitted on, half as much how
    undecided those around it are, and what its damage adds; then its rank among the images.
    `export.calibration.uncertainty` fits all four.
    """

    shift: Tensor
    scale: Tensor
    centre: Tensor
    spread: Tensor
    floor: Tensor
    weight: Tensor
    knots: Tensor
    slopes: Tensor
    start: Tensor

    def __init__(self, clusterings: Sequence[Ambiguity], inputs: int, knots: int, hidden: int = 128) -> None:
        super().__init__()
        self.clusterings = nn.ModuleList(clusterings)
        self.register_buffer("shift", torch.zeros(inputs))
        self.register_buffer("scale", torch.ones(inputs))
        self.register_buffer("centre", torch.zeros(len(clusterings)))
        self.register_buffer("spread", torch.ones(len(clusterings)))
        self.register_buffer("floor", torch.zeros(()))
        self.register_buffer("weight", torch.zeros(()))
        self.register_buffer("knots", torch.zeros(knots))
        self.register_buffer("slopes", torch.zeros(knots))
        self.register_buffer("start", torch.zeros(()))
        self.neighbourhood = nn.Linear(clusterings[0].directions.shape[1], 1)
        nn.init.zeros_(self.neighbourhood.weight)
        nn.init.zeros_(self.neighbourhood.bias)
        self.damage = _two_layers(inputs, hidden, 1, 0.0)

    def indecision(self, mean: Tensor) -> Tensor:
        """(B, D) -> (B,): the mean standardised entropy over several clusterings."""
        entropy = torch.stack([clustering(mean) for clustering in self.clusterings], dim=1)
        return ((entropy - self.centre) / self.spread).mean(dim=1)

    def displacement(self, inputs: Tensor) -> Tensor:
        """(B, P) -> (B,): how far damage has moved the embedding, as far as the inputs tell."""
        standard = ((inputs - self.shift) * self.scale).clamp(-OUTLIER, OUTLIER)
        found: Tensor = self.damage(standard)[:, 0]
        return found

    def score(self, inputs: Tensor, mean: Tensor) -> Tensor:
        """Return (B,) numbers of no fixed scale, higher = less sure."""
        moved = torch.relu(self.displacement(inputs) - self.floor)
        around: Tensor = self.neighbourhood(mean)[:, 0]
        return self.indecision(mean) + NEIGHBOURHOOD * around + self.weight * moved

    def forward(self, inputs: Tensor, mean: Tensor) -> Tensor:
        """Return (B,) in 0..1."""
        past = torch.relu(self.score(inputs, mean)[:, None] - self.knots)
        logit = self.start + (past * self.slopes).sum(dim=1)
        return torch.sigmoid(logit.clamp(-LOGIT_RANGE, LOGIT_RANGE))


class ServedHeads(nn.Module):
    """Pictures and what an encoder says of them -> what is served."""

    def __init__(
        self, mean: ServedMean, variance: VarianceHead, uncertainty: UncertaintyHead | None = None
    ) -> None:
        super().__init__()
        self.mean = mean
        self.variance = variance
        self.uncertainty = uncertainty

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what `forward` returns, in order."""
        return ("mean", "variance") if self.uncertainty is None else ("mean", "variance", "uncertainty")

    def forward(self, images: Tensor, features: Tensor, projected: Tensor) -> tuple[Tensor, ...]:
        """Return mean (B, D), variance (B, D) and, where it is predicted, uncertainty (B,)."""
        mean = self.mean(EncoderOutput(features, projected, None))
        inputs = head_inputs(features, images)
        if self.uncertainty is None:
            return mean, self.variance(inputs, mean)
        return mean, self.variance(inputs, mean), self.uncertainty(inputs, mean)


class ServedEncoder(nn.Module):
    """uint8 (B, S, S, 3) -> ServedOutput. The features are given as they are.

    encoder: a network, or anything else that gives an EncoderOutput of pictures.
    """

    def __init__(self, encoder: Encode, heads: ServedHeads) -> None:
        super().__init__()
        self.encoder = encoder
        self.heads = heads

    def forward(self, images: Tensor) -> ServedOutput:
        """Return mean (B, D), variance (B, D), features (B, F) and uncertainty (B,) or None."""
        output = self.encoder(images)
        mean, variance, *uncertainty = self.heads(images, output.features, output.mean)
        return ServedOutput(mean, variance, output.features, uncertainty[0] if uncertainty else None)
