"""ServedEncoder -> an ONNX graph: uint8 `images` in, `mean`, `variance`, `features` out.

Shape letters: N dynamic batch, S side.
"""

from __future__ import annotations

import warnings

import onnx
import torch

from export.served_encoder import ServedEncoder

OUTPUTS = ("mean", "variance", "features")
OPSET = 18


def to_onnx(model: ServedEncoder, size: int) -> onnx.ModelProto:
    """Export with a dynamic batch and one self-contained set of weights.

    The exporter gives batch norms inner values of the name `mean`, so the outputs leave it
    under other names and are renamed here, after every inner value that is in their way.
    """
    images = torch.zeros((2, size, size, 3), dtype=torch.uint8)
    with warnings.catch_warnings():
        # The exporter's own deprecations are not the user's concern.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            model.eval(),
            (images,),
            dynamo=True,
            input_names=["images"],
            output_names=[f"served_{name}" for name in OUTPUTS],
            dynamic_shapes={"images": {0: torch.export.Dim("N")}},
            opset_version=OPSET,
            external_data=False,
            verbose=False,
            optimize=True,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    proto = program.model_proto
    for name in OUTPUTS:
        rename_value(proto.graph, name, f"inner_{name}")
        rename_value(proto.graph, f"served_{name}", name)
    proto.producer_name = "vssl"
    proto.doc_string = ""
    for node in proto.graph.node:  # the exporter notes source lines of the machine it ran on
        del node.metadata_props[:]
        node.doc_string = ""
    onnx.checker.check_model(proto, full_check=True)
    return proto


def rename_value(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Rename a value everywhere in a graph; nothing happens when there is none of that name."""
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        if value.name == old:
            value.name = new
    for node in graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                if name == old:
                    names[place] = new
