"""API keys: from a file, all of them accepted, nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.http.middleware.auth import Keys, presented_key
from vssl.errors import InputError


def test_every_line_is_a_key_but_comments_and_blanks(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# ours\nalpha\n\n  beta  \n")
    keys = Keys.read(file)
    assert keys.accept(b"alpha")
    assert keys.accept(b"beta")
    for wrong in (b"", b"alph", b"alphaa", b"# ours", b"ALPHA"):
        assert not keys.accept(wrong)


@given(st.binary(max_size=40))
def test_nothing_else_is_accepted(presented: bytes) -> None:
    assert Keys(["secret"]).accept(presented) is (presented == b"secret")


@pytest.mark.parametrize("content", ["", "# only a comment\n\n"])
def test_a_file_without_keys_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "keys"
    file.write_text(content)
    with pytest.raises(InputError, match="no API key"):
        Keys.read(file)


def test_an_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        Keys.read(tmp_path / "absent")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({b"authorization": b"Bearer k"}, b"k"),
        ({b"authorization": b"bearer  k "}, b"k"),
        ({b"authorization": b"Basic k"}, None),
        ({b"x-api-key": b" k "}, b"k"),
        ({b"authorization": b"Basic b", b"x-api-key": b"k"}, b"k"),
    ],
)
def test_a_key_comes_as_bearer_or_in_its_own_header(
    headers: dict[bytes, bytes], expected: bytes | None
) -> None:
    assert presented_key(headers) == expected
