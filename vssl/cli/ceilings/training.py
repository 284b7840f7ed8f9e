"""A recipe -> images a second of its training step, and of its networks alone.

The ceiling is forward and backward of the method over two views that lie ready; what the step adds are
the views themselves, the optimiser and the teacher's update. Shape letters: B batch, S side.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from train.loop.malloc import keep_freed_memory
from train.loop.step import Learner, Length
from train.settings.config import TrainConfig
from train.state.randomness import generator_for


@dataclass(frozen=True)
class StepRate:
    """Images per second of the whole step and of the networks alone."""

    step: float
    networks: float


def measure(config: TrainConfig, device: torch.device, seconds: float = 3.0) -> StepRate:
    """Measure both in turn on random pictures, about `seconds` each after a step that warms up."""
    if device.type == "cpu":
        keep_freed_memory()
    batch, side = config.batch_size, config.cache_size
    learner = Learner(config, Length(1000, 10**6, batch), 0, device)
    drawn = torch.Generator().manual_seed(0)
    stored = torch.randint(0, 256, (batch, side, side, 3), dtype=torch.uint8, generator=drawn).to(device)
    noise = generator_for(device, config.seed, "bench", 0)
    with torch.no_grad():
        first, second = (view(stored, noise) for view in learner.views)
    rows = torch.arange(batch)
    learner.begin_epoch(lambda: [(rows, stored)])
    number = iter(range(10**9))

    def networks() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=learner.half):
            learner.method(first, second, noise, rows).loss.backward()
        learner.optimiser.zero_grad(set_to_none=True)

    def step() -> None:
        learner.step(next(number), [stored], None, [rows])

    return StepRate(_rate(step, batch, seconds, device), _rate(networks, batch, seconds, device))


def _rate(work: Callable[[], None], images: int, seconds: float, device: torch.device) -> float:
    for _ in range(2):
        work()
    _wait(device)
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        work()
        _wait(device)
        done += images
    return done / (time.perf_counter() - started)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
