"""A run becomes one file that carries its card and its golden pair, agrees with torch, or is not written."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from PIL import Image

from export import package
from export.calibration.head import CalibrationConfig
from export.calibration.quality import COUNT
from export.evaluation.accuracy import accuracy
from export.package import Exported, ExportOptions, export_run
from export.served_encoder import ServedEncoder, ServedHeads, ServedMean, VarianceHead
from export.verify import run_model, verify
from tests.support.tiny_model import picture
from tests.support.tiny_run import image_folder, tiny_run
from train.methods import build_encoder
from train.state.checkpoint import load_checkpoint
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.errors import FormatError, InputError
from vssl.images.preprocess import load_image, resize_picture
from vssl.images.sources import open_source
from vssl.model.card import CARD_KEY, GOLDEN_KEY, ModelCard
from vssl.model.golden import Golden
from vssl.model.identity import sha256_file

QUICK = CalibrationConfig(images=80, views=4, report_views=8, epochs=5)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    return tiny_run(folder / "run", image_folder(folder / "images"))


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty pictures in two class folders, at the size of the model."""
    folder = tmp_path_factory.mktemp("evaluation") / "labelled"
    for number in range(60):
        place = folder / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(number, (16, 16))).save(place / f"{number}.png")
    return folder


Export = Callable[[str], Exported]


