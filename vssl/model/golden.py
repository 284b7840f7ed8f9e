"""The golden pair: a small input and its expected outputs, inside the ONNX file.

Export writes it from torch's own outputs; export, server start and readiness run the model on
it and compare, so a change of weights, graph or runtime is found.
Shape letters: G golden images, S side, D embedding dimension, F feature dimension.
"""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vssl.embeddings.gaussian import Floats
from vssl.errors import FormatError

# Largest allowed difference, relative to the expected output's largest magnitude, by precision.
TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2, "int8": 2e-1, "bf16": 5e-2}


@dataclass(frozen=True, eq=False)
class Golden:
    """Images (G, S, S, 3) uint8 and their mean (G, D), variance (G, D), features (G, F).

    uncertainty: (G,), for a model that predicts it.
    """

    images: NDArray[np.uint8]
    mean: Floats
    variance: Floats
    features: Floats
    uncertainty: Floats | None = None

    def to_json(self) -> str:
        """Return JSON with each array as zlib-compressed base64."""
        arrays = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return json.dumps({name: _pack(array) for name, array in arrays.items() if array is not None})

    @classmethod
    def from_json(cls, text: str) -> Golden:
        """Parse `to_json`'s form. Raises FormatError for anything else."""
        try:
            values = json.loads(text)
            names = [n for n in cls.__dataclass_fields__ if n != "uncertainty" or n in values]
            return cls(**{name: _unpack(values[name]) for name in names})
        except (ValueError, TypeError, KeyError, zlib.error) as error:
            raise FormatError(f"the golden pair is not readable ({error}); export the model again") from error

    def check(
        self,
        mean: Floats,
        variance: Floats,
        features: Floats,
        precision: str,
        uncertainty: Floats | None = None,
    ) -> float:
        """Compare outputs with the expected ones; return the largest relative difference.

        The variance is compared as its logarithm, so that small variances count as much as
        large ones. Raises FormatError when a difference exceeds the precision's tolerance.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            pairs = {
                "mean": (mean, self.mean),
                "log variance": (np.log(variance), np.log(self.variance)),
                "features": (features, self.features),
            }
        if self.uncertainty is not None and uncertainty is not None:
            pairs["uncertainty"] = (uncertainty, self.uncertainty)
        worst = 0.0
        for name, (found, expected) in pairs.items():
            if found.shape != expected.shape:
                raise FormatError(f"golden pair: {name} has shape {found.shape}, expected {expected.shape}")
            scale = max(float(np.abs(expected).max()), 1e-6)
            difference = float(np.abs(found - expected).max()) / scale
            if not difference <= TOLERANCE[precision]:  # also catches NaN
                raise FormatError(
                    f"golden pair: {name} differs by {difference:.2g} of its largest magnitude, expected at most "
                    f"{TOLERANCE[precision]:g}; the file is damaged or the runtime computes it wrongly. "
                    "Export the model again: vssl export RUN model.onnx"
                )
            worst = max(worst, difference)
        return worst


def golden_images(size: int, count: int = 3) -> NDArray[np.uint8]:
    """Return (count, size, size, 3) uint8: smooth colour ramps with noise, the same every time."""
    random = np.random.default_rng(20250504)
    y, x = np.mgrid[0:size, 0:size] / size
    images = []
    for _ in range(count):
        phase, frequency = random.uniform(0, 6.28, 3), random.uniform(2, 12, 3)
        waves = 127.5 + 100 * np.sin(phase + frequency * np.stack([x, y, x + y], axis=-1))
        images.append(waves + random.normal(0, 12, waves.shape))
    pixels: NDArray[np.uint8] = np.clip(np.rint(np.stack(images)), 0, 255).astype(np.uint8)
    return pixels


def _pack(array: NDArray[Any]) -> dict[str, Any]:
    data = base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes(), 9)).decode()
    return {"dtype": str(array.dtype), "shape": list(array.shape), "data": data}


def _unpack(values: dict[str, Any]) -> NDArray[Any]:
    if values["dtype"] not in ("uint8", "float32"):
        raise ValueError(f"dtype {values['dtype']!r}")
    data = zlib.decompress(base64.b64decode(values["data"], validate=True))
    return np.frombuffer(data, dtype=values["dtype"]).reshape(values["shape"]).copy()
