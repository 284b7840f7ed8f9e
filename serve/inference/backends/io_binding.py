"""uint8 images (N, S, S, 3) -> a session's outputs, through buffers that stay on its device.

Without a binding onnxruntime allocates input and outputs on the device for every run. Here each batch
size has buffers of its own, as many as there are callers at once, used again and again.
Shape letters: N images, S side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
import onnxruntime as ort

from vssl.embeddings.gaussian import Floats
from vssl.images.preprocess import Pixels


@dataclass(frozen=True, eq=False)
class _Buffers:
    binding: Any
    images: ort.OrtValue
    outputs: list[ort.OrtValue]


class BoundRuns:
    """Runs of one session; every method may be called from any thread."""

    def __init__(
        self, session: ort.InferenceSession, shapes: Mapping[str, tuple[int, ...]], device: str
    ) -> None:
        """Bind nothing yet.

        shapes: of each output per image, in the order of the answers; device: cuda or cpu.
        """
        self._session, self._shapes, self._device = session, dict(shapes), device
        self._idle: dict[int, SimpleQueue[_Buffers]] = {}

    def run(self, images: Pixels) -> Sequence[Floats]:
        """Return the outputs, copied to arrays of their own."""
        images = np.ascontiguousarray(images)
        idle = self._idle.setdefault(len(images), SimpleQueue())
        try:
            buffers = idle.get_nowait()
        except Empty:
            buffers = self._bind(images)
        try:
            buffers.images.update_inplace(images)
            self._session.run_with_iobinding(buffers.binding)
            return [np.array(value.numpy()) for value in buffers.outputs]
        finally:
            idle.put(buffers)

    def _bind(self, images: Pixels) -> _Buffers:
        binding = self._session.io_binding()
        source = ort.OrtValue.ortvalue_from_shape_and_type(images.shape, np.uint8, self._device, 0)
        binding.bind_ortvalue_input("images", source)
        outputs = []
        for name, shape in self._shapes.items():
            value = ort.OrtValue.ortvalue_from_shape_and_type(
                (len(images), *shape), np.float32, self._device, 0
            )
            binding.bind_ortvalue_output(name, value)
            outputs.append(value)
        return _Buffers(binding, source, outputs)
