"""Images and a config -> a finished run: `RUN/checkpoint.pt`, `best.pt`, `metrics.jsonl`, curves.

A run can be stopped at any moment, also by `kill -9`, and goes on from its last checkpoint with
the losses it would have had.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor

from train.data.batches import Batches
from train.data.image_cache import ImageCache
from train.data.split import Split
from train.evaluation.collapse import collapse_reason
from train.evaluation.monitor import EvaluationSet, watch
from train.loop.optimisers import learning_rate
from train.loop.saving import Saver, learner_state, restore_learner
from train.loop.step import Learner, epoch_order, length_of
from train.methods.method import cosine_momentum
from train.models.weights import WEIGHTS_NAME, save_weights
from train.settings.config import TrainConfig
from train.state.checkpoint import Checkpoint, Fact, load_checkpoint
from train.state.distributed import SINGLE, ProcessGroup
from train.state.metrics_log import MetricsLog
from train.state.randomness import generator_for
from vssl.errors import VsslError
from vssl.images.preprocess import Preprocess

SAVE_SECONDS, SAVE_SHARE = 10.0, 0.01
"""Least time between two checkpoints, and the largest share of a run's time that writing them takes."""

FLAT_EVALUATIONS = 2
"""Evaluations in a row that must show a collapse before a run is stopped."""


class TrainingError(VsslError):
    """The run cannot go on: the loss is no number, or the code has collapsed."""

    code = "training_failed"


@dataclass(frozen=True)
class Progress:
    """What a display needs: steps done and in all, and the newest figures."""

    step: int
    total: int
    epoch: int
    loss: float
    images_per_second: float
    metrics: dict[str, float]


@dataclass(frozen=True)
class Outcome:
    """How a run ended: the last checkpoint, the newest metrics, and the signal that stopped it, if any."""

    checkpoint: Checkpoint
    metrics: dict[str, float]
    stopped_by: int | None


