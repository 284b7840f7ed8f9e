"""What a message repeats of a caller's words is short, whatever it was."""

from __future__ import annotations

import errno

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vssl.errors import is_lack, raise_lack, shown


def nested(depth: int) -> list[object]:
    value: list[object] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [
        "x" * 10**7,
        b"x" * 10**7,
        10**5000,
        -(10**5000),
        nested(100_000),
        {"a": nested(50_000)},
        list(range(10**6)),
        dict.fromkeys(range(1000), "y" * 1000),
        [["z" * 1000] * 100] * 100,
        float("nan"),
        object(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_it_is_short(value: object) -> None:
    assert 0 < len(shown(value)) <= 303


def test_short_values_are_repeated_as_they_are() -> None:
    for value in ("café", 3, 2.5, None, True, [1, "a"], {"k": 1}, b"ab", ""):
        assert shown(value) == repr(value)


def test_a_long_text_says_how_long_it_was() -> None:
    assert shown("ab" * 1000) == repr("ab" * 40) + "... (2000 characters)"


values = st.recursive(
    st.none() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(values)
def test_it_never_fails(value: object) -> None:
    assert len(shown(value)) <= 303


LACKS = [
    MemoryError(),
    pa.ArrowMemoryError("malloc of size 64 failed"),
    OSError(errno.EMFILE, "Too many open files"),
    OSError("Failed to launch worker thread: Resource temporarily unavailable"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 64 bytes"),
    RuntimeError("CUDA out of memory. Tried to allocate 64 bytes"),
]


@pytest.mark.parametrize("error", LACKS, ids=lambda error: str(error)[:20])
def test_what_a_machine_lacks_is_no_damage_of_a_file(error: Exception) -> None:
    assert is_lack(error)
    with pytest.raises((MemoryError, OSError)):
        raise_lack(error)


@pytest.mark.parametrize(
    "error", [ValueError("bad magic"), OSError(errno.EACCES, "denied"), pa.ArrowInvalid("x")]
)
def test_other_errors_are(error: Exception) -> None:
    assert not is_lack(error)
    raise_lack(error)
