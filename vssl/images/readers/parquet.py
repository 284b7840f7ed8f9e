"""Parquet files with image bytes -> an ImageSource, read a row group at a time."""

from __future__ import annotations

import json
from bisect import bisect_right
from pathlib import Path
from threading import Lock
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vssl.errors import FormatError, ImageError, InputError
from vssl.images.items import ImageItem


class ParquetSource:
    """Encoded images in the column `image` of Parquet files, read a row group at a time.

    `image` is binary, or a struct with `bytes` (and `path`), as Hugging Face's datasets write
    it. An optional `label` is a text, or a number whose name stands in the schema's metadata
    entry `huggingface`. Ids are the struct's paths where all are present and differ, else
    `FILE/ROW`.
    """

    KEPT = 2  # row groups in memory: order runs forward, with some looking back

    def __init__(self, files: list[Path]) -> None:
        self._files = [_open_parquet(file) for file in files]
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
            column = self._files[number].read_row_group(local, columns=["image"]).column("image")
        except (pa.ArrowException, OSError) as error:
            raise ImageError("unreadable", f"cannot be read: {error}") from error
        return [_bytes_of(value) for value in column.to_pylist()]

    def _list_items(self, files: list[Path]) -> list[ImageItem]:
        items: list[ImageItem] = []
        for path, file in zip(files, self._files, strict=True):
            schema = file.schema_arrow
            labels = _labels(file, schema)
            names = _paths(file, schema)
            for row in range(file.metadata.num_rows):
                identity = names[row] if names else f"{path.name}/{row}"
                items.append(ImageItem(identity, labels[row], f"{path}#{row}"))
        if len({item.id for item in items}) != len(items):  # the same names in two files
            items = [ImageItem(item.path, item.label, item.path) for item in items]
        return items


def _open_parquet(path: Path) -> pq.ParquetFile:
    if not path.is_file():
        raise InputError(f"no Parquet file at {str(path)!r}")
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise FormatError(f"{path}: not a readable Parquet file ({error})") from error
    schema = file.schema_arrow
    kind = schema.field("image").type if "image" in schema.names else None
    binary = kind is not None and (pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
    struct = kind is not None and pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
    if not (binary or struct):
        raise InputError(
            f"{path}: found the columns {schema.names}, expected a column `image` of bytes, or a struct "
            "with `bytes`"
        )
    return file


def _labels(file: pq.ParquetFile, schema: pa.Schema) -> list[str | None]:
    if "label" not in schema.names:
        return [None] * file.metadata.num_rows
    names = _class_names(schema)
    values = file.read(columns=["label"]).column("label").to_pylist()
    return [
        None if v is None else names[v] if names and type(v) is int and 0 <= v < len(names) else str(v)
        for v in values
    ]


def _class_names(schema: pa.Schema) -> list[str]:
    """Return the names of a label column from the `huggingface` metadata, or nothing."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return [str(name) for name in features["label"]["names"]]
    except (KeyError, TypeError, ValueError):
        return []


def _paths(file: pq.ParquetFile, schema: pa.Schema) -> list[str]:
    kind = schema.field("image").type
    if not pa.types.is_struct(kind) or kind.get_field_index("path") < 0:
        return []
    paths: list[Any] = [
        value
        for group in range(file.num_row_groups)
        for value in file.read_row_group(group, columns=["image.path"])
        .column("image")
        .combine_chunks()
        .field("path")
        .to_pylist()
    ]
    return paths if all(paths) and len(set(paths)) == len(paths) else []


def _bytes_of(value: Any) -> bytes | None:
    if isinstance(value, dict):
        value = value.get("bytes")
    return value if isinstance(value, bytes) else None
