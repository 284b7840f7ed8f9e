"""A file of API keys -> whether a request carries one of them, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from pathlib import Path

from vssl.errors import InputError
from vssl.files import read_text


class Keys:
    """The accepted API keys, held as digests."""

    def __init__(self, keys: list[str]) -> None:
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]

    @classmethod
    def read(cls, path: Path) -> Keys:
        """Read one key a line; blank lines and lines that start with # are passed over.

        Raises InputError when the file cannot be read or holds no key.
        """
        lines = [line.strip() for line in read_text(path, "the API keys in").split("\n")]
        keys = [line for line in lines if line and not line.startswith("#")]
        if not keys:
            raise InputError(f"{str(path)!r} holds no API key; expected one key a line")
        return cls(keys)

    def accept(self, presented: bytes) -> bool:
        """Tell whether this is one of the keys; the time does not depend on how much of it fits."""
        digest = hashlib.sha256(presented).digest()
        found = False
        for known in self._digests:
            found |= hmac.compare_digest(digest, known)
        return found


def presented_key(headers: Mapping[bytes, bytes]) -> bytes | None:
    """Return the key of `Authorization: Bearer KEY` or `X-API-Key: KEY`, or None."""
    bearer = headers.get(b"authorization", b"")
    if bearer[:7].lower() == b"bearer ":
        return bearer[7:].strip()
    key = headers.get(b"x-api-key")
    return None if key is None else key.strip()
