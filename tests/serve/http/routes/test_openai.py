"""/v1: the `openai` package works against the server and gets the same numbers."""

from __future__ import annotations

import base64
import importlib.util
from typing import Any

import httpx
import numpy as np
import pytest

from tests.serve.http.conftest import DIM, World, encoded
from tests.serve.running import Running


def uri(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


@pytest.mark.skipif(importlib.util.find_spec("openai") is None, reason="the openai package is not installed")
@pytest.mark.parametrize("encoding", [None, "float", "base64"])
def test_the_openai_package_gets_the_same_numbers(server: Running, world: World, encoding: Any) -> None:
    import openai

    options: dict[str, Any] = {} if encoding is None else {"encoding_format": encoding}
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as client:
        (model,) = client.models.list().data
        assert model.id == world.engine.card.name
        data = [encoded(1), encoded(2)]
        answer = client.embeddings.create(model=model.id, input=[uri(d) for d in data], **options)
        assert [d.index for d in answer.data] == [0, 1]
        for row, image in zip(answer.data, data, strict=True):
            embedding: Any = row.embedding
            if isinstance(embedding, str):  # asked for by name, base64 is handed through
                embedding = np.frombuffer(base64.b64decode(embedding), "<f4")
            np.testing.assert_allclose(embedding, world.expected(image)[0], atol=1e-6)
            assert row.uncertainty == pytest.approx(world.expected(image)[2], abs=1e-6)  # type: ignore[attr-defined]
        short = client.embeddings.create(model=model.id, input=uri(data[0]), dimensions=3)
        np.testing.assert_allclose(short.data[0].embedding, world.expected(data[0])[0][:3], atol=1e-6)
        with pytest.raises(openai.BadRequestError):
            client.embeddings.create(model=model.id, input="https://example.com/a.png")
        with pytest.raises(openai.NotFoundError):
            client.embeddings.create(model="another", input=uri(data[0]))


def test_variance_comes_with_the_embedding(http: httpx.Client, world: World) -> None:
    (row,) = http.post("/v1/embeddings", json={"input": uri(encoded(1))}).json()["data"]
    np.testing.assert_allclose(row["variance"], world.expected(encoded(1))[1], atol=1e-6)


def test_an_image_url_object_is_read_too(http: httpx.Client, world: World) -> None:
    item = {"type": "image_url", "image_url": {"url": uri(encoded(1))}}
    (row,) = http.post("/v1/embeddings", json={"input": [item]}).json()["data"]
    np.testing.assert_allclose(row["embedding"], world.expected(encoded(1))[0], atol=1e-6)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"),
        ({"input": []}, "input"),
        ({"input": "x", "dimensions": 0}, "dimensions"),
        ({"input": "x", "dimensions": DIM + 1}, "dimensions"),
        ({"input": "x", "encoding_format": "int8"}, "encoding_format"),
    ],
)
def test_wrong_requests_name_their_parameter(http: httpx.Client, body: dict[str, Any], param: str) -> None:
    answer = http.post("/v1/embeddings", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("hello", "texts are not embedded here"),
        (["a red hat, please"], "texts are not embedded here"),
        ([1, 2, 3], "found 1, expected a valid string or an object"),
    ],
)
def test_what_is_no_image_is_told_so(http: httpx.Client, asked: object, said: str) -> None:
    answer = http.post("/v1/embeddings", json={"input": asked})
    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("asked", "place"), [([uri(encoded(1)), uri(b"junk")], 1), ([uri(b"junk")], 0), (uri(b"junk"), 0)]
)
def test_a_bad_image_is_named_by_its_place(http: httpx.Client, asked: list[str] | str, place: int) -> None:
    answer = http.post("/v1/embeddings", json={"input": asked})
    assert answer.status_code == 415
    error = answer.json()["error"]
    assert error["message"].startswith(f"input[{place}]: found no image")
    assert (error["code"], error["param"]) == ("unsupported_type", "input")
