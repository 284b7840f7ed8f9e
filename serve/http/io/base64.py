"""Base64 texts, data URIs and encoded parts of a form -> the image's bytes, or the error of that image."""

from __future__ import annotations

import binascii
import string

import pybase64

from serve.http.errors import RequestError
from serve.http.io.multipart import Part
from vssl.errors import ImageError, VsslError, shown

WHITE_SPACE = string.whitespace.encode()
BASE64 = f"{string.ascii_letters}{string.digits}+/=".encode()
ESCAPED = {
    escaped: character
    for character in "+/=\r\n "
    for escaped in (f"%{ord(character):02x}", f"%{ord(character):02X}")
}
"""What of base64 a data URI may write as an escape."""

NO_URLS = "this server fetches no URLs; send the image itself: as base64, a data URI or the request's body"


def located(url: str) -> bytes | VsslError:
    """Decode a data URI; returns the item's error for any other URL: none is fetched."""
    return decode_base64(url) if url[:5].lower() == "data:" else RequestError(400, "url_not_allowed", NO_URLS)


def decode_base64(text: str) -> bytes | ImageError:
    """Decode base64 (RFC 4648, white space between passed over) or a data URI; returns the item's error otherwise."""
    if text[:5].lower() == "data:":
        head, comma, text = text.partition(",")
        if not comma or not head.rstrip().lower().endswith(";base64"):
            return ImageError("unreadable", "data URI: expected data:image/...;base64,...")
        if "%" in text:
            for escaped, character in ESCAPED.items():
                text = text.replace(escaped, character)
    try:
        return pybase64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        pass
    encoded = text.encode("utf-8", "replace").translate(None, WHITE_SPACE)
    try:
        return pybase64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return ImageError("unreadable", f"base64: {_not_base64(encoded)}")


def _not_base64(encoded: bytes) -> str:
    """Say what of a text without white space is no base64."""
    other = encoded.translate(None, BASE64)[:4].decode("utf-8", "ignore")[:1]
    if other and other in "-_":
        return f"found {other!r} of the URL-safe alphabet, expected + and / in its place"
    if other:
        return f"found {other!r}, expected letters, digits, + and / with = at the end"
    if len(encoded) % 4:
        return f"found {len(encoded)} characters, expected a multiple of 4: it is cut, or = is missing at its end"
    return "found = within it, expected it at the end only"


def transferred(part: Part) -> bytes | ImageError:
    """Return a part's bytes as they were before they were sent."""
    encoding = part.head.get("content-transfer-encoding", "binary").strip().lower()
    if encoding == "base64":
        return decode_base64(part.data.decode("latin-1"))
    if encoding in ("binary", "8bit", "7bit", ""):
        return part.data
    return ImageError(
        "unreadable", f"content-transfer-encoding: found {shown(encoding)}, expected binary or base64"
    )
