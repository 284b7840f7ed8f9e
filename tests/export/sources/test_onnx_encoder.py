"""Another tool's encoder: its preprocessing is applied to the pixel, and what it is not is said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from export.calibration.head import CalibrationConfig
from export.package import ExportOptions, export_encoder
from export.sources.encoder_graph import OnnxEncoder
from export.sources.named import EncoderOptions, find_encoder
from export.sources.onnx_encoder import CONFIG, onnx_encoder, read_config
from serve.inference.engine import Engine
from tests.support.tiny_model import picture
from vssl.errors import FormatError, InputError
from vssl.images.preprocess import Preprocess

SIDE, WIDTH = 28, 12
CLIP = {
    "crop_size": {"height": SIDE, "width": SIDE},
    "do_center_crop": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.48, 0.46, 0.41],
    "image_std": [0.27, 0.26, 0.28],
    "resample": 3,
    "rescale_factor": 1 / 255,
    "size": {"shortest_edge": 32},
}
"""As the image towers of CLIP and DINOv2 state theirs."""


def patch_encoder(path: Path, *, opset: int = 17, batch: str | int = "batch", more: bool = False) -> Path:
    """Write an encoder of patches of 7 px with random weights: patches, mean over them, two layers."""
    random = np.random.default_rng(3)
    weights = {
        "patches": random.normal(0, 0.1, (16, 3, 7, 7)).astype(np.float32),
        "first": random.normal(0, 0.4, (16, 24)).astype(np.float32),
        "last": random.normal(0, 0.4, (24, WIDTH)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["pixel_values", "patches"], ["tokens"], strides=[7, 7]),
        helper.make_node("Tanh", ["tokens"], ["mean"]),  # a name that the served outputs take too
        helper.make_node("GlobalAveragePool", ["mean"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"], axis=1),
        helper.make_node("MatMul", ["features", "first"], ["hidden"]),
        helper.make_node("Tanh", ["hidden"], ["wide"]),
        helper.make_node("MatMul", ["wide", "last"], ["image_embeds"]),
    ]
    outputs = {"image_embeds": [batch, WIDTH], **({"tokens": [batch, 16, 4, 4]} if more else {})}
    graph = helper.make_graph(
        nodes,
        "tower",
        [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, [batch, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, str(path))
    return path


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    (tmp_path / CONFIG).write_text(json.dumps(CLIP))
    return patch_encoder(tmp_path / "encoder.onnx")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(70):
        Image.fromarray(picture(number, (40, 34))).save(folder / f"{number:02d}.png")
    return folder


def test_the_configuration_next_to_it_is_its_preprocessing(encoder: Path) -> None:
    info = read_config(encoder)
    assert info.preprocess == Preprocess(size=SIDE, resize=32, fit="crop", interpolation="bicubic")
    assert (info.pixel_mean, info.pixel_std) == ((0.48, 0.46, 0.41), (0.27, 0.26, 0.28))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"do_center_crop": False, "size": {"height": 28, "width": 28}, "resample": 2},
            Preprocess(size=28, resize=28, fit="stretch", interpolation="bilinear"),
        ),
        ({"size": 36, "crop_size": 28}, Preprocess(size=28, resize=36)),
        ({"size": {"height": 40, "width": 40}}, Preprocess(size=28, resize=40)),
    ],
)
def test_its_older_forms_are_read_too(encoder: Path, change: dict[str, object], expected: Preprocess) -> None:
    (encoder.parent / CONFIG).write_text(json.dumps(CLIP | change))
    assert read_config(encoder).preprocess == expected


def test_the_graph_gives_the_files_own_numbers_for_pixels_normalised_by_hand(encoder: Path) -> None:
    source = onnx_encoder(encoder)
    pixels = np.stack([np.resize(picture(n), (SIDE, SIDE, 3)) for n in range(5)])
    normal = (pixels / 255 - np.array(CLIP["image_mean"])) / np.array(CLIP["image_std"])
    session = ort.InferenceSession(str(encoder), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"pixel_values": normal.transpose(0, 3, 1, 2).astype(np.float32)})
    found = OnnxEncoder(source.graph)(torch.from_numpy(pixels)).features.numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(source.encode(torch.from_numpy(pixels)).features.numpy(), expected, atol=1e-5)


def test_a_rescale_factor_of_its_own_is_kept(encoder: Path) -> None:
    (encoder.parent / CONFIG).write_text(json.dumps(CLIP | {"rescale_factor": 1 / 127.5}))
    pixels = np.full((1, SIDE, SIDE, 3), 51, np.uint8)
    info = read_config(encoder)
    found = (pixels[0, 0, 0] / 255 - np.array(info.pixel_mean)) / np.array(info.pixel_std)
    np.testing.assert_allclose(
        found, (51 / 127.5 - np.array(CLIP["image_mean"])) / np.array(CLIP["image_std"])
    )


def test_it_goes_through_export_serve_and_search(encoder: Path, images: Path, tmp_path: Path) -> None:
    options = ExportOptions(
        calibration_source=str(images),
        dim=6,
        calibration=CalibrationConfig(images=70, views=3, worse=1, report_views=4, epochs=3),
    )
    written = export_encoder(
        find_encoder(str(encoder), EncoderOptions(supervision="none")), tmp_path / "m.onnx", options
    )
    card = written.card
    assert (card.method, card.space, card.dim, card.feature_dim) == ("published", "features", 6, WIDTH)
    assert (card.supervision, card.whitening, card.pixel_mean) == ("none", 0.0, (0.48, 0.46, 0.41))
    assert card.weights.startswith("encoder.onnx (sha256 ")
    engine = Engine.open(tmp_path / "m.onnx")
    pictures = [path.read_bytes() for path in sorted(images.iterdir())[:8]]
    answers = engine.embed(pictures)
    assert len(answers) == 8
    assert engine.card.preprocess == Preprocess(size=SIDE, resize=32)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"batch": 1}, "takes batches of 1 only; export it with a dynamic batch"),
        ({"opset": 21}, None),
        ({"more": True}, None),
    ],
)
def test_other_files_are_taken_or_refused_by_name(
    encoder: Path, made: dict[str, object], message: str | None
) -> None:
    patch_encoder(encoder, **made)  # type: ignore[arg-type]
    if message is None:
        assert onnx_encoder(encoder).weights.startswith("encoder.onnx")
        return
    with pytest.raises(FormatError, match=message):
        onnx_encoder(encoder)


def test_what_is_missing_or_unclear_is_said_with_what_to_type(encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no output 'pooler'; found image_embeds of 2"):
        onnx_encoder(encoder, output="pooler")
    larger = replace(read_config(encoder), preprocess=Preprocess(32, 32))
    with pytest.raises(
        FormatError, match=r"found the input pixel_values of float \[None, 3, 28, 28\], expected"
    ):
        onnx_encoder(encoder, info=larger)
    (tmp_path / CONFIG).unlink()
    with pytest.raises(InputError, match="give --size, --mean and --std"):
        find_encoder(str(encoder), EncoderOptions())
    given = EncoderOptions(size=SIDE, pixel_mean="0.5,0.5,0.5", pixel_std="0.5,0.5")
    with pytest.raises(InputError, match=r"--std: found .0\.5,0\.5., expected three numbers"):
        find_encoder(str(encoder), given)
    found = find_encoder(str(encoder), replace(given, pixel_std="0.5,0.5,0.5", resize=40))
    assert found.preprocess == Preprocess(size=SIDE, resize=40)
    with pytest.raises(InputError, match="needs images to calibrate on"):
        export_encoder(found, tmp_path / "m.onnx", ExportOptions())
