"""model.onnx on this machine -> one result per check: what `vssl verify` prints.

The checks of export that need no torch, repeated where the file will run: the bytes fit their
seal, the card is readable, the graph is what the card says, the runtime gives the golden pair,
an image's answer does not depend on its batch, and the variance is positive and finite.
Shape letters: N images, S side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serve.inference.engine import Engine
from vssl.errors import FormatError, VsslError
from vssl.model.card import CARD_KEY, ModelCard
from vssl.model.golden import golden_images
from vssl.model.seal import check_seal, read_metadata, read_model

BATCHES = (1, 2, 7, 32)
INVARIANCE = {"fp32": 1e-5, "fp16": 5e-3, "int8": 5e-2, "bf16": 2e-2}
"""Largest difference between an image alone and in a batch, relative to the largest magnitude."""


@dataclass(frozen=True)
class Check:
    """One check: its name, whether it passed, and what was found."""

    name: str
    passed: bool
    found: str


def verify_file(path: Path, *, device: str = "auto", threads: int | None = None) -> list[Check]:
    """Run every check; a check that fails ends the list, since the later ones build on it."""
    data = read_model(path)
    engines: list[Engine] = []

    def load() -> str:
        engines.append(Engine.open(path, device=device, threads=threads, check=False))
        return f"{', '.join(engines[0].providers)}; model id {engines[0].model_id[:12]}"

    steps: list[tuple[str, Callable[[], str]]] = [
        ("seal", lambda: _seal(data)),
        ("card", lambda: _card(data)),
        ("graph", load),
        ("golden pair", lambda: f"largest relative difference {engines[0].check_golden():.1g}"),
        ("batch size", lambda: _invariance(engines[0])),
        ("variance", lambda: _variance(engines[0])),
    ]
    checks: list[Check] = []
    for name, step in steps:
        try:
            checks.append(Check(name, True, step()))
        except VsslError as error:
            checks.append(Check(name, False, str(error)))
            break
    return checks


def _seal(data: bytes) -> str:
    check_seal(data)
    return f"fits {len(data)} bytes"


def _card(data: bytes) -> str:
    entries = read_metadata(data)
    if CARD_KEY not in entries:
        raise FormatError("the file carries no model card; export it again: vssl export RUN model.onnx")
    card = ModelCard.from_json(entries[CARD_KEY])
    return f"{card.name}: {card.method}, {card.backbone}, {card.precision}, variance {card.calibration.kind}"


def _pictures(engine: Engine) -> NDArray[np.uint8]:
    return golden_images(engine.card.preprocess.size, max(BATCHES))


def _invariance(engine: Engine) -> str:
    images = _pictures(engine)
    alone = engine.infer(images[:1])
    worst = 0.0
    for batch in BATCHES:
        together = engine.infer(images[:batch])
        pairs = (
            (alone.gaussians.mean, together.gaussians.mean),
            (np.log(alone.gaussians.variance), np.log(together.gaussians.variance)),
            (alone.features, together.features),
        )
        for a, b in pairs:
            scale = max(float(np.abs(a).max()), 1e-6)
            worst = max(worst, float(np.abs(a[0] - b[0]).max()) / scale)
    limit = INVARIANCE[engine.card.precision]
    if worst > limit:
        raise FormatError(
            f"an image's answer moves by {worst:.2g} with its batch, expected at most {limit:g}"
        )
    return f"sizes {', '.join(map(str, BATCHES))} agree to {worst:.1g}"


def _variance(engine: Engine) -> str:
    variance = engine.infer(_pictures(engine)).gaussians.variance  # positive and finite, or it raises
    return f"positive and finite, {variance.min():.2g} to {variance.max():.2g}"
