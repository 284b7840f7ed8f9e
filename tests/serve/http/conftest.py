"""One real server with a tiny model and a gallery of twelve pictures, shared by the tests here."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from PIL import Image

from index.gallery.folder.gallery import FolderGallery
from serve.inference.engine import Engine
from tests.serve.running import Running, running
from tests.support.tiny_model import picture, tiny_model
from vssl.embeddings.store import Rows
from vssl.images.preprocess import load_image

DIM = 8


def encoded(seed: int, form: str = "PNG", size: tuple[int, int] = (40, 30)) -> bytes:
    """Return picture `seed` as the bytes of an image file."""
    sink = io.BytesIO()
    Image.fromarray(picture(seed, size)).save(sink, form)
    return sink.getvalue()


@dataclass(frozen=True)
class World:
    """The files behind the server, and the engine that says what the right answers are."""

    folder: Path
    model: Path
    gallery: Path
    engine: Engine

    def expected(self, data: bytes) -> tuple[list[float], list[float], float]:
        """Return mean, variance and uncertainty of one image, computed without the server."""
        gaussians = self.engine.infer(load_image(data, self.engine.card.preprocess)[None]).gaussians
        return (
            gaussians.mean[0].tolist(),
            gaussians.variance[0].tolist(),
            float(gaussians.uncertainty[0]),
        )


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("serving")
    model = tiny_model(folder / "model.onnx", dim=DIM)
    engine = Engine.open(model, threads=1)
    make_gallery(folder, engine)
    return World(folder, model, folder / "gallery", engine)


def make_gallery(folder: Path, engine: Engine) -> None:
    """Write twelve pictures, two labels, as files and as a gallery that records where they lie."""
    (folder / "images").mkdir()
    files = [folder / "images" / f"{n}.png" for n in range(12)]
    for n, file in enumerate(files):
        file.write_bytes(encoded(n))
    embedded = engine.embed([file.read_bytes() for file in files])
    import numpy as np

    from vssl.embeddings.gaussian import GaussianEmbedding

    gaussians = GaussianEmbedding(
        np.stack([e.mean for e in embedded]),  # type: ignore[union-attr]
        np.stack([e.variance for e in embedded]),  # type: ignore[union-attr]
    )
    rows = Rows(
        [f"set/{n}.png" for n in range(12)],
        [str(f) for f in files],
        ["even" if n % 2 == 0 else "odd" for n in range(12)],
        gaussians,
    )
    with FolderGallery.create(folder / "gallery", card=engine.card, model_id=engine.model_id) as gallery:
        gallery.add(rows)


@pytest.fixture(scope="session")
def server(world: World) -> Iterator[Running]:
    arguments = [
        "--model",
        str(world.model),
        "--gallery",
        str(world.gallery),
        "--show-images",
        "--threads",
        "2",
    ]
    with running(
        arguments, world.folder, environment={"VSSL_MAX_BODY_BYTES": "2000000", "VSSL_MAX_ITEMS": "16"}
    ) as it:
        yield it


@pytest.fixture
def http(server: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client
