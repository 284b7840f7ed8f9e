"""Images and a config -> a finished run: `RUN/checkpoint.pt`, `best.pt`, `metrics.jsonl`, curves.

A run can be stopped at any moment, also by `kill -9`, and goes on from its last checkpoint with
the losses it would have had.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from train.data.batches import Feed
from train.data.image_cache import ImageBank
from train.data.split import Split
from train.evaluation.collapse import collapse_reason
from train.evaluation.monitor import EvaluationSet, watch
from train.loop.optimisers import learning_rate
from train.loop.step import Learner, Length, epoch_order
from train.methods.method import cosine_momentum
from train.models.weights import WEIGHTS_NAME, initialise, save_weights
from train.settings.config import TrainConfig
from train.state.checkpoint import CHECKPOINT_NAME, Checkpoint, Fact, load_checkpoint, save_checkpoint
from train.state.distributed import ALONE, Peers
from train.state.metrics_log import Journal
from train.state.randomness import generator_for
from vssl.errors import VsslError
from vssl.images.preprocess import Preprocess

SAVE_SECONDS = 10.0
"""Between two checkpoints, so that short epochs do not spend their time on the disk."""

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


def length_of(config: TrainConfig, images: int) -> Length:
    """Return how long a run over so many training images is; incomplete batches are dropped."""
    step = config.batch_size * config.optimiser.accumulate
    per_epoch = max(images // step, 1)
    return Length(per_epoch, per_epoch * config.epochs, step)


class Run:
    """One training run over a bank of decoded images."""

    def __init__(
        self,
        out: Path,
        config: TrainConfig,
        preprocess: Preprocess,
        bank: ImageBank,
        split: Split,
        evaluation: EvaluationSet,
        device: torch.device,
        summary: dict[str, Fact],
        peers: Peers = ALONE,
    ) -> None:
        self.peers = peers
        self.out, self.config, self.preprocess, self.device = out, config, preprocess, device
        self.bank, self.split, self.evaluation = bank, split, evaluation
        self.length = length_of(config, len(split.train))
        self.learner = Learner(config, self.length, split.classes, device, peers)
        self.summary = summary
        self.step = self.epoch = 0
        self.sums: dict[str, Tensor] = {}
        self.best = -math.inf
        self.spent = 0.0
        self.stop_signal: int | None = None
        self._flat = 0
        self._saved_at = time.monotonic()
        self.feed = Feed(bank, split, config, device, peers)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to a checkpoint of this run."""
        learner, device = self.learner, self.device
        learner.method.student.load_state_dict(checkpoint.student)
        if learner.method.teacher is not None and checkpoint.teacher is not None:
            learner.method.teacher.load_state_dict(checkpoint.teacher)
        learner.method.heads.load_state_dict(checkpoint.heads)
        learner.optimiser.load_state_dict(checkpoint.optimiser)
        if learner.classifier is not None and learner.classifier_optimiser is not None:
            learner.classifier.load_state_dict(checkpoint.classifier["weights"])
            learner.classifier_optimiser.load_state_dict(checkpoint.classifier["optimiser"])
        self.step, self.epoch = checkpoint.step, checkpoint.epoch
        self.sums = {name: value.to(device) for name, value in checkpoint.sums.items()}
        self.best = float(checkpoint.summary.get("best") or -math.inf)
        self.spent = float(checkpoint.summary.get("seconds") or 0.0)
        self._flat = int(checkpoint.summary.get("flat_evaluations") or 0)

    def initialise(self, weights: Mapping[str, Tensor], origin: str) -> None:
        """Begin with these weights (`train.models.weights.initialise`); the teacher begins as the student."""
        method = self.learner.method
        initialise(method.student, weights, origin)
        if method.teacher is not None:
            method.teacher.load_state_dict(method.student.state_dict())

    def train(self, report: Callable[[Progress], None]) -> Outcome:
        """Train to the end, or until SIGTERM or SIGINT, which save and stop.

        With peers, all stop when one is told to. Raises TrainingError on a loss that is no number
        and on a collapse.
        """
        handlers = {s: signal.signal(s, self._on_signal) for s in (signal.SIGTERM, signal.SIGINT)}
        try:
            if not self.peers.first:
                return self._train(None, report)
            with Journal(self.out, resume_epoch=self.epoch if self.step else -1) as journal:
                return self._train(journal, report)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _train(self, journal: Journal | None, report: Callable[[Progress], None]) -> Outcome:
        metrics: dict[str, float] = {}
        if not self.step:
            metrics = self._watch()
            if journal is not None:
                journal.write({"epoch": 0, "step": 0, **metrics})
        per_epoch = self.length.steps_per_epoch
        began = time.monotonic()
        while self.epoch < self.config.epochs:
            order = epoch_order(len(self.split.train), self.config.seed, self.epoch)
            started, first = time.monotonic(), self.step
            if self.step == self.epoch * per_epoch:
                self.learner.begin_epoch(self.feed.once)
            while self.step < (self.epoch + 1) * per_epoch:
                values = self.learner.step(self.step, *self.feed.step(order, self.step % per_epoch))
                for name, value in values.items():
                    self.sums[name] = self.sums.get(name, torch.zeros_like(value)) + value
                self.step += 1
                if self.device.type == "cpu":  # elsewhere reading a number waits for the device
                    loss, rate = float(values["loss"]), self._rate(first, started)
                    self._require_finite(loss)
                    report(Progress(self.step, self.length.total, self.epoch, loss, rate, metrics))
                stopped_by = self.peers.any(self.stop_signal or 0)
                if stopped_by:
                    self.spent += time.monotonic() - began
                    return Outcome(self._save(), metrics, stopped_by)
            row = {name: float(value) / per_epoch for name, value in self.sums.items()}
            self._require_finite(row["loss"])
            self.sums = {}
            self.epoch += 1
            rate = self._rate(first, started)
            row |= {"images_per_second": rate, "learning_rate": self._last_rate()}
            row["teacher_momentum"] = cosine_momentum(
                *self.config.teacher_momentum, self.step - 1, max(self.length.total - 1, 1)
            )
            last = self.epoch == self.config.epochs
            evaluated = last or self.epoch % self.config.evaluation.every == 0
            if evaluated:
                metrics = self._watch()
                row |= metrics
                self._judge(metrics)
            self.spent += time.monotonic() - began
            began = time.monotonic()
            if journal is not None:
                journal.write({"epoch": self.epoch, "step": self.step, **row, "seconds": self.spent})
            report(Progress(self.step, self.length.total, self.epoch, row["loss"], rate, metrics))
            if evaluated and self._is_best(metrics) and self.peers.first:
                save_checkpoint(self.out / "best.pt", self._checkpoint())
            if last or time.monotonic() - self._saved_at > SAVE_SECONDS:
                self._save()
        checkpoint = self._save()
        if self.peers.first:
            save_weights(self.out / WEIGHTS_NAME, checkpoint)
        return Outcome(checkpoint, metrics, None)

    def _watch(self) -> dict[str, float]:
        """Watch in the first process and tell the others, so that all judge alike."""
        metrics: dict[str, float] = self.peers.tell(self._measure() if self.peers.first else {})
        return metrics

    def _measure(self) -> dict[str, float]:
        learner = self.learner
        generator = generator_for(self.device, self.config.seed, "watch")
        # In full precision, as the exported model will compute, and without translating it for
        # other batch sizes.
        with torch.compiler.set_stance("force_eager" if self.config.compile else "default"):
            return watch(
                learner.method.student, learner.method.teacher, learner.classifier, self.evaluation,
                learner.views, self.config.evaluation, self.device, generator, learner.method.positive_variance,
            )  # fmt: skip

    def _judge(self, metrics: dict[str, float]) -> None:
        """Stop a run whose code is the same for every image, two evaluations in a row."""
        reason = collapse_reason(metrics)
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

    def _is_best(self, metrics: dict[str, float]) -> bool:
        value = metrics.get("knn_top1", metrics["view_recall"])
        if value > self.best:
            self.best = value
            return True
        return False

    def _rate(self, first: int, started: float) -> float:
        return (self.step - first) * self.length.images_per_step / max(time.monotonic() - started, 1e-9)

    def _last_rate(self) -> float:
        length = self.length
        return learning_rate(
            self.config.optimiser, length.images_per_step, self.step - 1, length.steps_per_epoch, length.total
        )

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.stop_signal = number

    def _checkpoint(self) -> Checkpoint:
        learner = self.learner
        method = learner.method
        classifier: dict[str, Any] = {}
        if learner.classifier is not None and learner.classifier_optimiser is not None:
            classifier = {
                "weights": learner.classifier.state_dict(),
                "optimiser": learner.classifier_optimiser.state_dict(),
                "classes": list(self.split.names),
            }
        return Checkpoint(
            config=self.config,
            preprocess=self.preprocess,
            student=_state(method.student),
            teacher=None if method.teacher is None else _state(method.teacher),
            heads=_state(method.heads),
            step=self.step,
            epoch=self.epoch,
            optimiser=learner.optimiser.state_dict(),
            classifier=classifier,
            sums=dict(self.sums),
            summary={
                **self.summary,
                "epochs": self.epoch,
                "steps": self.step,
                "images_seen": self.step * self.length.images_per_step,
                "seconds": round(self.spent, 3),
                "best": self.best if math.isfinite(self.best) else None,
                "flat_evaluations": self._flat,
            },
        )

    def _save(self) -> Checkpoint:
        checkpoint = self._checkpoint()
        self._saved_at = time.monotonic()
        if not self.peers.first:
            return checkpoint
        save_checkpoint(self.out / CHECKPOINT_NAME, checkpoint)
        return replace(load_checkpoint(self.out), summary=checkpoint.summary)


def _state(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in module.state_dict().items()}
