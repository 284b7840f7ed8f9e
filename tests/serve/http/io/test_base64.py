"""Base64 and data URIs, as browsers, PHP and mail programs write them."""

from __future__ import annotations

import base64
from urllib.parse import quote

import pytest

from serve.http.errors import RequestError
from serve.http.io.base64 import decode_base64, located
from vssl.errors import ImageError

DATA = bytes(range(256))
TEXT = base64.b64encode(DATA).decode()


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        f"data:image/png;base64,{TEXT}",
        f"DATA:;BASE64,{TEXT}",
        f"data:image/png;name=a.png;base64 ,{TEXT}",
        f"data:image/png;base64,{quote(TEXT, safe='')}",
        f"data:image/png;base64,{TEXT.replace('+', '%2b').replace('/', '%2f').replace('=', '%3d')}",
        "\r\n".join(TEXT[n : n + 76] for n in range(0, len(TEXT), 76)),
        f"data:image/png;base64,{'%0D%0A'.join(TEXT[n : n + 76] for n in range(0, len(TEXT), 76))}",
        f" {TEXT[:10]}\t{TEXT[10:]}\v\f\n",
    ],
)
def test_what_is_read(text: str) -> None:
    assert decode_base64(text) == DATA


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("eA", "found 2 characters, expected a multiple of 4"),
        ("e A", "found 2 characters"),
        ("_-==", "found '_' of the URL-safe alphabet, expected + and /"),
        ("%%", "found '%', expected letters"),
        ("eA==é", "found 'é'"),
        ("eA==\ud800", "found '?'"),
        ("e=A=", "found = within it"),
        ("data:image/png,x", "expected data:image/...;base64"),
        ("data:image/png;base64", "expected data:image/...;base64"),
        ("data:image/png;base64,%41AAA", "found '%'"),
    ],
)
def test_what_is_refused_says_why(text: str, message: str) -> None:
    found = decode_base64(text)
    assert isinstance(found, ImageError)
    assert found.code == "unreadable"
    assert message in str(found)


def test_no_url_but_a_data_uri_is_an_image() -> None:
    assert located(f"data:;base64,{TEXT}") == DATA
    refused = located("https://example.org/a.png")
    assert isinstance(refused, RequestError)
    assert (refused.status, refused.code) == (400, "url_not_allowed")
    assert "fetches no URLs; send the image itself" in str(refused)
