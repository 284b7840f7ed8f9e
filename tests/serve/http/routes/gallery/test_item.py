"""/gallery: what is acknowledged is on the disk."""

from __future__ import annotations

import base64
import json

import httpx
import numpy as np
import pytest

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


def test_metadata_goes_in_by_query_form_and_json_and_comes_back(http: httpx.Client, world: World) -> None:
    metadata = {"price": 3, "maker": "ü", "used": True, "note": None}
    text = json.dumps(metadata)
    image = {"base64": base64.b64encode(encoded(60)).decode()}
    puts = [
        http.put("/gallery/priced", params={"metadata": text}, content=encoded(60)),
        http.put("/gallery/priced", files={"images": encoded(60)}, data={"metadata": text}),
        http.put("/gallery/priced", json={"images": [image], "metadata": metadata}),
    ]
    assert [(p.status_code, p.json()["metadata"]) for p in puts] == [(s, metadata) for s in (201, 200, 200)]
    assert http.get("/gallery/priced").json()["metadata"] == metadata
    with FolderGallery.open(world.gallery, read_only=True) as gallery:
        assert gallery.get("priced").metadata == metadata
    found = http.post("/search", params={"where": '{"price": {">": 2}}'}, content=encoded(61)).json()
    assert [(n["id"], n["metadata"]) for n in found["results"][0]["neighbours"]] == [("priced", metadata)]
    assert http.get("/gallery").json()["metadata"]["price"] == {"number": 1}
    http.put("/gallery/priced", content=encoded(60))
    assert http.get("/gallery/priced").json()["metadata"] == {}  # replaced as a whole
    http.delete("/gallery/priced")


@pytest.mark.parametrize(
    "metadata",
    [
        '{"price": [1]}',
        '{"price": {"a": 1}}',
        '{"id": "x"}',
        '{"a b": 1}',
        '{"a": "b\\u0000c"}',
        "price=3",
        "[]",
        "{",
    ],
)
def test_metadata_that_no_filter_could_ask_for_is_refused(http: httpx.Client, metadata: str) -> None:
    answer = http.put("/gallery/refused", params={"metadata": metadata}, content=encoded(60))
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "metadata")
    assert http.get("/gallery/refused").status_code == 404


def test_an_id_is_the_whole_path_and_nothing_less(http: httpx.Client) -> None:
    http.put("/gallery/line", content=encoded(60))
    for method in ("GET", "DELETE"):
        assert http.request(method, "/gallery/line%0A").status_code in (400, 404)
    assert http.delete("/gallery/line").status_code == 200


def test_a_bad_image_is_not_added(http: httpx.Client) -> None:
    assert http.put("/gallery/bad", content=b"junk").status_code == 415
    assert http.get("/gallery/bad").status_code == 404
