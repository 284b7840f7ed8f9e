"""VJE: each view's posterior explains the other view's embedding, a symmetric conditional bound.

A reconstruction from the abstract of arXiv 2602.05639 (losses/vje.py); no teacher, no negatives,
no projector on the side of the target. The inference network takes the place of the projector,
so the exported mean and raw variance are the posterior's mean and, through a softplus, its
variance. Shape letters: B batch, S side of a view, F = D feature dimension.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from train.losses.vje import (
    direction_distance,
    direction_log_density,
    radius_log_density,
    standard_normal_kl,
)
from train.methods.method import Method, StepOutput, parse_options
from train.models.heads import GaussianHead
from train.settings.config import TrainConfig
from vssl.errors import InputError

VARIANCE_FLOOR = 1e-4


@dataclass(frozen=True)
class VjeOptions:
    """The reconstruction's free choices.

    form: `shared` takes the posterior variances as the likelihood's scale; `strict` divides them
        by the squared norm of the mean, which puts sphere and latent on one scale, and
        normalises the embeddings: with kl_weight 1 the objective is a bound.
    normalise: the embeddings by their batch, each feature to mean 0 and variance 1, as `strict` always does.
        Features behind a ReLU have a direction in common, and without this a small network grows it
        until all embeddings are one (docs/measurements/training.md), so every recipe asks for it. Off by default,
        as in earlier versions.
    kl_weight: of the KL; below 1 the objective is not a strict bound. ramp_steps: steps over
        which it grows from 0. degrees, radius_degrees: of the two Student-t;
        radius_weight: of the radial term.
    """

    form: str = "shared"
    normalise: bool = False
    kl_weight: float = 0.01
    ramp_steps: int = 200
    degrees: float = 1.0
    radius_degrees: float = 1.0
    radius_weight: float = 1.0

    def __post_init__(self) -> None:
        if self.form not in ("shared", "strict"):
            raise InputError(f"options.form: found {self.form!r}, expected shared or strict")
        if self.degrees <= 0 or self.radius_degrees <= 0:
            raise InputError("options.degrees and radius_degrees: expected positive numbers")


class Inference(nn.Module):
    """Features -> the posterior's mean and raw variance, (B, D) each."""

    def __init__(self, dim: int, hidden: int, *, normalise: bool) -> None:
        super().__init__()
        self.normalise: nn.Module = nn.BatchNorm1d(dim, affine=False) if normalise else nn.Identity()
        self.head = GaussianHead(dim, hidden, dim)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D) -> mean, raw variance."""
        mean, raw_variance = self.head(self.normalise(features))
        return mean, raw_variance


class Radius(nn.Module):
    """The one learned scale of the radial likelihood, and how many steps were made."""

    steps: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.register_buffer("steps", torch.zeros(()))

    def ramp(self, length: int) -> Tensor:
        """Count a step and return the KL's share of its weight: 0 to 1 over `length` steps."""
        self.steps += 1
        return (self.steps / max(length, 1)).clamp(max=1.0)


class Vje(Method):
    """Variational joint embedding."""

    options_type = VjeOptions
    options: VjeOptions

    @staticmethod
    def projector(feature_dim: int, config: TrainConfig) -> nn.Module:
        """The inference network: its mean has the features' own dimension."""
        options = parse_options(VjeOptions, config.options)
        normalise = options.normalise or options.form == "strict"
        return Inference(feature_dim, config.network.projector_hidden, normalise=normalise)

    def build_heads(self) -> nn.ModuleDict:
        """The scale of the radius."""
        return nn.ModuleDict({"radius": Radius()})

    @property
    def noise_dim(self) -> int:
        """That of the features, which the posterior's mean shares."""
        return self.student.feature_dim

    @staticmethod
    def positive_variance(raw: Tensor) -> Tensor:
        """The posterior's variance: a softplus above a floor."""
        return functional.softplus(raw.float()) + VARIANCE_FLOOR

    def loss(self, first: Tensor, second: Tensor, noise: Tensor, rows: Tensor | None) -> StepOutput:
        """Views (B, S, S, 3) -> minus the two bounds, over D."""
        options, radius = self.options, cast(Radius, self.heads["radius"])
        projector = self.student.projector
        inference = cast(Inference, projector.projector if self.config.is_published else projector)
        posteriors = [self.student(view) for view in (first, second)]
        with torch.no_grad():
            targets = [inference.normalise(p.features).float() for p in posteriors]
        likelihood = kl = torch.zeros((), device=first.device)
        variances, distances = [], []
        for i, j in ((0, 1), (1, 0)):
            mean = posteriors[i].mean.float()
            variance = self.positive_variance(posteriors[i].raw_variance)
            sample = mean + variance.sqrt() * noise[i]
            scale = variance
            if options.form == "strict":
                scale = variance / mean.square().sum(dim=1, keepdim=True).clamp(min=1e-6)
            log_density = direction_log_density(sample, targets[j], scale, options.degrees)
            log_density = log_density + options.radius_weight * radius_log_density(
                sample, targets[j], radius.log_scale, options.radius_degrees
            )
            likelihood = likelihood + log_density.mean()
            kl = kl + standard_normal_kl(mean, variance).mean()
            variances.append(variance.detach())
            distances.append(direction_distance(sample, targets[j], scale).detach())
        dim = self.student.feature_dim
        weight = options.kl_weight * radius.ramp(options.ramp_steps)
        parts = {
            "log_likelihood": likelihood.detach() / dim,
            "kl": kl.detach() / dim,
            "variance": torch.stack(variances).mean(),
            "least_variance": torch.stack(variances).min(),
            "direction_distance": torch.stack(distances).mean(),
        }
        features = torch.stack([p.features.detach() for p in posteriors])
        return StepOutput((weight * kl - likelihood) / dim, parts, features)


METHOD = Vje
