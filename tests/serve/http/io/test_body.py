"""Bodies: three forms of the same images, every byte counted, every client given its time."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from typing import Any

import pytest

from serve.http.errors import RequestError
from serve.http.io.body import BodyReader, Images
from serve.http.io.schemas import EmbedOptions, EmbedRequest
from serve.http.middleware.context import RequestContext
from serve.http.settings import Settings

BOUNDARY = "b0undary"
FORM = f"multipart/form-data; boundary={BOUNDARY}"


def context(chunks: Sequence[bytes | None], **headers: str) -> RequestContext:
    """A request whose body arrives in chunks; after None nothing more comes."""
    waiting = list(chunks)

    async def receive() -> dict[str, Any]:
        chunk = waiting.pop(0)
        if chunk is None:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": chunk, "more_body": bool(waiting)}

    names = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "POST", "path": "/embed", "query_string": b"", "headers": names}
    return RequestContext.of(scope, receive)  # type: ignore[arg-type]


def reader(**bounds: Any) -> BodyReader:
    return BodyReader(Settings(model="model.onnx", **bounds))


def images(body: bytes, content_type: str, **bounds: Any) -> Images:
    return asyncio.run(
        reader(**bounds).images(context([body], content_type=content_type), EmbedOptions, EmbedRequest)
    )


def part(name: str, data: bytes, filename: str | None = None) -> bytes:
    told = f'; filename="{filename}"' if filename else ""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{told}\r\n\r\n'
    return head.encode() + data + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()


def refused(error: pytest.ExceptionInfo[RequestError]) -> tuple[int, str]:
    return error.value.status, error.value.code


def test_a_raw_body_is_one_image_whatever_it_is_called() -> None:
    for kind in ("image/png", "application/octet-stream", "nonsense"):
        found = images(b"bytes", kind)
        assert (found.data, found.names, found.single) == ([b"bytes"], [None], True)
        assert found.options is None


def test_the_three_forms_carry_the_same() -> None:
    texts = [base64.b64encode(data).decode() for data in (b"one", b"two")]
    listed = ", ".join(f'{{"base64": "{text}", "name": "{n}"}}' for n, text in enumerate(texts))
    in_json = images(
        f'{{"images": [{listed}], "encoding_format": "base64"}}'.encode(), "application/json; charset=utf-8"
    )
    body = (
        part("images", b"one", "0") + part("encoding_format", b"base64") + part("images", b"two", "1") + END
    )
    in_form = images(body, FORM)
    for found in (in_json, in_form):
        assert (found.data, found.names, found.single) == ([b"one", b"two"], ["0", "1"], False)
        assert EmbedOptions().merged(found.options) == EmbedOptions(encoding_format="base64")


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (END, "found no files"),
        (part("encoding_format", b"float") + END, "found no files"),
        (part("images", b"x", "a") + part("encoding", b"float") + END, "did you mean 'encoding_format'"),
        (part("images", b"x", "a") + part("encoding_format", b"hex") + END, "found 'hex'"),
        (part("images", b"x", "a") + part("model", b"a") * 2 + END, "model: given twice"),
        (b"no boundary at all", "multipart body: "),
        (
            (part("images", b"one", "a") + part("images", b"two", "b") + END)[:-50],
            "before its closing boundary",
        ),
        (part("images", b"one", "a") + part("images", b"two", "b"), "before its closing boundary"),
    ],
)
def test_a_form_that_does_not_fit_is_refused(body: bytes, told: str) -> None:
    with pytest.raises(RequestError, match=told) as caught:
        images(body, FORM)
    assert refused(caught) == (400, "invalid_request")


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary="])
def test_a_form_of_a_wrong_content_type_is_refused(kind: str) -> None:
    body = part("images", b"x", "a") + part("model", b"\xff") + END
    with pytest.raises(RequestError, match="multipart body") as caught:
        images(body, kind)
    assert refused(caught) == (400, "invalid_request")


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", ""])
def test_json_under_another_content_type_is_json(kind: str) -> None:
    assert images(b'{"images": [{"base64": "AAAA"}]}', kind).data == [b"\0\0\0"]


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b'{"images": [{"base64": ""}, {"base64": ""}, {"base64": ""}]}', "application/json"),
        (part("images", b"x", "a") * 3 + END, FORM),
    ],
)
def test_images_are_counted(data: bytes, kind: str) -> None:
    with pytest.raises(RequestError) as caught:
        images(data, kind, max_items=2)
    assert refused(caught) == (400, "too_many_items")
    assert len(images(data, kind, max_items=3).data) == 3


def test_bytes_are_counted_before_and_while_they_arrive() -> None:
    async def work() -> None:
        bodies = reader(max_body_bytes=10)
        declared = context([b""], content_length="11")
        with pytest.raises(RequestError) as caught:
            await bodies.read(declared)
        assert refused(caught) == (413, "too_many_bytes")
        assert declared.held_bytes == 0
        streamed = context([b"123456", b"78901", b"never read"])
        with pytest.raises(RequestError) as caught:
            await bodies.read(streamed)
        assert refused(caught) == (413, "too_many_bytes")
        assert bodies.held == streamed.held_bytes == 11
        bodies.release(streamed)
        assert bodies.held == 0
        whole = context([b"123456", b"7890"])
        assert await bodies.read(whole) == b"1234567890"
        assert whole.body_read

    asyncio.run(work())


def test_what_all_requests_hold_is_bounded_and_one_alone_is_let_in() -> None:
    async def work() -> None:
        bodies = reader(max_held_bytes=10, max_body_bytes=100)
        alone = context([b"x" * 50])
        assert len(await bodies.read(alone)) == 50
        for second in (context([b"x"], content_length="1"), context([b"x"])):
            with pytest.raises(RequestError) as caught:
                await bodies.read(second)
            assert refused(caught) == (429, "queue_full")
            bodies.release(second)
        bodies.release(alone)
        assert await bodies.read(context([b"x"])) == b"x"

    asyncio.run(work())


def test_a_slow_body_is_cut_off_and_others_are_not() -> None:
    async def work() -> tuple[tuple[int, str], bytes]:
        bodies = reader(body_timeout_s=0.05)
        slow = asyncio.create_task(bodies.read(context([b"begun", None])))
        quick = await bodies.read(context([b"whole"]))
        with pytest.raises(RequestError) as caught:
            await slow
        assert not slow.cancelled()
        return refused(caught), quick

    assert asyncio.run(work()) == ((408, "slow_body"), b"whole")


def test_a_compressed_body_is_refused() -> None:
    with pytest.raises(RequestError) as caught:
        asyncio.run(reader().read(context([b"x"], content_encoding="gzip")))
    assert refused(caught) == (415, "unsupported_encoding")


def test_links_are_not_followed_unless_hosts_are_named() -> None:
    body = b'{"images": [{"url": "https://example.org/a.png"}, {"url": "data:image/png;base64,eA=="}]}'
    first, second = images(body, "application/json").data
    assert isinstance(first, RequestError)
    assert (first.status, first.code, second) == (400, "url_not_allowed", b"x")
