"""A batch of stored images -> one update of student, teacher and online classifier.

Shape letters: B batch, C0 side of the stored image, S side of a view.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.torch_version import TorchVersion

from train.augment.views import DrawnViews, FeatureViews, Views
from train.loop.optimisers import build_classifier_optimiser, build_optimiser, learning_rate, set_rate
from train.loop.synced_batchnorm import share_batches
from train.methods import new_method
from train.methods.method import Method, cosine_momentum
from train.settings.config import TrainConfig
from train.state.arithmetic import computes_bf16, tune_convolutions, use_full_precision
from train.state.distributed import SINGLE, ProcessGroup
from train.state.randomness import generator_for, seed_of
from vssl.errors import InputError

TRANSLATOR = "inductor"  # torch.compile's backend


CUDA_GRAPHS_SINCE = "2.13"
"""Before it, torch's CUDA graphs may hand out a gradient that a later backward pass overwrites
(pytorch/pytorch 96693 and 169545, mended in May 2026)."""


@dataclass(frozen=True)
class Length:
    """How long a run is: optimiser steps per epoch, in total, and images per step."""

    steps_per_epoch: int
    total: int
    images_per_step: int


def length_of(config: TrainConfig, images: int) -> Length:
    """Return how long a run over so many training images is; incomplete batches are dropped."""
    step = config.batch_size * config.optimiser.accumulate
    per_epoch = max(images // step, 1)
    return Length(per_epoch, per_epoch * config.epochs, step)


class Learner:
    """The modules and optimisers of a run, and the step that changes them.

    All randomness comes from (seed, step), so a learner restored to step k goes on exactly as
    one that never stopped. With group each process is given its share of a batch's images and
    makes the step that one process would make of them all. aspects: (N,) of the training images
    (`train.data.image_cache.ImageCache`).
    """

    def __init__(
        self,
        config: TrainConfig,
        length: Length,
        classes: int,
        device: torch.device,
        group: ProcessGroup = SINGLE,
        aspects: NDArray[np.float32] | None = None,
    ) -> None:
        torch.manual_seed(seed_of(config.seed, "weights"))
        self.config, self.length, self.device, self.group = config, length, device, group
        self._aspects = None if aspects is None else torch.from_numpy(aspects).to(device)
        self.method: Method = new_method(config).to(device).to(memory_format=torch.channels_last)
        self.views: DrawnViews = (FeatureViews(0), FeatureViews(1))
        if not config.freeze:
            self.views = Views(config.augment, config.size), Views(config.augment_second, config.size)
        self.optimiser = build_optimiser(
            [self.method], config.optimiser, self._constant_rate_module(), self.method.student.backbone
        )
        self.classifier: nn.Linear | None = None
        self.classifier_optimiser: torch.optim.Optimizer | None = None
        if classes:
            self.classifier = nn.Linear(self.method.student.feature_dim, classes).to(device)
            self.classifier_optimiser = build_classifier_optimiser(self.classifier, config.optimiser)
        wanted = config.precision
        self.half = wanted == "bf16" or (wanted == "auto" and computes_bf16(device))
        self.sharing = share_batches(self.method, group) if group.count > 1 else None
        if config.cuda_graphs:
            require_sound_cuda_graphs(config, device, torch.__version__)
        self._drawn = self.views
        """The views of a step; `views` stay as they are for batches of other sizes."""
        if config.compile:
            self._compile()
        use_full_precision()
        tune_convolutions()

    def _constant_rate_module(self) -> nn.Module | None:
        """Return the predictor where it learns at a constant rate."""
        if not self.config.optimiser.constant_predictor:
            return None
        heads = self.method.heads
        if "predictor" not in heads:
            raise InputError(
                f"optimiser.constant_predictor: the method {self.config.method!r} has no predictor; leave it false"
            )
        return heads["predictor"]

    def _compile(self) -> None:
        """Translate the views, and the encoders, heads and loss: nearly all of a step's work."""
        if self.group.count > 1:
            raise InputError(
                f"compile: found {self.group.count} processes, expected one: batch norm over several processes is "
                "not translated. Set compile = false"
            )
        config = self.config
        first, second = (Views(kind, config.size) for kind in (config.augment, config.augment_second))
        for view in (first, second):
            view.compile(TRANSLATOR)
        self._drawn = first, second
        self.method.compile_loss(TRANSLATOR, "reduce-overhead" if self.config.cuda_graphs else None)

    def begin_epoch(self, batches: Callable[[], Iterable[tuple[Tensor, Tensor]]]) -> None:
        """Let the method prepare for an epoch.

        batches: called for a pass over all training images, in batches of their places (B,) and
        the stored images (B, C0, C0, 3) uint8, this process's share of them.
        """

        def viewed() -> Iterable[tuple[Tensor, Tensor]]:
            for number, (rows, images) in enumerate(batches()):
                drawn = generator_for(self.device, self.config.seed, "pass", number)
                with self._whole(len(rows)) as share:
                    shape = self._shapes(rows, share)
                    yield rows, self.views[0](images, drawn, share, len(rows), shape)

        self.method.begin_epoch(viewed)

    def step(
        self,
        number: int,
        images: list[Tensor],
        labels: list[Tensor] | None,
        rows: list[Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Make optimiser step `number` (from 0) on micro-batches (B, C0, C0, 3) uint8.

        images: with several processes, this process's share of each. labels: (B,) class numbers of each,
        below 0 where unknown, for the online classifier. rows: (B,) places of each among the
        training images, for methods that remember images; with several processes, needed to know B.
        Returns detached scalars: `loss`, the method's parts and `classifier_loss`.
        """
        scale, config = self.length.images_per_step, self.config
        rate = learning_rate(config.optimiser, scale, number, self.length.steps_per_epoch, self.length.total)
        set_rate(self.optimiser, rate, config.optimiser.lr * scale / 256.0)
        self.optimiser.zero_grad(set_to_none=True)
        names: list[str] = []
        sums = torch.zeros((), dtype=torch.float64, device=self.device)
        for part, batch in enumerate(images):
            at = number * len(images) + part
            drawn = generator_for(self.device, config.seed, "views", at)
            total = len(batch) if rows is None else len(rows[part])
            if config.cuda_graphs:
                # Nothing that the batch before left in the graphs' memory is read any more.
                torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
            with self._whole(total) as share:
                shape = None if rows is None else self._shapes(rows[part], share)
                with torch.no_grad():
                    first, second = (view(batch, drawn, share, total, shape) for view in self._drawn)
                with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.half):
                    output = self.method(first, second, drawn, None if rows is None else rows[part])
                (output.loss / len(images)).backward()
            values = {"loss": output.loss.detach(), **output.parts}
            if self.classifier is not None and labels is not None:
                values["classifier_loss"] = self._classify(output.features.float(), labels[part], rate)
            names = list(values)
            sums = sums + torch.stack([value.float() for value in values.values()]).double() / len(images)
        # The encoders saw a share each, so their gradients add up; the heads saw the whole batch.
        self.group.sum_gradients(self.method.student.parameters())
        self.group.sum_gradients(self.method.heads.parameters(), 1.0 / self.group.count)
        if config.optimiser.clip_norm:
            nn.utils.clip_grad_norm_(self.method.parameters(), config.optimiser.clip_norm)
        self.optimiser.step()
        self.method.update_teacher(
            cosine_momentum(*config.teacher_momentum, number, max(self.length.total - 1, 1))
        )
        return dict(zip(names, sums.unbind(), strict=True))

    def _shapes(self, rows: Tensor, share: slice | None) -> Tensor | None:
        """Return the aspects of this process's share of a batch, None where all pictures are square."""
        return None if self._aspects is None else self._aspects[rows if share is None else rows[share]]

    @contextmanager
    def _whole(self, total: int) -> Iterator[slice | None]:
        """Let the encoders answer for a batch of `total` images; give this process's share of them.

        None where one process has them all.
        """
        if self.sharing is None:
            yield None
            return
        if total < self.group.count:
            raise InputError(
                f"a batch of {total} images cannot be divided over {self.group.count} processes; "
                "start fewer of them, or give more images"
            )
        with self.sharing.batch_of(total):
            yield self.group.local_slice(total)

    def _classify(self, features: Tensor, labels: Tensor, rate: float) -> Tensor:
        """Train the online classifier on detached features (2, B, F); its rate follows the student's."""
        if self.classifier is None or self.classifier_optimiser is None:
            raise RuntimeError("no classifier without labels")
        share = rate / max(self.config.optimiser.lr, 1e-12)
        for group in self.classifier_optimiser.param_groups:
            group["lr"] = self.config.evaluation.classifier_lr * share
        self.classifier_optimiser.zero_grad(set_to_none=True)
        logits = self.classifier(features.flatten(0, 1))
        loss = functional.cross_entropy(logits, labels.repeat(len(features)), ignore_index=-1)
        loss.backward()  # type: ignore[no-untyped-call]
        self.classifier_optimiser.step()
        return loss.detach()


def require_sound_cuda_graphs(config: TrainConfig, device: torch.device, version: str) -> None:
    """Raise InputError unless CUDA graphs of this torch version give the gradients that they should.

    They need one backward pass a step into every weight, so batches are not accumulated.
    """
    if not (config.compile and device.type == "cuda"):
        found = f"compile = {str(config.compile).lower()} on {device.type}"
        expected = "compile = true on a GPU"
    elif TorchVersion(version) < CUDA_GRAPHS_SINCE:
        found = f"torch {version}"
        expected = f"torch {CUDA_GRAPHS_SINCE} or newer, since before it gradients may be overwritten unseen"
    elif config.optimiser.accumulate > 1:
        found = f"optimiser.accumulate = {config.optimiser.accumulate}"
        expected = "1: a second backward pass may overwrite the gradients of the first"
    else:
        return
    raise InputError(f"cuda_graphs: found {found}, expected {expected}; leave cuda_graphs out")


def epoch_order(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return a permutation of 0..count-1, the same for the same seed and epoch."""
    order = torch.randperm(count, generator=generator_for(torch.device("cpu"), seed, "order", epoch))
    return order.numpy()
