"""model.onnx compared with the encoder itself: the same numbers, at every batch size, or the file is not written.

Shape letters: N images, S side, D embedding dimension.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray

from export.served_encoder import ServedEncoder
from export.sources.encoder_graph import cpu_session
from vssl.errors import FormatError

BATCHES = (1, 2, 7, 32)
TOLERANCE = 1e-4
"""Largest difference from torch, relative to the output's largest magnitude, in fp32."""


@dataclass(frozen=True)
class Agreement:
    """Largest relative differences from torch over every batch size, and the images compared."""

    mean: float
    log_variance: float
    features: float
    images: int
    uncertainty: float | None = None


def run_model(data: bytes, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    """Run an ONNX model on the CPU; returns its outputs by name."""
    return _run(cpu_session(data), images)


def _run(session: ort.InferenceSession, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    names = [output.name for output in session.get_outputs()]
    try:
        return dict(zip(names, session.run(names, {"images": images}), strict=True))
    except Exception as error:
        raise FormatError(f"the exported model cannot run a batch of {len(images)}: {error}") from error


def verify(data: bytes, model: ServedEncoder, images: NDArray[np.uint8]) -> Agreement:
    """Compare an ONNX model with torch on images (N, S, S, 3) and on noise, at several batch sizes.

    Raises FormatError naming the output, the batch size and the difference found.
    """
    random = np.random.default_rng(7)
    noise = random.integers(0, 256, (max(BATCHES), *images.shape[1:]), dtype=np.uint8)
    pictures = np.concatenate([images, noise])
    with torch.inference_mode():
        answers = model(torch.from_numpy(pictures))._asdict()
    expected = {name: value.float().numpy() for name, value in answers.items() if value is not None}
    worst = dict.fromkeys(expected, 0.0)
    session = cpu_session(data)
    for batch in (*BATCHES, len(pictures)):
        found = _run(session, pictures[-batch:])
        for name in worst:
            difference = relative_difference(name, found[name], expected[name][-batch:])
            if not difference <= TOLERANCE:
                raise FormatError(
                    f"the exported model disagrees with torch: {name} differs by {difference:.2g} of its largest "
                    f"magnitude at batch {batch}, expected at most {TOLERANCE:g}; nothing was written"
                )
            worst[name] = max(worst[name], difference)
    same_order(found["mean"], expected["mean"])
    return Agreement(
        worst["mean"], worst["variance"], worst["features"], len(pictures), worst.get("uncertainty")
    )


def relative_difference(name: str, found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Return the largest difference over the largest magnitude; variances compare as logarithms."""
    if found.shape != expected.shape:
        raise FormatError(f"the exported model's {name} has shape {found.shape}, expected {expected.shape}")
    if name == "variance":
        if not (found > 0).all():
            raise FormatError(
                f"the exported model gave a variance of {found.min()}; expected positive numbers"
            )
        found, expected = np.log(found), np.log(expected)
    scale = max(float(np.abs(expected).max()), 1e-6)
    return float(np.abs(found - expected).max()) / scale


def same_order(found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    """Raise FormatError unless every picture has the same nearest neighbour (ties within 1e-4 aside)."""
    orders = []
    for means in (found, expected):
        unit = means / np.linalg.norm(means, axis=1, keepdims=True)
        similarity = unit @ unit.T
        np.fill_diagonal(similarity, -np.inf)
        orders.append(similarity)
    first = orders[0].argmax(axis=1)
    rows = np.arange(len(first))
    loss = orders[1].max(axis=1) - orders[1][rows, first]
    if not (loss <= 1e-4).all():
        row = int(loss.argmax())
        raise FormatError(
            f"the exported model changes neighbours: picture {row}'s nearest is {int(first[row])}, "
            f"{float(loss[row]):.2g} of cosine further than torch's; nothing was written"
        )
