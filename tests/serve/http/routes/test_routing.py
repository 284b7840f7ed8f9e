"""Routing: one declaration a route; own routes refuse a query that they do not know, dialects and probes do not."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from serve.http.app import ROUTES
from serve.http.errors import RequestError, describe, error_headers
from serve.http.io.validation import Strict
from serve.http.routes.routing import Route, Router
from tests.serve.http.conftest import encoded

OWN = [route for route in ROUTES if issubclass(route.query, Strict)]
ROUTER = Router(ROUTES)


def path_of(route: Route[Any]) -> str:
    wanted = {"{id:path}": "set/1.png", "{name}": "uncertainty"}
    return re.sub(r"\{[^}]+\}", lambda found: wanted.get(found[0], "1"), route.path)


def test_own_routes_are_those_of_images_gallery_and_model() -> None:
    assert {route.path.split("/")[1] for route in OWN} == {
        "embed",
        "search",
        "gallery",
        "thumbnails",
        "columns",
        "items",
        "rows",
        "curation",
        "removals",
        "restorations",
        "tags",
        "exports",
        "model",
    }


@pytest.mark.parametrize("route", OWN, ids=lambda route: f"{route.method} {route.path}")
def test_an_unknown_parameter_is_refused_before_anything_is_done(
    http: httpx.Client, route: Route[Any]
) -> None:
    content = encoded(1) if route.body is not None else None
    answer = http.request(route.method, path_of(route), params={"encodings": "x"}, content=content)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == "encodings"
    for name in route.query.model_fields:
        assert name in error["message"]
    assert http.get("/gallery/set/1.png").status_code == 200


@pytest.mark.parametrize(
    "path", ["/livez", "/readyz", "/metrics", "/", "/ui", "/docs", "/openapi.json", "/v1/models", "/v2"]
)
def test_dialects_probes_and_pages_pass_over_what_else_is_sent(http: httpx.Client, path: str) -> None:
    assert http.get(path, params={"api-version": "1"}).status_code == 200


def test_a_path_finds_its_route_and_parameters() -> None:
    route, parameters = ROUTER.find("HEAD", "/gallery/a/b.png")
    assert (route.method, route.path, parameters) == ("GET", "/gallery/{id:path}", {"id": "a/b.png"})
    route, parameters = ROUTER.find("POST", "/v2/models/m/versions/2/infer")
    assert (route.path, parameters["version"]) == ("/v2/models/{model}/versions/{version}/infer", "2")
    assert ROUTER.find("GET", "/gallery/a\n")[1] == {"id": "a\n"}
    assert ROUTER.find("GET", "/gallery")[0].path == "/gallery"


@pytest.mark.parametrize("path", ["/nowhere", "/embed/", "/v2/models/a/b/c", ""])
def test_other_paths_have_none(path: str) -> None:
    with pytest.raises(RequestError) as caught:
        ROUTER.find("GET", path)
    assert caught.value.status == 404
    told = describe(caught.value)
    assert (told["code"], told["type"]) == ("not_found", "not_found_error")
    assert "without a slash at their end; GET /openapi.json lists them" in str(told["message"])


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/embed", "POST"),
        ("POST", "/gallery/a", "DELETE, GET, HEAD, PUT"),
        ("PATCH", "/ui", "GET, HEAD"),
    ],
)
def test_another_method_is_refused_with_those_there_are(method: str, path: str, allowed: str) -> None:
    with pytest.raises(RequestError) as caught:
        ROUTER.find(method, path)
    assert caught.value.status == 405
    assert error_headers(caught.value) == {"Allow": allowed}
    assert f"this route takes {allowed}" in str(describe(caught.value)["message"])
