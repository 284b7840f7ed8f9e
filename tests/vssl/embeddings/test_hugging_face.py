"""The entry is the one that `datasets` writes for the same columns."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.vssl.embeddings.test_store import CARD, DIM, ID, WIDTH, rows
from vssl.embeddings.hugging_face import KEY
from vssl.embeddings.store import to_table

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
    full = replace(rows(2, features=True), digests=["cd" * 32] * 2, pictures=[b"a", b"b"])
    ours = to_table(full, CARD, ID, dtype=dtype).schema
    entry = KEY.encode()
    assert json.loads(ours.metadata[entry]) == json.loads(expected.arrow_schema.metadata[entry])
    assert datasets.Features.from_arrow_schema(ours) == expected
