"""Answers to the client: typed results, or the error that they are."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from vssl.client.answers import (
    LONGEST_WAIT_S,
    Failed,
    Found,
    Neighbour,
    ServerError,
    checked,
    embedded,
    found,
    parsed,
    wait_for,
)
from vssl.client.calls import embed_call, search_call

ERROR = {"error": {"code": "unsupported_type", "message": "not an image", "type": "t", "param": None}}


@pytest.mark.parametrize(
    ("status", "named", "attempt", "least"),
    [
        (429, "3", 0, 3),
        (503, None, 0, 0.5),
        (503, None, 3, 4),
        (429, "soon", 1, 1),
        (429, "9999", 0, LONGEST_WAIT_S),
    ],
)
def test_busy_answers_name_a_wait(status: int, named: str | None, attempt: int, least: float) -> None:
    headers = {} if named is None else {"Retry-After": named}
    wait = wait_for(httpx.Response(status, headers=headers), attempt)
    assert wait is not None
    assert least <= wait <= 1.2 * least


@pytest.mark.parametrize("status", [200, 400, 404, 500, 504])
def test_other_answers_are_final(status: int) -> None:
    assert wait_for(httpx.Response(status, headers={"Retry-After": "1"}), 0) is None


def test_a_failure_is_an_error_with_status_code_and_message() -> None:
    with pytest.raises(ServerError, match=r"not an image \(status 415, unsupported_type\)") as caught:
        checked(httpx.Response(415, json=ERROR))
    assert (caught.value.status, caught.value.code) == (415, "unsupported_type")
    with pytest.raises(ServerError, match=r"<html>bad gateway \(status 502, http_error\)"):
        parsed(httpx.Response(502, text="<html>bad gateway"))
    assert parsed(httpx.Response(200, json={"a": 1})) == {"a": 1}


def test_a_lone_bad_image_is_a_failure_and_not_an_error() -> None:
    answer = embedded(httpx.Response(415, json=ERROR), embed_call([b"junk"], ["a"]))
    assert answer.failures == [Failed(0, "a", "unsupported_type", "not an image")]
    assert (len(answer), answer.names, len(answer.gaussians), answer.positions.tolist()) == (0, [], 0, [])
    for response, call in (
        (httpx.Response(415, json=ERROR), embed_call([b"a", b"b"])),
        (httpx.Response(401, json=ERROR), embed_call([b"a"])),
    ):
        with pytest.raises(ServerError):
            embedded(response, call)


def test_each_query_is_answered_in_its_place(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.png", 'b".png')]
    for file in files:
        file.write_bytes(b"")
    neighbour = {
        "id": "a",
        "label": None,
        "distance": 0.5,
        "variance_score": 0.25,
        "match_probability": None,
        "uncertainty": 0.125,
        "metadata": {"year": 2024},
        "of a later server": 1,
    }
    results = [
        {"uncertainty": 0.1, "abstain": True, "neighbours": [neighbour]},
        {"query": "b%22.png", "error": {"code": "empty", "message": "nothing"}},
    ]
    call = search_call(files, 1, None, None, None, None)
    assert found(httpx.Response(200, json={"results": results}), call) == [
        Found(0.1, [Neighbour("a", None, 0.5, 0.25, None, 0.125, {"year": 2024})], abstain=True),
        Found(None, [], Failed(1, str(files[1]), "empty", "nothing")),
    ]
