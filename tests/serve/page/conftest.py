"""Real Chromium, a real server, a small model, and a gallery of 400 little pictures: red, blue, in between."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from index.curation.projection import project, write_map
from index.gallery.folder.gallery import FolderGallery
from serve.inference.engine import Engine
from tests.serve.running import PATIENCE_S, Running, running
from tests.support.tiny_model import tiny_model
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.embeddings.store import Rows

PATIENCE_MS = 1000 * PATIENCE_S
expect.set_options(timeout=PATIENCE_MS)

COUNT = 400
KINDS = {"red": (200, 90, 60), "blue": (60, 90, 200), "purple": (130, 90, 130)}
CHROMIUM = next((path for name in ("chromium", "chromium-browser") if (path := shutil.which(name))), None)


@dataclass(frozen=True)
class World:
    """The files behind the server: pictures by id, the model, the gallery."""

    folder: Path
    model: Path
    gallery: Path
    ids: list[str]

    def arguments(self, gallery: Path | None = None) -> list[str]:
        """Return what `vssl serve` is given."""
        return ["--model", str(self.model), "--gallery", str(gallery or self.gallery), "--show-images"]


def noise(random: np.random.Generator, kind: str, spread: float = 40) -> np.ndarray:
    """Return a picture (16, 16, 3) uint8 of one kind."""
    values = np.array(KINDS[kind]) + random.normal(0, spread, (8, 8, 3)) + random.normal(0, 25, 3)
    return np.clip(values, 0, 255).astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)


@pytest.fixture(scope="session")
def page_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("page")
    engine = Engine.open(tiny_model(folder / "model.onnx"), threads=1)
    random = np.random.default_rng(0)
    kinds = [("red", "blue", "purple")[n % 3] for n in range(COUNT)]
    pictures = np.stack([noise(random, kind) for kind in kinds])
    # Purple ones were labelled by chance.
    labels = [("red", "blue")[random.integers(2)] if kind == "purple" else kind for kind in kinds]
    ids = [f"{kind}/{n:03d}.png" for n, kind in enumerate(kinds)]
    for id_, picture in zip(ids, pictures, strict=True):
        (folder / "images" / id_).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / "images" / id_)
    gaussians = engine.infer(pictures).gaussians
    rows = Rows(
        ids,
        [str(folder / "images" / id_) for id_ in ids],
        list(labels),
        GaussianEmbedding(gaussians.mean, gaussians.variance),
    )
    metadata = [{"year": 2000 + n % 25, "maker": ("ann", "bob", "cid")[n % 3]} for n in range(COUNT)]
    with FolderGallery.create(folder / "gallery", card=engine.card, model_id=engine.model_id) as gallery:
        gallery.add(rows, metadata=metadata)
        write_map(folder / "gallery", project(gallery, jobs=1))
    return World(folder, folder / "model.onnx", folder / "gallery", ids)


@pytest.fixture(scope="session")
def page_server(page_world: World) -> Iterator[Running]:
    limits = {"VSSL_MAX_BODY_BYTES": "300000"}
    with running(page_world.arguments(), page_world.folder, environment=limits) as server:
        yield server


@pytest.fixture(scope="module")  # its event loop runs until it ends, and other files need their own
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        if os.environ.get("VSSL_REQUIRE_CHROMIUM"):
            pytest.fail("VSSL_REQUIRE_CHROMIUM is set and there is no chromium: apt-get install chromium")
        pytest.skip("no chromium on this machine: apt-get install chromium")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM)
        yield launched
        launched.close()


@dataclass(frozen=True)
class Visit:
    """An open page, and what it did: requests by URL, errors and refusals that the browser logged."""

    page: Page
    requests: list[str]
    complaints: list[str]


Visitor = Callable[..., Visit]


@pytest.fixture
def visitor(browser: Browser) -> Iterator[Visitor]:
    """Return what opens pages in contexts of their own, closed at the end."""
    contexts = []

    def visit(**options: object) -> Visit:
        context = browser.new_context(**options)  # type: ignore[arg-type]
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        visit = Visit(page, [], [])
        page.on("request", lambda request: visit.requests.append(request.url))
        page.on("pageerror", lambda error: visit.complaints.append(str(error)))
        page.on("console", lambda said: said.type == "error" and visit.complaints.append(said.text))
        return visit

    yield visit
    for context in contexts:
        context.close()


@pytest.fixture
def visit(visitor: Visitor) -> Visit:
    return visitor(viewport={"width": 1280, "height": 900})


@pytest.fixture
def page(visit: Visit) -> Page:
    return visit.page
