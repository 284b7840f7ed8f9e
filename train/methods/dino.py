"""DINO: the student's softmax over prototypes follows the teacher's, centred and sharpened.

Caron et al. (2021), with two views and no extra small crops.

Shape letters: B batch, S side of a view, D embedding dimension.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from train.losses.assignment import self_distillation
from train.methods.method import Method, StepOutput
from train.models.prototypes import Prototypes
from train.settings.config import TrainConfig


@dataclass(frozen=True)
class DinoOptions:
    """The temperatures, the prototypes, and the running mean of the teacher's scores.

    warm_steps: steps over which the teacher's temperature goes, in a line, from warm_temperature to
    teacher_temperature; it changes every warm_every steps, in the published runs once an epoch.
    teacher_momentum of the run also moves the teacher's prototypes; frozen_steps: steps before
    the student's prototypes move; centre_momentum: share of the centre kept at a step.
    """

    prototypes: int = 4096
    student_temperature: float = 0.1
    teacher_temperature: float = 0.07
    warm_temperature: float = 0.04
    warm_steps: int = 0
    warm_every: int = 1
    centre_momentum: float = 0.9
    frozen_steps: int = 195

    def sharpness(self, step: Tensor) -> Tensor:
        """Return the teacher's temperature at `step`, the first being 1.

        The first of the levels is warm_temperature, the last one teacher_temperature.
        """
        last = self.warm_steps // self.warm_every - 1
        level = torch.div(step - 1, self.warm_every, rounding_mode="floor")
        share = (level / last).clamp(max=1.0) if last > 0 else torch.ones_like(level)
        return self.warm_temperature + share * (self.teacher_temperature - self.warm_temperature)


class Dino(Method):
    """Self-distillation without labels."""

    options_type = DinoOptions
    options: DinoOptions
    keeps_teacher = True

    @staticmethod
    def projector(feature_dim: int, config: TrainConfig) -> nn.Module:
        """Three layers with GELU and no norm; small weights and no biases at first."""
        hidden, dim = config.network.projector_hidden, config.network.dim
        layers = [nn.Linear(feature_dim, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, dim)]
        for layer in layers:
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        return nn.Sequential(layers[0], nn.GELU(), layers[1], nn.GELU(), layers[2])

    def build_heads(self) -> nn.ModuleDict:
        """The prototypes of student and teacher, the same at first, and the centre."""
        o, dim = self.options, self.config.network.dim
        student = Prototypes(dim, o.prototypes, o.frozen_steps)
        teacher = Prototypes(dim, o.prototypes, 0)
        teacher.load_state_dict(student.state_dict())
        teacher.requires_grad_(False)
        return nn.ModuleDict({"student": student, "teacher": teacher, "centre": Centre(o.prototypes)})

    def loss(self, first: Tensor, second: Tensor, noise: Tensor, rows: Tensor | None) -> StepOutput:
        """Views (B, S, S, 3) -> mean over the crossed pairs of the cross-entropy."""
        o = self.options
        own, kept = self.encode(first, second)
        student, centre = cast(Prototypes, self.heads["student"]), cast(Centre, self.heads["centre"])
        student.count_step()
        found = [student(code.mean) for code in own]
        with torch.no_grad():
            wanted = [self.heads["teacher"](code.mean) for code in kept]
        temperatures = (o.student_temperature, o.sharpness(student.steps))
        loss = self_distillation(found[0], wanted[1], centre.value, *temperatures)
        loss = (loss + self_distillation(found[1], wanted[0], centre.value, *temperatures)) / 2
        centre.follow(torch.cat(wanted), o.centre_momentum)
        return self.output(loss, own)

    @torch.no_grad()
    def update_teacher(self, momentum: float) -> None:
        """Move the teacher and its prototypes."""
        super().update_teacher(momentum)
        student, teacher = cast(Prototypes, self.heads["student"]), cast(Prototypes, self.heads["teacher"])
        teacher.directions.lerp_(student.directions, 1.0 - momentum)


class Centre(nn.Module):
    """The running mean of the teacher's scores, (P,)."""

    value: Tensor

    def __init__(self, prototypes: int) -> None:
        super().__init__()
        self.register_buffer("value", torch.zeros(prototypes))

    @torch.no_grad()
    def follow(self, scores: Tensor, momentum: float) -> None:
        """Move towards the mean of the scores (B, P)."""
        self.value.copy_(momentum * self.value + (1.0 - momentum) * scores.float().mean(dim=0))


METHOD = Dino
