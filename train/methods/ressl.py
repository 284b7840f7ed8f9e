"""ReSSL: the student's similarities to earlier codes follow the teacher's, made from a weak view.

Zheng et al. (2021). The first view is the student's, the second the teacher's.

Shape letters: B batch, S side of a view, D embedding dimension.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from train.losses.contrast import relation
from train.methods.method import Method, StepOutput
from train.models.heads import MlpForm
from train.models.queue import Queue


@dataclass(frozen=True)
class ResslOptions:
    """The temperatures of the two softmaxes, and how many codes are kept."""

    student_temperature: float = 0.1
    teacher_temperature: float = 0.04
    queue: int = 65536


class Ressl(Method):
    """Relational self-supervised learning."""

    options_type = ResslOptions
    options: ResslOptions
    keeps_teacher = True
    projector_form = MlpForm(norm=False)

    def build_heads(self) -> nn.ModuleDict:
        """The queue of the teacher's codes."""
        size = self.options.queue
        return nn.ModuleDict({"queue": Queue(size, self.config.network.dim)})

    def loss(self, first: Tensor, second: Tensor, noise: Tensor, rows: Tensor | None) -> StepOutput:
        """Views (B, S, S, 3), strong and weak -> cross-entropy of the two relations."""
        o = self.options
        if self.teacher is None:
            raise RuntimeError("ReSSL needs its teacher")
        own, queue = self.student(first), cast(Queue, self.heads["queue"])
        with torch.no_grad():
            kept = self.teacher(second).mean
        rows = queue.rows.clone()
        loss = relation(own.mean, kept, rows, o.student_temperature, o.teacher_temperature)
        queue.push(kept)
        return self.output(loss, [own])


METHOD = Ressl
