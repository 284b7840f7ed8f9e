"""What an answer, its log line and an error report are matched by: the client's own id, or one of ours."""

from __future__ import annotations

import itertools
import re
import secrets
from collections.abc import Mapping

GIVEN = re.compile(rb"[A-Za-z0-9._:\-]{1,128}")
PROCESS = secrets.token_hex(12)  # ids of ours: this process, and a count
COUNTER = itertools.count(1)


def request_id(headers: Mapping[bytes, bytes]) -> str:
    """Return the X-Request-ID that the client gave, a new one where it gave none that can be told on."""
    given = headers.get(b"x-request-id")
    if given is not None and GIVEN.fullmatch(given):
        return given.decode()
    return f"{PROCESS}{next(COUNTER):08x}"
