"""CORS: off unless origins are named, then for these alone, as a browser asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from serve.http.middleware.cors import parse_origins
from tests.serve.http.conftest import World, encoded
from tests.serve.running import running
from vssl.errors import InputError

PAGE = "https://app.example.org"
ALLOWED = "access-control-allow-origin"


def preflight(client: httpx.Client, origin: str, headers: str = "content-type,x-api-key") -> httpx.Response:
    """Ask what a browser asks before it sends JSON with a key."""
    return client.options(
        "/embed",
        headers={
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": headers,
        },
    )


@pytest.fixture(scope="module")
def opened(world: World) -> Iterator[httpx.Client]:
    keys = world.folder / "cors-keys"
    keys.write_text("secret\n")
    arguments = ["--model", str(world.model), "--cors", f"{PAGE},http://localhost:8080", "--threads", "1"]
    with (
        running([*arguments, "--api-key-file", str(keys)], world.folder) as server,
        httpx.Client(base_url=server.url, timeout=30) as client,
    ):
        yield client


def test_no_page_of_another_origin_reads_anything_unless_allowed(http: httpx.Client) -> None:
    answer = http.post("/embed", content=encoded(1), headers={"Origin": PAGE})
    assert answer.status_code == 200
    assert ALLOWED not in answer.headers
    asked = preflight(http, PAGE)
    assert asked.status_code == 405
    assert ALLOWED not in asked.headers


def test_a_page_of_a_named_origin_may_ask_send_and_read(opened: httpx.Client) -> None:
    asked = preflight(opened, PAGE)  # a browser sends no key with this
    assert asked.status_code == 200
    assert asked.headers[ALLOWED] == PAGE
    assert "POST" in asked.headers["access-control-allow-methods"]
    answer = opened.post("/embed", content=encoded(1), headers={"Origin": PAGE, "X-API-Key": "secret"})
    assert answer.status_code == 200
    assert answer.headers[ALLOWED] == PAGE
    named = answer.headers["access-control-expose-headers"].lower()
    assert {"x-request-id", "x-gallery-generation", "content-disposition"} <= set(named.split(", "))
    assert "access-control-allow-credentials" not in answer.headers


def test_it_reads_errors_too(opened: httpx.Client) -> None:
    refused = opened.post("/embed", content=encoded(1), headers={"Origin": "http://localhost:8080"})
    assert (refused.status_code, refused.headers[ALLOWED]) == (401, "http://localhost:8080")
    assert refused.json()["error"]["code"] == "invalid_api_key"


@pytest.mark.parametrize(
    "origin", ["https://evil.example.org", "http://app.example.org", f"{PAGE}:444", "null"]
)
def test_other_origins_are_not_let_in(opened: httpx.Client, origin: str) -> None:
    assert preflight(opened, origin).status_code == 400
    answer = opened.get("/livez", headers={"Origin": origin})
    assert ALLOWED not in answer.headers


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",",
        "app.example.org",
        "https://app.example.org/",
        "https://app.example.org/a",
        "ftp://a.org",
        f"*,{PAGE}",
    ],
)
def test_what_is_no_origin_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="CORS origins: found"):
        parse_origins(text)


def test_origins_are_separated_by_commas() -> None:
    assert parse_origins(f" {PAGE}, http://localhost:8080 ") == (PAGE, "http://localhost:8080")
    assert parse_origins("*") == ("*",)
