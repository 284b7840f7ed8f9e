"""MoCo V2+: each view finds the teacher's key of the other before a queue of earlier keys.

Chen et al. (2020), made symmetric, with one queue per view.

Shape letters: B batch, S side of a view, D embedding dimension.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from train.losses.contrast import against_queue
from train.methods.method import Method, StepOutput
from train.models.heads import MlpForm
from train.models.queue import Queue


@dataclass(frozen=True)
class MocoV2PlusOptions:
    """temperature: of the softmax over cosines; queue: keys kept per view."""

    temperature: float = 0.2
    queue: int = 32768


class MocoV2Plus(Method):
    """Momentum contrast with queues."""

    options_type = MocoV2PlusOptions
    options: MocoV2PlusOptions
    keeps_teacher = True
    projector_form = MlpForm(norm=False)

    def build_heads(self) -> nn.ModuleDict:
        """One queue per view."""
        size = self.options.queue
        return nn.ModuleDict({f"queue{i}": Queue(size, self.config.network.dim) for i in (0, 1)})

    def loss(self, first: Tensor, second: Tensor, noise: Tensor, rows: Tensor | None) -> StepOutput:
        """Views (B, S, S, 3) -> mean over the crossed pairs of the cross-entropy."""
        temperature = self.options.temperature
        own, kept = self.encode(first, second)
        queues = [cast(Queue, self.heads[f"queue{i}"]) for i in (0, 1)]
        # Queue i holds the keys of view i, which view 1 - i asks for.
        loss = against_queue(own[0].mean, kept[1].mean, queues[1].rows.clone(), temperature)
        loss = (loss + against_queue(own[1].mean, kept[0].mean, queues[0].rows.clone(), temperature)) / 2
        for queue, keys in zip(queues, kept, strict=True):
            queue.push(keys.mean)
        return self.output(loss, own)


METHOD = MocoV2Plus
