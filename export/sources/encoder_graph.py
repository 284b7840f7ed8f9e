"""An encoder -> its part of the served graph, and that graph in onnxruntime.

Views and worse forms are embedded by onnxruntime during calibration: it takes a third to a fifth of
what torch takes on CPUs. Shape letters: B batch, S side, F feature dimension, D embedding dimension.
"""

from __future__ import annotations

import warnings

import numpy as np
import onnx
import onnxruntime as ort
import torch
from torch import Tensor, nn

from train.models.encoder import Encoder, EncoderOutput

OPSET = 18
ENCODER_OUTPUTS = ("features", "projected")

PROJECTED = "encoder_projected"
"""The projector's mean within a served graph, before what is fitted on it."""


def cpu_session(model: bytes | str, threads: int = 0) -> ort.InferenceSession:
    """Load a model, its bytes or its path, on the CPU; 0 threads are all cores."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class OnnxEncoder:
    """An encoder's graph in onnxruntime on the CPU: pictures (B, S, S, 3) in 0..255 -> EncoderOutput."""

    def __init__(self, graph: onnx.ModelProto) -> None:
        self._session = cpu_session(graph.SerializeToString(), threads=torch.get_num_threads())
        known = {output.name for output in self._session.get_outputs()}
        self._outputs = [name for name in ENCODER_OUTPUTS if name in known]

    def __call__(self, images: Tensor) -> EncoderOutput:
        """Round pictures to whole grey levels, as a file would hold them, and embed them."""
        pixels = images.round().clamp(0, 255).to(torch.uint8).numpy()
        found = self._session.run(self._outputs, {"images": np.ascontiguousarray(pixels)})
        features, mean = (torch.from_numpy(array) for array in (found[0], found[-1]))
        return EncoderOutput(features, mean, None)


class _FeaturesAndMean(nn.Module):
    """An encoder without its raw variance, which is not served."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S, S, 3) uint8 -> (B, F), (B, D)."""
        output = self.encoder(images)
        return output.features, output.mean.clone()


def encoder_graph(encoder: Encoder, size: int) -> onnx.ModelProto:
    """Export an encoder: uint8 `images` (N, S, S, 3) in, `features` and `projected` out."""
    images = torch.zeros((2, size, size, 3), dtype=torch.uint8)
    inputs = {"images": images}
    return export_module(_FeaturesAndMean(encoder), inputs, ENCODER_OUTPUTS)


def export_module(
    module: nn.Module, inputs: dict[str, Tensor], outputs: tuple[str, ...], opset: int = OPSET
) -> onnx.ModelProto:
    """Export a module with a dynamic batch and one self-contained set of weights.

    inputs: an example of each argument, in order, batch first; outputs: names of the results. The
    exporter gives batch norms inner values of the name `mean`, so the outputs leave it under other
    names and are renamed here, after every inner value that is in their way.
    """
    batch = torch.export.Dim("N")
    with warnings.catch_warnings():
        # The exporter's own deprecations are not the user's concern.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            dynamo=True,
            input_names=list(inputs),
            output_names=[f"served_{name}" for name in outputs],
            dynamic_shapes=tuple({0: batch} for _ in inputs),
            opset_version=opset,
            external_data=False,
            verbose=False,
            optimize=True,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    proto = program.model_proto
    for name in outputs:
        rename_value(proto.graph, name, f"inner_{name}")
        rename_value(proto.graph, f"served_{name}", name)
    proto.producer_name = "vssl"
    proto.doc_string = ""
    for node in proto.graph.node:  # the exporter notes source lines of the machine it ran on
        del node.metadata_props[:]
        node.doc_string = ""
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
