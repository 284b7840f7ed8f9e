"""Metadata tables: ids are texts, empty cells are absent, dates order as texts."""

import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from index.answers.metadata import metadata_of, read_metadata
from vssl.errors import InputError


def test_a_csv_gives_typed_values(tmp_path: Path) -> None:
    file = tmp_path / "m.csv"
    file.write_text("id,year,make,flash,iso,day\n007,2020,Canon,true,1.5,2020-01-02\nb/c.png,,,false,,\n")
    assert read_metadata(file) == {
        "007": {"year": 2020, "make": "Canon", "flash": True, "iso": 1.5, "day": "2020-01-02"},
        "b/c.png": {"flash": False},
    }


def test_parquet_gives_the_same(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "year": 2020, "at": datetime.datetime(2020, 1, 2, 3)},
        {"id": "b", "year": None, "at": None},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "m.parquet")
    assert read_metadata(tmp_path / "m.parquet") == {
        "a": {"year": 2020, "at": "2020-01-02T03:00:00"},
        "b": {},
    }


def test_unknown_ids_have_none() -> None:
    assert metadata_of(["x", "a"], {"a": {"y": 1}}) == [{}, {"y": 1}]


def test_what_is_no_such_table_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "m.csv"
    for text, found in (("name\na\n", "expected one named 'id'"), ("id,x\na,1\na,2\n", "'a' is given twice")):
        file.write_text(text)
        with pytest.raises(InputError, match=found):
            read_metadata(file)
    (tmp_path / "m.parquet").write_bytes(b"no")
    for name in ("m.parquet", "absent.csv"):
        with pytest.raises(InputError, match="expected a CSV or Parquet file"):
            read_metadata(tmp_path / name)
