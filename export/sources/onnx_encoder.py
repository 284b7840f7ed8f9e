"""Another tool's ONNX image encoder -> an encoder to export.

It takes float pictures (N, 3, S, S), normalised, and gives one vector a picture, as DINOv2 or CLIP's image
tower does. What it expects of a picture is given, or read from a `preprocessor_config.json` next to it.
Shape letters: N images, S side, F feature dimension.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, compose, helper, numpy_helper, version_converter
from torch import Tensor

from export.sources.encoder_graph import OPSET, cpu_session, rename_value
from export.sources.encoder_source import EncoderSource
from train.models.encoder import EncoderOutput
from train.models.published_weights import WeightsInfo
from train.settings.config import AugmentConfig
from vssl.errors import FormatError, InputError
from vssl.images.preprocess import Preprocess
from vssl.model.identity import sha256_file

CONFIG = "preprocessor_config.json"
RESAMPLING = {1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box"}
"""Pillow's numbers of its filters, as the configuration writes them."""
GIVE = "give --size, --mean and --std, or put a preprocessor_config.json next to the file"


class FloatEncoder:
    """The file as it came, run on pictures that are normalised here: what the written file must agree with."""

    def __init__(self, path: Path, info: WeightsInfo, output: str) -> None:
        self._session = cpu_session(str(path))
        self._input, self._output = self._session.get_inputs()[0].name, output
        self._mean, self._std = (np.array(x, np.float64) for x in (info.pixel_mean, info.pixel_std))

    def __call__(self, images: Tensor) -> EncoderOutput:
        """(B, S, S, 3) in 0..255 -> EncoderOutput whose mean is the features."""
        pixels = (images.double().numpy() / 255.0 - self._mean) / self._std
        given = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), np.float32)
        (found,) = self._session.run([self._output], {self._input: given})
        features = torch.from_numpy(found.reshape(len(images), -1))
        return EncoderOutput(features, features, None)


def onnx_encoder(
    path: Path, *, info: WeightsInfo | None = None, output: str | None = None, name: str | None = None
) -> EncoderSource:
    """Read an ONNX image encoder.

    info: what it expects of a picture, None to read the configuration next to it; output: the vector to
    take, None for the only one. Raises InputError or FormatError for a file that is no such encoder.
    """
    if not path.is_file():
        raise InputError(f"no encoder at {str(path)!r}: found no such file")
    info = info or read_config(path)
    try:
        proto = onnx.load(str(path))
    except Exception as error:  # protobuf's own errors differ by its version
        raise FormatError(f"{path} is not a readable ONNX file ({error})") from error
    proto = _at_opset(proto, path)
    given = _picture_input(proto, path, info.preprocess.size)
    taken = output or _vector_output(proto, path)
    if taken not in [value.name for value in proto.graph.output]:
        raise InputError(f"{path} has no output {taken!r}; found {_names(proto)}")
    return EncoderSource(
        encode=FloatEncoder(path, info, taken),
        make_graph=partial(_with_pixels, proto, given, taken, info),
        name=name or path.stem,
        method="published",
        preprocess=info.preprocess,
        pixel_mean=info.pixel_mean,
        pixel_std=info.pixel_std,
        augment=AugmentConfig(),
        cache_size=info.preprocess.size,
        weights=f"{path.name} (sha256 {sha256_file(path)[:12]})",
        supervision=info.supervision,
        licence=info.licence,
    )


