"""Checkpoints take at most their share of the time, and never name a best state that the disk does not hold."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

import train.loop.saving
from train.loop.saving import BEST_NAME, Saver
from train.settings.config import TrainConfig
from train.state.checkpoint import CHECKPOINT_NAME, Checkpoint, load_checkpoint
from vssl.images.preprocess import Preprocess

STATE = Checkpoint(
    TrainConfig(), Preprocess(size=32, resize=32), {"weight": torch.zeros(3)}, None, {}, step=1, epoch=1
)


class Clock:
    """Seconds that pass when the test says so; writing takes as long as `cost` says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cost: float) -> None:
        self.now, self.cost, write = 0.0, cost, train.loop.saving.save_checkpoint

        def slow(path: Path, checkpoint: Checkpoint) -> None:
            write(path, checkpoint)
            self.now += self.cost

        monkeypatch.setattr("train.loop.saving.save_checkpoint", slow)

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("cost", "share"), [(0.5, 0.01), (0.02, 0.01), (3.0, 0.05)])
def test_writing_takes_at_most_its_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cost: float, share: float
) -> None:
    clock = Clock(monkeypatch, cost)
    saver, written = Saver(tmp_path, 10.0, share, clock), []
    for step in range(4000):
        clock.now += 1.0
        saver.save_if_due(lambda step=step: written.append(clock.now) or replace(STATE, step=step))
    assert len(written) > 3
    assert written[0] == 10.0
    assert cost * len(written) <= 1.1 * share * clock.now + cost
    assert min(b - a for a, b in pairwise(written[1:])) >= max(10.0, cost / share)


def test_the_best_state_is_a_copy_and_written_with_the_next_checkpoint(tmp_path: Path) -> None:
    saver, weight = Saver(tmp_path, 1e9, 0.01), torch.zeros(3)
    saver.keep_best(replace(STATE, student={"weight": weight}))
    assert not (tmp_path / BEST_NAME).exists()
    weight += 1.0  # training goes on
    saver.save_if_due(lambda: pytest.fail("not due yet"))
    saver.save(replace(STATE, step=2, student={"weight": weight}))
    assert load_checkpoint(tmp_path / BEST_NAME).student["weight"].tolist() == [0, 0, 0]
    assert load_checkpoint(tmp_path / CHECKPOINT_NAME).student["weight"].tolist() == [1, 1, 1]
    (tmp_path / BEST_NAME).unlink()
    saver.save(STATE)
    assert not (tmp_path / BEST_NAME).exists()  # once is enough
