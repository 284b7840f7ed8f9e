"""An fp32 ONNX graph -> fp16 or int8, with the heads and the variance path kept in fp32.

The backbone's convolutions and linear maps are where the time goes and where low precision does
little harm; the two-layer heads behind them cost nothing and hold the variance. In networks with
layer norms the sums, norms, activations and attention between the maps stay in fp32.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

PRECISIONS = ("fp32", "fp16", "int8")

LARGE_WEIGHT = 1024
"""Numbers in a weight that is worth a cast."""

WITH_BATCH_NORMS = ["Conv", "Add", "Relu", "MaxPool", "GlobalAveragePool", "ReduceMean"]
WITH_LAYER_NORMS = ["Conv", "MatMul", "Gemm"]
"""What becomes int8 in a backbone of either kind."""


def lower_precision(proto: onnx.ModelProto, precision: str, images: NDArray[np.uint8]) -> onnx.ModelProto:
    """Return the model in another precision.

    images: (N, S, S, 3) that calibrate int8's activation ranges; fp32 returns the model itself.
    """
    if precision == "fp32":
        return proto
    if precision == "fp16":
        return to_fp16(proto)
    if precision == "int8":
        return to_int8(proto, images)
    raise ValueError(f"precision: found {precision!r}, expected one of {PRECISIONS}")


def half_weights(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with its large weights stored in half precision and computed with in fp32: half the file.

    A runtime widens them once, when it loads the file. Weights that half precision cannot hold stay.
    """
    stored, casts = [], []
    for tensor in proto.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        is_large = tensor.data_type == onnx.TensorProto.FLOAT and values.size >= LARGE_WEIGHT
        if is_large and np.abs(values).max() <= np.finfo(np.float16).max:
            name = f"{tensor.name}_half"
            stored.append(onnx.numpy_helper.from_array(values.astype(np.float16), name))
            casts.append(
                onnx.helper.make_node("Cast", [name], [tensor.name], name, to=onnx.TensorProto.FLOAT)
            )
        else:
            stored.append(tensor)
    halved = onnx.ModelProto()
    halved.CopyFrom(proto)
    del halved.graph.initializer[:], halved.graph.node[:]
    halved.graph.initializer.extend(stored)
    halved.graph.node.extend([*casts, *proto.graph.node])
    return halved


def head_nodes(proto: onnx.ModelProto) -> list[str]:
    """Return the names of the nodes that the pooled features do not depend on: heads and picture quality.

    They stay in fp32.
    """
    needed, names = {"features"}, []
    for node in reversed(proto.graph.node):  # nodes are in topological order
        if needed & set(node.output):
            needed |= set(node.input)
        else:
            names.append(node.name)
    return names


def inner_products(proto: onnx.ModelProto) -> list[str]:
    """Return the names of the matrix products of two computed values, as in attention: no weight is in them."""
    constants = {value.name for value in proto.graph.initializer}
    constants |= {name for node in proto.graph.node if node.op_type == "Constant" for name in node.output}
    return [
        node.name
        for node in proto.graph.node
        if node.op_type in ("MatMul", "Gemm") and not constants & set(node.input[:2])
    ]


def to_fp16(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with half-precision weights and activations up to the features; outputs stay float32."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    copied = onnx.ModelProto()
    copied.CopyFrom(proto)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it notes every weight that rounds to a subnormal
        converted: onnx.ModelProto = convert_float_to_float16(
            copied, keep_io_types=True, node_block_list=head_nodes(proto), disable_shape_infer=False
        )
    return without_idle_casts(converted)


def without_idle_casts(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Remove casts to half precision and back between two nodes that both compute in fp32.

    They cost digits, and nodes. The converter also repeats a cast once for each of its readers,
    under one name, and puts casts behind their readers: one is kept, and the order is restored.
    """
    makers: dict[str, onnx.NodeProto] = {}
    for node in proto.graph.node:
        for name in node.output:
            makers.setdefault(name, node)
    whole: dict[str, str] = {}  # a value cast to half and back -> the value it was at first
    for name, node in makers.items():
        before = makers.get(node.input[0]) if _casts_to(node, onnx.TensorProto.FLOAT) else None
        # Named so by the converter; a cast of the graph's own, as of its pixels, starts from no fp32.
        if before is not None and before.input[0].endswith("_cast_to_fp16"):
            whole[name] = before.input[0]
    given: dict[str, str] = {}  # a value that an fp32 node makes -> the graph's output that it is
    for value in proto.graph.output:
        if (made := whole.pop(value.name, None)) is not None:
            given[made] = value.name
            makers[value.name] = makers[made]
    for node in proto.graph.node:
        node.input[:] = [given.get(whole.get(name, name), whole.get(name, name)) for name in node.input]
        node.output[:] = [given.get(name, name) for name in node.output]
    ordered: list[onnx.NodeProto] = []
    placed: set[str] = set()

    def place_with_makers(name: str) -> None:
        waiting = [name]
        while waiting:
            node = makers.get(waiting[-1])
            if node is None or node.output[0] in placed:
                waiting.pop()
                continue
            missing = [i for i in node.input if i in makers and makers[i].output[0] not in placed]
            if missing:
                waiting.extend(missing)
                continue
            placed.update(node.output)
            ordered.append(node)
            waiting.pop()

    for value in proto.graph.output:  # what no output needs is left out
        place_with_makers(value.name)
    names = {name for node in ordered for name in node.output}
    described = [value for value in proto.graph.value_info if value.name in names]
    del proto.graph.node[:], proto.graph.value_info[:]
    proto.graph.node.extend(ordered)
    proto.graph.value_info.extend(described)
    return proto


def _casts_to(node: onnx.NodeProto, kind: int) -> bool:
    return node.op_type == "Cast" and any(a.name == "to" and a.i == kind for a in node.attribute)


def to_int8(proto: onnx.ModelProto, images: NDArray[np.uint8], batch: int = 32) -> onnx.ModelProto:
    """Return the model with 8-bit weights (per channel) and activations up to the features.

    Activation ranges are the extremes seen on `images`.
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches: Iterator[dict[str, NDArray[np.uint8]]] = iter(
                {"images": images[start : start + batch]} for start in range(0, len(images), batch)
            )

        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            return next(self.batches, None)

    with tempfile.TemporaryDirectory() as folder, _quiet():
        source, ready, done = (Path(folder) / name for name in ("source.onnx", "ready.onnx", "done.onnx"))
        onnx.save(proto, str(source))
        quant_pre_process(str(source), str(ready), skip_symbolic_shape=True)
        prepared = onnx.load(str(ready))
        layer_norms = any(node.op_type == "LayerNormalization" for node in prepared.graph.node)
        quantize_static(
            str(ready),
            str(done),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            nodes_to_exclude=head_nodes(prepared) + inner_products(prepared),
            op_types_to_quantize=WITH_LAYER_NORMS if layer_norms else WITH_BATCH_NORMS,
        )
        return onnx.load(str(done))


class _quiet:  # noqa: N801
    """Silence the quantiser, which logs every step to the root logger."""

    def __enter__(self) -> None:
        logging.disable(logging.WARNING)

    def __exit__(self, *_: object) -> None:
        logging.disable(logging.NOTSET)
