"""Arrow answers: any Arrow reader gets the numbers, names and errors back."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from serve.http.io.arrow import arrow_stream
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


def read(stream: bytes) -> pa.Table:
    return pa.ipc.open_stream(stream).read_all()


@pytest.mark.parametrize("count", [1, 3, 40])
def test_the_numbers_read_back(count: int) -> None:
    given = answers(count)
    table = read(arrow_stream(given, [None] * count, CARD, "id"))
    for column, expected in (("mean", given.mean), ("variance", given.variance)):
        np.testing.assert_array_equal(np.stack(table[column].to_numpy()), expected)
    assert table["uncertainty"].to_pylist() == given.uncertainty.tolist()
    assert table["error_code"].to_pylist() == [None] * count
    assert table.schema.metadata[MODEL_ID_KEY.encode()] == b"id"
    assert ModelCard.from_json(table.schema.metadata[CARD_KEY.encode()].decode()) == CARD


def test_names_and_errors_stand_in_their_places() -> None:
    given = answers(3, errors={1: ImageError("empty", "nothing")})
    table = read(arrow_stream(given, ["a", None, "c"], CARD, "id"))
    assert table["name"].to_pylist() == ["a", None, "c"]
    assert table["error_code"].to_pylist() == [None, "empty", None]
    assert table["mean"].to_pylist()[1] is None
    assert table["uncertainty"].to_pylist()[1] is None
    np.testing.assert_array_equal(table["mean"].to_pylist()[2], given.mean[2])
    named = read(arrow_stream(answers(1), ["a"], CARD, "id"))
    assert named["name"].to_pylist() == ["a"]
