"""Two encoders with random weights, written without torch: a tiny one at 32 px, ResNet-18 at 224 px; either in int8."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from export.precision import to_int8
from vssl.images.preprocess import Pixels, Preprocess
from vssl.model.card import CARD_KEY, GOLDEN_KEY, Calibration, ModelCard
from vssl.model.golden import Golden, golden_images
from vssl.model.seal import sealed

DIM = 128


class _Graph:
    def __init__(self) -> None:
        self.random = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def constant(self, value: object) -> str:
        name = f"c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
        return name

    def node(self, kind: str, *inputs: str, name: str = "", **attributes: object) -> str:
        name = name or f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def conv(self, source: str, inputs: int, outputs: int, size: int, stride: int) -> str:
        scale = (2 / (inputs * size * size)) ** 0.5
        weight = self.constant(self.random.normal(0, scale, (outputs, inputs, size, size)))
        bias = self.constant(self.random.normal(0, 0.05, outputs))
        pad = size // 2
        return self.node("Conv", source, weight, bias, pads=[pad] * 4, strides=[stride, stride])


def tiny_encoder(path: Path) -> Path:
    """Three strided convolutions: 32 px -> 64 features -> D=128."""
    graph = _Graph()
    x = _scaled(graph)
    for inputs, outputs in ((3, 16), (16, 32), (32, 64)):
        x = graph.node("Relu", graph.conv(x, inputs, outputs, 3, 2))
    return _finish(graph, x, 64, path, "tiny-cnn", Preprocess(size=32, resize=32))


def resnet18(path: Path) -> Path:
    """ResNet-18 (batch norm folded into the convolutions) at 224 px, 512 features -> D=128."""
    graph = _Graph()
    x = graph.node("Relu", graph.conv(_scaled(graph), 3, 64, 7, 2))
    x = graph.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    width = 64
    for outputs in (64, 64, 128, 128, 256, 256, 512, 512):
        stride = 1 if outputs == width else 2
        y = graph.node("Relu", graph.conv(x, width, outputs, 3, stride))
        y = graph.conv(y, outputs, outputs, 3, 1)
        skip = x if outputs == width else graph.conv(x, width, outputs, 1, 2)
        x = graph.node("Relu", graph.node("Add", y, skip))
        width = outputs
    return _finish(
        graph, x, 512, path, "resnet18", Preprocess(size=224, resize=256, interpolation="bilinear")
    )


def int8(model: Path, target: Path, images: Pixels) -> Path:
    """Write the int8 form that export makes of a model, calibrated on images (N, S, S, 3)."""
    proto = onnx.load(str(model))
    for node in proto.graph.node:
        node.name = node.name or node.output[0]
    lowered = to_int8(proto, images)
    properties = {p.key: p.value for p in proto.metadata_props}
    properties[CARD_KEY] = replace(ModelCard.from_json(properties[CARD_KEY]), precision="int8").to_json()
    helper.set_model_props(lowered, {key: properties[key] for key in (CARD_KEY, GOLDEN_KEY)})
    target.write_bytes(sealed(lowered.SerializeToString()))
    return target


def _scaled(graph: _Graph) -> str:
    x = graph.node("Cast", "images", to=TensorProto.FLOAT)
    x = graph.node("Sub", x, graph.constant(np.array([123.7, 116.3, 103.5])))
    x = graph.node("Div", x, graph.constant(np.array([58.4, 57.1, 57.4])))
    return graph.node("Transpose", x, perm=[0, 3, 1, 2])


def _finish(graph: _Graph, x: str, width: int, path: Path, name: str, preprocess: Preprocess) -> Path:
    features = graph.node("Flatten", graph.node("GlobalAveragePool", x), name="features", axis=1)
    random = graph.random
    head = graph.constant(random.normal(0, 0.1, (width, DIM)))
    graph.node("Gemm", features, head, graph.constant(np.zeros(DIM)), name="mean")
    head = graph.constant(random.normal(0, 0.01, (width, DIM)))
    log = graph.node("Gemm", features, head, graph.constant(np.full(DIM, -4.0)))
    graph.node("Exp", log, name="variance")
    size = preprocess.size
    outputs = (("mean", DIM), ("variance", DIM), ("features", width))
    made = helper.make_graph(
        graph.nodes,
        name,
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", size, size, 3])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", w]) for n, w in outputs],
        graph.weights,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    images = golden_images(size)
    golden = Golden(images, *session.run(["mean", "variance", "features"], {"images": images}))
    card = ModelCard(
        name=name,
        method="random weights",
        backbone=name,
        space="features",
        dim=DIM,
        feature_dim=width,
        preprocess=preprocess,
        calibration=Calibration("scale"),
    )
    helper.set_model_props(model, {CARD_KEY: card.to_json(), GOLDEN_KEY: golden.to_json()})
    path.write_bytes(sealed(model.SerializeToString()))
    return path
