"""model.onnx and its encoder -> a folder that timm, transformers.js and the Hugging Face hub load.

    DIR/config.json, model.safetensors   the network itself, for timm.create_model("local-dir:DIR")
    DIR/preprocessor_config.json         what a picture goes through
    DIR/onnx/model.onnx                  the file as it was exported: mean, variance, uncertainty, features
    DIR/README.md                        the card, its YAML filled from the model's own card

Shape letters: N images, S side, F feature dimension.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from export.sources.encoder_source import EncoderSource
from train.models.backbones import BLOCKS, Backbone
from train.models.encoder import Encoder
from train.settings.backbone_names import MISSING_TIMM, installed_timm
from vssl.errors import ExistsError, InputError
from vssl.files import atomic_folder, is_free
from vssl.model.card import CARD_KEY, ModelCard
from vssl.model.golden import golden_images
from vssl.model.identity import sha256_bytes, short_id
from vssl.model.seal import read_metadata, read_sealed

RESAMPLE = {"bilinear": 2, "bicubic": 3, "lanczos": 1, "box": 4}  # Pillow's numbers
TOLERANCE = 1e-4  # largest difference of features over their largest value
TASK = "image-feature-extraction"
METRICS = {"knn_top1": "20-NN accuracy", "r_auroc": "R-AUROC of the uncertainty"}

TIMM = """    import timm
    network = timm.create_model("local-dir:THIS_FOLDER", pretrained=True)

gives the features of a normalised picture.

"""


@dataclass(frozen=True)
class HubFolder:
    """What was written; timm: None where timm loads the folder, else why it cannot."""

    path: Path
    model_id: str
    timm: str | None

    def describe(self) -> str:
        """Return one line for a person."""
        loads = (
            f'timm.create_model("local-dir:{self.path}")' if self.timm is None else f"ONNX only: {self.timm}"
        )
        return f"{self.path}: {loads}"


def write_folder(
    model: Path, folder: Path, source: EncoderSource | None = None, *, overwrite: bool = False
) -> HubFolder:
    """Write the folder of a model file; with its encoder, the network for timm too.

    Raises ExistsError when something is there and `overwrite` is false, InputError without timm.
    """
    timm = installed_timm()
    if timm is None:
        raise InputError(f"--hf: {MISSING_TIMM}")
    if not is_free(folder):
        if not overwrite:
            raise ExistsError(f"{folder} exists already; choose another output or add --overwrite")
        shutil.rmtree(folder)
    data = read_sealed(model)
    card = ModelCard.from_json(read_metadata(data)[CARD_KEY])
    with atomic_folder(folder) as partial:
        (partial / "onnx").mkdir()
        (partial / "onnx" / "model.onnx").write_bytes(data)
        why = _write_network(timm, source, card, partial)
        _write_json(partial / "preprocessor_config.json", preprocessor(card))
        (partial / "README.md").write_text(
            _readme(card, sha256_bytes(data), loads=why is None), encoding="utf-8"
        )
    return HubFolder(folder, sha256_bytes(data), why)


def _write_network(timm: Any, source: EncoderSource | None, card: ModelCard, folder: Path) -> str | None:
    """Write config.json and model.safetensors, and load them again; return why not where timm has no such network."""
    if source is None or not isinstance(source.encode, Encoder):
        return "only the ONNX graph of the encoder is known"
    twin = timm_network(timm, source.encode.backbone)
    if twin is None:
        config = source.encode.backbone.config
        return f"timm has no network like {config.backbone} with the stem {config.stem}"
    expected = {
        "input_size": (3, card.preprocess.size, card.preprocess.size),
        "crop_pct": card.preprocess.size / card.preprocess.resize,
        "crop_mode": "squash" if card.preprocess.fit == "stretch" else "center",
        "interpolation": card.preprocess.interpolation,
        "mean": card.pixel_mean,
        "std": card.pixel_std,
    }
    from timm.models import save_for_hf

    save_for_hf(twin, str(folder), safe_serialization=True, data_config=expected)
    loaded = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    images = torch.from_numpy(golden_images(card.preprocess.size))
    with torch.inference_mode():
        ours = source.encode(images).features
        theirs: Tensor = loaded(source.encode.normalise(images))
    if ours.shape == theirs.shape and float((ours - theirs).abs().max() / ours.abs().max()) < TOLERANCE:
        return None
    for name in ("config.json", "model.safetensors"):
        (folder / name).unlink()
    return "timm's network of that name answers otherwise"


def timm_network(timm: Any, backbone: Backbone) -> nn.Module | None:
    """Return timm's own network with the weights of a backbone, None where it has none of the same form."""
    name = backbone.config.backbone
    if name.startswith("timm/"):
        return backbone.model if backbone.config.stem == "large" else None
    bare, layers = name.rpartition("/")[2], {}
    if name in BLOCKS:
        if backbone.config.stem != "large" or len(BLOCKS[name]) != 4:
            return None
        bare, layers = "resnet18", {"layers": list(BLOCKS[name])}
    if not timm.is_model(bare):
        return None
    twin: nn.Module = timm.create_model(bare, num_classes=0, **layers)
    own, theirs = backbone.state_dict(), twin.state_dict()
    pairs = list(zip(theirs.items(), own.values(), strict=False))
    if len(own) != len(theirs) or any(x.shape != y.shape for (_, x), y in pairs):
        return None
    twin.load_state_dict({key: value for (key, _), value in pairs})
    return twin.eval()


