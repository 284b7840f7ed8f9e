"""An encoder's graph and the served heads -> one ONNX graph: uint8 `images` in, all outputs out.

Shape letters: N dynamic batch, S side, F feature dimension, D embedding dimension.
"""

from __future__ import annotations

import onnx
import torch
from onnx import compose, helper

from export.served_encoder import ServedEncoder
from export.sources.encoder_graph import PROJECTED, export_module, rename_value


def to_onnx(model: ServedEncoder, encoder: onnx.ModelProto, size: int) -> onnx.ModelProto:
    """Put the heads of a model behind its encoder's graph (`export.sources.encoder_graph`).

    The encoder computes `features` and, where that is another, `projected`; the heads read both and the
    pictures themselves.
    """
    images = torch.zeros((2, size, size, 3), dtype=torch.uint8)
    with torch.inference_mode():
        output = model.encoder(images)
    inputs = {"images": images, "features": output.features.clone(), "projected": output.mean.clone()}
    opset = max(entry.version for entry in encoder.opset_import if entry.domain in ("", "ai.onnx"))
    outputs = model.heads.outputs
    heads = export_module(model.heads, inputs, outputs, opset)
    front = compose.add_prefix(encoder, "encoder_")
    back = compose.add_prefix(heads, "head_")
    has_projector = any(value.name == PROJECTED for value in front.graph.output)
    for graph, prefix in ((front.graph, "encoder"), (back.graph, "head")):
        for name in ("images", "features"):
            rename_value(graph, f"{prefix}_{name}", name)
    rename_value(back.graph, "head_projected", PROJECTED if has_projector else "features")
    for name in outputs:
        rename_value(back.graph, f"head_{name}", name)
    joined = helper.make_graph(
        [*front.graph.node, *back.graph.node],
        "served",
        list(front.graph.input),
        [
            value
            for value in (*back.graph.output, *front.graph.output)
            if value.name in (*outputs, "features")
        ],
        [*front.graph.initializer, *back.graph.initializer],
        value_info=[*front.graph.value_info, *back.graph.value_info],
    )
    opsets = {entry.domain: entry for entry in (*back.opset_import, *front.opset_import)}
    proto = helper.make_model(joined, opset_imports=list(opsets.values()), producer_name="vssl")
    proto.ir_version = max(front.ir_version, back.ir_version)
    onnx.checker.check_model(proto, full_check=True)
    return proto
