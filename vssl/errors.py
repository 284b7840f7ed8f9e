"""What was found, what was expected and what to type next -> an error whose message says all three.

The command line prints the message and exits 1; the server maps `status` and
`code` into its one error body.
"""

from __future__ import annotations

import errno
import math
import reprlib
from numbers import Integral, Real
from pathlib import Path

SHOWN = 80
"""Characters of one value that a message repeats."""

SHOWN_AT_MOST = 300
"""Characters of values within values that a message repeats."""

LONGEST_PATH = 4096
"""Characters of the longest path that systems take."""

LACKS = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
LACKING = (
    "allocate memory",
    "bad_alloc",
    "out of memory",
    "Resource temporarily unavailable",
    "Too many open files",
)
"""What libraries say of it in errors of other kinds."""


class VsslError(Exception):
    """An error of ours with a message for a person; never shown as a traceback."""

    code = "error"
    status = 500


class InputError(VsslError):
    """What was asked for is not there, or not of the form expected."""

    code = "invalid_input"
    status = 400


class ImageError(VsslError):
    """One image cannot be turned into pixels.

    `code` is one of `empty`, `unreadable`, `unsupported_type`, `too_many_pixels`,
    `too_many_bytes`, `undecodable`, `no_embedding` (the model's answer is not finite);
    `status` is the HTTP status a lone image answers with.
    """

    STATUS = {  # noqa: RUF012  (a constant table)
        "empty": 400,
        "unreadable": 400,
        "too_many_bytes": 413,
        "unsupported_type": 415,
        "too_many_pixels": 422,
        "undecodable": 422,
        "no_embedding": 422,
    }

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.status = self.STATUS[code]

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, str]]:
        """Let it pass between processes."""
        return type(self), (self.code, str(self))


class FormatError(VsslError):
    """A file of ours is damaged, incomplete or of a version this code does not read."""

    code = "bad_file"
    status = 500


class MismatchError(VsslError):
    """Two artefacts come from different models and must not meet."""

    code = "model_mismatch"
    status = 409


class ExistsError(VsslError):
    """An output exists and neither --overwrite nor --resume was given."""

    code = "exists"
    status = 409


class MissingExtraError(VsslError):
    """A package of an extra is not installed."""

    code = "missing_extra"
    status = 500

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"this command needs {package}, which is not installed. Install it with: pip install 'vssl[{extra}]'"
        )


class _Short(reprlib.Repr):
    """Repeats values cut short: long, wide and deep ones alike."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = SHOWN
        self.maxlevel = 3

    def repr_str(self, x: str, level: int) -> str:
        """Cut a text before it is quoted, at its end."""
        return repr(x) if len(x) <= SHOWN else f"{x[:SHOWN]!r}... ({len(x)} characters)"

    def repr_bytes(self, x: bytes, level: int) -> str:
        """Cut bytes as texts are."""
        return repr(x) if len(x) <= SHOWN else f"{x[:SHOWN]!r}... ({len(x)} bytes)"

    def repr_int(self, x: int, level: int) -> str:
        """Name the size of a number that Python refuses to write out."""
        return repr(x) if x.bit_length() <= 256 else f"a whole number of {x.bit_length()} bits"


def is_lack(error: BaseException) -> bool:
    """Tell whether an error says that this machine lacks memory, threads or open files, and nothing about a file."""
    if isinstance(error, MemoryError):
        return True
    return getattr(error, "errno", None) in LACKS or any(words in str(error) for words in LACKING)


def raise_lack(error: BaseException) -> None:
    """Raise the lack of a machine (`is_lack`) as an OSError or MemoryError, before a file is called damaged."""
    if is_lack(error):
        raise error if isinstance(error, OSError) and error.errno else MemoryError(str(error))


def shown(value: object) -> str:
    """Return what was found as a message repeats it: like `repr`, but cut short and never an error.

    Every message that repeats something a caller or a file said uses this, so that no answer grows
    with what it refuses.
    """
    text = _SHORT.repr(value)
    return text if len(text) <= SHOWN_AT_MOST else f"{text[:SHOWN_AT_MOST]}..."


def shown_path(path: object) -> str:
    """Return a path as a message repeats it: whole, since its end says most, unless no system takes one so long."""
    text = str(path)
    return repr(text) if len(text) <= LONGEST_PATH else shown(text)


def require(name: str, value: object, expected: str, *kinds: type) -> None:
    """Raise InputError for an argument of another type than `kinds`: a notebook has no type checker.

    expected: what to pass, in words. True and False are no numbers, and not-a-number is none.
    """
    is_other = isinstance(value, bool) and bool not in kinds
    is_nan = isinstance(value, Real) and math.isnan(value)
    if is_other or is_nan or not isinstance(value, kinds):
        raise InputError(f"{name}: found {type(value).__name__} {shown(value)}, expected {expected}")


def require_whole(**numbers: object) -> None:
    """Raise InputError for a number that is not whole and at least 1."""
    for name, value in numbers.items():
        require(name, value, f"a whole number of at least 1; pass {name}=5", Integral)
        if value < 1:  # type: ignore[operator]
            raise InputError(f"{name}: found {value}, expected at least 1")


def require_real(**numbers: object) -> None:
    """Raise InputError for what is neither a number nor None."""
    for name, value in numbers.items():
        require(name, value, f"a number or None; pass {name}=0.1", Real, type(None))


def require_text(**texts: object) -> None:
    """Raise InputError for what is neither a text nor None."""
    for name, value in texts.items():
        require(name, value, f"a text or None; pass {name}='...'", str, type(None))


def require_path(**paths: object) -> None:
    """Raise InputError for what is neither a text nor a pathlib.Path."""
    for name, value in paths.items():
        require(name, value, f"a path; pass {name}='PATH'", str, Path)


_SHORT = _Short()