def preprocessor(card: ModelCard) -> dict[str, Any]:
    """Return preprocessor_config.json: what a picture goes through before timm's network."""
    p = card.preprocess
    crop = p.fit == "crop"
    return {
        "image_processor_type": "CLIPImageProcessor" if crop else "ViTImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": p.resize} if crop else {"height": p.size, "width": p.size},
        "resample": RESAMPLE[p.interpolation],
        "do_center_crop": crop,
        "crop_size": {"height": p.size, "width": p.size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(card.pixel_mean),
        "image_std": list(card.pixel_std),
    }


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _readme(card: ModelCard, model_id: str, *, loads: bool) -> str:
    trained = card.training.get("source")
    side, fit = card.preprocess.size, card.calibration
    held_out = (
        "" if fit.ratio is None else f"; predicted over measured variance on held-out images {fit.ratio:.2f}"
    )
    facts = {
        "network": f"{card.backbone}, {card.method}, {card.branch}",
        "weights": f"{card.weights}; labels: {card.supervision}"
        + ("" if trained is None else f"; images: {trained}"),
        "licence": card.licence,
        "variance": f"{fit.kind} on {fit.images} images{held_out}",
        "precision": card.precision,
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    return f"""---
{_described(card, loads=loads)}
---

# {card.name}

An image encoder whose embedding is a Gaussian: a mean and a variance of {card.dim} numbers an image, one number of
uncertainty, and {card.feature_dim} features.

{TIMM if loads else ""}`onnx/model.onnx` (model id {short_id(model_id)}) takes uint8 RGB pictures (N, {side}, {side}, 3)
and normalises them itself; its outputs are {", ".join(card.output_shapes)}:

    vssl extract IMAGES EMBEDDINGS --model onnx/model.onnx

| | |
|---|---|
{table}
"""


def _described(card: ModelCard, *, loads: bool) -> str:
    """Return the card's YAML: licence, task, and what was measured."""
    from huggingface_hub import EvalResult, ModelCardData

    source = str(card.measured.get("source", ""))
    results = [
        EvalResult(
            TASK, source.partition(":")[0], source, kind, float(card.measured[kind] or 0.0), metric_name=name
        )
        for kind, name in METRICS.items()
        if card.measured.get(kind) is not None
    ]
    known = card.licence != "unspecified"
    return str(
        ModelCardData(
            license=card.licence.lower() if known else "other",
            library_name="timm" if loads else "onnx",
            pipeline_tag=TASK,
            tags=["onnx", "image-embedding", "uncertainty", "vssl"],
            model_name=card.name,
            eval_results=results or None,
        ).to_yaml()
    )
