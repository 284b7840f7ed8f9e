"""SwAV: each view predicts the other's assignment to prototypes, made even over the batch.

Caron et al. (2020), with two views and no extra small crops.

Shape letters: B batch, S side of a view, D embedding dimension.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from train.losses.assignment import sinkhorn, swapped_prediction
from train.methods.method import Method, StepOutput
from train.models.prototypes import Prototypes
from train.models.queue import Queue


@dataclass(frozen=True)
class SwavOptions:
    """How codes are assigned.

    prototypes: how many; temperature: of the predictions; smoothness, rounds: of the
    assignment; queue: earlier codes per view that join the assignment, from step queue_from on;
    frozen_steps: steps before the prototypes move.
    """

    prototypes: int = 3000
    temperature: float = 0.1
    smoothness: float = 0.05
    rounds: int = 3
    queue: int = 3840
    queue_from: int = 9750
    frozen_steps: int = 390


class Swav(Method):
    """Swapped assignments between views."""

    options_type = SwavOptions
    options: SwavOptions

    def build_heads(self) -> nn.ModuleDict:
        """The prototypes and one queue per view."""
        o, dim = self.options, self.config.network.dim
        heads: dict[str, nn.Module] = {f"queue{i}": Queue(o.queue, dim) for i in (0, 1)}
        return nn.ModuleDict({"prototypes": Prototypes(dim, o.prototypes, o.frozen_steps), **heads})

    def loss(self, first: Tensor, second: Tensor, noise: Tensor, rows: Tensor | None) -> StepOutput:
        """Views (B, S, S, 3) -> mean over the crossed pairs of the cross-entropy."""
        o = self.options
        own, _ = self.encode(first, second)
        prototypes = cast(Prototypes, self.heads["prototypes"])
        prototypes.count_step()
        scores = [prototypes(code.mean) for code in own]
        shares = []
        for i, code in enumerate(own):
            queue, here = cast(Queue, self.heads[f"queue{i}"]), len(scores[i])
            with torch.no_grad():
                pool = torch.cat([scores[i], prototypes(queue.rows)])
                # The queue's rows count from step queue_from on: asking the device would wait for it.
                counted = (torch.arange(len(pool), device=pool.device) < here) | (
                    prototypes.steps > o.queue_from
                )
            shares.append(sinkhorn(pool, o.smoothness, o.rounds, counted)[:here])
            queue.push(code.mean.detach())
        loss = swapped_prediction(scores[0], shares[1], o.temperature)
        loss = (loss + swapped_prediction(scores[1], shares[0], o.temperature)) / 2
        return self.output(loss, own)


METHOD = Swav
