"""A model.onnx that `vssl export` wrote -> its encoder, whose heads are fitted again on other images.

The graph is cut behind the features, and behind the projector's means where those are served. Encoder,
preprocessing, origin and licence stay as they are; centre, directions, variance and uncertainty are fitted anew.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import onnx
from onnx import TensorProto, helper
from onnx.utils import Extractor

from export.sources.encoder_graph import PROJECTED, OnnxEncoder, rename_value
from export.sources.encoder_source import EncoderSource
from train.settings.config import AugmentConfig
from vssl.errors import InputError
from vssl.model.card import CARD_KEY, ModelCard
from vssl.model.seal import read_metadata, read_sealed


def exported_encoder(path: Path) -> EncoderSource:
    """Read the encoder of a model file.

    Raises InputError for a file that no longer holds it as it was, FormatError for one that was changed after export.
    """
    data = read_sealed(path)
    card = ModelCard.from_json(read_metadata(data)[CARD_KEY])
    proto = onnx.load_from_string(data)
    if card.precision != "fp32":
        raise InputError(
            f"{path} computes in {card.precision}, which has changed its features; give the fp32 file it was made with"
        )
    inner = {"features": "features"} | ({PROJECTED: "projected"} if card.space == "projector" else {})
    made = {name for node in proto.graph.node for name in node.output}
    if missing := sorted(set(inner) - made):
        raise InputError(
            f"{path}: found no value {', '.join(missing)}, behind which its heads begin; export its encoder again: "
            "vssl export RUN model.onnx"
        )
    if PROJECTED in inner:
        rename_value(proto.graph, PROJECTED, "projected")
        proto.graph.output.append(helper.make_tensor_value_info("projected", TensorProto.FLOAT, ["N", None]))
    return EncoderSource(
        encode=OnnxEncoder(proto),
        make_graph=partial(_cut, proto, list(inner.values())),
        name=card.backbone,
        method=card.method,
        preprocess=card.preprocess,
        pixel_mean=card.pixel_mean,
        pixel_std=card.pixel_std,
        augment=AugmentConfig(),  # a run's own is not in its file
        cache_size=card.preprocess.size,
        branch=card.branch,
        training=card.training,
        weights=card.weights,
        supervision=card.supervision,
        licence=card.licence,
        is_projector_trained=card.space == "projector",
        whitening=card.whitening,
        dim=card.dim,
    )


def _cut(proto: onnx.ModelProto, outputs: list[str]) -> onnx.ModelProto:
    """Return what `outputs` are computed by, without the card of the whole."""
    cut: onnx.ModelProto = Extractor(proto).extract_model(["images"], outputs)
    del cut.metadata_props[:]
    return cut
