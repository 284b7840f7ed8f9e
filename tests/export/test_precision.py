"""Which nodes a lower precision leaves alone, and that no cast stays between two that compute in fp32."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.precision import (
    half_weights,
    head_nodes,
    inner_products,
    lower_precision,
    to_fp16,
    without_idle_casts,
)

WEIGHT = np.eye(4, dtype=np.float32) / 3


def model(*nodes: onnx.NodeProto, outputs: tuple[str, ...]) -> onnx.ModelProto:
    """Build a graph from `x` (N, 4) with the weights `w` and `head` (4, 4)."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4]) for name in ("x", *outputs)]
    weights = [numpy_helper.from_array(WEIGHT, name) for name in ("w", "head")]
    graph = helper.make_graph(list(nodes), "g", values[:1], values[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.fixture
def network() -> onnx.ModelProto:
    """A backbone of one map, and two heads behind its features."""
    return model(
        helper.make_node("MatMul", ["x", "w"], ["features"], "backbone"),
        helper.make_node("MatMul", ["features", "head"], ["mean"], "mean_head"),
        helper.make_node("Exp", ["features"], ["variance"], "variance_head"),
        outputs=("mean", "variance", "features"),
    )


def run(proto: onnx.ModelProto, x: np.ndarray) -> list[np.ndarray]:
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    found: list[np.ndarray] = session.run(None, {"x": x})
    return found


def casts(proto: onnx.ModelProto) -> int:
    return sum(node.op_type == "Cast" for node in proto.graph.node)


def test_what_the_features_do_not_depend_on_is_head(network: onnx.ModelProto) -> None:
    assert sorted(head_nodes(network)) == ["mean_head", "variance_head"]


def test_products_of_two_computed_values_are_told_from_those_with_a_weight() -> None:
    proto = model(
        helper.make_node("MatMul", ["x", "w"], ["a"], "map"),
        helper.make_node("Transpose", ["a"], ["t"], "turn"),
        helper.make_node("MatMul", ["a", "t"], ["s"], "attention"),
        helper.make_node("MatMul", ["s", "a"], ["out"], "mixing"),
        outputs=("out",),
    )
    assert inner_products(proto) == ["attention", "mixing"]


def test_fp16_rounds_the_backbone_and_leaves_the_heads_and_the_outputs_in_fp32(
    network: onnx.ModelProto,
) -> None:
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    lower = to_fp16(network)
    mean, variance, features = run(lower, x)
    assert {a.dtype for a in (mean, variance, features)} == {np.dtype(np.float32)}
    exact = x @ WEIGHT
    assert 0 < np.abs(features - exact).max() < 2e-3
    np.testing.assert_allclose(
        mean, features @ WEIGHT, rtol=1e-6
    )  # of the rounded features, in full precision
    np.testing.assert_allclose(variance, np.exp(features), rtol=1e-6)
    assert network.graph.initializer[0].data_type == TensorProto.FLOAT  # the given model is left as it is


def test_a_cast_to_half_and_back_between_fp32_nodes_goes() -> None:
    proto = model(
        helper.make_node("Exp", ["x"], ["a_cast_to_fp16"], "first"),
        helper.make_node(
            "Cast", ["half"], ["b"], "back", to=TensorProto.FLOAT
        ),  # before its maker, as it comes
        helper.make_node("Cast", ["a_cast_to_fp16"], ["half"], "forth", to=TensorProto.FLOAT16),
        helper.make_node("Exp", ["b"], ["out"], "second"),
        outputs=("out",),
    )
    mended = without_idle_casts(proto)
    assert casts(mended) == 0
    x = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)
    np.testing.assert_allclose(run(mended, x)[0], np.exp(np.exp(x)), rtol=1e-6)


def test_half_weights_are_stored_in_half_and_computed_with_in_fp32() -> None:
    weight = np.random.default_rng(0).normal(size=(32, 32)).astype(np.float32)
    huge = np.full((32, 32), 1e6, np.float32)  # more than half precision holds
    proto = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("MatMul", ["x", "weight"], ["rounded"]),
                helper.make_node("MatMul", ["x", "huge"], ["kept"]),
            ],
            "two products",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 32])],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 32])
                for name in ("rounded", "kept")
            ],
            [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(huge, "huge")],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )
    stored = half_weights(proto)
    types = {tensor.name: tensor.data_type for tensor in stored.graph.initializer}
    assert types == {"weight_half": TensorProto.FLOAT16, "huge": TensorProto.FLOAT}
    assert len(proto.graph.node) == 2  # the given model is left as it is
    x = np.random.default_rng(1).normal(size=(5, 32)).astype(np.float32)
    rounded, kept = run(stored, x)
    np.testing.assert_allclose(
        rounded, x @ weight.astype(np.float16).astype(np.float32), rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(kept, x @ huge, rtol=1e-5)


def test_fp32_is_the_model_itself_and_an_unknown_precision_is_refused(network: onnx.ModelProto) -> None:
    images = np.zeros((0, 8, 8, 3), np.uint8)
    assert lower_precision(network, "fp32", images) is network
    with pytest.raises(ValueError, match="expected one of"):
        lower_precision(network, "int4", images)
