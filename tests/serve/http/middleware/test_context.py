"""An ASGI request -> its context: headers by name, an id that is safe to repeat, nothing read yet."""

from __future__ import annotations

import pytest
from starlette.types import Message

from serve.http.middleware.context import RequestContext, request_id


async def nothing() -> Message:
    raise AssertionError("the body is not to be read")


def test_a_context_begins_with_the_head_alone() -> None:
    headers = [(b"accept", b"*/*"), (b"x-request-id", b"theirs-1")]
    context = RequestContext.of({"type": "http", "path": "/embed", "headers": headers}, nothing)
    assert dict(context.headers) == dict(headers)
    assert context.request_id == "theirs-1"
    assert (context.route, context.timings, context.held_bytes, context.body_read) == ("none", {}, 0, False)


@pytest.mark.parametrize("given", [b"", b"a b", b"line\r\nbreak", b"x" * 129, "\N{SNOWMAN}".encode()])
def test_an_id_that_is_not_safe_to_repeat_is_replaced(given: bytes) -> None:
    made = request_id({b"x-request-id": given})
    assert made.isalnum()
    assert made.encode() != given


def test_ids_made_here_differ() -> None:
    assert len({request_id({}) for _ in range(1000)}) == 1000
