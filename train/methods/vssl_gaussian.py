"""VSSL with true Gaussians: closed-form KL and likelihood of means and log-variances.

The same networks as `vssl`, with the projector's second half read as a log-variance,
clamped to [-8, 8]. Per pair of views: KL of the student's predicted Gaussian from the teacher's,
plus the expected negative log-likelihood of the teacher's code under the denoised sample. Both
are means over dimensions.
Shape letters: B batch, S side of a view, D embedding dimension.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from train.losses.vssl import cosine
from train.losses.vssl_gaussian import (
    bounded_log_variance,
    expected_negative_log_likelihood,
    gaussian_kl,
    gaussian_sample,
)
from train.methods.method import Method, StepOutput
from train.methods.vssl import Vssl, variational_heads
from vssl.errors import InputError


@dataclass(frozen=True)
class VsslGaussianOptions:
    """The free choices.

    pairs: `cross` compares each view with the other only, `all` also with itself.
    bounded: teacher's means and log-variances are divided by their root mean square over a batch where it is
        above 1. Nothing else ties their scale, and a mean that outgrows its variance costs without
        bound (docs/measurements/training.md), so every recipe asks for it. Off by default, as in earlier versions.
    """

    pairs: str = "cross"
    bounded: bool = False

    def __post_init__(self) -> None:
        if self.pairs not in ("cross", "all"):
            raise InputError(f"options.pairs: found {self.pairs!r}, expected cross or all")


class VsslGaussian(Method):
    """Variational self-supervised learning, closed form."""

    options_type = VsslGaussianOptions
    options: VsslGaussianOptions
    keeps_teacher = True
    projector = staticmethod(Vssl.projector)
    noise_dim = Vssl.noise_dim

    def build_heads(self) -> nn.ModuleDict:
        """Those of VSSL."""
        return variational_heads(self.config.network)

    @staticmethod
    def positive_variance(raw: Tensor) -> Tensor:
        """The head's output is a log-variance."""
        return bounded_log_variance(raw).exp()

    def loss(self, first: Tensor, second: Tensor, noise: Tensor, rows: Tensor | None) -> StepOutput:
        """Views (B, S, S, 3) -> the mean over samples of the sum over pairs of KL + likelihood."""
        if self.teacher is None:
            raise RuntimeError("VSSL needs its teacher")
        views = (first, second)
        own = [self.student(view) for view in views]
        with torch.no_grad():
            kept = [
                (self._target(k.mean), bounded_log_variance(self._target(k.raw_variance)))
                for k in map(self.teacher, views)
            ]
        predicted, denoised = [], []
        for code, drawn in zip(own, noise, strict=True):
            mean, raw = self.heads["predictor"](torch.cat([code.mean, code.raw_variance], dim=1))
            log_variance = bounded_log_variance(raw)
            sample = gaussian_sample(mean, log_variance, drawn)
            predicted.append((mean, log_variance))
            denoised.append(
                (
                    self.heads["mean_denoiser"](sample),
                    bounded_log_variance(self.heads["variance_denoiser"](sample)),
                )
            )
        pairs = [(0, 1), (1, 0)] if self.options.pairs == "cross" else [(0, 0), (0, 1), (1, 0), (1, 1)]
        kl = likelihood = torch.zeros((), device=first.device)
        for i, j in pairs:
            kl = kl + gaussian_kl(*predicted[i], *kept[j]).mean()
            likelihood = likelihood + expected_negative_log_likelihood(*denoised[i], *kept[j]).mean()
        with torch.no_grad():
            parts = {
                "kl": kl.detach(),
                "likelihood": likelihood.detach(),
                "mean_cosine": cosine(predicted[0][0], kept[1][0]).mean(),
                "log_variance": predicted[0][1].mean(),
                "teacher_log_variance": kept[1][1].mean(),
            }
        return StepOutput(kl + likelihood, parts, torch.stack([o.features.detach() for o in own]))

    def _target(self, code: Tensor) -> Tensor:
        """Return a part of the teacher's code, (B, D), as it is aimed at."""
        code = code.float()
        return code / code.square().mean().sqrt().clamp(min=1.0) if self.options.bounded else code


METHOD = VsslGaussian
