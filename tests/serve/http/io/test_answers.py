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
from vssl.embeddings.store import MODEL_ID_KEY
from vssl.errors import ImageError, VsslError
from vssl.images.preprocess import Preprocess
from vssl.model.card import CARD_KEY, Calibration, ModelCard

CARD = ModelCard(
    name="c",
    method="none",
    backbone="none",
    space="features",
    dim=5,
    feature_dim=3,
    preprocess=Preprocess(size=8, resize=8),
    calibration=Calibration("scale"),
)


def answers(count: int, dim: int = 5, errors: dict[int, VsslError] | None = None) -> EmbeddedImages:
    random = np.random.default_rng(count)
    mean, variance = random.normal(size=(2, count, dim)).astype(np.float32)
    uncertainty = random.random(count).astype(np.float32)
    features = np.zeros((count, 3), np.float32)
    return EmbeddedImages(mean, variance**2, features, uncertainty, predicted=False, errors=errors or {})


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
        (f"{ARROW};q=0", JSON),
        (f"{ARROW};q=0.1, {JSON};q=0.9", JSON),
        (f"{JSON};q=0.5, {NPZ}; q=0.8;x=y", NPZ),
        (f"{ARROW};q=0.0, {NPZ};q=nan", NPZ),
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


def arrow(given: EmbeddedImages, names: list[str | None]) -> pa.Table:
    response = render(given, names, CARD, "id", form=ARROW, encoding="float")
    return pa.ipc.open_stream(response.body).read_all()


@pytest.mark.parametrize("count", [1, 3, 40])
def test_arrow_holds_the_numbers(count: int) -> None:
    given = answers(count)
    table = arrow(given, [None] * count)
    for column, expected in (("mean", given.mean), ("variance", given.variance)):
        np.testing.assert_array_equal(np.stack(table[column].to_numpy()), expected)
    assert table["uncertainty"].to_pylist() == given.uncertainty.tolist()
    assert table["error_code"].to_pylist() == [None] * count
    assert table.schema.metadata[MODEL_ID_KEY.encode()] == b"id"
    assert ModelCard.from_json(table.schema.metadata[CARD_KEY.encode()].decode()) == CARD


def test_arrow_holds_names_and_errors_in_their_places() -> None:
    given = answers(3, errors={1: ImageError("empty", "nothing")})
    table = arrow(given, ["a", None, "c"])
    assert table["name"].to_pylist() == ["a", None, "c"]
    assert table["error_code"].to_pylist() == [None, "empty", None]
    assert table["mean"].to_pylist()[1] is None
    assert table["uncertainty"].to_pylist()[1] is None
    np.testing.assert_array_equal(table["mean"].to_pylist()[2], given.mean[2])
    named = arrow(answers(1), ["a"])
    assert named["name"].to_pylist() == ["a"]
