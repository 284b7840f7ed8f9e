"""What a lower precision loses is measured on real outputs, and too much of it is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from export.calibration.head import CalibrationConfig
from export.evaluation.fidelity import Fidelity, compare
from export.package import Exported, ExportOptions, export_run
from tests.support.tiny_model import picture, tiny_model
from tests.support.tiny_run import image_folder, tiny_run
from vssl.errors import FormatError, InputError

QUICK = CalibrationConfig(images=80, views=4, report_views=8, epochs=5)
FINE = Fidelity(100, 0.999, 0.98, 0.99, 2.0, 0.9, 0.895, 0.7, 0.69)


def images(count: int) -> np.ndarray:
    return np.stack([picture(n, (16, 16)) for n in range(count)])


def test_a_model_compared_with_itself_loses_nothing(tmp_path: Path) -> None:
    data = tiny_model(tmp_path / "m.onnx").read_bytes()
    found = compare(data, data, images(60), ["a", "b"] * 30)
    assert (found.same_neighbour, found.rank_correlation) == (1.0, pytest.approx(1.0))
    assert found.cosine == pytest.approx(1.0)
    assert found.knn == found.knn_fp32 is not None
    found.require("int8")


def test_another_model_loses_its_neighbours_and_is_refused(tmp_path: Path) -> None:
    one, other = (tiny_model(tmp_path / f"{seed}.onnx", seed=seed).read_bytes() for seed in (0, 1))
    found = compare(one, other, images(60), [None] * 60)
    assert found.knn is None
    assert found.same_neighbour < 0.9
    with pytest.raises(FormatError, match=r"ordered otherwise.*--accept-loss"):
        found.require("int8")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"knn": 0.88}, "k-NN accuracy fell"),
        ({"r_auroc": 0.6}, "R-AUROC fell"),
        ({"rank_correlation": 0.9}, "ordered"),
    ],
)
def test_each_loss_beyond_its_limit_is_named(change: dict[str, float], message: str) -> None:
    FINE.require("int8")
    with pytest.raises(FormatError, match=message):
        dataclasses.replace(FINE, **change).require("int8")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("fidelity")
    return tiny_run(home / "run", image_folder(home / "images"))


@pytest.fixture(scope="module")
def whole(run: Path) -> Exported:
    """The run in fp32."""
    return export_run(run, run.parent / "fp32.onnx", ExportOptions(calibration=QUICK))


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_lower_precisions_are_smaller_true_to_fp32_and_say_what_they_are(
    run: Path, whole: Exported, tmp_path: Path, precision: str
) -> None:
    options = ExportOptions(precision=precision, accept_loss=True, calibration=QUICK)
    lower = export_run(run, tmp_path / f"{precision}.onnx", options)
    assert lower.card.precision == precision
    assert lower.fidelity is not None
    assert lower.fidelity.cosine > 0.9
    assert lower.size < whole.size * (
        1.05 if precision == "int8" else 0.95
    )  # int8 adds scales to tiny weights
    assert whole.fidelity is None


def test_an_unknown_precision_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected one of fp32, fp16, int8"):
        export_run(tmp_path, tmp_path / "m.onnx", ExportOptions(precision="int4"))
