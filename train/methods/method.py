"""What every method is: two views in, a loss and its parts out.

Shape letters: B batch, S side of a view, F feature dimension, D embedding dimension, N images.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import get_ema_multi_avg_fn

from train.models.encoder import Encoder, EncoderOutput
from train.models.heads import MlpForm
from train.settings.config import TrainConfig, build

OptionsT = TypeVar("OptionsT")

LEAST_VARIANCE = 1e-12


@dataclass(frozen=True)
class NoOptions:
    """A method without switches of its own."""


class StepOutput(NamedTuple):
    """loss: scalar to minimise; parts: named scalars to log; features: (views, B, F), detached."""

    loss: Tensor
    parts: dict[str, Tensor]
    features: Tensor


class Method(nn.Module):
    """A self-supervised method: the student, the teacher where one is kept, and the heads.

    Subclasses set `keeps_teacher`, `options_type` and `projector_form`, give `build_heads`, and define `loss`.
    """

    keeps_teacher: ClassVar[bool] = False
    options_type: ClassVar[type] = NoOptions
    projector_form: ClassVar[MlpForm] = MlpForm()
    options: Any
    teacher: Encoder | None

    def __init__(self, config: TrainConfig, encoder: Encoder) -> None:
        super().__init__()
        self.config = config
        self.options = parse_options(self.options_type, config.options)
        self.student = encoder
        if self.keeps_teacher:
            self.teacher = copy.deepcopy(encoder)
            self.teacher.requires_grad_(False)
        else:
            self.teacher = None
        self.heads = self.build_heads()

    @classmethod
    def projector(cls, feature_dim: int, config: TrainConfig) -> nn.Module:
        """Build the encoder's projector for features of F = feature_dim: a perceptron, unless a method has another."""
        return cls.projector_form.build(feature_dim, config.network.projector_hidden, config.network.dim)

    def build_heads(self) -> nn.ModuleDict:
        """Build the other modules of the method; they are not exported."""
        return nn.ModuleDict()

    def begin_epoch(self, batches: Callable[[], Iterable[tuple[Tensor, Tensor]]]) -> None:
        """Prepare for an epoch; most methods need nothing.

        batches: called for a pass over all training images, in batches of their places (B,) and
        one view (B, S, S, 3) each.
        """

    def forward(
        self, first: Tensor, second: Tensor, generator: torch.Generator, rows: Tensor | None = None
    ) -> StepOutput:
        """Turn two views, each (B, S, S, 3) in 0..255, into a StepOutput.

        generator: the source of the method's own noise, on the views' device. rows: (B,) places of the
        images among all N training images, for methods that remember images; with several processes
        the views are a share of the batch, and rows, which is all of it, tells how large it is.
        """
        count = len(first) if rows is None else len(rows)
        noise = torch.randn((2, count, self.noise_dim), generator=generator, device=first.device)
        return self.loss(first, second, noise, rows)

    @property
    def noise_dim(self) -> int:
        """D of the noise that `loss` is given; 0 for a method that needs none."""
        return 0

    def loss(self, first: Tensor, second: Tensor, noise: Tensor, rows: Tensor | None) -> StepOutput:
        """Turn two views into a StepOutput, as a function that torch.compile can translate whole.

        noise: (2, B, noise_dim) standard normal numbers; first, second, rows: as for `forward`.
        """
        raise NotImplementedError

    def compile_loss(self, backend: str, mode: str | None) -> None:
        """Let torch.compile translate encoders, heads and loss together; they stay as they are elsewhere.

        Encoders that are called by themselves, for other batch sizes as an evaluation has them, are not
        translated.
        """
        self.loss = torch.compile(self.loss, backend=backend, mode=mode)  # type: ignore[method-assign]

    @staticmethod
    def positive_variance(raw: Tensor) -> Tensor:
        """Read the encoder's raw variance (N, D) as variances (N, D) > 0, float32, to watch them.

        What is served is calibrated at export. VSSL's cosine form trains a direction only, so that its
        softplus has no scale of its own, though it has an order.
        """
        return functional.softplus(raw.float()).clamp(min=LEAST_VARIANCE)

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
            move_average(self.teacher, self.student, momentum)


def move_average(kept: nn.Module, moving: nn.Module, momentum: float) -> None:
    """Move the parameters of one module to momentum * themselves + (1 - momentum) * another's."""
    follow = get_ema_multi_avg_fn(momentum)  # type: ignore[no-untyped-call]
    follow(list(kept.parameters()), list(moving.parameters()), 0)


def cosine_momentum(start: float, end: float, step: int, total: int) -> float:
    """Return the share of the teacher kept at `step` of `total`: a half cosine from start to end."""
    return end - (end - start) * (math.cos(math.pi * step / max(total, 1)) + 1.0) / 2.0


def parse_options(kind: type[OptionsT], values: Mapping[str, Any]) -> OptionsT:
    """Build a method's options from the config's `[options]` table.

    Raises InputError for a name the method does not know or a value of another type.
    """
    return build(kind, values, "options.")
