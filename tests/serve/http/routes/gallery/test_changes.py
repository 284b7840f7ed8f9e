"""Curation, selections and changes over HTTP: what is listed is the gallery's own, what is undone is as it was."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from index.curation.outliers import outliers
from index.curation.select import select
from index.gallery.folder.gallery import FolderGallery
from serve.inference.engine import Engine
from tests.serve.http.conftest import DIM, encoded, make_gallery
from tests.serve.running import running
from tests.support.tiny_model import tiny_model
from vssl.images.sources import open_source


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("changes")
    make_gallery(folder, Engine.open(tiny_model(folder / "model.onnx", dim=DIM, predicts=True), threads=1))
    return folder


@pytest.fixture(scope="module")
def own(folder: Path) -> Iterator[httpx.Client]:
    arguments = ["--model", str(folder / "model.onnx"), "--gallery", str(folder / "gallery"), "--show-images"]
    with (
        running(arguments, folder) as server,
        httpx.Client(base_url=server.url, timeout=30) as client,
    ):
        yield client


def generation(client: httpx.Client) -> int:
    return int(client.get("/columns").json()["generation"])


def test_a_removal_is_on_the_disk_and_can_be_undone_once(own: httpx.Client, folder: Path) -> None:
    before = {n: own.get(f"/gallery/set/{n}.png").json() for n in (3, 4)}
    gone = own.post("/removals", json={"ids": ["set/3.png", "set/4.png"]}).json()
    assert gone["removed"] == 2
    with FolderGallery.open(folder / "gallery", read_only=True) as gallery:
        assert len(gallery) == 10
    assert own.post("/restorations", json={"undo": gone["undo"]}).json() == {"changed": 2}
    assert {n: own.get(f"/gallery/set/{n}.png").json() for n in (3, 4)} == before
    assert own.get("/thumbnails/set/3.png").status_code == 200
    again = own.post("/restorations", json={"undo": gone["undo"]})
    assert (again.status_code, again.json()["error"]["param"]) == (404, "undo")


def test_a_removal_is_not_undone_over_what_has_come_since(own: httpx.Client) -> None:
    gone = own.post("/removals", json={"ids": ["set/3.png", "set/4.png"]}).json()
    assert own.put("/gallery/set/4.png", content=encoded(4)).status_code == 201
    answer = own.post("/restorations", json={"undo": gone["undo"]})
    assert (answer.status_code, answer.json()["error"]["param"]) == (409, "undo")
    assert "1 of 2 items are in the gallery again ('set/4.png'" in answer.json()["error"]["message"]
    assert own.delete("/gallery/set/4.png").status_code == 200
    assert own.post("/restorations", json={"undo": gone["undo"]}).json() == {"changed": 2}


def test_a_removal_of_what_is_not_there_removes_nothing(own: httpx.Client) -> None:
    answer = own.post("/removals", json={"ids": ["set/1.png", "nowhere"]})
    assert (answer.status_code, answer.json()["error"]["param"]) == (404, "ids")
    assert own.get("/gallery/set/1.png").status_code == 200


def test_a_tag_is_metadata_that_filters_read(own: httpx.Client) -> None:
    before = own.get("/gallery/set/5.png").json()
    body = {"ids": ["set/5.png", "set/6.png"], "tag": "check"}
    assert own.post("/tags", json=body).json() == {"changed": 2}
    assert own.post("/tags", json=body).json() == {"changed": 0}
    after = own.get("/gallery/set/5.png").json()
    assert after == before | {"metadata": {"tag.check": True}}
    query = {"mean": after["mean"], "variance": after["variance"], "uncertainty": [after["uncertainty"]]}
    for where in ({"tag.check": True}, "tag.check=true"):
        (result,) = own.post("/search", json={**query, "where": where}).json()["results"]
        assert {one["id"] for one in result["neighbours"]} == {"set/5.png", "set/6.png"}
    assert own.post("/tags", json={**body, "present": False}).json() == {"changed": 2}
    assert own.get("/gallery/set/5.png").json() == before


def test_no_tag_is_lost_to_another_that_is_given_at_once(own: httpx.Client) -> None:
    body = {"ids": [f"set/{n}.png" for n in range(12)]}
    names = [f"at-once-{n}" for n in range(16)]
    for present in (True, False):
        with ThreadPoolExecutor(len(names)) as pool:
            asked = [
                pool.submit(own.post, "/tags", json={**body, "tag": t, "present": present}) for t in names
            ]
        assert [one.result().json() for one in asked] == [{"changed": 12}] * len(names)
        kept = {f"tag.{t}": True for t in names} if present else {}
        assert all(own.get(f"/gallery/{id_}").json()["metadata"] == kept for id_ in body["ids"])


@pytest.mark.parametrize("tag", ["", "two words", "a" * 41, "é"])
def test_a_tag_that_no_filter_could_name_is_refused(own: httpx.Client, tag: str) -> None:
    answer = own.post("/tags", json={"ids": ["set/5.png"], "tag": tag})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "tag")


def test_lists_are_those_of_the_command_line(own: httpx.Client, folder: Path) -> None:
    with FolderGallery.open(folder / "gallery", read_only=True) as gallery:
        expected = {
            ("outliers", None): [one.id for one in outliers(gallery, limit=5)],
            ("select", "diverse"): [one.id for one in select(gallery, "diverse", limit=5)],
        }
        rows = gallery.listing().ids
    for (name, strategy), ids in expected.items():
        options = {"limit": 5} | ({"strategy": strategy} if strategy else {})
        answer = own.get(f"/curation/{name}", params=options).json()
        assert [one["id"] for one in answer["found"]] == ids
        assert [rows[one["row"]] for one in answer["found"]] == ids
        assert not any("path" in name for one in answer["found"] for name in one)


def test_an_unknown_list_is_refused_with_those_there_are(own: httpx.Client) -> None:
    told = own.get("/curation/duplicates", params={"strategy": "diverse"})
    assert (told.status_code, told.json()["error"]["param"]) == (400, "strategy")
    answer = own.get("/curation/best")
    assert answer.status_code == 404
    assert "duplicates, uncertain, outliers, suspects, select" in answer.json()["error"]["message"]


def test_a_selection_is_exported_as_a_list_that_the_pipeline_reads(own: httpx.Client, tmp_path: Path) -> None:
    body = {"rows": [7, 2], "generation": generation(own)}
    ids = [item["id"] for item in own.get("/items", params={"rows": "7,2"}).json()["items"]]
    answer = own.post("/exports", json={**body, "format": "list"})
    file = tmp_path / "selection.jsonl"
    file.write_bytes(answer.content)
    assert 'filename="selection.jsonl"' in answer.headers["content-disposition"]
    source = open_source(f"list:{file}")
    assert [item.id for item in source.items] == ids
    assert all(source.read(n) for n in range(2))
    entries = own.post("/exports", json={**body, "format": "json"}).json()
    table = list(csv.DictReader(io.StringIO(own.post("/exports", json={**body, "format": "csv"}).text)))
    assert [one["id"] for one in entries] == [one["id"] for one in table] == ids
    assert [float(one["uncertainty"]) for one in table] == [one["uncertainty"] for one in entries]
    assert [json.loads(line)["path"] for line in answer.text.splitlines()] == [one["path"] for one in entries]


def test_what_cannot_be_exported_is_named(own: httpx.Client) -> None:
    assert own.put("/gallery/sent.png", content=encoded(50)).status_code == 201
    (row,) = own.post("/rows", json={"ids": ["sent.png"]}).json()["rows"]
    body = {"generation": generation(own)}
    for rows, form, said in (
        ([0, row], "list", "1 of 2 items have no file ('sent.png' first)"),
        ([0, row + 1], "csv", f"found {row + 1}, the gallery has {row + 1} items"),
    ):
        answer = own.post("/exports", json={**body, "rows": rows, "format": form})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "rows")
        assert said in answer.json()["error"]["message"]
    assert own.post("/exports", json={**body, "rows": [0, row], "format": "csv"}).status_code == 200
    assert own.delete("/gallery/sent.png").status_code == 200


def test_rows_of_an_earlier_generation_are_not_exported(own: httpx.Client) -> None:
    answer = own.post("/exports", json={"rows": [0], "generation": generation(own) + 1, "format": "csv"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "gallery_changed")


def test_a_second_server_is_read_only_and_does_not_say_where_images_lie(
    own: httpx.Client, folder: Path, tmp_path: Path
) -> None:
    arguments = ["--model", str(folder / "model.onnx"), "--gallery", str(folder / "gallery")]
    with running(arguments, tmp_path) as server, httpx.Client(base_url=server.url, timeout=30) as client:
        assert (own.get("/gallery").json()["writable"], client.get("/gallery").json()["writable"]) == (
            True,
            False,
        )
        refused = client.post("/removals", json={"ids": ["set/1.png"]})
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "gallery_read_only")
        body = {"rows": [0], "generation": generation(client)}
        assert client.post("/exports", json={**body, "format": "list"}).status_code == 403
        assert "path" not in client.post("/exports", json={**body, "format": "json"}).json()[0]
