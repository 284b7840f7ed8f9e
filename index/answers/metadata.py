"""A table with a column `id` -> the metadata of images: CSV or Parquet, every other column one name."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa

from index.answers.filters import Scalar
from vssl.embeddings.manifest import parse_table
from vssl.errors import InputError, raise_lack, shown
from vssl.files import read_text

EXPECTED = "expected a CSV or Parquet file with a column 'id'"

DELIMITERS = ",;\t|"

NUMBER = re.compile(r"[+-]?(?:(?:0|[1-9]\d{0,400})(?:\.\d*)?|\.\d+)(?:e[+-]?\d{1,5})?", re.ASCII)
"""A cell that is a number: 007 is a text, since its zeros would be lost."""

ABSENT_NUMBERS = frozenset(
    ["", "na", "n/a", "#n/a", "#na", "null", "none", "nan", "-nan", "inf", "-inf", "+inf", "infinity", "-infinity"]
)  # fmt: skip
"""What a column of numbers holds, in any case, where there is none. In a column of texts "NA" is Namibia."""

BOOLEANS = {"true": True, "false": False}


def read_metadata(path: Path) -> dict[str, dict[str, Scalar]]:
    """Return the metadata of each id; an empty cell is absent.

    Raises InputError for a file that cannot be read, without a column `id`, or with an id or a column twice.
    """
    try:
        names, rows = _read_parquet(path) if _is_parquet(path) else _read_csv(path)
    except (OSError, pa.ArrowException) as error:
        raise_lack(error)
        raise InputError(
            f"metadata {path}: {getattr(error, 'strerror', None) or error}; {EXPECTED}"
        ) from None
    found: dict[str, dict[str, Scalar]] = {}
    place = names.index("id")
    for number, row in enumerate(rows):
        if row[place] in (None, ""):
            raise InputError(f"metadata {path}: row {number} has no id; expected one in every row")
        id_ = str(row[place])
        if id_ in found:
            raise InputError(f"metadata {path}: the id {shown(id_)} is given twice")
        values = zip(names, row, strict=True)
        found[id_] = {name: value for name, value in values if name != "id" and not _is_absent(value)}
    return found


def metadata_of(ids: Sequence[str], known: Mapping[str, dict[str, Scalar]]) -> list[dict[str, Scalar]]:
    """Return the metadata of each id in order, empty for those that are not known."""
    return [known.get(id_, {}) for id_ in ids]


def _is_parquet(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PAR1"


def _check_names(path: Path, names: Sequence[str]) -> None:
    if "id" not in names:
        raise InputError(f"metadata {path}: found the columns {shown(list(names))}, {EXPECTED}")
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"metadata {path}: the column {shown(name)} is given twice")


def _read_parquet(path: Path) -> tuple[list[str], Iterator[Sequence[Scalar]]]:
    table = parse_table(path.read_bytes())
    _check_names(path, table.column_names)
    for field in table.schema:
        if (
            pa.types.is_nested(field.type)
            or pa.types.is_binary(field.type)
            or pa.types.is_large_binary(field.type)
        ):
            raise InputError(
                f"metadata {path}: the column {shown(field.name)} is {shown(str(field.type))}, expected texts, "
                "numbers, dates, true or false; leave it out"
            )
    columns = [map(_plain, column.to_pylist()) for column in table.columns]
    return table.column_names, zip(*columns, strict=True)


def _read_csv(path: Path) -> tuple[list[str], Iterator[Sequence[Scalar]]]:
    """Read a table as a person's program saved it: any encoding of Unicode, commas, semicolons, tabs or bars.

    Only an empty cell is absent, and a row of nothing but empty cells; dates stay the texts that they are.
    """
    text = read_text(path, "metadata")
    head, _, rest = text.partition("\n")
    if head.lower().startswith("sep=") and len(head) == 5:  # as Excel writes it
        head, text = rest.partition("\n")[0], rest
    marks = [mark for mark in DELIMITERS if "id" in (cell.strip(' "') for cell in head.split(mark))]
    reader = csv.reader(io.StringIO(text), delimiter=marks[0] if marks else ",", strict=True)
    names: list[str] = []
    rows: list[list[str]] = []
    try:
        for row in reader:
            if not any(row):
                continue
            if not names:
                names = [cell.strip() for cell in row]
                _check_names(path, names)
            elif len(row) != len(names):
                raise InputError(
                    f"metadata {path}: line {reader.line_num}: found {len(row)} cells, expected {len(names)}"
                )
            else:
                rows.append(row)
    except csv.Error as error:
        raise InputError(f"metadata {path}: line {reader.line_num}: {error}; {EXPECTED}") from None
    if not names:
        raise InputError(f"metadata {path}: found an empty file, {EXPECTED}")
    columns: list[Sequence[Scalar]] = [
        cells if name == "id" else _typed(cells)
        for name, cells in zip(names, zip(*rows, strict=True), strict=False)
    ]
    return names, zip(*columns, strict=True)


def _typed(cells: Sequence[str]) -> Sequence[Scalar]:
    """Cells of a column -> numbers, or true and false, where all of them are; else the texts themselves."""
    words = [cell.strip().lower() for cell in cells]
    held = {word for word in words if word not in ABSENT_NUMBERS}
    if held and held <= BOOLEANS.keys():
        return [BOOLEANS.get(word) for word in words]
    if not held or not all(NUMBER.fullmatch(word) for word in held):
        return cells
    whole = all(word.lstrip("+-").isdigit() and abs(int(word)) < 2**63 for word in held)
    return [None if word in ABSENT_NUMBERS else int(word) if whole else float(word) for word in words]


def _is_absent(value: object) -> bool:
    return value is None or value == "" or (isinstance(value, float) and not math.isfinite(value))


def _plain(value: Any) -> Scalar:
    """Dates and times become ISO texts, which compare in their order; decimal numbers become floats."""
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, Decimal):
        return float(value)
    return str(value.isoformat()) if hasattr(value, "isoformat") else str(value)
