"""Codes -> scores against learned directions: the last layer of SwAV and DINO.

Shape letters: B batch, D embedding dimension, P prototypes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Prototypes(nn.Module):
    """P unit directions; a score is the cosine of a code with one. Frozen for the first steps.

    They begin as a linear layer's weights do, uniform within 1 / sqrt(D): the length of a direction
    changes no score, but it sets the size of a step.
    """

    steps: Tensor

    def __init__(self, dim: int, count: int, frozen_steps: int) -> None:
        super().__init__()
        self.directions = nn.Parameter(nn.init.uniform_(torch.empty(count, dim), -(dim**-0.5), dim**-0.5))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.frozen_steps = frozen_steps

    def count_step(self) -> None:
        """Tell that a training step begins."""
        self.steps += 1

    def forward(self, codes: Tensor) -> Tensor:
        """(B, D) -> (B, P) cosines, float32."""
        with torch.autocast(codes.device.type, enabled=False):
            directions = functional.normalize(self.directions, dim=1)
            moving = self.steps > self.frozen_steps
            directions = torch.where(moving, directions, directions.detach())
            return functional.normalize(codes.float(), dim=1) @ directions.T
