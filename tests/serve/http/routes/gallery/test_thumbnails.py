"""/thumbnails: small JPEGs of recorded files, one or many at once, and why there is none."""

from __future__ import annotations

import base64
import io

import httpx
from PIL import Image

from tests.serve.http.conftest import World, encoded


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


def test_a_thumbnail_follows_its_file_and_has_the_size_asked_for(http: httpx.Client, world: World) -> None:
    file = world.folder / "images" / "11.png"
    before = file.read_bytes()
    first = http.get("/thumbnails/set/11.png").content
    assert http.get("/thumbnails/set/11.png").content == first
    try:
        file.write_bytes(encoded(77, size=(300, 200)))
        changed = http.get("/thumbnails/set/11.png").content
        assert changed != first
        assert Image.open(io.BytesIO(changed)).size == (192, 128)
        assert Image.open(io.BytesIO(http.get("/thumbnails/set/11.png?side=60").content)).size == (60, 40)
    finally:
        file.write_bytes(before)
    for side in ("0", "5000", "x"):
        assert http.get(f"/thumbnails/set/11.png?side={side}").json()["error"]["param"] == "side"


def test_many_come_at_once_as_they_come_alone(http: httpx.Client) -> None:
    ids = [f"set/{n}.png" for n in (5, 2, 5)]
    found = http.post("/thumbnails", json={"ids": ids}).json()["thumbnails"]
    alone = [http.get(f"/thumbnails/{id_}").content for id_ in ids]
    assert [base64.b64decode(one["jpeg"]) for one in found] == alone
    assert all(one["problem"] is None for one in found)


def test_of_many_each_says_why_it_cannot_be_shown(http: httpx.Client) -> None:
    http.put("/gallery/sent", content=encoded(3))
    found = http.post("/thumbnails", json={"ids": ["nowhere", "set/1.png", "sent"]}).json()["thumbnails"]
    assert [one["jpeg"] is None for one in found] == [True, False, True]
    assert "no item 'nowhere'" in found[0]["problem"]
    assert "not kept" in found[2]["problem"]
    http.delete("/gallery/sent")


def test_a_request_asks_for_one_to_a_hundred(http: httpx.Client) -> None:
    assert http.post("/thumbnails", json={"ids": ["set/1.png"] * 100}).status_code == 200
    for ids in ([], ["set/1.png"] * 101, [""], "set/1.png"):
        assert http.post("/thumbnails", json={"ids": ids}).json()["error"]["param"].startswith("ids")
