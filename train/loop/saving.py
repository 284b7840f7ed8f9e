"""A run's states <-> checkpoint.pt and best.pt, written so seldom that saving takes a small share of the time.

A state that is the best so far is kept in memory and written with the next checkpoint, before it, so that
the checkpoint never names a best state that the disk does not hold.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict

import torch

from train.loop.step import Learner
from train.state.checkpoint import CHECKPOINT_NAME, Checkpoint, State, load_checkpoint, save_checkpoint

BEST_NAME = "best.pt"


class Saver:
    """Writes checkpoints into a run's folder, at most a share of the time being spent on it.

    seconds: least time between two checkpoints; share: of the time, at most, that goes to writing them, as
    measured on the last one; clock: seconds since some moment.
    """

    def __init__(
        self, out: Path, seconds: float, share: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.out, self.share, self.clock = out, share, clock
        self.seconds = self.interval = seconds
        self._saved_at = clock()
        self._best: Checkpoint | None = None

    def keep_best(self, checkpoint: Checkpoint) -> None:
        """Keep a copy of the best state so far; the next save writes it."""
        self._best = copy.deepcopy(checkpoint)

    def save_if_due(self, checkpoint: Callable[[], Checkpoint]) -> None:
        """Save the state that the function returns if the last save is long enough ago."""
        if self.clock() - self._saved_at >= self.interval:
            self.save(checkpoint())

    def save(self, checkpoint: Checkpoint) -> None:
        """Write the best state, if a new one is kept, and this one; learn from it when the next is due."""
        began = self.clock()
        if self._best is not None:
            save_checkpoint(self.out / BEST_NAME, self._best)
            self._best = None
        save_checkpoint(self.out / CHECKPOINT_NAME, checkpoint)
        self._saved_at = self.clock()
        self.interval = max(self.seconds, (self._saved_at - began) / self.share)

    def end_with_best(self, checkpoint: Checkpoint) -> Checkpoint:
        """Put the best encoders and heads of the run in the place of its last, and return it as the disk holds it.

        The online classifier stays the last one: it reads features, which a frozen backbone does not change.
        """
        best = load_checkpoint(self.out / BEST_NAME)
        summary = {**checkpoint.summary, "kept_epoch": best.epoch}
        kept = replace(
            checkpoint, student=best.student, teacher=best.teacher, heads=best.heads, summary=summary
        )
        self.save(kept)
        return load_checkpoint(self.out)


class LearnerState(TypedDict):
    """The fields of a Checkpoint that a learner fills."""

    student: State
    teacher: State | None
    heads: State
    optimiser: dict[str, Any]
    classifier: dict[str, Any]


def learner_state(learner: Learner, classes: Sequence[str]) -> LearnerState:
    """Return the state of a learner's modules and optimisers; classes: names that the classifier's rows stand for."""
    method = learner.method
    classifier: dict[str, Any] = {}
    if learner.classifier is not None and learner.classifier_optimiser is not None:
        classifier = {
            "weights": learner.classifier.state_dict(),
            "optimiser": learner.classifier_optimiser.state_dict(),
            "classes": list(classes),
        }
    return {
        "student": _state(method.student),
        "teacher": None if method.teacher is None else _state(method.teacher),
        "heads": _state(method.heads),
        "optimiser": learner.optimiser.state_dict(),
        "classifier": classifier,
    }


def restore_learner(learner: Learner, checkpoint: Checkpoint) -> None:
    """Put a learner of the same config into the state of a checkpoint."""
    method = learner.method
    method.student.load_state_dict(checkpoint.student)
    if method.teacher is not None and checkpoint.teacher is not None:
        method.teacher.load_state_dict(checkpoint.teacher)
    method.heads.load_state_dict(checkpoint.heads)
    learner.optimiser.load_state_dict(checkpoint.optimiser)
    if learner.classifier is not None and learner.classifier_optimiser is not None:
        learner.classifier.load_state_dict(checkpoint.classifier["weights"])
        learner.classifier_optimiser.load_state_dict(checkpoint.classifier["optimiser"])


def _state(module: torch.nn.Module) -> State:
    return {name: value.detach() for name, value in module.state_dict().items()}
