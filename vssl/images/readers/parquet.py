"""Parquet files with image bytes -> an ImageSource, read a row group at a time."""

from __future__ import annotations

import glob
import json
from bisect import bisect_right
from pathlib import Path
from threading import Lock
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vssl.errors import FormatError, ImageError, InputError, raise_lack, shown_path
from vssl.files import user_path
from vssl.images.items import ImageItem, expand, is_hidden, natural_key, one_text

IMAGES = ("image", "img")  # usual names of the column of pictures
LABELS = ("label", "labels", "fine_label", "class", "cls")


class ParquetSource:
    """Encoded images in one column of Parquet files, read a row group at a time.

    The column is called `image` or `img`, or is the only one of its kind: binary, or a struct with
    `bytes` (and `path`), as Hugging Face's datasets write it. An optional label column (`LABELS`) holds
    texts, or numbers whose names stand in the schema's metadata entry `huggingface`. Ids are the struct's
    paths where all are present and differ, else `FILE/ROW`.
    """

    KEPT = 2  # row groups in memory: order runs forward, with some looking back

    def __init__(self, files: list[Path]) -> None:
        self._files = [_open_parquet(file) for file in files]
        self._columns = [
            _image_column(file.schema_arrow, path) for path, file in zip(files, self._files, strict=True)
        ]
        self._groups: list[tuple[int, int]] = []
        self._starts = [0]
        for number, file in enumerate(self._files):
            for group in range(file.num_row_groups):
                self._groups.append((number, group))
                self._starts.append(self._starts[-1] + file.metadata.row_group(group).num_rows)
        self._held: dict[int, list[bytes | None]] = {}
        self._reading = Lock()
        self.items = self._list_items(files)
        if not self.items:
            raise InputError(f"{files[0]}: found no rows; expected a Parquet file with images")

    def read(self, row: int) -> bytes:
        """Return the encoded bytes of one row; raises ImageError where there are none."""
        group = bisect_right(self._starts, row) - 1
        # One reader at a time: two in Arrow's thread pool wait for each other where it has one thread.
        with self._reading:
            held = self._held.get(group)
            if held is None:
                held = self._read_group(group)
                while len(self._held) >= self.KEPT:
                    self._held.pop(next(iter(self._held)), None)
                self._held[group] = held
        data = held[row - self._starts[group]]
        if data is None:
            raise ImageError("unreadable", "the row holds no image bytes")
        return data

    def _read_group(self, group: int) -> list[bytes | None]:
        number, local = self._groups[group]
        try:
            name = self._columns[number]
            column = self._files[number].read_row_group(local, columns=[name]).column(name)
        except (pa.ArrowException, OSError) as error:
            raise_lack(error)
            raise ImageError("unreadable", f"cannot be read: {error}") from error
        return [_bytes_of(value) for value in column.to_pylist()]

    def _list_items(self, files: list[Path]) -> list[ImageItem]:
        items: list[ImageItem] = []
        for path, file, column in zip(files, self._files, self._columns, strict=True):
            try:
                labels, names = _labels(file, path), _paths(file, column)
            except (pa.ArrowException, OSError) as error:
                raise_lack(error)
                raise FormatError(f"{path}: not a readable Parquet file ({error})") from error
            for row in range(file.metadata.num_rows):
                identity = names[row] if names else f"{path.name}/{row}"
                items.append(ImageItem(identity, labels[row], f"{path}#{row}"))
        if len({item.id for item in items}) != len(items):  # the same names in two files
            items = [ImageItem(item.path, item.label, item.path) for item in items]
        return items


def parquet_files(spec: str) -> list[Path]:
    """Return the Parquet files that a path, folder, pattern or range names, in natural order."""
    path = user_path(spec)
    if path.is_dir():
        found = [file for file in path.rglob("*.parquet") if not is_hidden(file.relative_to(path))]
    elif path.is_file():
        found = [path]
    else:
        found = [Path(name) for pattern in expand(str(path)) for name in glob.glob(pattern)]  # noqa: PTH207
    if not found:
        raise InputError(
            f"no Parquet file at {shown_path(spec)}; expected a file, a folder of files, a pattern (*.parquet) or a "
            "range ({000..012})"
        )
    return sorted(found, key=lambda file: (natural_key(str(file)), str(file)))


def _open_parquet(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise_lack(error)
        raise FormatError(f"{path}: not a readable Parquet file ({error})") from error


def _image_column(schema: pa.Schema, path: Path) -> str:
    """Return the name of the column that holds image bytes."""
    found = [field.name for field in schema if _holds_bytes(field.type)]
    usual = [name for name in IMAGES if name in found]
    if usual or len(found) == 1:
        return (usual or found)[0]
    which = f"{len(found)} of bytes ({', '.join(found)})" if found else "none of bytes"
    raise InputError(
        f"{path}: found the columns {schema.names}, {which}; expected one column `image` of bytes, or a struct "
        "with `bytes`"
    )


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        place = kind.get_field_index("bytes")
        return place >= 0 and _holds_bytes(kind.field(place).type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _labels(file: pq.ParquetFile, path: Path) -> list[str | None]:
    schema = file.schema_arrow
    column = next((name for name in LABELS if name in schema.names), None)
    if column is None:
        return [None] * file.metadata.num_rows
    names = _class_names(schema, column)
    labels: list[str | None] = []
    for row, value in enumerate(file.read(columns=[column]).column(column).to_pylist()):
        known = type(value) is int and 0 <= value < len(names)
        try:
            labels.append(names[value] if known else one_text(value, "label"))
        except ValueError as error:
            raise InputError(f"{path}: row {row}: {error}; expected a text or a number") from None
    return labels


def _class_names(schema: pa.Schema, column: str) -> list[str]:
    """Return the names of a label column from the `huggingface` metadata, or nothing."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return [str(name) for name in features[column]["names"]]
    except (KeyError, TypeError, ValueError):
        return []


def _paths(file: pq.ParquetFile, column: str) -> list[str]:
    kind = file.schema_arrow.field(column).type
    if not pa.types.is_struct(kind) or kind.get_field_index("path") < 0:
        return []
    paths: list[Any] = [
        value
        for group in range(file.num_row_groups)
        for value in file.read_row_group(group, columns=[f"{column}.path"])
        .column(column)
        .combine_chunks()
        .field("path")
        .to_pylist()
    ]
    return paths if all(paths) and len(set(paths)) == len(paths) else []


def _bytes_of(value: Any) -> bytes | None:
    if isinstance(value, dict):
        value = value.get("bytes")
    return value if isinstance(value, bytes) else None
