"""Renaming touches every place a value is named."""

from __future__ import annotations

from onnx import TensorProto, helper

from export.sources.encoder_graph import rename_value


def test_a_value_is_renamed_in_inputs_outputs_and_nodes() -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["mean"]), helper.make_node("Neg", ["mean"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [
            helper.make_tensor_value_info("mean", TensorProto.FLOAT, [1]),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, [1]),
        ],
    )
    rename_value(graph, "mean", "inner")
    assert graph.node[0].output[0] == graph.node[1].input[0] == graph.output[0].name == "inner"
    assert "mean" not in str(graph)
