"""VSSL: the student's predicted code meets the teacher's code of the other view, in cosine form.

Yavuz and Yanikoglu, arXiv 2504.04318. Student and teacher turn each view into mean and raw
variance; the student's pass through the predictor. Per pair of views the loss is K, the cosine
KL between predicted and teacher code, plus N, the cosine likelihood of the teacher's code under
a denoised sample of the predicted one. Where the paper contradicts itself the options name the
readings; docs/explanation/method.md says which was taken and why.
Shape letters: B batch, S side of a view, D embedding dimension.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from train.losses.vssl import cosine, cosine_kl, cosine_likelihood, one_sided_sample
from train.methods.method import Method, StepOutput, move_average
from train.models.heads import GaussianHead, Head
from train.settings.config import NetworkConfig, TrainConfig
from vssl.errors import InputError


@dataclass(frozen=True)
class VsslOptions:
    """The readings of the paper.

    pairs: `cross` compares each view with the other only, `all` also with itself.
    likelihood_sign: 1 adds N, which is a cost as printed; -1 subtracts it, as equation 8 does.
    target: what N is measured against: the `teacher`, or the `student`'s own code of the other
        view with its gradient stopped.
    signed_noise: draw with eps instead of |eps|.
    teacher_predictor: pass the teacher's code through a predictor too, the moving average of the
        student's, as lines 11 and 12 of Algorithm 1 do.
    """

    pairs: str = "cross"
    likelihood_sign: int = 1
    target: str = "teacher"
    signed_noise: bool = False
    teacher_predictor: bool = False

    def __post_init__(self) -> None:
        allowed = {"pairs": ("cross", "all"), "likelihood_sign": (1, -1), "target": ("teacher", "student")}
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise InputError(f"options.{name}: found {getattr(self, name)!r}, expected one of {values}")


class Vssl(Method):
    """Variational self-supervised learning, cosine form."""

    options_type = VsslOptions
    options: VsslOptions
    keeps_teacher = True

    @staticmethod
    def projector(feature_dim: int, config: TrainConfig) -> nn.Module:
        """One trunk for mean and raw variance."""
        return GaussianHead(feature_dim, config.network.projector_hidden, config.network.dim)

    def build_heads(self) -> nn.ModuleDict:
        """The predictor and the denoisers, and a second predictor for the teacher where the options say so."""
        heads = variational_heads(self.config.network)
        if self.options.teacher_predictor:
            heads["teacher_predictor"] = copy.deepcopy(heads["predictor"]).requires_grad_(False)
        return heads

    @property
    def noise_dim(self) -> int:
        """That of the codes."""
        return self.config.network.dim

    def loss(self, first: Tensor, second: Tensor, noise: Tensor, rows: Tensor | None) -> StepOutput:
        """Views (B, S, S, 3) -> the mean over samples of the sum over pairs of K + N."""
        views = (first, second)
        own = [self.student(view) for view in views]
        with torch.no_grad():
            kept = [self._prior(view) for view in views]
        predicted = [self.heads["predictor"](torch.cat([o.mean, o.raw_variance], dim=1)) for o in own]
        denoised = []
        for (mean, variance), drawn in zip(predicted, noise, strict=True):
            sample = one_sided_sample(mean, variance, drawn, signed=self.options.signed_noise)
            denoised.append((self.heads["mean_denoiser"](sample), self.heads["variance_denoiser"](sample)))
        pairs = [(0, 1), (1, 0)] if self.options.pairs == "cross" else [(0, 0), (0, 1), (1, 0), (1, 1)]
        kl = likelihood = torch.zeros((), device=first.device)
        for i, j in pairs:
            own_code = (own[j].mean.detach(), own[j].raw_variance.detach())
            target = kept[j] if self.options.target == "teacher" else own_code
            kl = kl + cosine_kl(predicted[i][0], predicted[i][1], *kept[j]).mean()
            likelihood = likelihood + cosine_likelihood(denoised[i][0], denoised[i][1], *target).mean()
        with torch.no_grad():
            mean_cosine, variance_cosine = (cosine(predicted[0][k], kept[1][k]).mean() for k in (0, 1))
        return StepOutput(
            kl + self.options.likelihood_sign * likelihood,
            {
                "kl": kl.detach(),
                "likelihood": likelihood.detach(),
                "mean_cosine": mean_cosine,
                "variance_cosine": variance_cosine,
            },
            torch.stack([o.features.detach() for o in own]),
        )

    def _prior(self, view: Tensor) -> tuple[Tensor, Tensor]:
        """Return the teacher's mean and raw variance of a view, predicted once more where the options say so."""
        if self.teacher is None:
            raise RuntimeError("VSSL needs its teacher")
        code = self.teacher(view)
        if not self.options.teacher_predictor:
            return code.mean, code.raw_variance
        mean, variance = self.heads["teacher_predictor"](torch.cat([code.mean, code.raw_variance], dim=1))
        return mean, variance

    @torch.no_grad()
    def update_teacher(self, momentum: float) -> None:
        """Move the teacher, and its predictor where it has one."""
        super().update_teacher(momentum)
        if self.options.teacher_predictor:
            move_average(self.heads["teacher_predictor"], self.heads["predictor"], momentum)


def variational_heads(network: NetworkConfig) -> nn.ModuleDict:
    """Build one predictor on both halves of the code and two denoisers with weights of their own."""
    return nn.ModuleDict(
        {
            "predictor": GaussianHead(2 * network.dim, network.predictor_hidden, network.dim),
            "mean_denoiser": Head(network.dim, network.denoiser_hidden, network.dim),
            "variance_denoiser": Head(network.dim, network.denoiser_hidden, network.dim),
        }
    )


METHOD = Vssl
