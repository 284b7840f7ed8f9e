"""Which files a gallery can make the server show: its own pictures, no link that leads out, with --images no others."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from index.gallery.folder.gallery import FolderGallery
from serve.inference.engine import Engine
from tests.serve.http.conftest import DIM, encoded
from tests.serve.running import VSSL, get, post, running
from tests.support.tiny_model import tiny_model
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.embeddings.store import Rows

NAMED = {
    "cats/1.png": "images/cats/1.png",  # a picture in the folder that was embedded
    "by another name": "images/cats/1.png",
    "again.png": "images/again.png",  # a link within
    "leads-out.png": "images/leads-out.png",  # a link to private/secret.png
    "elsewhere/secret.png": "images/elsewhere/secret.png",  # below a link to private
    "../private/secret.png": "images/../private/secret.png",
    "secret.png": "private/secret.png",  # a gallery may name any file
    "hosts": "/etc/hosts",
    "zero.png": "images/a\0b.png",
    "gone.png": "images/gone.png",
}
"""Ids and the paths recorded for them, relative to the test's folder."""

QUERY = {"mean": [1.0] * DIM, "variance": [0.1] * DIM}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with pictures, a private one, links between them and a gallery that names all of them."""
    folder = tmp_path_factory.mktemp("files")
    engine = Engine.open(tiny_model(folder / "model.onnx", dim=DIM), threads=1)
    (folder / "images" / "cats").mkdir(parents=True)
    (folder / "private").mkdir()
    (folder / "images" / "cats" / "1.png").write_bytes(encoded(1))
    (folder / "private" / "secret.png").write_bytes(encoded(2))
    (folder / "images" / "again.png").symlink_to(folder / "images" / "cats" / "1.png")
    (folder / "images" / "leads-out.png").symlink_to(folder / "private" / "secret.png")
    (folder / "images" / "elsewhere").symlink_to(folder / "private")
    values = np.random.default_rng(0).uniform(1, 2, (2, len(NAMED), DIM)).astype(np.float32)
    paths = [f"{folder}/{path}" if not path.startswith("/") else path for path in NAMED.values()]
    rows = Rows(list(NAMED), paths, [None] * len(NAMED), GaussianEmbedding(values[0], values[1]))
    with FolderGallery.create(folder / "gallery", card=engine.card, model_id=engine.model_id) as gallery:
        gallery.add(rows)
    return folder


def shown(folder: Path, *options: str) -> Iterator[dict[str, str | None]]:
    """Serve the gallery; yields by id the problem of its picture, None where it is shown."""
    arguments = ["--model", str(folder / "model.onnx"), "--gallery", str(folder / "gallery"), *options]
    with running(arguments, folder) as server:
        answer = post(f"{server.url}/thumbnails", json={"ids": list(NAMED)}, timeout=30)
        for id_ in ("secret.png", "leads-out.png"):
            assert str(folder) not in get(f"{server.url}/thumbnails/{id_}").text
        yield {id_: one["problem"] for id_, one in zip(NAMED, answer.json()["thumbnails"], strict=True)}


@pytest.fixture(scope="module")
def by_default(folder: Path) -> Iterator[dict[str, str | None]]:
    yield from shown(folder, "--show-images")


@pytest.fixture(scope="module")
def in_images_only(folder: Path) -> Iterator[dict[str, str | None]]:
    yield from shown(folder, "--images", str(folder / "images"))


@pytest.fixture(scope="module")
def in_both(folder: Path) -> Iterator[dict[str, str | None]]:
    yield from shown(folder, "--images", str(folder / "images"), "--images", str(folder / "private"))


@pytest.mark.parametrize("id_", ["cats/1.png", "by another name", "again.png"])
def test_pictures_of_the_folder_are_shown(
    by_default: dict[str, str | None], in_images_only: dict[str, str | None], id_: str
) -> None:
    assert by_default[id_] is None
    assert in_images_only[id_] is None


@pytest.mark.parametrize("id_", ["leads-out.png", "elsewhere/secret.png"])
def test_no_link_leads_out_of_the_folder_that_was_embedded(
    by_default: dict[str, str | None], id_: str
) -> None:
    assert "--images" in (by_default[id_] or "shown")


def test_without_images_any_picture_that_is_named_is_shown(by_default: dict[str, str | None]) -> None:
    assert by_default["secret.png"] is None


@pytest.mark.parametrize(
    "id_", ["leads-out.png", "elsewhere/secret.png", "../private/secret.png", "secret.png", "hosts"]
)
def test_with_images_nothing_else_is_read(in_images_only: dict[str, str | None], id_: str) -> None:
    assert "outside" in (in_images_only[id_] or "shown")


@pytest.mark.parametrize("id_", ["zero.png", "gone.png"])
def test_a_file_that_is_not_there_is_no_failure(by_default: dict[str, str | None], id_: str) -> None:
    assert "cannot be shown" in (by_default[id_] or "shown")


def test_a_file_that_is_no_picture_is_not_told(by_default: dict[str, str | None]) -> None:
    assert "localhost" not in (by_default["hosts"] or "shown localhost")


def test_several_folders_may_be_named(in_both: dict[str, str | None]) -> None:
    assert {id_ for id_, problem in in_both.items() if problem} == {"hosts", "zero.png", "gone.png"}


def test_a_server_that_shows_no_pictures_does_not_compare_their_paths(folder: Path) -> None:
    arguments = ["--model", str(folder / "model.onnx"), "--gallery", str(folder / "gallery")]
    paths = {"path": {">=": str(folder)}}
    with running(arguments, folder) as server:
        for where in (paths, {"or": [{"label": None}, {"not": paths}]}, "path=/etc/hosts"):
            answer = post(f"{server.url}/search", json={**QUERY, "where": where})
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "images_hidden")
        answer = post(f"{server.url}/search", json={**QUERY, "where": "id=hosts"})
        assert [one["id"] for one in answer.json()["results"][0]["neighbours"]] == ["hosts"]


def test_a_folder_that_is_not_there_is_refused_at_once(folder: Path) -> None:
    command = [*VSSL, "serve", "--model", str(folder / "model.onnx"), "--images", str(folder / "nowhere")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert ended.returncode != 0
    assert "nowhere" in ended.stderr
    assert "--images" in ended.stderr
