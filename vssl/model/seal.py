"""model.onnx bytes <-> sealed bytes: a checksum of the file as its own last field.

ONNX files are protocol buffers, whose fields may be appended: the seal is one more metadata
entry, `vssl.seal`, written last, and holds the sha256 of every byte before it. A changed
weight, an edited card or a truncated file no longer matches. It guards against accidents, not
against someone who writes a new seal; to guard against that, compare model ids.

Only the outermost layer of the format is read here, so no ONNX package is needed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from vssl.errors import FormatError, InputError, shown_path
from vssl.files import user_path

SEAL_KEY = "vssl.seal"
METADATA_FIELD = 14  # ModelProto.metadata_props
LENGTH_DELIMITED = 2
ADVICE = "the file is damaged or was changed after export; export it again: vssl export RUN model.onnx"


def sealed(data: bytes) -> bytes:
    """Return the bytes of an ONNX file with a seal appended."""
    return data + _entry(SEAL_KEY, hashlib.sha256(data).hexdigest())


def check_seal(data: bytes) -> None:
    """Raise FormatError unless the bytes end in a seal that fits them."""
    width = len(_entry(SEAL_KEY, "0" * 64))
    body, tail = data[:-width], data[-width:]
    if len(data) < width or not tail.startswith(_entry(SEAL_KEY, "0" * 64)[:-64]):
        raise FormatError(
            f"not an ONNX model of vssl: it carries no seal at its end, so {ADVICE}, or another tool's encoder: "
            "vssl export ENCODER.onnx model.onnx"
        )
    if tail[-64:] != hashlib.sha256(body).hexdigest().encode():
        raise FormatError(f"the model's bytes do not fit its seal: {ADVICE}")


def read_model(path: Path | str) -> bytes:
    """Return the bytes of a model file as they are. Raises InputError when there is none to read."""
    place = user_path(path)
    try:
        return place.read_bytes()
    except OSError as error:
        raise InputError(
            f"no model at {shown_path(path)}: {error.strerror}; write one with: vssl export RUN model.onnx"
        ) from error


def read_sealed(path: Path | str) -> bytes:
    """Return the bytes of a model file, whose seal fits them; nothing of an unsound file is ever parsed.

    Raises InputError when there is none, FormatError when the seal does not fit.
    """
    data = read_model(path)
    try:
        check_seal(data)
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from error
    return data


def read_metadata(data: bytes) -> dict[str, str]:
    """Return the metadata entries of an ONNX file. Raises FormatError for what is no ONNX file."""
    entries: dict[str, str] = {}
    try:
        for field, value in _fields(data):
            if field == METADATA_FIELD:
                pair = dict(_fields(value))
                entries[pair.get(1, b"").decode()] = pair.get(2, b"").decode()
    except (IndexError, ValueError) as error:
        raise FormatError(f"not a readable ONNX file ({error}): {ADVICE}") from error
    return entries


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (number, bytes) of each length-delimited field of a message; numbers are skipped over."""
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        kind = tag & 7
        if kind == LENGTH_DELIMITED:
            length, place = _varint(data, place)
            if place + length > len(data):
                raise ValueError("a field runs over the end of the file")
            yield tag >> 3, data[place : place + length]
            place += length
        elif kind == 0:
            _, place = _varint(data, place)
        elif kind in (1, 5):
            place += 8 if kind == 1 else 4
        else:
            raise ValueError(f"unknown field type {kind}")


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
        if shift > 63:
            raise ValueError("a number is longer than 64 bits")


def _encode_varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _delimited(field: int, value: bytes) -> bytes:
    return _encode_varint(field << 3 | LENGTH_DELIMITED) + _encode_varint(len(value)) + value


def _entry(key: str, value: str) -> bytes:
    return _delimited(METADATA_FIELD, _delimited(1, key.encode()) + _delimited(2, value.encode()))
