"""`vssl serve --max-risk`: searches say which answers to abstain from, as the gallery itself says it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from index.gallery.folder.gallery import FolderGallery
from serve.inference.engine import Engine
from tests.serve.http.conftest import World
from tests.serve.running import VSSL, free_port, running
from tests.support.tiny_model import tiny_model
from vssl.client import Client
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.embeddings.store import Rows

RISK = 0.1
COUNT = 900


@dataclass(frozen=True)
class Served:
    """A server that was given a risk, its gallery, and pictures that the gallery has not seen."""

    url: str
    gallery: Path
    asked: list[np.ndarray]
    gaussians: GaussianEmbedding


def pictures(count: int, seed: int) -> tuple[list[np.ndarray], list[str]]:
    """Reddish and bluish noise, 16 px as the model takes it; a third is of neither colour, and labelled by chance."""
    random = np.random.default_rng(seed)
    kinds = random.integers(0, 3, count)
    labels = np.where(kinds == 2, random.integers(0, 2, count), kinds)
    colour = np.array([[200, 90, 60], [60, 90, 200], [130, 90, 130]])[kinds]
    noise = random.normal(0, 40, (count, 8, 8, 3)) + random.normal(0, 6, (count, 1, 1, 3))
    images = np.clip(colour[:, None, None] + noise, 0, 255).astype(np.uint8)
    return list(images.repeat(2, axis=1).repeat(2, axis=2)), [("red", "blue")[n] for n in labels]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("risk")
    engine = Engine.open(tiny_model(folder / "model.onnx"), threads=1)

    def embed(images: list[np.ndarray]) -> GaussianEmbedding:
        return engine.infer(np.stack(images)).gaussians

    images, labels = pictures(COUNT, 0)
    ids = [f"{n}.png" for n in range(COUNT)]
    with FolderGallery.create(folder / "gallery", card=engine.card, model_id=engine.model_id) as gallery:
        gallery.add(Rows(ids, ids, list(labels), embed(images)))
    asked, _ = pictures(40, 1)
    arguments = ["--model", str(folder / "model.onnx"), "--gallery", str(folder / "gallery")]
    with running([*arguments, "--max-risk", str(RISK)], folder) as server:
        assert f"risk    {RISK:g}: answers" in server.log.read_text()
        yield Served(server.url, folder / "gallery", asked, embed(asked))


@pytest.mark.parametrize("distance", [None, "mls"])
def test_it_abstains_where_the_gallery_does(served: Served, distance: str | None) -> None:
    with FolderGallery.open(served.gallery, read_only=True) as gallery:
        found = gallery.search(served.gaussians, 3, distance=distance, max_risk=RISK)
        expected = [one.abstain for one in found]
    assert 0 < sum(expected) < len(expected)
    with Client(served.url) as client:
        found = client.search(served.gaussians, k=3, distance=distance)
    assert [len(one.neighbours) for one in found] == [3] * len(found)
    assert [one.abstain for one in found] == expected


@pytest.mark.parametrize("options", [{"where": {"id": "none of them"}}, {"max_uncertainty": 0.0}])
def test_it_abstains_from_what_finds_nothing(served: Served, options: dict[str, Any]) -> None:
    with Client(served.url) as client:
        found = client.search(served.gaussians[:2], **options)
    assert [(one.neighbours, one.abstain) for one in found] == [([], True)] * 2


def test_a_server_without_a_risk_says_nothing_of_it(http: httpx.Client, world: World) -> None:
    answer = http.post("/search?k=1", content=(world.folder / "images" / "3.png").read_bytes()).json()
    assert "abstain" not in answer["results"][0]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--max-risk", "0.05"], "--max-risk is about a gallery's answers; name one: vssl serve --gallery"),
        (["--max-risk", "5"], "VSSL_MAX_RISK: found 5.0, expected a share between 0 and 1"),
        (["--max-risk", "0.05", "--gallery", "unlabelled"], "no labelled images to calibrate --max-risk on"),
    ],
)
def test_a_risk_that_cannot_be_kept_is_refused(
    world: World, tmp_path: Path, options: list[str], told: str
) -> None:
    rows = Rows(
        ["a", "b"], ["a", "b"], [None, None], GaussianEmbedding(np.eye(2, 8, dtype="f"), np.ones((2, 8), "f"))
    )
    with FolderGallery.create(
        tmp_path / "unlabelled", card=world.engine.card, model_id=world.engine.model_id
    ) as gallery:
        gallery.add(rows)
    command = [*VSSL, "serve", "--model", str(world.model), "--port", str(free_port()), *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 1
    assert told in " ".join(done.stderr.split())
