"""Metadata tables: ids are texts, empty cells are absent, dates order as texts."""

import datetime
from decimal import Decimal
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
    for text, found in (("name\na\n", "with a column 'id'"), ("id,x\na,1\na,2\n", "'a' is given twice")):
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


def test_what_excel_adds_is_no_data(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_bytes(b"\xef\xbb\xbfsep=;\r\n id ;a\r\nx;1\r\n;\r\n;\r\n\r\n")
    assert read_metadata(tmp_path / "table.csv") == {"x": {"a": 1}}


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["01234", "99"], ["01234", "99"]),  # a postal code
        (["1", "2.50", "1e3", "-.5"], [1.0, 2.5, 1000.0, -0.5]),
        (["1", "NaN", "inf", "n/a"], [1, None, None, None]),
        (["9223372036854775807"], [2**63 - 1]),
        (["9223372036854775808"], [float(2**63)]),
        (["1" + "0" * 500], ["1" + "0" * 500]),
        (["TRUE", "false", "NA"], [True, False, None]),
        (["1,5", "2"], ["1,5", "2"]),
        (["2024-01-02 10:00:00", "2024-01-03 10:00:00+01:00"],) * 2,
        (["a\u2028b", "\u0661"],) * 2,
    ],
)
def test_a_cell_keeps_its_meaning(tmp_path: Path, cells: list[str], values: list[object]) -> None:
    lines = [f'{n},"{cell}"' for n, cell in enumerate(cells)]
    (tmp_path / "table.csv").write_text("id,v\n" + "\n".join(lines), encoding="utf-8")
    found = [row.get("v") for row in read_metadata(tmp_path / "table.csv").values()]
    assert found == values
    assert [type(value) for value in found] == [type(value) for value in values]


def test_decimals_of_a_database_are_numbers(tmp_path: Path) -> None:
    prices = pa.array([Decimal("1.25"), None], pa.decimal128(5, 2))
    pq.write_table(pa.table({"id": ["a", "b"], "price": prices}), tmp_path / "m.parquet")
    assert read_metadata(tmp_path / "m.parquet") == {"a": {"price": 1.25}, "b": {}}


@pytest.mark.parametrize("column", [[[1.0, 2.0]], [{"k": 1}], [b"x"]], ids=["list", "struct", "bytes"])
def test_columns_that_are_no_metadata_are_named(tmp_path: Path, column: list[object]) -> None:
    pq.write_table(pa.table({"id": ["a"], "v": column}), tmp_path / "m.parquet")
    with pytest.raises(InputError, match=r"the column .v. is .* leave it out"):
        read_metadata(tmp_path / "m.parquet")


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
        (b"id,a\ny,1\nx,1,2\n", "line 3: found 3 cells, expected 2"),
        (b"id,a,a\nx,1,2\n", "the column 'a' is given twice"),
        (b'id,a\nx,"b" c\n', "line 2: .* expected after"),
        (b'id,a\nx,"b\n', "line 2: unexpected end of data"),
        (b"", "expected a CSV or Parquet file"),
        (b"PAR1PAR1", "expected a CSV or Parquet file"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(tmp_path: Path, data: bytes, told: str) -> None:
    (tmp_path / "table.csv").write_bytes(data)
    with pytest.raises(InputError, match=told):
        read_metadata(tmp_path / "table.csv")
