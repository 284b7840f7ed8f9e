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


@pytest.mark.parametrize("how", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("between", [",", ";", "\t"])
def test_any_spreadsheet_may_have_saved_it(tmp_path: Path, how: str, ends: str, between: str) -> None:
    lines = [["id", "country", "year"], ["a", "NA", "2024"], ["b", "Öland", "2023"], ["c", "", ""]]
    text = ends.join(between.join(line) for line in lines) + ends
    (tmp_path / "table.csv").write_bytes(text.encode(how))
    expected = {"a": {"country": "NA", "year": 2024}, "b": {"country": "Öland", "year": 2023}, "c": {}}
    assert read_metadata(tmp_path / "table.csv") == expected


@pytest.mark.parametrize("word", ["NA", "null", "NULL", "nan", "N/A", "#N/A"])
def test_only_an_empty_cell_is_absent(tmp_path: Path, word: str) -> None:
    (tmp_path / "table.csv").write_text(f"id,a,b,c\n1,{word},{word},{word}\n2,x,{word},\n3,y,,7\n")
    found = read_metadata(tmp_path / "table.csv")
    assert [found["1"].get(name) for name in "ab"] == [word, word]
    assert found["2"] == {"a": "x", "b": word}
    assert found["3"] == {"a": "y", "c": 7}


def test_a_column_is_typed_by_all_of_its_rows(tmp_path: Path) -> None:
    lines = [f"{n},{n}" for n in range(200_000)] + ["z,many"]
    (tmp_path / "table.csv").write_text("id,n\n" + "\n".join(lines))
    found = read_metadata(tmp_path / "table.csv")
    assert (found["7"], found["z"]) == ({"n": "7"}, {"n": "many"})


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ("id,a\nx,café\n".encode("cp1252"), "save the file as UTF-8"),
        (b"id,a\n,1\n", "row 0 has no id"),
        (b"id,a\nx,1,2\n", "expected a CSV or Parquet file"),
        (b"", "expected a CSV or Parquet file"),
        (b"PAR1PAR1", "expected a CSV or Parquet file"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(tmp_path: Path, data: bytes, told: str) -> None:
    (tmp_path / "table.csv").write_bytes(data)
    with pytest.raises(InputError, match=told):
        read_metadata(tmp_path / "table.csv")
