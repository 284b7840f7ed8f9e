"""A sealed file is still a whole ONNX file, and no byte of it can change unnoticed."""

from __future__ import annotations

import contextlib
from pathlib import Path

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.tiny_model import tiny_model
from vssl.errors import FormatError
from vssl.model.card import CARD_KEY
from vssl.model.seal import SEAL_KEY, check_seal, read_metadata, sealed


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return tiny_model(tmp_path_factory.mktemp("m") / "m.onnx").read_bytes()


def test_a_sealed_model_passes_and_onnx_reads_the_seal_as_metadata(data: bytes) -> None:
    check_seal(data)
    proto = onnx.load_from_string(data)
    onnx.checker.check_model(proto)
    assert SEAL_KEY in {p.key for p in proto.metadata_props}


def test_metadata_equals_what_onnx_reads(data: bytes) -> None:
    expected = {p.key: p.value for p in onnx.load_from_string(data).metadata_props}
    assert read_metadata(data) == expected
    assert CARD_KEY in expected


@settings(max_examples=200, deadline=None)
@given(place=st.integers(0), change=st.integers(1, 255))
def test_any_changed_byte_is_noticed(data: bytes, place: int, change: int) -> None:
    broken = bytearray(data)
    broken[place % len(data)] ^= change
    with pytest.raises(FormatError, match="export it again"):
        check_seal(bytes(broken))


@settings(max_examples=50, deadline=None)
@given(length=st.integers(0))
def test_any_truncation_is_noticed(data: bytes, length: int) -> None:
    with pytest.raises(FormatError):
        check_seal(data[: length % len(data)])


def test_anything_appended_is_noticed(data: bytes) -> None:
    with pytest.raises(FormatError, match="no seal"):
        check_seal(data + b"\x00")


def test_an_edited_card_is_noticed_even_when_onnx_writes_the_file_again(data: bytes, tmp_path: Path) -> None:
    proto = onnx.load_from_string(data)
    for entry in proto.metadata_props:
        if entry.key == CARD_KEY:
            entry.value = entry.value.replace("tiny-0", "tiny-X")
    with pytest.raises(FormatError, match="do not fit its seal"):
        check_seal(proto.SerializeToString())


@given(st.binary(max_size=300))
def test_reading_metadata_of_garbage_gives_our_error_or_entries(garbage: bytes) -> None:
    with contextlib.suppress(FormatError):
        assert isinstance(read_metadata(garbage), dict)


def test_sealing_is_appending() -> None:
    assert sealed(b"abc").startswith(b"abc")
    check_seal(sealed(b""))
