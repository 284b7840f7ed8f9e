"""A table with a column `id` -> the metadata of images: CSV or Parquet, every other column one name."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from index.answers.filters import Scalar
from vssl.errors import InputError, shown
from vssl.files import read_text


def read_metadata(path: Path) -> dict[str, dict[str, Scalar]]:
    """Return the metadata of each id; an empty cell is absent.

    Raises InputError for a file that cannot be read, without a column `id`, or with an id twice.
    """
    try:
        table = (
            pa.parquet.read_table(pa.BufferReader(path.read_bytes()))
            if _is_parquet(path)
            else _read_csv(path)
        )
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            f"metadata {path}: {getattr(error, 'strerror', None) or error}; expected a CSV or Parquet file with a "
            "column 'id'"
        ) from None
    if "id" not in table.column_names:
        raise InputError(f"metadata {path}: found the columns {table.column_names}, expected one named 'id'")
    found: dict[str, dict[str, Scalar]] = {}
    for row, entry in enumerate(table.to_pylist()):
        if entry["id"] in (None, ""):
            raise InputError(f"metadata {path}: row {row} has no id; expected one in every row")
        id_ = str(entry.pop("id"))
        if id_ in found:
            raise InputError(f"metadata {path}: the id {shown(id_)} is given twice")
        found[id_] = {name: _plain(value) for name, value in entry.items() if not _is_absent(value)}
    return found


def metadata_of(ids: Sequence[str], known: Mapping[str, dict[str, Scalar]]) -> list[dict[str, Scalar]]:
    """Return the metadata of each id in order, empty for those that are not known."""
    return [known.get(id_, {}) for id_ in ids]


def _is_parquet(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PAR1"


def _read_csv(path: Path) -> pa.Table:
    """Read a table as a person's program saved it: any encoding of Unicode, commas, semicolons or tabs.

    Only an empty cell is absent: "NA" is Namibia, "null" a name. In a column of numbers they are absent, too.
    """
    text = read_text(path, "metadata")
    head = text.partition("\n")[0]
    marks = [mark for mark in ",;\t" if "id" in (cell.strip(' "') for cell in head.split(mark))]
    data = text.encode()

    def parsed(texts: Iterable[str]) -> pa.Table:
        return pa.csv.read_csv(
            pa.BufferReader(data),
            read_options=pa.csv.ReadOptions(
                block_size=min(len(data) + 1, 2**31 - 1)
            ),  # all rows decide a type
            parse_options=pa.csv.ParseOptions(delimiter=marks[0] if marks else ",", newlines_in_values=True),
            convert_options=pa.csv.ConvertOptions(column_types=dict.fromkeys(texts, pa.string())),
        )

    table = parsed(["id"])  # ids stay texts: 007 is not 7
    empty = [field.name for field in table.schema if pa.types.is_null(field.type)]
    return parsed(["id", *empty]) if empty else table  # a column of nothing but "NA"


def _is_absent(value: object) -> bool:
    return value is None or value == "" or (isinstance(value, float) and not math.isfinite(value))


def _plain(value: object) -> Scalar:
    """Dates and times become ISO texts, which compare in their order; anything else stays."""
    if isinstance(value, (str, int, float, bool)):
        return value
    return str(value.isoformat()) if hasattr(value, "isoformat") else str(value)
