"""What every method is: two views in, a loss and its parts out.

Shape letters: B batch, S side of a view, F feature dimension.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, ClassVar, NamedTuple, TypeVar, get_type_hints

import torch
from torch import Tensor, nn

from train.models.encoder import Encoder, EncoderOutput
from train.settings.config import TrainConfig
from vssl.errors import InputError

OptionsT = TypeVar("OptionsT")


class StepOutput(NamedTuple):
    """loss: scalar to minimise; parts: named scalars to log; features: (views, B, F), detached."""

    loss: Tensor
    parts: dict[str, Tensor]
    features: Tensor


class Method(nn.Module):
    """A self-supervised method: the student, the teacher where one is kept, and the heads.

    Subclasses set `keeps_teacher`, give `projector` and `heads`, and define `forward`.
    """

    keeps_teacher: ClassVar[bool] = False
    teacher: Encoder | None
    rows: Tensor | None = None
    """(B,) places of the next batch among the training images, for methods that remember images."""

    def __init__(self, config: TrainConfig, encoder: Encoder) -> None:
        super().__init__()
        self.config = config
        self.student = encoder
        if self.keeps_teacher:
            self.teacher = copy.deepcopy(encoder)
            self.teacher.requires_grad_(False)
        else:
            self.teacher = None
        self.heads = self.build_heads()

    @staticmethod
    def projector(feature_dim: int, config: TrainConfig) -> nn.Module:
        """Build the encoder's projector for features of F = feature_dim."""
        raise NotImplementedError

    def build_heads(self) -> nn.ModuleDict:
        """Build the modules beside the encoder; they are not exported."""
        return nn.ModuleDict()

    def begin_epoch(self, batches: Callable[[], Iterable[tuple[Tensor, Tensor]]]) -> None:
        """Prepare for an epoch; most methods need nothing.

        batches: called for a pass over all training images, in batches of their places (B,) and
        one view (B, S, S, 3) each.
        """

    def forward(self, first: Tensor, second: Tensor, generator: torch.Generator) -> StepOutput:
        """Turn two views, each (B, S, S, 3) in 0..255, into a StepOutput.

        generator: the source of the method's own noise, on the views' device.
        """
        raise NotImplementedError

    def encode(self, first: Tensor, second: Tensor) -> tuple[list[EncoderOutput], list[EncoderOutput]]:
        """Run both views through the student, and through the teacher (empty where none is kept)."""
        own = [self.student(view) for view in (first, second)]
        if self.teacher is None:
            return own, []
        with torch.no_grad():
            return own, [self.teacher(view) for view in (first, second)]

    @staticmethod
    def output(loss: Tensor, own: Sequence[EncoderOutput]) -> StepOutput:
        """Bundle a loss without further parts."""
        return StepOutput(loss, {}, torch.stack([o.features.detach() for o in own]))

    @torch.no_grad()
    def update_teacher(self, momentum: float) -> None:
        """Move the teacher's parameters: momentum * teacher + (1 - momentum) * student.

        Parameters only: the teacher normalises with its own batches and keeps its own running
        statistics.
        """
        if self.teacher is not None:
            teacher: list[Tensor] = list(self.teacher.parameters())
            student: list[Tensor] = list(self.student.parameters())
            torch._foreach_lerp_(teacher, student, 1.0 - momentum)


def cosine_momentum(start: float, end: float, step: int, total: int) -> float:
    """Return the share of the teacher kept at `step` of `total`: a half cosine from start to end."""
    return end - (end - start) * (math.cos(math.pi * step / max(total, 1)) + 1.0) / 2.0


def parse_options(kind: type[OptionsT], values: Mapping[str, Any]) -> OptionsT:
    """Build a method's options from the config's `[options]` table.

    Raises InputError for a name the method does not know or a value of another type.
    """
    hints = get_type_hints(kind)
    known = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    checked: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            expected = ", ".join(known) or "none"
            raise InputError(f"options.{name}: this method does not know it; its options: {expected}")
        if hints[name] is float and type(value) is int:
            value = float(value)
        if type(value) is not hints[name]:
            raise InputError(f"options.{name}: found {value!r}, expected {hints[name].__name__}")
        checked[name] = value
    return kind(**checked)
