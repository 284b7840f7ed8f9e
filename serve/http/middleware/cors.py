"""Which web pages of other origins may read the answers (CORS). None, unless they are named.

A browser asks before it shows a page the answer of another origin; other clients do not care. An API key
travels in a header, never in a cookie, so answers are shared without credentials.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from vssl.errors import InputError

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE")
ALLOWED_HEADERS = (
    "Accept",
    "Authorization",
    "Content-Type",
    "X-API-Key",
    "X-Request-ID",
    "Inference-Header-Content-Length",
)
EXPOSED_HEADERS = (
    "Content-Disposition",
    "Inference-Header-Content-Length",
    "Retry-After",
    "Server-Timing",
    "X-Gallery-Generation",
    "X-Request-ID",
)
"""Headers that a page may send, and those that it may read in addition to the few it always may."""


def parse_origins(text: str) -> tuple[str, ...]:
    """Return the origins of ORIGIN,...; `*` alone stands for all. Raises InputError for what is none."""
    origins = tuple(filter(None, (part.strip() for part in text.split(","))))
    if origins == ("*",):
        return origins
    for origin in origins:
        found = urlsplit(origin)
        if (
            found.scheme not in ("http", "https")
            or not found.hostname
            or origin != f"{found.scheme}://{found.netloc}"
        ):
            raise InputError(
                f"CORS origins: found {origin!r}, expected as a browser writes one, https://example.org or "
                "http://localhost:8080 (no path, no slash at the end), several with commas between; or * alone"
            )
    if not origins:
        raise InputError("CORS origins: found none, expected https://example.org or *")
    return origins


def with_cors(origins: tuple[str, ...], application: ASGIApp) -> ASGIApp:
    """Return the application with its answers open to pages of these origins."""
    return CORSMiddleware(
        application,
        allow_origins=origins,
        allow_methods=METHODS,
        allow_headers=ALLOWED_HEADERS,
        expose_headers=EXPOSED_HEADERS,
    )
