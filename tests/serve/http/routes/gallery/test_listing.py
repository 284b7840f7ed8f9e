"""/columns and /items: every item in every column at its row, of one generation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from serve.inference.engine import Engine
from tests.serve.http.conftest import DIM, encoded, make_gallery
from tests.serve.running import running
from tests.support.tiny_model import tiny_model


@pytest.fixture
def own(tmp_path: Path) -> Iterator[httpx.Client]:
    """A server of its own, since these tests write."""
    model = tiny_model(tmp_path / "model.onnx", dim=DIM)
    make_gallery(tmp_path, Engine.open(model, threads=1))
    with (
        running(["--model", str(model), "--gallery", str(tmp_path / "gallery")], tmp_path) as server,
        httpx.Client(base_url=server.url, timeout=30) as client,
    ):
        yield client


def test_columns_and_items_say_the_same(own: httpx.Client) -> None:
    own.put(
        "/gallery/new.png",
        content=encoded(40),
        params={"label": "odd", "metadata": '{"year": 2024, "ok": true}'},
    )
    columns = own.get("/columns").json()
    fields = {field["name"]: field for field in columns["fields"]}
    assert columns["items"] == 13
    assert list(fields) == ["uncertainty", "label", "year", "ok"]
    listed = own.get("/items", params={"rows": "0-12", "generation": columns["generation"]}).json()
    assert [item["row"] for item in listed["items"]] == list(range(13))
    for name, field in fields.items():
        body = own.get(f"/columns/{name}").content
        for item in listed["items"]:
            expected = item[name] if name in item else item["metadata"].get(name)
            if field["kind"] == "number":
                value = float(np.frombuffer(body, "<f4")[item["row"]])
                assert (None if np.isnan(value) else value) == expected
            else:
                code = int(np.frombuffer(body, "<u2")[item["row"]])
                text = field["values"][code - 1] if code else None
                assert text == (str(expected).lower() if isinstance(expected, bool) else expected)


def test_rows_come_in_the_order_asked_for(http: httpx.Client) -> None:
    items = http.get("/items", params={"rows": "7,2-4,9999"}).json()["items"]
    assert [item["id"] for item in items] == ["set/7.png", "set/2.png", "set/3.png", "set/4.png"]


def test_a_range_begins_with_its_lower_end(http: httpx.Client) -> None:
    answer = http.get("/items", params={"rows": "0,5-2"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "rows")
    assert "found the range 5-2" in answer.json()["error"]["message"]


def test_rows_of_an_earlier_generation_are_refused(own: httpx.Client) -> None:
    generation = own.get("/columns").json()["generation"]
    own.delete("/gallery/set/0.png")
    answer = own.get("/items", params={"rows": "0", "generation": generation})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "gallery_changed")
    fresh = own.get("/items", params={"rows": "0"}).json()
    assert (fresh["generation"], fresh["items"][0]["id"]) == (generation + 1, "set/1.png")


@pytest.mark.parametrize("rows", ["", "a", "1-", "-1", "1,,2", "1;2"])
def test_rows_of_another_form_are_refused(http: httpx.Client, rows: str) -> None:
    answer = http.get("/items", params={"rows": rows})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "rows")


def test_an_unknown_column_is_named_with_those_there_are(http: httpx.Client) -> None:
    answer = http.get("/columns/colour")
    assert answer.status_code == 404
    assert "uncertainty, label" in answer.json()["error"]["message"]
