"""What a router leaves out: a path that is none, and a method that a route does not take, say what could be."""

from __future__ import annotations

import pytest
from starlette.exceptions import HTTPException

from serve.http.errors import describe, error_headers


def test_a_path_that_is_no_route_says_where_routes_are_listed() -> None:
    told = describe(HTTPException(404))
    assert (told["code"], told["type"]) == ("not_found", "not_found_error")
    assert "without a slash at their end; GET /openapi.json lists them" in str(told["message"])


@pytest.mark.parametrize(
    ("headers", "told"), [({"Allow": "POST"}, "this route takes POST"), (None, "Method Not Allowed")]
)
def test_another_method_names_those_that_are_taken(headers: dict[str, str] | None, told: str) -> None:
    error = HTTPException(405, headers=headers)
    assert told in str(describe(error)["message"])
    assert error_headers(error) == (headers or {})
