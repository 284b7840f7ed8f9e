"""An answer given before the request's body was read, on a connection that ends with it.

Closing a socket with unread bytes makes the system reset the connection, and a client that is still
sending sees the reset instead of the answer. So the answer goes out, and the rest of the body is dropped
until the client has sent it, or has left, or has had its time (RFC 9112, 9.6). On a connection that stays
open uvicorn does as much by itself.
"""

from __future__ import annotations

import asyncio
import contextlib

from starlette.types import Receive

from serve.http.middleware.context import RequestContext

LINGER_S = 5.0


def must_linger(context: RequestContext, *, closing: bool) -> bool:
    """Whether the connection ends with this answer and the body is not read.

    closing: whether the answer says `Connection: close` for reasons of the server's own.
    """
    headers, version = context.headers, context.request.scope["http_version"]
    if context.body_read or not (
        b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"
    ):
        return False
    return closing or version == "1.0" or b"close" in headers.get(b"connection", b"").lower()


async def drop_the_rest(receive: Receive) -> None:
    """Receive the rest of a body for nothing, LINGER_S at most."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_S):
            while (await receive()).get("more_body", False):
                pass
