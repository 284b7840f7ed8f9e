"""A table with a column `id` -> the metadata of images: CSV or Parquet, every other column one name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from index.answers.filters import Scalar
from vssl.errors import InputError


def read_metadata(path: Path) -> dict[str, dict[str, Scalar]]:
    """Return the metadata of each id; an empty cell is absent.

    Raises InputError for a file that cannot be read, without a column `id`, or with an id twice.
    """
    try:
        if path.suffix.lower() == ".csv":
            # Ids stay texts: 007 is not 7.
            options = pa.csv.ConvertOptions(column_types={"id": pa.string()}, strings_can_be_null=True)
            table = pa.csv.read_csv(path, convert_options=options)
        else:
            table = pa.parquet.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            f"metadata {path}: {error}; expected a CSV or Parquet file with a column 'id'"
        ) from None
    if "id" not in table.column_names:
        raise InputError(f"metadata {path}: found the columns {table.column_names}, expected one named 'id'")
    found: dict[str, dict[str, Scalar]] = {}
    for entry in table.to_pylist():
        id_ = str(entry.pop("id"))
        if id_ in found:
            raise InputError(f"metadata {path}: the id {id_!r} is given twice")
        found[id_] = {name: _plain(value) for name, value in entry.items() if value is not None}
    return found


def metadata_of(ids: Sequence[str], known: Mapping[str, dict[str, Scalar]]) -> list[dict[str, Scalar]]:
    """Return the metadata of each id in order, empty for those that are not known."""
    return [known.get(id_, {}) for id_ in ids]


def _plain(value: object) -> Scalar:
    """Dates and times become ISO texts, which compare in their order; anything else stays."""
    if isinstance(value, (str, int, float, bool)):
        return value
    return str(value.isoformat()) if hasattr(value, "isoformat") else str(value)
