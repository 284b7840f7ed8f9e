"""Answers: the form that Accept asks for, with the same numbers, names and errors in each."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pyarrow as pa
import pytest

from serve.http.io.answers import ARROW, JSON, NPZ, accepted, base64_floats, render
from serve.http.middleware.context import RequestContext
from serve.inference.embedded import EmbeddedImages
from tests.serve.http.io.test_arrow import CARD, answers
from vssl.errors import ImageError

FAILED = ImageError("empty", "nothing is there")
ANSWERS = answers(2, errors={1: FAILED})


def asked(accept: str | None) -> RequestContext:
    headers = [] if accept is None else [(b"accept", accept.encode("latin-1"))]

    async def receive() -> dict[str, object]:
        return {"type": "http.disconnect"}

    scope = {"type": "http", "method": "POST", "path": "/embed", "query_string": b"", "headers": headers}
    return RequestContext.of(scope, receive)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (None, JSON),
        ("*/*", JSON),
        ("", JSON),
        ("text/html, image/png;q=0.5", JSON),
        (ARROW, ARROW),
        (f"{ARROW.upper()};q=0.9", ARROW),
        (f"text/html, {NPZ}, {ARROW}", NPZ),
        ("application/npz", NPZ),
        (f"{JSON}, {ARROW}", JSON),
        ("é", JSON),
    ],
)
def test_accept_names_the_form(accept: str | None, form: str) -> None:
    assert accepted(asked(accept)) == form


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_json_holds_numbers_names_and_errors(encoding: str) -> None:
    response = render(ANSWERS, ["a", None], CARD, "id", form=JSON, encoding=encoding)
    body = json.loads(bytes(response.body))
    assert (response.media_type, body["model_id"], body["dim"]) == (JSON, "id", CARD.dim)
    first, second = body["results"]
    assert second == {"error": {"code": "empty", "message": "nothing is there"}}
    assert first.pop("name") == "a"
    values = {
        name: np.frombuffer(base64.b64decode(text), "<f4") if encoding == "base64" else np.float32(text)
        for name, text in first.items()
        if name != "uncertainty"
    }
    np.testing.assert_array_equal(values["mean"], ANSWERS.mean[0])
    np.testing.assert_array_equal(values["variance"], ANSWERS.variance[0])
    assert np.float32(first["uncertainty"]) == ANSWERS.uncertainty[0]


def test_json_prints_a_float32_with_the_fewest_digits() -> None:
    tenth, one = np.full(1, 0.1, np.float32), np.ones((1, 1), np.float32)
    response = render(
        EmbeddedImages(tenth[None], one, one, tenth, predicted=False),
        [None],
        CARD,
        "id",
        form=JSON,
        encoding="float",
    )
    assert b'"mean":[0.1],"variance":[1.0],"uncertainty":0.1' in bytes(response.body)


def test_arrow_and_npz_hold_the_same() -> None:
    stream = render(ANSWERS, ["a", None], CARD, "id", form=ARROW, encoding="float")
    table = pa.ipc.open_stream(bytes(stream.body)).read_all()
    packed = render(ANSWERS, ["a", None], CARD, "id", form=NPZ, encoding="float")
    arrays = np.load(io.BytesIO(bytes(packed.body)), allow_pickle=False)
    assert (stream.media_type, packed.media_type) == (ARROW, NPZ)
    np.testing.assert_array_equal(arrays["mean"][0], np.float32(table["mean"].to_pylist()[0]))
    assert np.isnan(arrays["mean"][1]).all()
    assert np.isnan(arrays["uncertainty"]).tolist() == [False, True]
    assert arrays["error"].tolist() == ["", "empty"]
    assert table["error_message"].to_pylist() == [None, "nothing is there"]
    assert str(arrays["model_id"]) == "id"


def test_base64_is_little_endian_float32() -> None:
    assert base64.b64decode(base64_floats(np.array([1.0, -2.0], ">f4"))) == b"\0\0\x80?\0\0\0\xc0"
