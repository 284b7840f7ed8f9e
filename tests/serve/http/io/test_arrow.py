"""Arrow answers: byte for byte what Arrow's own writer makes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve.http.batching.pending import Answer
from serve.http.io import arrow
from serve.http.io.arrow import TEMPLATES, arrow_stream, written
from serve.inference.engine import EmbeddedImage
from vssl.embeddings.store import MODEL_ID_KEY
from vssl.errors import ImageError
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


def answer(seed: int, dim: int = 5) -> EmbeddedImage:
    random = np.random.default_rng(seed)
    mean, variance = random.normal(size=(2, dim)).astype(np.float32)
    return EmbeddedImage(mean, variance**2, float(np.float32(random.random())), np.zeros(3, np.float32))


def read(stream: bytes | bytearray) -> pa.Table:
    return pa.ipc.open_stream(bytes(stream)).read_all()


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(0, 999))
def test_where_all_went_well_it_is_the_writers_stream(count: int, seed: int) -> None:
    answers: list[Answer] = [answer(seed + n) for n in range(count)]
    names = [None] * count
    assert arrow_stream(answers, names, CARD, "id") == written(answers, names, CARD, "id")


def test_the_numbers_read_back() -> None:
    count = 3
    answers = [answer(n) for n in range(count)]
    table = read(arrow_stream(answers, [None] * count, CARD, "id"))
    for column, values in (("mean", "mean"), ("variance", "variance")):
        expected = np.stack([getattr(a, values) for a in answers])
        np.testing.assert_array_equal(np.stack(table[column].to_numpy()), expected)
    assert table["uncertainty"].to_pylist() == [a.uncertainty for a in answers]
    assert table["error_code"].to_pylist() == [None] * count
    assert table.schema.metadata[MODEL_ID_KEY.encode()] == b"id"
    assert ModelCard.from_json(table.schema.metadata[CARD_KEY.encode()].decode()) == CARD


def test_names_and_errors_stand_in_their_places() -> None:
    answers: list[Answer] = [answer(0), ImageError("empty", "nothing"), answer(1)]
    table = read(arrow_stream(answers, ["a", None, "c"], CARD, "id"))
    assert table["name"].to_pylist() == ["a", None, "c"]
    assert table["error_code"].to_pylist() == [None, "empty", None]
    assert table["mean"].to_pylist()[1] is None
    np.testing.assert_array_equal(table["mean"].to_pylist()[2], answers[2].mean)  # type: ignore[union-attr]
    named = read(arrow_stream([answer(0)], ["a"], CARD, "id"))
    assert named["name"].to_pylist() == ["a"]


def test_another_model_has_a_stream_of_its_own() -> None:
    arrow_stream([answer(0)], [None], CARD, "id")
    assert arrow_stream([answer(0)], [None], CARD, "other") == written([answer(0)], [None], CARD, "other")


def test_streams_of_many_lengths_are_not_all_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    for count in range(1, 3 * TEMPLATES):
        arrow_stream([answer(0)] * count, [None] * count, CARD, "id")
    assert len(arrow._TEMPLATES) <= TEMPLATES
    monkeypatch.setattr(arrow, "KEPT", 50_000)
    largest = len(arrow_stream([answer(0)] * 40, [None] * 40, CARD, "id"))
    for count in range(1, 41):
        arrow_stream([answer(0)] * count, [None] * count, CARD, "id")
        assert sum(len(kept.stream) for kept in arrow._TEMPLATES.values()) <= 50_000 + largest
