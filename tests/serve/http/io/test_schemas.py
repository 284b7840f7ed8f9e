"""The types of requests: what they take from JSON, from a query or a form, and what they refuse."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from pydantic import BaseModel

from index.answers.filters import parse_where
from serve.http.errors import RequestError
from serve.http.io.schemas import (
    EmbedRequest,
    GaussianSearch,
    ImageSearch,
    PutOptions,
    PutRequest,
    SearchOptions,
    SearchRequest,
)
from serve.http.io.validation import from_json, from_text

IMAGE = {"base64": "eA=="}


def read(model: type[BaseModel], **values: Any) -> Any:
    return from_json(model, orjson.dumps(values))


def refusal(model: type[BaseModel], **values: Any) -> str:
    with pytest.raises(RequestError) as caught:
        read(model, **values)
    return f"{caught.value.param} | {caught.value}"


def test_an_image_is_either_bytes_or_a_url() -> None:
    found = read(EmbedRequest, images=[IMAGE, {"url": "https://a.b/c", "name": "c"}, {**IMAGE, "url": None}])
    assert [(i.base64, i.url, i.name) for i in found.images] == [
        ("eA==", None, None),
        (None, "https://a.b/c", "c"),
        ("eA==", None, None),
    ]
    for wrong in ({}, {"name": "a"}, {**IMAGE, "url": "https://a.b/c"}):
        assert 'images[0]: expected {"base64"' in refusal(EmbedRequest, images=[wrong])
    assert "images[1]: found 'eA=='" in refusal(EmbedRequest, images=[IMAGE, "eA=="])
    assert "images | images: list should have at least 1 item" in refusal(EmbedRequest, images=[])


def test_a_search_is_by_images_or_by_gaussians() -> None:
    by_image = read(SearchRequest, images=[IMAGE], k=3).root
    assert isinstance(by_image, ImageSearch)
    assert by_image.k == 3
    for rows in ([1, 2.5], [[1.0, 2.5]]):
        by_gaussian = read(SearchRequest, mean=rows, variance=rows, model_id="m").root
        assert isinstance(by_gaussian, GaussianSearch)
        assert by_gaussian.mean == rows
    assert "mean: does not go together" in refusal(SearchRequest, images=[IMAGE], mean=[1.0])
    assert "variance | variance: missing" in refusal(SearchRequest, mean=[1.0])


@pytest.mark.parametrize("k", [1, 1000, 7.0])
def test_k_is_a_whole_number_from_1_to_1000(k: float) -> None:
    assert read(SearchRequest, images=[IMAGE], k=k).root.k == k
    assert from_text(SearchOptions, [("k", str(k))]).k == k


@pytest.mark.parametrize("k", [0, 1001, 1.5, True, "5", [], -1])
def test_nothing_else_is(k: Any) -> None:
    assert refusal(SearchRequest, images=[IMAGE], k=k).startswith("k | k: ")


@pytest.mark.parametrize("text", ["label=cat", "label=a=b", '{"year": {">": 2019}}'])
def test_a_filter_is_written_everywhere_as_on_the_command_line(text: str) -> None:
    where = parse_where(text)
    assert from_text(SearchOptions, [("where", text)]).where == where
    assert read(SearchRequest, images=[IMAGE], where=text).root.where == where
    assert read(SearchRequest, images=[IMAGE], where=where).root.where == where


@pytest.mark.parametrize(
    "where", ["label", "{", [], 5, {"label": {"like": 1}}, {"a b": 1}, {"year": {"<": None}}]
)
def test_a_filter_that_cannot_be_read_is_refused(where: Any) -> None:
    assert refusal(SearchRequest, images=[IMAGE], where=where).startswith("where | where: ")


def test_metadata_keeps_its_types() -> None:
    metadata = {"year": 2024, "price": 1.5, "sold": True, "maker": "x", "note": None, "code": "007"}
    assert read(PutRequest, images=[IMAGE], metadata=metadata).metadata == metadata
    found = from_text(PutOptions, [("metadata", orjson.dumps(metadata).decode()), ("label", "5")])
    assert (found.metadata, found.label) == (metadata, "5")
    assert [type(v) for v in (found.metadata or {}).values()] == [type(v) for v in metadata.values()]
    assert refusal(PutRequest, images=[IMAGE], metadata={"a": [1]}).startswith(
        "metadata | metadata.a: found [1]"
    )
    assert "expected a JSON object" in refusal(PutRequest, images=[IMAGE], metadata="year=2024")


def test_null_is_the_default() -> None:
    found = read(SearchRequest, images=[IMAGE], k=None, where=None).root
    assert found.model_dump(exclude={"images"}) == dict.fromkeys(SearchOptions.model_fields)
