"""CIFAR-10 and CIFAR-100, binary, python or Parquet version -> an ImageSource.

The python version goes through an unpickler that knows byte arrays and plain containers only.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vssl.errors import FormatError, InputError
from vssl.images.items import ImageSource
from vssl.images.readers.arrays import array_source, folder_and_split, map_records
from vssl.images.readers.parquet import ParquetSource

CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"
)  # fmt: skip
CIFAR_BYTES = 3 * 32 * 32


def open_cifar(kind: str, rest: str) -> ImageSource:
    """Find the binary, the python or the Parquet version in a folder or its usual subfolder.

    kind: `cifar10` or `cifar100`; rest: `DIR` or `DIR:SPLIT`, `train` by default. Raises InputError
    when the files are not there, FormatError when they are damaged.
    """
    folder, split = folder_and_split(kind, rest, ("train", "test"))
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
        data = map_records(folder / name, head + CIFAR_BYTES)
        pictures.append(data[:, head:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        labels.append(np.asarray(data[:, head - 1], dtype=np.int64))
    return array_source(kind, split, folder, pictures, np.concatenate(labels), _cifar_names(kind, folder))


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
    return array_source(kind, split, folder, pictures, np.concatenate(labels), _cifar_names(kind, folder))


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


class _PlainUnpickler(pickle.Unpickler):
    """Knows numpy's array reconstruction and nothing else; containers need no names at all."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return _empty_array
        if (module, name) == ("_codecs", "encode"):
            return _encode_latin1
        raise pickle.UnpicklingError(f"refused to load {module}.{name}")


def _empty_array(kind: type, shape: tuple[int, ...], code: bytes) -> NDArray[Any]:
    """Make the array that the pickle's next entry fills, as numpy does for its own pickles."""
    return np.empty(shape, code.decode("latin1"))


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