def read_config(path: Path) -> WeightsInfo:
    """Read the configuration next to an encoder.

    Raises InputError where there is none, FormatError where it is unclear.
    """
    place = path.with_name(CONFIG)
    try:
        values = json.loads(place.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: what it expects of a picture is not known; {GIVE}") from error
    except ValueError as error:
        raise FormatError(f"{place} is not JSON ({error}); {GIVE}") from error
    try:
        return _weights_info(values)
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{place}: {type(error).__name__}: {error}; {GIVE}") from error


def _weights_info(values: dict[str, Any]) -> WeightsInfo:
    """Return what a configuration says; raises ValueError for what cannot be expressed as WeightsInfo."""
    crops = bool(values.get("do_center_crop", False))
    height, width = _sides(values["crop_size"] if crops else values["size"])
    if height != width:
        raise ValueError(f"found a picture of {height} x {width}, expected a square")
    resize = values["size"]
    shortest = resize.get("shortest_edge") if isinstance(resize, dict) else resize
    stretched = not crops and shortest is None
    filter_ = RESAMPLING.get(values.get("resample", 3))
    if filter_ is None:
        raise ValueError(f"found resample {values['resample']}, expected one of {sorted(RESAMPLING)}")
    factor = 255.0 * float(values.get("rescale_factor", 1 / 255)) if values.get("do_rescale", True) else 255.0
    normal = bool(values.get("do_normalize", True))
    mean = values["image_mean"] if normal else [0.0] * 3
    std = values["image_std"] if normal else [1.0] * 3
    first = shortest or (max(_sides(resize)) if crops else height)
    preprocess = Preprocess(
        size=height, resize=max(first, height), fit="stretch" if stretched else "crop", interpolation=filter_
    )
    red, green, blue = (float(m) / factor for m in mean)
    scale = [float(s) / factor for s in std]
    return WeightsInfo(preprocess, (red, green, blue), (scale[0], scale[1], scale[2]))


def _sides(found: Any) -> tuple[int, int]:
    if isinstance(found, dict):
        if "shortest_edge" in found:
            return int(found["shortest_edge"]), int(found["shortest_edge"])
        return int(found["height"]), int(found["width"])
    return int(found), int(found)


def _at_opset(proto: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """Return the model in this project's opset, or in its own where that is newer."""
    found = max((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    if found >= OPSET:
        return proto
    try:
        return version_converter.convert_version(proto, OPSET)
    except Exception as error:  # the converter raises what its C++ half throws
        raise FormatError(
            f"{path}: found opset {found}, which cannot be raised to {OPSET} ({error}); export it with that opset"
        ) from error


def _picture_input(proto: onnx.ModelProto, path: Path, size: int) -> str:
    """Return the name of the one input; raises FormatError unless it takes (N, 3, S, S) float32."""
    weights = {value.name for value in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in weights]
    expected = f"expected one input of float32 (N, 3, {size}, {size})"
    if len(inputs) != 1:
        raise FormatError(f"{path}: found the inputs {[value.name for value in inputs]}, {expected}")
    tensor = inputs[0].type.tensor_type
    shape = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
    fits = len(shape) == 4 and all(a in (None, b) for a, b in zip(shape[1:], (3, size, size), strict=True))
    if tensor.elem_type != TensorProto.FLOAT or not fits:
        kind = TensorProto.DataType.Name(tensor.elem_type).lower()
        raise FormatError(f"{path}: found the input {inputs[0].name} of {kind} {shape}, {expected}")
    if shape[0] is not None:
        raise FormatError(f"{path}: takes batches of {shape[0]} only; export it with a dynamic batch")
    return str(inputs[0].name)


def _vector_output(proto: onnx.ModelProto, path: Path) -> str:
    """Return the name of the only output of shape (N, F); raises InputError where that is not one."""
    vectors = [value.name for value in proto.graph.output if len(value.type.tensor_type.shape.dim) == 2]
    if len(vectors) != 1:
        raise InputError(
            f"{path}: found the outputs {_names(proto)}, expected one of shape (N, F); name it: --output NAME"
        )
    return str(vectors[0])


def _names(proto: onnx.ModelProto) -> str:
    return ", ".join(
        f"{value.name} of {len(value.type.tensor_type.shape.dim)} dimensions" for value in proto.graph.output
    )


def _with_pixels(proto: onnx.ModelProto, given: str, taken: str, info: WeightsInfo) -> onnx.ModelProto:
    """Put cast, normalisation and transposition in front, and keep one output, `features`."""
    inner = compose.add_prefix(proto, "other_")
    graph, size = inner.graph, info.preprocess.size
    mean, std = (np.array(x, np.float64) for x in (info.pixel_mean, info.pixel_std))
    constants = {
        "pixel_scale": (1.0 / (255.0 * std)).astype(np.float32),
        "pixel_offset": (-mean / std).astype(np.float32),
    }
    front = [
        helper.make_node("Cast", ["images"], ["pixels"], name="pixels_cast", to=TensorProto.FLOAT),
        helper.make_node("Mul", ["pixels", "pixel_scale"], ["pixels_scaled"], name="pixels_mul"),
        helper.make_node("Add", ["pixels_scaled", "pixel_offset"], ["pixels_normal"], name="pixels_add"),
        helper.make_node("Transpose", ["pixels_normal"], [f"other_{given}"], name="pixels_nchw", perm=[0, 3, 1, 2]),
    ]  # fmt: skip
    nodes = list(graph.node)
    rename_value(graph, f"other_{taken}", "features")
    kept = [value for value in graph.output if value.name == "features"]
    weights = {value.name for value in graph.initializer}
    inputs = [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", size, size, 3])]
    inputs += [value for value in graph.input if value.name in weights]
    for value in kept:
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    made = helper.make_graph(
        [*front, *nodes], "encoder", inputs, kept, [*graph.initializer, *tensors], value_info=graph.value_info
    )
    model = helper.make_model(made, opset_imports=inner.opset_import, producer_name="vssl")
    model.ir_version = inner.ir_version
    return model
