"""NNCLR: a prediction finds the nearest earlier neighbour of the other view's code.

Dwibedi et al. (2021).

Shape letters: B batch, S side of a view, D embedding dimension.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from train.losses.contrast import in_batch
from train.methods.method import Method, StepOutput
from train.models.heads import MlpForm, mlp
from train.models.queue import Queue


@dataclass(frozen=True)
class NnClrOptions:
    """temperature: of the softmax over cosines; queue: codes kept to find neighbours among."""

    temperature: float = 0.2
    queue: int = 65536


class NnClr(Method):
    """Nearest-neighbour contrastive learning."""

    options_type = NnClrOptions
    options: NnClrOptions
    projector_form = MlpForm(hidden_layers=2, norm_last=True)

    def build_heads(self) -> nn.ModuleDict:
        """The predictor and the queue of codes."""
        network = self.config.network
        size = self.options.queue
        predictor = mlp([network.dim, network.predictor_hidden, network.dim])
        return nn.ModuleDict({"predictor": predictor, "queue": Queue(size, network.dim)})

    def loss(self, first: Tensor, second: Tensor, noise: Tensor, rows: Tensor | None) -> StepOutput:
        """Views (B, S, S, 3) -> mean over the crossed pairs of the cross-entropy."""
        temperature = self.options.temperature
        own, _ = self.encode(first, second)
        predicted = [self.heads["predictor"](o.mean) for o in own]
        queue = cast(Queue, self.heads["queue"])
        near = [queue.nearest(o.mean.detach()) for o in own]
        # The neighbours are the queries: each must find the prediction of its own image.
        loss = in_batch(near[0], predicted[1], temperature) + in_batch(near[1], predicted[0], temperature)
        queue.push(own[0].mean.detach())
        return self.output(loss / 2, own)


METHOD = NnClr
