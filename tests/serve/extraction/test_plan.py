"""The plan of an extraction: which rows belong to a part, and what differs between two jobs."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.extraction.plan import LISTING_SCHEMA, Plan, differences, hash_listing, list_source, stamps
from vssl.errors import FormatError
from vssl.images.items import ImageItem

PLAN = Plan("ab" * 32, 10, "h", 4, 2, False, False, "float32", 100, 1000)


class Listed:
    """A source that is only listed."""

    def __init__(self, *items: tuple[str, str | None, str]) -> None:
        self.items = [ImageItem(name, label, name) for name, label, _ in items]
        self._stamps = [stamp for _, _, stamp in items]

    def read(self, row: int) -> bytes:
        raise AssertionError

    def stamp(self, row: int) -> str:
        return self._stamps[row]


@given(images=st.integers(0, 500), part_rows=st.integers(1, 60))
def test_every_row_is_in_one_part(images: int, part_rows: int) -> None:
    plan = replace(PLAN, images=images, part_rows=part_rows)
    assert [row for part in range(plan.parts) for row in plan.rows(part)] == list(range(images))
    assert all(1 <= len(plan.rows(part)) <= part_rows for part in range(plan.parts))


def test_a_plan_survives_its_file_and_nothing_else_does() -> None:
    assert Plan.read(asdict(PLAN), Path("x")) == PLAN
    for wrong in (None, [], {}, asdict(PLAN) | {"more": 1}):
        with pytest.raises(FormatError, match="another version of vssl"):
            Plan.read(wrong, Path("x"))


def test_the_hash_follows_ids_labels_stamps_and_order() -> None:
    a, b = ("a", "cat", "1"), ("b", None, "2")
    listings = [
        (a, b),
        (b, a),
        (a,),
        (a, ("b", "", "2")),
        (a, ("b", None, "3")),
        (a, ("c", None, "2")),
    ]
    hashes = [hash_listing(list_source(Listed(*items))) for items in listings]
    assert len(set(hashes)) == len(hashes)
    assert hash_listing(list_source(Listed(a, b))) == hashes[0]


def test_a_source_without_stamps_has_empty_ones() -> None:
    class Bare:
        items = [ImageItem("a", None, "a")]  # noqa: RUF012  (one list of one item)

        def read(self, row: int) -> bytes:
            raise AssertionError

    assert stamps(list_source(Bare())) == {"a": ""}


def test_differences_are_named(tmp_path: Path) -> None:
    before = list_source(Listed(*[(name, None, "1") for name in "abcdef"]))
    now = list_source(Listed(*[(name, None, "2" if name == "b" else "1") for name in "abxyzwv"]))
    assert before.schema == LISTING_SCHEMA
    pq.write_table(before, tmp_path / "items.parquet")
    new = replace(PLAN, model_id="cd" * 32, items="i", dtype="float16", features=True)
    assert differences(PLAN, new, tmp_path / "items.parquet", now) == [
        "the model was abababababab, now it is cdcdcdcdcdcd",
        "the input set: 5 new (x, y, z, ...), 4 gone (c, d, e, ...), 1 changed (b)",
        "features: was False, now True",
        "number type: was float32, now float16",
    ]
    assert differences(PLAN, PLAN, tmp_path / "absent", now) == []
    assert differences(PLAN, replace(PLAN, items="i"), tmp_path / "absent", now) == [
        "the input set is another one"
    ]
    again = differences(PLAN, replace(PLAN, items="i"), tmp_path / "items.parquet", before)
    assert again == ["the input set: the same images in another order or with other labels"]
