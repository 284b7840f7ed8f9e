"""Model bytes -> an onnxruntime session that is what its card says, or a refusal.

onnxruntime falls back to the CPU without a word when CUDA does not load, and runs any graph it
can parse; here the session's providers, its inputs and outputs and the card must all agree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnxruntime as ort

from serve.inference.backends.onnxruntime import Tensor
from serve.inference.backends.providers import CUDA, TENSORRT
from vssl.errors import FormatError, InputError
from vssl.model.card import CARD_KEY, GOLDEN_KEY, ModelCard
from vssl.model.golden import Golden

INSTEAD = {
    CUDA: "its CUDA or cuDNN libraries did not load, or there is no GPU; install them with: "
    "pip install 'vssl[gpu]', or use --device cpu",
    TENSORRT: "TensorRT's libraries did not load, or there is no GPU; install the TensorRT that this onnxruntime "
    "was built with, where the loader finds it, or use --engine onnxruntime",
}
EXPORT_AGAIN = "export it with: vssl export RUN model.onnx"


def load_session(data: bytes, path: Path, providers: list[Any], threads: int) -> ort.InferenceSession:
    """Load a graph; FormatError when it is none, InputError when a provider asked for is not there."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # decoding needs the cores
    try:
        session = ort.InferenceSession(data, options, providers=providers)
    except Exception as error:  # onnxruntime's errors share no base class
        reason = " ".join(str(error).split())[:200]
        raise FormatError(
            f"{path} is not an ONNX model that loads here ({reason}); {EXPORT_AGAIN}"
        ) from error
    asked = [p if isinstance(p, str) else p[0] for p in providers]
    loaded = session.get_providers()
    if asked[0] not in loaded:
        raise InputError(
            f"asked for {asked[0]}, but onnxruntime loaded {', '.join(loaded)} only: {INSTEAD[asked[0]]}"
        )
    return session


def read_metadata(entries: Mapping[str, str], path: Path) -> tuple[ModelCard, Golden]:
    """Return the card and the golden pair out of a file's metadata."""
    for key, what in ((CARD_KEY, "model card"), (GOLDEN_KEY, "golden pair")):
        if key not in entries:
            raise FormatError(f"{path} carries no {what}; {EXPORT_AGAIN}")
    return ModelCard.from_json(entries[CARD_KEY]), Golden.from_json(entries[GOLDEN_KEY])


def tensors(found: Sequence[Any]) -> list[Tensor]:
    """Return a session's inputs or outputs."""
    return [Tensor(t.name, t.type, tuple(t.shape)) for t in found]


def check_shapes(inputs: Sequence[Tensor], outputs: Sequence[Tensor], card: ModelCard, path: Path) -> None:
    """Raise FormatError unless the graph's inputs and outputs are those the card promises."""
    size = card.preprocess.size
    shapes = card.output_shapes
    expected: dict[str, tuple[str, tuple[int, ...]]] = {"images": ("tensor(uint8)", (size, size, 3))}
    expected |= {name: ("tensor(float)", shape) for name, shape in shapes.items()}
    named = {t.name: t for t in (*inputs, *outputs)}
    if [t.name for t in inputs] != ["images"] or not set(shapes) <= set(named):
        raise FormatError(
            f"{path}: found inputs {[t.name for t in inputs]} and outputs {[t.name for t in outputs]}, "
            f"expected the input images and the outputs {', '.join(shapes)}; {EXPORT_AGAIN}"
        )
    for name, (kind, shape) in expected.items():
        found = named[name].shape
        known = all(not isinstance(f, int) or f == e for f, e in zip(found[1:], shape, strict=False))
        if named[name].kind != kind or len(found) != 1 + len(shape) or not known:
            raise FormatError(
                f"{path}: {name} is {named[name].kind} {found}, its card says {kind} {('N', *shape)}; "
                f"{EXPORT_AGAIN}"
            )
        if isinstance(found[0], int):
            raise FormatError(
                f"{path}: {name} takes batches of {found[0]} only, expected any batch size; {EXPORT_AGAIN}"
            )
