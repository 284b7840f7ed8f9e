"""Model bytes -> a graph compiled by OpenVINO for this CPU, in the precision asked for or not at all.

OpenVINO lowers the precision by itself where it thinks that pays, and raises it again where the CPU
cannot; here the precision is named, read back from what was compiled, and compared.
Shape letters: N images, S side, D embedding dimension, F feature dimension.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Hashable, Iterator, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

from serve.inference.backends.onnxruntime import Tensor, file_stamp, into_buckets
from serve.inference.backends.session import EXPORT_AGAIN
from serve.inference.cores import available_cores
from vssl.embeddings.gaussian import Floats
from vssl.errors import FormatError, InputError, MissingExtraError
from vssl.images.preprocess import Pixels
from vssl.model.batch_sizes import batch_sizes

PRECISIONS = {"fp32": "f32", "bf16": "bf16"}
"""What may be asked for, and OpenVINO's word for it."""

_KINDS = {"u8": "tensor(uint8)", "f32": "tensor(float)"}


class OpenVinoGraph:
    """A graph in this process's OpenVINO."""

    engine = "openvino"
    lanes = 1  # one run uses all the cores it may
    remote = False

    def __init__(
        self, path: Path, compiled: Any, side: int, threads: int, precision: str, outputs: Collection[str]
    ) -> None:
        """outputs: names of what is answered, in order."""
        self.providers = [f"OpenVINO CPU {precision}"]
        self.precision: str | None = precision
        self.buckets = batch_sizes(side, gpu=False)
        self.threads = threads
        self._path = path
        self._outputs = [compiled.output(name) for name in outputs]
        # A request is for one caller at a time: as many as there are streams to run them.
        self._idle: SimpleQueue[Any] = SimpleQueue()
        for _ in range(compiled.get_property("NUM_STREAMS")):
            self._idle.put(compiled.create_infer_request())

    def cut(self, total: int) -> Iterator[tuple[int, int, int]]:
        """Cut into buckets, all full."""
        return into_buckets(total, self.buckets, pad=False)

    def run(self, images: Pixels, *, more_waiting: bool = False) -> Sequence[Floats]:
        """Return the outputs of one batch, in the order of the card."""
        request = self._idle.get()
        try:
            found = request.infer({"images": np.ascontiguousarray(images)}, share_inputs=True)
            return [found[output] for output in self._outputs]
        finally:
            self._idle.put(request)

    def stamp(self) -> Hashable | None:
        """Return the file's identity on the disk, None while it is not there."""
        return file_stamp(self._path)

    def close(self) -> None:
        """Nothing is held open."""


def compile_model(
    data: bytes, path: Path, threads: int, precision: str
) -> tuple[Any, list[Tensor], list[Tensor]]:
    """Compile a graph; return it with its inputs and outputs.

    threads: cores that one run uses; the other cores run other batches at the same time.
    Raises MissingExtraError without openvino, InputError for a precision that is unknown, or that
    this CPU does not compute in, FormatError for what is no model.
    """
    core = _shared_core()
    check_precision(precision, core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    streams = max(1, available_cores() // threads)
    options = {
        "INFERENCE_PRECISION_HINT": PRECISIONS[precision],
        "NUM_STREAMS": streams,
        "INFERENCE_NUM_THREADS": streams * threads,
        "ENABLE_CPU_PINNING": False,  # decoding needs the cores
    }
    try:
        model = core.read_model(data)
        compiled = core.compile_model(model, "CPU", options)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise FormatError(
            f"{path} is not an ONNX model that OpenVINO loads ({reason}); {EXPORT_AGAIN}"
        ) from error
    found = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    if found != PRECISIONS[precision]:
        raise InputError(
            f"asked OpenVINO for {precision}, but it compiled the model for {found}; use --engine onnxruntime"
        )
    return compiled, [_tensor(port) for port in model.inputs], [_tensor(port) for port in model.outputs]


@functools.cache
def _shared_core() -> Any:
    """Return this process's OpenVINO, which is never let go.

    Its CPU plugin gives the thread that loads it another stack for signals, and unmaps that stack
    with the last object of its own: the next signal that Python handles would then kill the process.
    """
    try:
        import openvino
    except ModuleNotFoundError as error:
        raise MissingExtraError("openvino", "openvino") from error
    return openvino.Core()


def check_precision(precision: str, capabilities: Sequence[str]) -> None:
    """Raise InputError unless this is a precision that a CPU of these capabilities computes in."""
    if precision not in PRECISIONS:
        raise InputError(f"precision: found {precision!r}, expected one of {', '.join(PRECISIONS)}")
    if precision.upper() not in capabilities:
        raise InputError(
            f"precision {precision}: this CPU computes in {', '.join(sorted(capabilities))} only; "
            "use --precision fp32"
        )


def _tensor(port: Any) -> Tensor:
    kind = port.get_element_type().to_string()
    shape = tuple(d.get_length() if d.is_static else "N" for d in port.get_partial_shape())
    return Tensor(port.get_any_name(), _KINDS.get(kind, kind), shape)