@pytest.fixture(scope="module")
def export_once(run: Path, labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Export:
    """Export a space when it is first asked for: the exporter takes seconds."""

    @cache
    def export(space: str) -> Exported:
        options = ExportOptions(space=space, evaluation_source=str(labelled), calibration=QUICK)
        return export_run(run, tmp_path_factory.mktemp("model") / "model.onnx", options)

    return export


@pytest.fixture(params=["features", "projector"])
def exported(request: pytest.FixtureRequest, export_once: Export) -> Exported:
    return export_once(request.param)


def session(path: Path) -> ort.InferenceSession:
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def test_the_graph_takes_uint8_pictures_of_any_count_and_gives_three_float_outputs(
    exported: Exported,
) -> None:
    opened = session(exported.path)
    (images,) = opened.get_inputs()
    assert (images.name, images.type, images.shape[1:]) == ("images", "tensor(uint8)", [16, 16, 3])
    assert isinstance(images.shape[0], str)
    dims = {"mean": exported.card.dim, "variance": exported.card.dim, "features": exported.card.feature_dim}
    assert {o.name: (o.type, o.shape[1]) for o in opened.get_outputs()} == {
        name: ("tensor(float)", width) for name, width in dims.items()
    }
    for count in (1, 2, 7, 33):
        found = run_model(exported.path.read_bytes(), np.zeros((count, 16, 16, 3), np.uint8))
        assert {len(v) for v in found.values()} == {count}


def test_the_file_is_whole_without_others_and_names_no_source_lines(exported: Exported) -> None:
    assert [p.name for p in exported.path.parent.iterdir()] == [exported.path.name]
    assert b"site-packages" not in exported.path.read_bytes()
    onnx.checker.check_model(onnx.load(str(exported.path)), full_check=True)


def source_pictures(exported: Exported, run: Path) -> np.ndarray:
    source = open_source(str(load_checkpoint(run).summary["source"]))
    return np.stack(
        [load_image(source.read(row), exported.card.preprocess) for row in range(len(source.items))]
    )


def test_outputs_equal_torch_on_pictures_it_never_saw(exported: Exported, run: Path) -> None:
    encoder = build_encoder(load_checkpoint(run))
    from PIL import Image

    card = exported.card
    fresh = np.stack([resize_picture(Image.fromarray(picture(900 + n)), card.preprocess) for n in range(9)])
    images = np.concatenate([source_pictures(exported, run), fresh])
    found = run_model(exported.path.read_bytes(), images)
    with torch.inference_mode():
        output = encoder(torch.from_numpy(images))
    own = (output.features if card.space == "features" else output.mean).double().numpy()
    # One centre and one map for all: found on the pictures of the run, they hold for the others.
    own, served = own[:-1] - own[-1], found["mean"][:-1].astype(np.float64) - found["mean"][-1]
    assert len(own) > 2 * card.dim
    matrix = np.linalg.lstsq(own[:-8], served[:-8], rcond=1e-6)[0]
    assert np.allclose(own[-8:] @ matrix, served[-8:], atol=1e-3 * np.abs(served).max())
    assert np.allclose(found["features"], output.features.numpy(), atol=1e-5)
    assert (found["variance"] > 0).all()


def test_the_calibration_images_lie_around_the_origin(exported: Exported, run: Path) -> None:
    assert exported.card.centred
    means = run_model(exported.path.read_bytes(), source_pictures(exported, run))["mean"]
    assert np.abs(means.mean(0)).max() < 0.1 * np.abs(means).max()


def test_card_and_golden_pair_travel_inside(exported: Exported, run: Path) -> None:
    metadata = session(exported.path).get_modelmeta().custom_metadata_map
    card = ModelCard.from_json(metadata[CARD_KEY])
    assert card == exported.card
    assert card.preprocess == load_checkpoint(run).preprocess
    assert card.calibration.kind == "fitted-head"
    assert card.calibration.images == 80
    assert exported.model_id == sha256_file(exported.path)
    assert card.training["source"] == "images"  # what the images were called, not where they lay
    golden = Golden.from_json(metadata[GOLDEN_KEY])
    found = run_model(exported.path.read_bytes(), golden.images)
    assert golden.check(found["mean"], found["variance"], found["features"], "fp32") < 1e-5


def test_the_teacher_can_be_exported_too(run: Path, tmp_path: Path) -> None:
    written = export_run(run, tmp_path / "t.onnx", ExportOptions(branch="teacher", calibration=QUICK))
    assert written.card.branch == "teacher"


def test_a_changed_weight_is_caught_by_the_golden_pair(exported: Exported, tmp_path: Path) -> None:
    proto = onnx.load(str(exported.path))
    weight = max(proto.graph.initializer, key=lambda w: len(w.raw_data))
    values = np.frombuffer(weight.raw_data, np.float32).copy()
    values[: len(values) // 2] *= 1.5
    weight.raw_data = values.tobytes()
    golden = Golden.from_json({p.key: p.value for p in proto.metadata_props}[GOLDEN_KEY])
    found = run_model(proto.SerializeToString(), golden.images)
    with pytest.raises(FormatError, match="golden pair"):
        golden.check(found["mean"], found["variance"], found["features"], "fp32")


def test_a_graph_that_disagrees_with_torch_is_not_written(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = package.to_onnx

    def broken(model: ServedEncoder, encoder: onnx.ModelProto, size: int) -> onnx.ModelProto:
        with torch.no_grad():
            weight = model.heads.variance.base
            weight += 0.01
            proto = real(model, encoder, size)
            weight -= 0.01
        return proto

    monkeypatch.setattr(package, "to_onnx", broken)
    with pytest.raises(FormatError, match=r"variance differs by .* nothing was written"):
        export_run(run, tmp_path / "model.onnx", ExportOptions(calibration=QUICK))
    assert list(tmp_path.iterdir()) == []


def test_a_batch_size_fixed_in_the_graph_is_caught(exported: Exported, run: Path) -> None:
    proto = onnx.load(str(exported.path))
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    encoder = build_encoder(load_checkpoint(run))
    head = VarianceHead(exported.card.feature_dim + COUNT, exported.card.dim)
    model = ServedEncoder(encoder, ServedHeads(ServedMean(exported.card.space), head))
    with pytest.raises(FormatError, match="cannot run a batch of 1"):
        verify(proto.SerializeToString(), model, np.zeros((3, 16, 16, 3), np.uint8))


def test_two_exports_of_one_run_compute_the_same(run: Path, export_once: Export, tmp_path: Path) -> None:
    first = export_once("projector")
    second = export_run(run, tmp_path / "model.onnx", ExportOptions(space="projector", calibration=QUICK))
    images = np.stack([np.resize(picture(n), (16, 16, 3)) for n in range(4)])
    a, b = run_model(first.path.read_bytes(), images), run_model(second.path.read_bytes(), images)
    assert all(np.allclose(a[k], b[k], atol=1e-6) for k in a)


def test_missing_runs_and_unknown_choices_say_what_to_type(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="vssl train"):
        export_run(tmp_path / "absent", tmp_path / "m.onnx", ExportOptions())
    with pytest.raises(InputError, match="student or teacher"):
        export_run(run, tmp_path / "m.onnx", ExportOptions(branch="both"))
    with pytest.raises(InputError, match="no images at"):
        export_run(run, tmp_path / "m.onnx", ExportOptions(calibration_source=str(tmp_path / "absent")))


def test_the_card_tells_what_the_file_reached_on_labelled_images(exported: Exported) -> None:
    found = exported.card.measured
    assert (found["source"], found["images"]) == ("labelled", 60)
    pictures = np.stack([picture(n, (16, 16)) for n in [*range(0, 60, 2), *range(1, 60, 2)]])
    outputs = session(exported.path).run(["mean", "variance"], {"images": pictures})
    expected = accuracy(GaussianEmbedding(*outputs), ["a"] * 30 + ["b"] * 30)
    assert expected is not None
    assert found["knn_top1"] == pytest.approx(expected.knn_top1, abs=1 / 60)
    assert found["r_auroc"] == pytest.approx(expected.r_auroc, abs=0.02)


def test_images_without_labels_to_measure_it_on_are_refused_before_anything_is_read(
    run: Path, labelled: Path, tmp_path: Path
) -> None:
    plain = ExportOptions(evaluation_source=str(labelled / "a"), calibration=QUICK)
    told: list[str] = []
    with pytest.raises(InputError, match="found 0 labelled images"):
        export_run(run, tmp_path / "n.onnx", plain, told.append)
    assert not told
