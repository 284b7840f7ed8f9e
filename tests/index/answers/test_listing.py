"""A listing's columns say of every row what the items themselves say, whatever their metadata holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.answers.filters import Scalar
from index.answers.listing import MOST_VALUES, Column, Listing, NumberColumn, TextColumn, as_column
from index.gallery.folder.gallery import FolderGallery
from tests.index.samples import MODEL, card, sample

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-1000, 1000),
    st.floats(-1e6, 1e6, width=32),
    st.text(st.characters(codec="utf-8"), max_size=4),
)
COLUMNS = st.one_of(
    st.lists(SCALARS, max_size=12),
    st.lists(st.one_of(st.none(), st.integers(-9, 9), st.floats(-9, 9, width=32)), max_size=12),
    st.lists(st.one_of(st.none(), st.text("ab", max_size=2)), max_size=12),
)


def read(column: Column, row: int) -> float | str | None:
    """Return what a column says of a row, as the page reads it."""
    if isinstance(column, NumberColumn):
        value = float(column.values[row])
        return None if np.isnan(value) else value
    code = int(column.codes[row])
    return column.values[code - 1] if code else None


def expected(values: list[Scalar], row: int) -> float | str | None:
    """Return what it should say: a number where all values are numbers, else their text."""
    value = values[row]
    if value is None:
        return None
    there = [one for one in values if one is not None]
    if all(type(one) in (int, float) for one in there):
        return float(np.float32(value))
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)


@given(COLUMNS)
def test_a_column_says_of_each_row_what_was_given(values: list[Scalar]) -> None:
    column = as_column(values)
    if all(value is None for value in values):
        assert column is None
        return
    assert column is not None
    assert [read(column, row) for row in range(len(values))] == [
        expected(values, row) for row in range(len(values))
    ]


@given(COLUMNS)
def test_texts_are_named_once_in_order(values: list[Scalar]) -> None:
    column = as_column(values)
    if isinstance(column, TextColumn):
        assert column.values == sorted(set(column.values))
        assert column.codes.dtype == np.uint16
        assert set(column.codes.tolist()) - {0} == set(range(1, len(column.values) + 1))


def test_a_column_of_too_many_texts_names_items_and_is_left_out() -> None:
    most: list[Scalar] = [str(number) for number in range(MOST_VALUES)]
    assert isinstance(as_column(most), TextColumn)
    assert as_column([*most, "one more"]) is None
    assert isinstance(as_column(list(range(MOST_VALUES + 1))), NumberColumn)


def listing(metadata: dict[int, dict[str, Scalar]], labels: list[str | None]) -> Listing:
    count = len(labels)
    unsure = np.linspace(0, 1, count, dtype=np.float32)
    return Listing(7, [f"i{row}" for row in range(count)], labels, [""] * count, unsure, metadata)


def test_columns_are_uncertainty_labels_and_whatever_metadata_there_is() -> None:
    one = listing({0: {"year": 2020}, 2: {"maker": "ü", "year": None}}, ["cat", None, "dog"])
    assert list(one.columns) == ["uncertainty", "label", "year", "maker"]
    rows = [{name: read(column, row) for name, column in one.columns.items()} for row in range(3)]
    assert rows == [
        {"uncertainty": 0.0, "label": "cat", "year": 2020.0, "maker": None},
        {"uncertainty": 0.5, "label": None, "year": None, "maker": None},
        {"uncertainty": 1.0, "label": "dog", "year": None, "maker": "ü"},
    ]


def test_without_labels_there_is_no_column_of_them() -> None:
    assert list(listing({}, [None, None]).columns) == ["uncertainty"]
    assert list(listing({}, []).columns) == ["uncertainty"]


def test_means_without_variances_have_no_uncertainty() -> None:
    one = Listing(1, ["a", "b"], [None] * 2, [""] * 2, np.array([np.nan, 0.25], np.float32), {})
    assert [one.uncertainty_of(row) for row in range(2)] == [None, 0.25]
    assert [read(one.columns["uncertainty"], row) for row in range(2)] == [None, 0.25]


@pytest.mark.parametrize("removed", [[], ["g3", "g0"]], ids=["whole", "after a removal"])
def test_a_gallery_lists_its_items_in_the_order_added(tmp_path: Path, removed: list[str]) -> None:
    rows = sample(9)
    ids = [f"g{row}" for row in range(9)]
    rows.ids[:] = ids
    metadata: list[dict[str, Scalar]] = [{"number": row} if row % 2 else {} for row in range(9)]
    with FolderGallery.create(tmp_path / "gallery", card=card(), model_id=MODEL) as gallery:
        gallery.add(rows, metadata=metadata)
        gallery.remove(removed)
        found = gallery.listing()
        assert found.ids == [id_ for id_ in ids if id_ not in removed]
        assert found.generation == gallery.generation
        for row, id_ in enumerate(found.ids):
            item = gallery.get(id_)
            told = (found.labels[row], found.paths[row], found.metadata.get(row, {}))
            assert told == (item.label, item.path, item.metadata)
            assert found.uncertainty_of(row) == pytest.approx(item.uncertainty)
            assert read(found.columns["number"], row) == item.metadata.get("number")
