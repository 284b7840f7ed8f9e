"""What the tests of the verbs read; a test that changes a gallery makes its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.index.calibration.test_selection import classes
from tests.index.samples import MODEL, card
from tests.support.tiny_model import picture, tiny_model
from tests.vssl.cli.command import jpeg, vssl
from vssl.embeddings.manifest import write_manifest
from vssl.embeddings.store import Rows, part_name, to_table, write_table


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, three folders of eight pictures each, one broken file, embeddings and a gallery."""
    home = tmp_path_factory.mktemp("house")
    tiny_model(home / "model.onnx")
    for label in "abc":
        (home / "images" / label).mkdir(parents=True)
        for i in range(8):
            Image.fromarray(picture(ord(label) * 100 + i)).save(home / "images" / label / f"{i}.png")
    (home / "images" / "a" / "broken.png").write_bytes(b"no image")
    done = vssl("extract", home / "images", home / "embeddings", "--model", home / "model.onnx")
    assert done.returncode == 0, done.stderr
    done = vssl("index", home / "embeddings", home / "gallery")
    assert done.returncode == 0, done.stderr
    assert "24 images, distance cosine" in done.stdout
    return home


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An embeddings folder of classes whose images are blurred by their own variance."""
    folder = tmp_path_factory.mktemp("labelled") / "embeddings"
    folder.mkdir()
    items, labels = classes(400, 8)
    names = [f"i{row}" for row in range(400)]
    write_table(to_table(Rows(names, names, labels, items), card(), MODEL), folder / part_name(0))
    write_manifest(folder, model_id=MODEL, parts=[part_name(0)], rows=400, failures=0)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "model.onnx")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    for seed in range(12):
        jpeg(folder / f"class{seed % 3}" / f"img_{seed}.jpg", seed)
    return folder


@pytest.fixture(scope="module")
def extracted(good: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("extracted") / "out"
    assert vssl("extract", good, out, "--model", model).returncode == 0
    return out
