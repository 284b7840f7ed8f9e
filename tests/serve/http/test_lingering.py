"""Answers that come before the body is read reach a client that is still sending it."""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Iterator

import pytest
from starlette.requests import Request

from serve.http.lingering import must_linger
from serve.http.middleware.context import RequestContext
from tests.serve.http.conftest import World
from tests.serve.running import Running, running


@pytest.fixture(scope="module")
def narrow(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Return a server that takes bodies of a megabyte at most."""
    folder = tmp_path_factory.mktemp("narrow")
    with running(
        ["--model", str(world.model)], folder, environment={"VSSL_MAX_BODY_BYTES": "1000000"}
    ) as server:
        yield server


@pytest.mark.parametrize("headers", [{}, {"Connection": "close"}], ids=["kept open", "closed"])
@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])
def test_a_client_that_sends_far_too_much_gets_its_answer(
    narrow: Running, headers: dict[str, str], chunked: bool
) -> None:
    for _ in range(3):
        address = narrow.url.removeprefix("http://")
        body = (b"x" * 80_000 for _ in range(100)) if chunked else b"x" * 8_000_000
        with contextlib.closing(http.client.HTTPConnection(address, timeout=20)) as connection:
            connection.request("POST", "/embed", body, headers, encode_chunked=chunked)
            answer = connection.getresponse()
            assert (answer.status, b"too_many_bytes" in answer.read()) == (413, True)


@pytest.mark.parametrize(
    ("version", "body_read", "headers", "closing", "expected"),
    [
        ("1.1", False, {b"content-length": b"9", b"connection": b"close"}, False, True),
        ("1.1", False, {b"content-length": b"9"}, True, True),
        ("1.1", False, {b"transfer-encoding": b"chunked"}, True, True),
        ("1.0", False, {b"content-length": b"9"}, False, True),
        ("1.1", False, {b"content-length": b"9"}, False, False),
        ("1.1", True, {b"content-length": b"9"}, True, False),
        ("1.1", False, {b"connection": b"close"}, True, False),
        ("1.1", False, {b"content-length": b"0"}, True, False),
    ],
)
def test_it_lingers_where_a_body_is_left_and_the_connection_ends(
    version: str, body_read: bool, headers: dict[bytes, bytes], closing: bool, expected: bool
) -> None:
    request = Request({"type": "http", "http_version": version, "headers": list(headers.items())})
    context = RequestContext(request, headers, "an id", body_read=body_read)
    assert must_linger(context, closing=closing) is expected
