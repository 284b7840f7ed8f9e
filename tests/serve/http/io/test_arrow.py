"""Arrow answers: any Arrow reader gets the numbers, names and errors back."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from serve.http.batching.pending import Answer
from serve.http.io.arrow import arrow_stream
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


def read(stream: bytes) -> pa.Table:
    return pa.ipc.open_stream(stream).read_all()


@pytest.mark.parametrize("count", [1, 3, 40])
def test_the_numbers_read_back(count: int) -> None:
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
