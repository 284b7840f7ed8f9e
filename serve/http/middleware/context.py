"""One HTTP request on its way: what the routes, the body reader, the metrics and the access log know of it."""

from __future__ import annotations

import itertools
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Receive, Scope

NO_ROUTE = "none"
GIVEN_ID = re.compile(rb"[A-Za-z0-9._:\-]{1,128}")
PROCESS = secrets.token_hex(12)  # an id made here is this process and a count
COUNTER = itertools.count(1)


@dataclass(eq=False, slots=True)
class RequestContext:
    """One request, from its head to the last byte of its answer. The application makes one for each request.

    scope, receive: the request as the server gives it (ASGI). path_params: what the route's path found, by name.
    headers: by name in lower case; of a header given twice the last value.
    request_id: the client's X-Request-ID, or one made here; the answer and its log line carry it.
    route: the path template that answers, for the metrics; `none` where there is none.
    timings: seconds by stage, for the Server-Timing header.
    held_bytes: bytes of the body that are held in memory.
    body_read: whether the whole body has arrived.
    """

    scope: Scope
    receive: Receive
    headers: Mapping[bytes, bytes]
    request_id: str
    route: str = NO_ROUTE
    path_params: Mapping[str, Any] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    held_bytes: int = 0
    body_read: bool = False

    @classmethod
    def of(cls, scope: Scope, receive: Receive) -> RequestContext:
        """Return the context of an ASGI request whose head has arrived."""
        headers = dict(scope["headers"])
        return cls(scope, receive, headers, request_id(headers))


def request_id(headers: Mapping[bytes, bytes]) -> str:
    """Return the client's X-Request-ID, a new id where it sent none or one that is unsafe to repeat."""
    given = headers.get(b"x-request-id")
    if given is not None and GIVEN_ID.fullmatch(given):
        return given.decode()
    return f"{PROCESS}{next(COUNTER):08x}"
