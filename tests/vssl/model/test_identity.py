"""Identity is the sha256 of the bytes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from vssl.model.identity import sha256_bytes, sha256_file, short_id


@pytest.mark.parametrize("data", [b"", b"abc", b"x" * 3_000_000])
def test_files_and_bytes_agree_with_hashlib(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "file").write_bytes(data)
    expected = hashlib.sha256(data).hexdigest()
    assert sha256_file(tmp_path / "file") == sha256_bytes(data) == expected
    assert short_id(expected) == expected[:12]
