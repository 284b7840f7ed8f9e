"""Which requests a full queue refuses, when it tells them to retry, and what they get from a real server."""

from __future__ import annotations

import http.client
import json
import threading
from pathlib import Path

import httpx
import pytest

from serve.http.batching.admission import Admission
from tests.serve.http.conftest import World, encoded
from tests.serve.running import PATIENCE_S, Running, get, post, running

LARGE = encoded(1, size=(640, 480))


def test_up_to_the_bound_is_accepted_and_anything_when_nothing_waits() -> None:
    admission = Admission(max_queue=8, deadline_s=4)
    assert admission.refusal(100) is None
    admission.accept(5)
    assert admission.refusal(3) is None
    assert admission.refusal(4) is not None
    admission.release(5)
    assert admission.refusal(4) is None


def test_a_request_that_would_wait_half_the_deadline_gets_retry_after() -> None:
    now = 0.0
    admission = Admission(max_queue=8, deadline_s=4, clock=lambda: now)
    for _ in range(100):  # half a second each, so that the mean comes to that
        admission.accept(1)
        now += 0.5
        admission.release(1)
    admission.accept(3)
    assert admission.refusal(1) is None  # 1.5 s
    admission.accept(2)
    refusal = admission.refusal(1)
    assert refusal is not None
    assert refusal.retry_after == pytest.approx(2.5, rel=0.01)
    assert str(refusal) == "5 images are waiting, about 2 s of work"


def test_a_full_server_answers_429_counts_it_and_goes_on(world: World, tmp_path: Path) -> None:
    options = ["--model", str(world.model), "--threads", "1"]
    with running(options, tmp_path, environment={"VSSL_MAX_QUEUE": "1"}) as server:
        refused = refusal_of(server)
        assert refused.json()["error"]["code"] == "queue_full"
        assert refused.headers["x-request-id"] == "mine"
        assert refused.headers["content-type"] == "application/json"
        assert int(refused.headers["retry-after"]) >= 1
        assert {"date", "server-timing", "content-length"} <= refused.headers.keys()
        counted = get(f"{server.url}/metrics").text
        assert 'vssl_requests_total{route="/embed",status="429"}' in counted
        assert post(f"{server.url}/embed", content=LARGE).status_code == 200


def refusal_of(server: Running) -> httpx.Response:
    """Post images side by side until one of them meets a full queue."""
    found: list[httpx.Response] = []

    def ask() -> None:
        with httpx.Client(
            base_url=server.url, headers={"X-Request-ID": "mine"}, timeout=PATIENCE_S
        ) as client:
            for _ in range(500):
                answer = client.post("/embed", content=LARGE)
                assert answer.status_code in (200, 429)
                if answer.status_code == 429:
                    found.append(answer)
                if found:
                    return

    clients = [threading.Thread(target=ask) for _ in range(4)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    return found[0]


@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])
def test_a_client_that_sends_far_too_much_gets_its_answer_and_keeps_its_connection(
    server: Running, chunked: bool
) -> None:
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=PATIENCE_S)
    for _ in range(3):
        body = (b"x" * 80_000 for _ in range(100)) if chunked else b"x" * 8_000_000
        connection.request("POST", "/embed", body, encode_chunked=chunked)
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["error"]["code"]) == (413, "too_many_bytes")
        connection.request("POST", "/embed", encoded(1))
        answer = connection.getresponse()
        assert (answer.status, answer.getheader("Connection")) == (200, None)
        answer.read()
    connection.close()
