"""A network with layer norms and attention becomes one verified file too, and int8 where that does no harm."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from export.calibration.head import CalibrationConfig
from export.evaluation.fidelity import compare
from export.package import Exported, ExportOptions, export_run
from export.precision import inner_products, lower_precision
from export.verify import run_model
from tests.support.tiny_model import picture
from tests.support.tiny_run import image_folder
from train.methods import new_method
from train.settings.config import NetworkConfig, TrainConfig
from train.state.checkpoint import CHECKPOINT_NAME, Checkpoint, save_checkpoint
from vssl.images.preprocess import Preprocess

pytest.importorskip("timm", reason="timm is not installed (the extra backbones)")
SIDE = 32


@pytest.fixture(scope="module", params=["timm/test_vit", "timm/test_convnext"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("run")
    images = image_folder(folder / "images", 12)
    torch.manual_seed(1)
    network = NetworkConfig(request.param, 8, "medium", 12, 16, 16, 16)
    config = TrainConfig(method="simclr", size=SIDE, cache_size=SIDE, network=network)
    save_checkpoint(
        folder / CHECKPOINT_NAME,
        Checkpoint(
            config=config,
            preprocess=Preprocess(size=SIDE, resize=SIDE),
            student=new_method(config).student.state_dict(),
            teacher=None,
            heads={},
            step=1,
            epoch=0,
            summary={"source": str(images), "images": 12, "epochs": 0},
        ),
    )
    options = ExportOptions(calibration=CalibrationConfig(images=12, views=2, worse=0, report_views=2))
    return export_run(folder, folder / "model.onnx", options)


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return np.stack([np.asarray(picture(n, (SIDE, SIDE))) for n in range(40)])


def test_the_file_agrees_with_torch_at_every_batch_size(exported: Exported, pictures: np.ndarray) -> None:
    assert max(exported.agreement.mean, exported.agreement.features) < 1e-5
    data = exported.path.read_bytes()
    together = run_model(data, pictures)
    for count in (1, 2, 7, 32):
        for name, value in run_model(data, pictures[:count]).items():
            scale = np.abs(together[name]).max()
            assert np.abs(value - together[name][:count]).max() < 1e-5 * scale, (name, count)


def test_the_card_names_the_network(exported: Exported) -> None:
    assert exported.card.backbone.startswith("timm/test_")
    assert exported.card.feature_dim == 64


def test_int8_keeps_attention_and_sums_in_fp32(exported: Exported, pictures: np.ndarray) -> None:
    proto = onnx.load(str(exported.path))
    lower = lower_precision(proto, "int8", pictures)
    stored = {value.name for value in lower.graph.initializer}
    made_by = {name: node for node in lower.graph.node for name in node.output}

    def from_int8(name: str) -> bool:
        return name in made_by and made_by[name].op_type == "DequantizeLinear"

    becomes: dict[str, list[bool]] = {}
    for node in lower.graph.node:
        becomes.setdefault(node.op_type, []).append(any(map(from_int8, node.input)))
    assert any(becomes["Conv"])
    assert not any(becomes.get("Softmax", []) + becomes["LayerNormalization"])
    products = [node for node in lower.graph.node if node.op_type in ("MatMul", "Gemm")]
    lowered = [node for node in products if from_int8(node.input[0])]
    assert len(lowered) >= 4  # the linear maps
    assert all(made_by[node.input[1]].input[0] in stored for node in lowered)  # never two computed values
    kept = {node.name for node in products} - {node.name for node in lowered}
    assert len(kept & set(inner_products(proto))) == (12 if "vit" in exported.card.backbone else 0)
    found = compare(proto.SerializeToString(), lower.SerializeToString(), pictures, [None] * 40, rounds=1)
    assert found.cosine > 0.9
    data = lower.SerializeToString()
    alone = run_model(data, pictures[:1])["features"]
    together = run_model(data, pictures)["features"]
    assert np.abs(alone - together[:1]).max() < 1e-4 * np.abs(together).max()
