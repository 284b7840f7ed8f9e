"""A model that predicts its uncertainty, and one of before that derives it, on one real server.

The tiny model predicts the mean brightness of a picture, which is known here from its pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import onnxruntime as ort
import pytest

from index.gallery.folder.gallery import FolderGallery
from serve.inference.engine import Engine
from tests.serve.http.conftest import encoded
from tests.serve.running import running
from tests.support.tiny_model import tiny_model
from tests.vssl.cli.test_search import vssl
from vssl.images.preprocess import load_image
from vssl.model.card import PREDICTED_UNCERTAINTY, UNCERTAINTY

PICTURES = range(6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two models, and an empty gallery of the one that predicts."""
    folder = tmp_path_factory.mktemp("uncertainty")
    tiny_model(folder / "derived.onnx", seed=1)
    engine = Engine.open(tiny_model(folder / "own.onnx", predicts=True), threads=1)
    FolderGallery.create(folder / "gallery", card=engine.card, model_id=engine.model_id).close()
    return folder


@pytest.fixture(scope="module")
def http(folder: Path) -> Iterator[httpx.Client]:
    models = ("--model", f"own={folder}/own.onnx", "--model", f"derived={folder}/derived.onnx")
    with (
        running([*models, "--gallery", str(folder / "gallery")], folder) as server,
        httpx.Client(base_url=server.url, timeout=30) as client,
    ):
        for n in PICTURES:
            client.put(f"/gallery/{n}", content=encoded(n)).raise_for_status()
        yield client


def outputs(model: Path, seed: int) -> dict[str, np.ndarray]:
    """Run a file's graph on picture `seed`, without anything of the server."""
    engine = Engine.open(model, check=False)
    pixels = load_image(encoded(seed), engine.card.preprocess)[None]
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"images": pixels}), strict=True)) | {"images": pixels}


@pytest.mark.parametrize("seed", PICTURES)
def test_embed_answers_the_graphs_own_output_to_the_bit(http: httpx.Client, folder: Path, seed: int) -> None:
    (result,) = http.post("/embed", content=encoded(seed)).json()["results"]
    found = outputs(folder / "own.onnx", seed)
    assert np.float32(result["uncertainty"]) == found["uncertainty"][0]
    assert result["uncertainty"] == pytest.approx(found["images"].mean() / 255, abs=1e-6)


@pytest.mark.parametrize("seed", PICTURES)
def test_a_model_of_before_answers_what_follows_from_mean_and_variance(
    http: httpx.Client, folder: Path, seed: int
) -> None:
    (result,) = http.post("/embed?model=derived", content=encoded(seed)).json()["results"]
    found = outputs(folder / "derived.onnx", seed)
    assert "uncertainty" not in found
    mean, variance = (found[name][0].astype(np.float64) for name in ("mean", "variance"))
    square = mean @ mean
    across = variance.sum() - (variance * mean**2).sum() / square  # what lies across the mean's direction
    expected = 1 - 1 / np.sqrt(1 + across / square)
    assert result["uncertainty"] == pytest.approx(expected, abs=1e-5)


def test_gallery_and_search_show_the_output_that_was_stored(http: httpx.Client, folder: Path) -> None:
    own = {str(n): float(outputs(folder / "own.onnx", n)["uncertainty"][0]) for n in PICTURES}
    for name, value in own.items():
        assert http.get(f"/gallery/{name}").json()["uncertainty"] == pytest.approx(value, abs=1e-7)
    listed = http.get("/items?rows=0-5").json()["items"]
    assert {item["id"]: item["uncertainty"] for item in listed} == pytest.approx(own, abs=1e-7)
    (result,) = http.post("/search?k=6", content=encoded(2)).json()["results"]
    assert result["uncertainty"] == pytest.approx(own["2"], abs=1e-7)
    shown = {neighbour["id"]: neighbour["uncertainty"] for neighbour in result["neighbours"]}
    assert shown == pytest.approx(own, abs=1e-7)


def test_card_and_inspect_say_which_of_the_two_it_is(http: httpx.Client, folder: Path) -> None:
    for name, text in (("own", PREDICTED_UNCERTAINTY), ("derived", UNCERTAINTY)):
        card = http.get("/model", params={"model": name}).json()["card"]
        assert card["uncertainty"] == text
        assert (card["uncertainty_fit"] is not None) == (name == "own")
        assert text in vssl("inspect", folder / f"{name}.onnx").stdout
