"""The entry is the one that `datasets` writes for the same columns."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.vssl.embeddings.test_store import CARD, DIM, ID, WIDTH
from vssl.embeddings.hugging_face import KEY
from vssl.embeddings.store import schema

datasets: Any = pytest.importorskip("datasets")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_entry_is_that_of_datasets(dtype: str) -> None:
    number, text = datasets.Value(dtype), datasets.Value("string")
    expected = datasets.Features(
        {
            "id": text,
            "path": text,
            "label": text,
            "mean": datasets.List(number, length=DIM),
            "variance": datasets.List(number, length=DIM),
            "uncertainty": datasets.Value("float32"),
            "features": datasets.List(number, length=WIDTH),
            "sha256": text,
            "image": datasets.Image(),
        }
    )
    ours = schema(CARD, ID, features=True, digests=True, pictures=True, dtype=dtype)
    entry = KEY.encode()
    assert json.loads(ours.metadata[entry]) == json.loads(expected.arrow_schema.metadata[entry])
    assert datasets.Features.from_arrow_schema(ours) == expected
