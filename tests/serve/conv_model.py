"""A small residual convolutional network as a model of ours, written without torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from vssl.images.preprocess import Preprocess
from vssl.model.card import CARD_KEY, GOLDEN_KEY, Calibration, ModelCard
from vssl.model.golden import Golden, golden_images
from vssl.model.seal import sealed


def conv_model(path: Path, *, size: int = 32, width: int = 32, dim: int = 16, blocks: int = 3) -> Path:
    """Write a network of `blocks` residual blocks at half resolution to `path`."""
    random = np.random.default_rng(7)
    weights: list[onnx.TensorProto] = []
    nodes: list[onnx.NodeProto] = []

    def constant(name: str, value: np.ndarray) -> str:
        weights.append(numpy_helper.from_array(value.astype(np.float32), name))
        return name

    def conv(source: str, name: str, inputs: int, stride: int = 1) -> str:
        weight = constant(f"{name}.w", random.normal(0, (2 / (9 * inputs)) ** 0.5, (width, inputs, 3, 3)))
        bias = constant(f"{name}.b", random.normal(0, 0.1, width))
        nodes.append(
            helper.make_node(
                "Conv", [source, weight, bias], [name], pads=[1, 1, 1, 1], strides=[stride, stride]
            )
        )
        return name

    def apply(kind: str, inputs: list[str], name: str, **attributes: object) -> str:
        nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    x = apply("Cast", ["images"], "float", to=TensorProto.FLOAT)
    x = apply("Sub", [x, constant("centre", np.array(127.5))], "centred")
    x = apply("Div", [x, constant("scale", np.array(60.0))], "scaled")
    x = apply("Transpose", [x], "nchw", perm=[0, 3, 1, 2])
    x = apply("Relu", [conv(x, "stem", 3, stride=2)], "stem.relu")
    for block in range(blocks):
        y = apply("Relu", [conv(x, f"{block}.a", width)], f"{block}.a.relu")
        y = apply("Add", [conv(y, f"{block}.c", width), x], f"{block}.sum")
        x = apply("Relu", [y], f"{block}.out")
    x = apply("GlobalAveragePool", [x], "pooled")
    features = apply("Flatten", [x], "features", axis=1)
    zeros = constant("zeros", np.zeros(dim))
    apply("Gemm", [features, constant("w.mean", random.normal(0, 0.2, (width, dim))), zeros], "mean")
    low = constant("low", np.full(dim, -3.0))
    log = apply(
        "Gemm", [features, constant("w.variance", random.normal(0, 0.02, (width, dim))), low], "log_variance"
    )
    apply("Exp", [log], "variance")
    graph = helper.make_graph(
        nodes,
        "conv",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", size, size, 3])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", columns])
            for name, columns in (("mean", dim), ("variance", dim), ("features", width))
        ],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    images = golden_images(size)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    golden = Golden(images, *session.run(["mean", "variance", "features"], {"images": images}))
    card = ModelCard(
        name="conv",
        method="none",
        backbone="residual",
        space="projector",
        dim=dim,
        feature_dim=width,
        preprocess=Preprocess(size=size, resize=size),
        calibration=Calibration("fitted-head"),
    )
    helper.set_model_props(model, {CARD_KEY: card.to_json(), GOLDEN_KEY: golden.to_json()})
    path.write_bytes(sealed(model.SerializeToString()))
    return path
