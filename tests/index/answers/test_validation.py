"""What a gallery takes in: ids once, metadata that a filter can ask for."""

import numpy as np
import pytest

from index.answers.validation import checked_metadata
from tests.index.samples import sample
from vssl.errors import InputError


def test_absent_metadata_is_empty() -> None:
    assert checked_metadata(sample(2), None) == [{}, {}]
    assert checked_metadata(sample(0), []) == []


def test_flat_values_pass() -> None:
    entries = [{"year": 2020, "make": "x", "raw": None, "flash": True, "iso.value": 1.5}]
    assert checked_metadata(sample(1), entries) == entries


def test_cells_as_pandas_hands_them_out_become_plain_values() -> None:
    cells = {"year": np.int64(2024), "price": np.float32(0.5), "new": np.bool_(True), "name": np.str_("a")}
    assert checked_metadata(sample(1), [cells]) == [{"year": 2024, "price": 0.5, "new": True, "name": "a"}]
    with pytest.raises(InputError, match="found nan"):
        checked_metadata(sample(1), [{"x": np.float32("nan")}])


@pytest.mark.parametrize(
    "entry",
    [
        {"a b": 1},
        {"": 1},
        {"label": "x"},
        {"not": 1},
        {5: 1},
        {"x": [1]},
        {"x": {"y": 1}},
        {"x": float("nan")},
        {"x": float("inf")},
        {"x": 2**63},
    ],
    ids=str,
)
def test_what_no_filter_could_ask_for_is_refused(entry: dict) -> None:
    with pytest.raises(InputError, match="metadata"):
        checked_metadata(sample(1), [entry])


def test_ids_are_unique_and_lengths_agree() -> None:
    rows = sample(3)
    with pytest.raises(InputError, match="found 2 entries for 3 rows"):
        checked_metadata(rows, [{}, {}])
    rows.ids[1] = "i2"
    with pytest.raises(InputError, match="'i2' is given twice"):
        checked_metadata(rows, None)
