"""What the summary can show of uncertainty."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from serve.extraction.extract import extract
from serve.extraction.report import draw_extremes, uncertainty_histogram
from tests.serve.photo_folder import photo_folder
from tests.support.tiny_model import tiny_model
from vssl.embeddings.store import read_embeddings
from vssl.errors import InputError


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "model.onnx")


@pytest.fixture
def out(model: Path, tmp_path: Path) -> Path:
    extract(photo_folder(tmp_path / "photos"), tmp_path / "out", model=model, part_rows=7)
    return tmp_path / "out"


def test_the_histogram_counts_every_image_once(out: Path) -> None:
    lines = uncertainty_histogram(out).splitlines()[1:]
    numbers = [re.match(r" *([\d.]+) to +([\d.]+) +(\d+)", line) for line in lines]
    values = read_embeddings(out).rows.gaussians.uncertainty
    assert sum(int(n[3]) for n in numbers if n) == len(values) == 30
    assert float(numbers[0][1]) == pytest.approx(values.min(), abs=1e-4)  # type: ignore[index]
    assert float(numbers[-1][2]) == pytest.approx(values.max(), abs=1e-4)  # type: ignore[index]


def test_the_sheet_shows_the_extremes(out: Path, tmp_path: Path) -> None:
    """Two rows of eight of either kind; painting the surest image red changes its first tile."""
    draw_extremes(out, tmp_path / "photos", tmp_path / "a.png")
    rows = read_embeddings(out).rows
    surest = rows.ids[int(rows.gaussians.uncertainty.argmin())]
    Image.new("RGB", (24, 20), "red").save(tmp_path / "photos" / surest)
    draw_extremes(out, tmp_path / "photos", tmp_path / "b.png")
    a, b = (np.asarray(Image.open(tmp_path / name), int) for name in ("a.png", "b.png"))
    where = np.argwhere(np.abs(a - b).sum(axis=2) > 0)
    assert len(where)
    assert where.max(axis=0).max() < 200  # the first tile only


def test_a_folder_of_failures_says_so(model: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("a")
    extract(tmp_path / "in", tmp_path / "out", model=model)
    assert uncertainty_histogram(tmp_path / "out") == "no image was embedded"
    with pytest.raises(InputError, match="no embedded image"):
        draw_extremes(tmp_path / "out", tmp_path / "in", tmp_path / "a.png")
