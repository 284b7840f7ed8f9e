"""Every method on a device and on the CPU -> how far losses and gradients are apart after a few steps.

The same weights, views and noise on both, a tiny network, fp32 without TF32. Shape letters: B batch, S side of
a view, D embedding dimension.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.train import pictures
from train.augment.views import Views
from train.methods import METHODS, new_method
from train.methods.method import Method
from train.settings.config import NetworkConfig, TrainConfig
from train.state.arithmetic import use_full_precision

BATCH, SIDE, STEPS = 64, 16, 3
LOSS_APART, GRADIENT_APART = 1e-3, 1e-2
"""Differences up to which two devices agree: rounding grows over three steps."""

SMALL: dict[str, dict[str, Any]] = {
    "deepcluster-v2": {"prototypes": 8},
    "dino": {"prototypes": 32, "frozen_steps": 0},
    "moco-v2plus": {"queue": 128},
    "nnclr": {"queue": 128},
    "ressl": {"queue": 128},
    "swav": {"prototypes": 16, "queue": 128, "queue_from": 1, "frozen_steps": 0},
}
"""Options with which a queue, prototypes and their gradients all take part in three steps."""


class Batch(NamedTuple):
    """first, second: views (B, S, S, 3); noise: (2, B, D); rows: (B,) places among the images."""

    first: Tensor
    second: Tensor
    noise: Tensor
    rows: Tensor

    def to(self, device: torch.device) -> Batch:
        """Return a copy on a device."""
        return Batch(*(value.to(device) for value in self))


def tiny(name: str) -> Method:
    """Build a method with a network that costs nothing, the same one at each call."""
    network = NetworkConfig("resnet8", 8, "medium", 16, 32, 32, 32)
    torch.manual_seed(0)
    return new_method(TrainConfig(method=name, size=SIDE, network=network, options=SMALL.get(name, {})))


def batches(method: Method) -> list[Batch]:
    """Draw the views and the noise of every step, on the CPU."""
    drawn = torch.Generator().manual_seed(1)
    images = torch.from_numpy(pictures(BATCH, SIDE))
    views = (Views(method.config.augment, SIDE), Views(method.config.augment_second, SIDE))
    return [
        Batch(
            *(view(images, drawn) for view in views),
            torch.randn((2, BATCH, method.noise_dim), generator=drawn),
            torch.arange(BATCH),
        )
        for _ in range(STEPS)
    ]


def begin(method: Method, batch: Batch) -> None:
    """Let a method prepare for its epoch, as a run does."""
    method.begin_epoch(lambda: [(batch.rows, batch.first)])


def trained(method: Method) -> list[torch.nn.Parameter]:
    """Return the parameters that learn."""
    return [weight for weight in method.parameters() if weight.requires_grad]


def gradients(method: Method, batch: Batch) -> tuple[float, Tensor]:
    """Return the loss and all gradients as one vector, in double precision on the CPU."""
    method.zero_grad(set_to_none=True)
    loss = method.loss(*batch).loss
    loss.backward()  # type: ignore[no-untyped-call]
    slopes = [w.grad if w.grad is not None else torch.zeros_like(w) for w in trained(method)]
    return float(loss.detach()), torch.cat([slope.detach().double().cpu().flatten() for slope in slopes])


def loss_apart(other: float, loss: float) -> float:
    """Return the difference of two losses, relative to the second where that is above 1: cosines pass zero."""
    return abs(other - loss) / max(abs(loss), 1.0)


def compare(reference: Method, other: Method, device: torch.device) -> dict[str, Any]:
    """Make the same steps with both, the second on the device; return the largest differences."""
    steps = batches(reference)
    begin(reference, steps[0])
    begin(other, steps[0].to(device))
    optimisers = [torch.optim.SGD(trained(method), lr=0.05, momentum=0.9) for method in (reference, other)]
    losses, slopes = [], []
    for batch in steps:
        loss, slope = gradients(reference, batch)
        other_loss, other_slope = gradients(other, batch.to(device))
        losses.append(loss_apart(other_loss, loss))
        slopes.append(float((other_slope - slope).norm() / slope.norm().clamp(min=1e-12)))
        for method, optimiser in zip((reference, other), optimisers, strict=True):
            optimiser.step()
            method.update_teacher(0.9)
    return {
        "loss_apart": max(losses),
        "gradient_apart": max(slopes),
        "agrees": max(losses) < LOSS_APART and max(slopes) < GRADIENT_APART,
    }


def every_method(device: torch.device) -> dict[str, dict[str, Any]]:
    """Compare every method on the device with itself on the CPU."""
    use_full_precision()
    found = {}
    for name in METHODS:
        reference = tiny(name)
        found[name] = compare(reference, copy.deepcopy(reference).to(device), device)
        apart = found[name]
        said = "agrees" if apart["agrees"] else "DIFFERS"
        print(f"  {name:<16} {said}  loss {apart['loss_apart']:.1e}  gradient {apart['gradient_apart']:.1e}")
    return found


def half_precision(device: torch.device) -> dict[str, dict[str, float]]:
    """Compare each method's first step under bf16 autocast with fp32 on the same device."""
    use_full_precision()
    found = {}
    for name in METHODS:
        full = tiny(name).to(device)
        half = copy.deepcopy(full)
        batch = batches(full)[0].to(device)
        begin(full, batch)
        begin(half, batch)
        loss, slope = gradients(full, batch)
        half.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            output = half.loss(*batch)
        output.loss.backward()  # type: ignore[no-untyped-call]
        slopes = [w.grad if w.grad is not None else torch.zeros_like(w) for w in trained(half)]
        vector = torch.cat([s.detach().double().cpu().flatten() for s in slopes])
        found[name] = {
            "loss_apart": loss_apart(float(output.loss.detach()), loss),
            "gradient_cosine": float(functional.cosine_similarity(vector, slope, dim=0)),
        }
    return found
