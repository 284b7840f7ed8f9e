"""A request's method and path -> its route: the one declaration that serves it and that OpenAPI is made from."""

from __future__ import annotations

import functools
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import parse_qsl, unquote_to_bytes

from pydantic import BaseModel
from starlette.responses import Response
from starlette.routing import compile_path
from starlette.types import Scope

from serve.http.errors import RequestError, invalid
from serve.http.io.schemas import Error
from serve.http.io.validation import Lenient, from_text
from serve.http.middleware.context import RequestContext

if TYPE_CHECKING:
    from serve.http.state import Runtime

Q = TypeVar("Q", bound=BaseModel)
Handler = Callable[["Runtime", RequestContext, Q], Awaitable[Response]]


class AnyQuery(Lenient):
    """A query that is not read: probes, metrics, pages and the dialects ignore what else is sent."""


@dataclass(frozen=True)
class Route(Generic[Q]):
    """One method of one path.

    method, path: a path's parameters stand in braces; {id:path} may hold slashes.
    handler: answers a request whose query was validated; its docstring describes the route.
    query: the type of the query; a `Strict` one refuses what it does not know.
    example: a command to paste.
    body: the type of the JSON body. takes_images: whether images may come as files and forms, too.
    answer: the type of the JSON answer. media: other media types that it may have.
    statuses: of its failures, in addition to those that follow from the rest. error: the type of their body.
    creates: whether it answers 201 for what is new. is_open: whether it needs no API key.
    """

    method: str
    path: str
    handler: Handler[Q]
    query: type[Q]
    example: str = ""
    body: type[BaseModel] | None = None
    takes_images: bool = False
    answer: Any = None
    media: tuple[str, ...] = ()
    statuses: tuple[int, ...] = ()
    error: Any = Error
    creates: bool = False
    is_open: bool = False

    async def respond(self, runtime: Runtime, context: RequestContext) -> Response:
        """Answer a request; raises RequestError 400 for a query that does not fit."""
        given = context.scope["query_string"]
        query = from_text(self.query, parse_qsl(given.decode("latin-1"), True)) if given else self.no_query
        return await self.handler(runtime, context, query)

    @functools.cached_property
    def no_query(self) -> Q:
        """An empty query."""
        return self.query()


def check_target(scope: Scope) -> None:
    """Raise RequestError 400 for a path or a query that is no UTF-8: two of them would become one text."""
    for what, raw in (("path", scope.get("raw_path") or b""), ("query", scope["query_string"])):
        if b"%" in raw or not raw.isascii():
            try:
                unquote_to_bytes(raw).decode("utf-8")
            except UnicodeDecodeError:
                raise invalid(f"the {what} is not UTF-8; write é as %C3%A9") from None


def check_host(scope: Scope) -> None:
    """Raise RequestError 400 for a request of HTTP/1.1 that does not name one host (RFC 9112, 3.2)."""
    found = [name for name, _ in scope["headers"]].count(b"host")
    if found != 1 and (found or scope["http_version"] == "1.1"):
        raise invalid(f"found {found or 'no'} Host headers, expected one")


class Router:
    """Finds the route of a request."""

    def __init__(self, routes: Iterable[Route[Any]]) -> None:
        self._exact: dict[tuple[str, str], Route[Any]] = {}
        self._patterns = []
        for route in routes:
            if "{" in route.path:
                pattern, _, convertors = compile_path(route.path)
                whole = re.compile(pattern.pattern, re.DOTALL)  # an id may hold a line end
                self._patterns.append((route, whole, convertors))
            else:
                self._exact[route.method, route.path] = route

    def find(self, method: str, path: str) -> tuple[Route[Any], Mapping[str, Any]]:
        """Return the route and the parameters in its path; raises RequestError 404 or 405."""
        method = "GET" if method == "HEAD" else method
        exact = self._exact.get((method, path))
        if exact is not None:
            return exact, {}
        allowed = [known for known, same in self._exact if same == path]
        for route, pattern, convertors in self._patterns:
            match = pattern.fullmatch(path)  # `match` would take a line end for the end
            if match is None:
                continue
            if route.method == method:
                return route, {n: convertors[n].convert(v) for n, v in match.groupdict().items()}
            allowed.append(route.method)
        if allowed:
            allowed += ["HEAD"] if "GET" in allowed else []
            methods = ", ".join(sorted(allowed))
            message = f"method not allowed; this route takes {methods}"
            raise RequestError(405, "method_not_allowed", message, allow=methods)
        raise RequestError(
            404,
            "not_found",
            "no such route: paths are exact, without a slash at their end; GET /openapi.json lists them",
        )