class Run:
    """One training run over decoded images."""

    def __init__(
        self,
        out: Path,
        config: TrainConfig,
        preprocess: Preprocess,
        cache: ImageCache,
        split: Split,
        evaluation: EvaluationSet,
        device: torch.device,
        summary: dict[str, Fact],
        group: ProcessGroup = SINGLE,
    ) -> None:
        self.group = group
        self.out, self.config, self.preprocess, self.device = out, config, preprocess, device
        self.cache, self.split, self.evaluation = cache, split, evaluation
        self.length = length_of(config, len(split.train))
        aspects = None if cache.aspects is None else cache.aspects[split.train]
        self.learner = Learner(config, self.length, split.classes, device, group, aspects)
        self.summary = summary
        self.step = self.epoch = 0
        self.names: list[str] = []
        self.sums: Tensor | None = None
        """Running totals of the epoch's `names`, on the device."""
        self.best = -math.inf
        self.spent = 0.0
        self.stop_signal: int | None = None
        self._flat = 0
        self.metrics: dict[str, float] = {}
        self._began = 0.0
        self._epoch_began = (0.0, 0)
        self._saver = Saver(out, SAVE_SECONDS, SAVE_SHARE)
        self.batches = Batches(cache, split, config, device, group)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to a checkpoint of this run."""
        restore_learner(self.learner, checkpoint)
        self.step, self.epoch = checkpoint.step, checkpoint.epoch
        self.names = list(checkpoint.sums)
        if self.names:
            self.sums = torch.stack(list(checkpoint.sums.values())).to(self.device)
        self.best = float(checkpoint.summary.get("best") or -math.inf)
        self.spent = float(checkpoint.summary.get("seconds") or 0.0)
        self._flat = int(checkpoint.summary.get("flat_evaluations") or 0)

    def train(self, report: Callable[[Progress], None]) -> Outcome:
        """Train to the end, or until SIGTERM or SIGINT, which save and stop.

        With several processes, all stop when one has a signal. Raises TrainingError on a loss that is no number
        and on a collapse.
        """
        handlers = {s: signal.signal(s, self._on_signal) for s in (signal.SIGTERM, signal.SIGINT)}
        try:
            if not self.group.is_first:
                return self._train(None, report)
            with MetricsLog(self.out, resume_epoch=self.epoch if self.step else -1) as log:
                return self._train(log, report)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _train(self, log: MetricsLog | None, report: Callable[[Progress], None]) -> Outcome:
        if not self.step:
            self.metrics = self._watch()
            if self.config.is_published and self._is_best():
                self._saver.keep_best(self._checkpoint())
            if log is not None:
                log.write({"epoch": 0, "step": 0, **self.metrics})
        self._began = time.monotonic()
        while self.epoch < self.config.epochs:
            stopped_by = self._train_epoch(report)
            if stopped_by:
                self._count_time()
                return Outcome(self._end(), self.metrics, stopped_by)
            row = self._epoch_figures()
            evaluated = self.epoch == self.config.epochs or self.epoch % self.config.evaluation.every == 0
            if evaluated:
                self.metrics = self._watch()
                row |= self.metrics
                self._judge()
            self._count_time()
            if log is not None:
                log.write({"epoch": self.epoch, "step": self.step, **row, "seconds": self.spent})
            report(self._progress(row["loss"]))
            if self.group.is_first:
                if evaluated and self._is_best():
                    self._saver.keep_best(self._checkpoint())
                self._saver.save_if_due(self._checkpoint)
        checkpoint = self._end()
        if self.group.is_first:
            if self.config.is_published:
                checkpoint = self._saver.end_with_best(checkpoint)
            save_weights(self.out / WEIGHTS_NAME, checkpoint)
        return Outcome(checkpoint, self.metrics, None)

    def _train_epoch(self, report: Callable[[Progress], None]) -> int:
        """Make the steps left of an epoch; return the signal that stopped it, or 0.

        Nothing in it waits for a GPU: figures are added up there and read when the epoch is over.
        """
        per_epoch = self.length.steps_per_epoch
        self._epoch_began = (time.monotonic(), self.step)
        order = epoch_order(len(self.split.train), self.config.seed, self.epoch)
        if self.step == self.epoch * per_epoch:
            self.learner.begin_epoch(self.batches.once)
        while self.step < (self.epoch + 1) * per_epoch:
            values = self.learner.step(self.step, *self.batches.step(order, self.step % per_epoch))
            newest = torch.stack(list(values.values()))
            self.names, self.sums = list(values), newest if self.sums is None else self.sums + newest
            self.step += 1
            if self.device.type == "cpu":
                loss = float(values["loss"])
                self._require_finite(loss)
                report(self._progress(loss))
            stopped_by = self.group.largest(self.stop_signal or 0)
            if stopped_by:
                return stopped_by
        return 0

    def _epoch_figures(self) -> dict[str, float]:
        """Close an epoch: return its mean figures and the rates at its end."""
        sums = [] if self.sums is None else self.sums.tolist()
        row = {
            name: value / self.length.steps_per_epoch for name, value in zip(self.names, sums, strict=True)
        }
        self._require_finite(row["loss"])
        self.names, self.sums = [], None
        self.epoch += 1
        row |= {"images_per_second": self._rate(), "learning_rate": self._last_rate()}
        row["teacher_momentum"] = cosine_momentum(
            *self.config.teacher_momentum, self.step - 1, max(self.length.total - 1, 1)
        )
        return row

    def _progress(self, loss: float) -> Progress:
        return Progress(self.step, self.length.total, self.epoch, loss, self._rate(), self.metrics)

    def _count_time(self) -> None:
        """Add the time since the last call to what the run took."""
        now = time.monotonic()
        self.spent += now - self._began
        self._began = now

    def _watch(self) -> dict[str, float]:
        """Watch in the first process and tell the others, so that all judge alike."""
        metrics: dict[str, float] = self.group.broadcast(self._measure() if self.group.is_first else {})
        return metrics

    def _measure(self) -> dict[str, float]:
        learner = self.learner
        generator = generator_for(self.device, self.config.seed, "watch")
        # In full precision, as the exported model will compute.
        return watch(
            learner.method.student, learner.method.teacher, learner.classifier, self.evaluation,
            learner.views, self.config.evaluation, self.device, generator, learner.method.positive_variance,
        )  # fmt: skip

    def _judge(self) -> None:
        """Stop a run whose code is the same for every image, two evaluations in a row."""
        reason = collapse_reason(self.metrics)
        self._flat = self._flat + 1 if reason else 0
        if reason and self._flat >= FLAT_EVALUATIONS:
            raise TrainingError(
                f"the code has collapsed at epoch {self.epoch}: {reason}. Lower optimiser.lr "
                f"(now {self.config.optimiser.lr:g}), raise teacher_momentum "
                f"(now {self.config.teacher_momentum[0]:g}), or use a larger batch_size "
                f"(now {self.config.batch_size}); the run is kept in {self.out}"
            )

    def _require_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss became {loss} at step {self.step}. Lower optimiser.lr (now "
                f'{self.config.optimiser.lr:g}), set optimiser.clip_norm = 1, or set precision = "fp32"; '
                f"the last good checkpoint is in {self.out}"
            )

    def _is_best(self) -> bool:
        value = self.metrics.get("knn_top1", self.metrics["view_recall"])
        if self.config.is_published:  # labels choose nothing
            value = self.metrics["view_recall_mean"]
        if value > self.best:
            self.best = value
            return True
        return False

    def _rate(self) -> float:
        """Return the images per second since the epoch began, or the run was taken up within it."""
        started, first = self._epoch_began
        return (self.step - first) * self.length.images_per_step / max(time.monotonic() - started, 1e-9)

    def _last_rate(self) -> float:
        length = self.length
        return learning_rate(
            self.config.optimiser, length.images_per_step, self.step - 1, length.steps_per_epoch, length.total
        )

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.stop_signal = number

    def _checkpoint(self) -> Checkpoint:
        return Checkpoint(
            config=self.config,
            preprocess=self.preprocess,
            step=self.step,
            epoch=self.epoch,
            sums={} if self.sums is None else dict(zip(self.names, self.sums.unbind(), strict=True)),
            summary={
                **self.summary,
                "epochs": self.epoch,
                "steps": self.step,
                "images_seen": self.step * self.length.images_per_step,
                "seconds": round(self.spent, 3),
                "best": self.best if math.isfinite(self.best) else None,
                "flat_evaluations": self._flat,
            },
            **learner_state(self.learner, self.split.names),
        )

    def _end(self) -> Checkpoint:
        """Save the last state and return it as the disk holds it."""
        checkpoint = self._checkpoint()
        if not self.group.is_first:
            return checkpoint
        self._saver.save(checkpoint)
        return load_checkpoint(self.out)
