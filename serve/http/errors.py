"""Errors -> the one error body: {"error": {"code", "message", "type", "param"}} with its status."""

from __future__ import annotations

import math
from collections.abc import Sequence

import orjson
from starlette.responses import Response

from vssl.errors import VsslError

TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


class RequestError(VsslError):
    """A request that cannot be answered as asked; knows its status, code and parameter, and what it allows."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after: float | None = None,
        allow: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.retry_after = retry_after
        self.allow = allow


class BusyError(RequestError):
    """The queue is full: 429, with the seconds after which to try again."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(429, "queue_full", message, retry_after=retry_after)


class NotReadyError(RequestError):
    """The server is starting or failing its golden pair: 503."""

    def __init__(self, message: str) -> None:
        super().__init__(503, "not_ready", message, retry_after=1)


class DeadlineError(RequestError):
    """The answer did not come in time: 504."""

    def __init__(self, seconds: float) -> None:
        super().__init__(504, "deadline", f"no answer within the deadline of {seconds:g} s")


MAX_MESSAGE = 600
MAX_PARAM = 100
"""Characters of an error's message and of its parameter: what is repeated of a request makes no answer long."""


def invalid(message: str, param: str | None = None) -> RequestError:
    """Return the 400 of a malformed request."""
    return RequestError(400, "invalid_request", message, param=param)


def describe(error: VsslError) -> dict[str, str | None]:
    """Return code, message, type and param: what stands under `error` in a body."""
    param = getattr(error, "param", None)
    default = "server_error" if error.status >= 500 else "invalid_request_error"
    return {
        "code": error.code,
        "message": _cut(str(error), MAX_MESSAGE),
        "type": TYPES.get(error.status, default),
        "param": param and _cut(param, MAX_PARAM),
    }


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}... ({len(text)} characters)"


def out_of_memory() -> RequestError:
    """Return the 503 of a request that this server has too little memory for at the moment."""
    return RequestError(
        503,
        "out_of_memory",
        "the server has too little memory for this at the moment; try again",
        retry_after=5,
    )


def internal_error() -> RequestError:
    """Return the 500 that stands for an unexpected error; its traceback is in the log only."""
    return RequestError(
        500, "internal_error", "an internal error; the server's log has it under this request id"
    )


def error_headers(error: VsslError) -> dict[str, str]:
    """Return the headers that belong to an error: Retry-After, Allow, WWW-Authenticate."""
    allow, retry_after = getattr(error, "allow", None), getattr(error, "retry_after", None)
    headers = {} if allow is None else {"Allow": allow}
    if retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(retry_after)))
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return headers


def error_response(error: VsslError, *, plain: bool = False, secret: Sequence[str] = ()) -> Response:
    """Return the response of an error; `plain` gives the KServe form {"error": "message"}.

    secret: texts that no answer names, such as the places of this server's files.
    """
    described = describe(error)
    for text in secret:
        described["message"] = (described["message"] or "").replace(text, "")
    body = {"error": described["message"] if plain else described}
    return Response(orjson.dumps(body), error.status, error_headers(error), media_type="application/json")
