"""Standard data set files -> an ImageSource: Parquet with image bytes, CIFAR-10/100, STL-10.

Each is read from the files its makers publish, without unpacking them first. Nothing is
unpickled with open hands: the python version of CIFAR goes through an unpickler that knows byte
arrays and plain containers only. Raw arrays are handed on as PNG, so that every image reaches
the network by the one road that files take.
Shape letters: N images.
"""

from __future__ import annotations

import io
import json
import pickle
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from vssl.errors import FormatError, ImageError, InputError
from vssl.images.sources import ImageItem, ImageSource

CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"
)  # fmt: skip
STL10_CLASSES = (
    "airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"
)  # fmt: skip
SPLITS = {
    "cifar10": ("train", "test"),
    "cifar100": ("train", "test"),
    "stl10": ("train", "test", "unlabeled"),
}
CIFAR_BYTES = 3 * 32 * 32
STL_BYTES = 3 * 96 * 96


def open_dataset(kind: str, rest: str) -> ImageSource:
    """Open `kind:rest`: `parquet:FILE`, or `cifar10|cifar100|stl10:DIR[:SPLIT]`, train by default.

    Raises InputError when the files are not there, FormatError when they are damaged.
    """
    if kind == "parquet":
        return ParquetSource([Path(rest).expanduser()])
    folder, split = _folder_and_split(kind, rest)
    if kind == "stl10":
        return _stl10(folder, split)
    return _cifar(kind, folder, split)


class ArraySource:
    """Pictures held as one array (N, H, W, 3) uint8, or a memory map of one; read as PNG."""

    def __init__(self, items: list[ImageItem], pictures: Sequence[NDArray[np.uint8]]) -> None:
        self.items = items
        self._parts = pictures
        self._starts = np.cumsum([0] + [len(part) for part in pictures]).tolist()

    def read(self, row: int) -> bytes:
        """Return the picture as a PNG file."""
        part = bisect_right(self._starts, row) - 1
        picture = self._parts[part][row - self._starts[part]]
        file = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(picture)).save(file, "png", compress_level=1)
        return file.getvalue()


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


def _folder_and_split(kind: str, rest: str) -> tuple[Path, str]:
    folder, _, split = rest.rpartition(":")
    if split not in SPLITS[kind] or not folder:
        folder, split = rest, "train"
    path = Path(folder).expanduser()
    if not path.is_dir():
        expected = "|".join(SPLITS[kind])
        raise InputError(f"no folder at {str(path)!r}; expected {kind}:DIR or {kind}:DIR:{expected}")
    return path, split


def _cifar(kind: str, folder: Path, split: str) -> ImageSource:
    """Find the binary, the python or the Parquet version in a folder or its usual subfolder."""
    ten = kind == "cifar10"
    if ten:
        numbers = range(1, 6)
        binary = [f"data_batch_{n}.bin" for n in numbers] if split == "train" else ["test_batch.bin"]
        pickled = [f"data_batch_{n}" for n in numbers] if split == "train" else ["test_batch"]
        inner = ("cifar-10-batches-bin", "cifar-10-batches-py")
    else:
        binary, pickled = [f"{split}.bin"], [split]
        inner = ("cifar-100-binary", "cifar-100-python")
    parquet = ["train-0.parquet", "train-1.parquet"] if split == "train" else ["test.parquet"]
    for names, load in ((binary, _cifar_binary), (pickled, _cifar_pickled)):
        for place in (folder, *(folder / name for name in inner)):
            if all((place / name).is_file() for name in names):
                return load(kind, split, place, names)
    for names in (parquet, [f"{split}.parquet"]):
        if all((folder / name).is_file() for name in names):
            return ParquetSource([folder / name for name in names])
    raise InputError(
        f"no {kind} {split} files in {str(folder)!r}; expected {', '.join(binary)} (binary version), "
        f"{', '.join(pickled)} (python version) or {', '.join(parquet)}"
    )


