"""/gallery and /thumbnails: what is acknowledged is on the disk; only recorded files are shown."""

from __future__ import annotations

import io

import httpx
import numpy as np
from PIL import Image

from index.gallery.folder.gallery import FolderGallery
from tests.serve.http.conftest import World, encoded


def test_the_gallery_describes_itself(http: httpx.Client, world: World) -> None:
    info = http.get("/gallery").json()
    assert info["model_id"] == world.engine.model_id
    assert info["items"] >= 12


def test_an_item_is_read_with_its_gaussian(http: httpx.Client, world: World) -> None:
    item = http.get("/gallery/set/2.png").json()
    mean, variance, uncertainty = world.expected(encoded(2))
    assert (item["id"], item["label"]) == ("set/2.png", "even")
    np.testing.assert_allclose(item["mean"], mean, atol=1e-6)
    np.testing.assert_allclose(item["variance"], variance, atol=1e-6)
    np.testing.assert_allclose(item["uncertainty"], uncertainty, atol=1e-6)


def test_an_item_is_added_replaced_and_removed_durably(http: httpx.Client, world: World) -> None:
    put = http.put("/gallery/new/é x.png?label=fresh", content=encoded(50))
    assert (put.status_code, put.json()["replaced"]) == (201, False)
    with FolderGallery.open(world.gallery, read_only=True) as gallery:  # another reader sees it at once
        assert gallery.get("new/é x.png").label == "fresh"
    found = http.post("/search?k=1", content=encoded(50)).json()["results"][0]["neighbours"][0]
    assert (found["id"], found["label"]) == ("new/é x.png", "fresh")

    put = http.put("/gallery/new/é x.png?label=other", content=encoded(51))
    assert (put.status_code, put.json()["replaced"]) == (200, True)
    np.testing.assert_allclose(
        http.get("/gallery/new/é x.png").json()["mean"], world.expected(encoded(51))[0], atol=1e-6
    )

    assert http.delete("/gallery/new/é x.png").status_code == 200
    assert http.delete("/gallery/new/é x.png").status_code == 404
    assert http.get("/gallery/new/é x.png").status_code == 404
    found = http.post("/search?k=1", content=encoded(51)).json()["results"][0]["neighbours"][0]
    assert found["id"] != "new/é x.png"


def test_a_bad_image_is_not_added(http: httpx.Client) -> None:
    assert http.put("/gallery/bad", content=b"junk").status_code == 415
    assert http.get("/gallery/bad").status_code == 404


def test_a_thumbnail_is_a_small_jpeg_of_the_recorded_file(http: httpx.Client) -> None:
    answer = http.get("/thumbnails/set/3.png")
    assert answer.headers["content-type"] == "image/jpeg"
    shown = Image.open(io.BytesIO(answer.content))
    assert shown.size == (40, 30)


def test_nothing_but_recorded_files_is_shown(http: httpx.Client) -> None:
    for wanted in ("model.onnx", "..%2f..%2fmodel.onnx", "%2fetc%2fpasswd", "set/99.png"):
        assert http.get(f"/thumbnails/{wanted}").status_code == 404
    http.put("/gallery/set/3.png.copy", content=encoded(3))
    assert http.get("/thumbnails/set/3.png.copy").status_code == 404  # it has no file
    http.delete("/gallery/set/3.png.copy")
