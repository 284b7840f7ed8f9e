"""One answered request -> one line on stderr, as text or as JSON, with the id that the answer carries."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import orjson

from serve.http.middleware.context import RequestContext

Log = Callable[[RequestContext, int, float], None]


def access_log(form: str) -> Log | None:
    """Return the function that writes the log in this form, or None for `off`."""
    return {"json": _json, "text": _text}.get(form)


def _json(context: RequestContext, status: int, seconds: float) -> None:
    scope = context.scope
    client = scope.get("client") or ("", 0)
    line = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "request_id": context.request_id,
        "client": client[0],
        "method": scope["method"],
        "path": scope["path"],
        "route": context.route,
        "status": status,
        "seconds": round(seconds, 6),
        "bytes_in": context.held_bytes,
        "stages": {stage: round(s, 6) for stage, s in context.timings.items()},
    }
    sys.stderr.write(orjson.dumps(line).decode() + "\n")


def _text(context: RequestContext, status: int, seconds: float) -> None:
    scope = context.scope
    client = scope.get("client") or ("", 0)
    path = scope["path"].encode("unicode_escape").decode()  # a path may hold line ends
    clock = time.strftime("%H:%M:%S")
    sys.stderr.write(
        f"{clock} {client[0]} {scope['method']} {path} {status} {1000 * seconds:.1f} ms {context.request_id}\n"
    )