def _cifar_binary(kind: str, split: str, folder: Path, names: list[str]) -> ImageSource:
    """Records of one label byte (two for CIFAR-100: coarse, fine), then 3072 bytes by channel."""
    head = 1 if kind == "cifar10" else 2
    pictures, labels = [], []
    for name in names:
        data = _map_bytes(folder / name, head + CIFAR_BYTES)
        pictures.append(data[:, head:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        labels.append(np.asarray(data[:, head - 1], dtype=np.int64))
    return _array_source(kind, split, folder, pictures, np.concatenate(labels), _cifar_names(kind, folder))


def _cifar_pickled(kind: str, split: str, folder: Path, names: list[str]) -> ImageSource:
    pictures, labels = [], []
    for name in names:
        values = _unpickle(folder / name)
        try:
            data = np.asarray(values[b"data"], dtype=np.uint8).reshape(-1, 3, 32, 32)
            found = values[b"labels" if kind == "cifar10" else b"fine_labels"]
            labels.append(np.asarray(found, dtype=np.int64).reshape(len(data)))
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"{folder / name}: not a batch of {kind} ({error})") from error
        pictures.append(data.transpose(0, 2, 3, 1))
    return _array_source(kind, split, folder, pictures, np.concatenate(labels), _cifar_names(kind, folder))


def _cifar_names(kind: str, folder: Path) -> list[str]:
    if kind == "cifar10":
        return list(CIFAR10_CLASSES)
    text, meta = folder / "fine_label_names.txt", folder / "meta"
    if text.is_file():
        return text.read_text(encoding="utf-8").split()
    if meta.is_file():
        names = _unpickle(meta).get(b"fine_label_names", [])
        return [n.decode("utf-8", "replace") if isinstance(n, bytes) else str(n) for n in names]
    return []


def _stl10(folder: Path, split: str) -> ImageSource:
    """STL-10's binaries: 96 x 96 pictures by channel and column, labels from 1 in a file beside."""
    for place in (folder, folder / "stl10_binary"):
        if (place / f"{split}_X.bin").is_file():
            data = _map_bytes(place / f"{split}_X.bin", STL_BYTES)
            pictures = data.reshape(-1, 3, 96, 96).transpose(0, 3, 2, 1)
            labels = None
            if (place / f"{split}_y.bin").is_file():
                labels = np.fromfile(place / f"{split}_y.bin", dtype=np.uint8).astype(np.int64) - 1
                if len(labels) != len(pictures):
                    raise FormatError(
                        f"{place / f'{split}_y.bin'}: found {len(labels)} labels, expected {len(pictures)}"
                    )
            return _array_source("stl10", split, place, [pictures], labels, list(STL10_CLASSES))
    raise InputError(f"no {split}_X.bin in {str(folder)!r}; expected the binary files of STL-10")


def _map_bytes(path: Path, record: int) -> NDArray[np.uint8]:
    size = path.stat().st_size
    if not size or size % record:
        raise FormatError(
            f"{path}: found {size} bytes, expected a multiple of {record}; the file is damaged or incomplete"
        )
    return np.memmap(path, dtype=np.uint8, mode="r").reshape(-1, record)


def _array_source(
    kind: str,
    split: str,
    folder: Path,
    pictures: list[NDArray[np.uint8]],
    labels: NDArray[np.int64] | None,
    names: list[str],
) -> ArraySource:
    items = []
    for row in range(sum(len(part) for part in pictures)):
        label = None
        if labels is not None:
            number = int(labels[row])
            label = names[number] if 0 <= number < len(names) else str(number)
        items.append(ImageItem(f"{split}/{row}", label, f"{kind}:{folder}:{split}#{row}"))
    return ArraySource(items, pictures)


class _PlainUnpickler(pickle.Unpickler):
    """Knows numpy's array reconstruction and nothing else; containers need no names at all."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return np._core.multiarray._reconstruct  # type: ignore[attr-defined]
        if (module, name) == ("_codecs", "encode"):
            return _encode_latin1
        raise pickle.UnpicklingError(f"refused to load {module}.{name}")


def _encode_latin1(text: str, encoding: str) -> bytes:
    """Python 3 writes bytes of old protocols as latin1 text; the only codec let through."""
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError(f"refused to encode as {encoding!r}")
    return text.encode("latin1")


def _unpickle(path: Path) -> dict[bytes, Any]:
    try:
        with path.open("rb") as file:
            values = _PlainUnpickler(file, encoding="bytes").load()
    except Exception as error:  # a damaged or hostile pickle may raise anything
        raise FormatError(f"{path}: not a readable batch of CIFAR's python version ({error})") from error
    if not isinstance(values, dict):
        raise FormatError(f"{path}: found {type(values).__name__}, expected a dictionary")
    return {k.encode() if isinstance(k, str) else k: v for k, v in values.items()}
