"""/livez, /readyz, /model and /metrics."""

from __future__ import annotations

import re

import httpx

from tests.serve.http.conftest import World, encoded


def test_alive_and_ready(http: httpx.Client, world: World) -> None:
    assert http.get("/livez").json() == {"status": "alive"}
    assert http.get("/readyz").json() == {"status": "ready", "model_id": world.engine.model_id}


def test_the_model_shows_its_card(http: httpx.Client, world: World) -> None:
    body = http.get("/model").json()
    assert body["card"] == world.engine.card.to_dict()
    assert body["model_id"] == world.engine.model_id
    assert body["limits"]["max_items"] == 16
    assert "JPEG" in body["formats"]


def test_metrics_carry_units_and_stages(http: httpx.Client) -> None:
    http.post("/embed", content=encoded(1))
    http.post("/search", content=encoded(1))
    http.post("/embed", content=b"junk")
    text = http.get("/metrics").text
    for stage in ("read", "decode", "queue", "inference", "serialise", "search"):
        assert re.search(rf'vssl_stage_duration_seconds_count{{stage="{stage}"}} [1-9]', text)
    assert re.search(r'vssl_requests_total{route="/embed",status="415"} [1-9]', text)
    assert re.search(r'vssl_images_total{outcome="unsupported_type"} [1-9]', text)
    assert "vssl_queue_images 0" in text
    assert re.search(r"vssl_batch_size_images_count [1-9]", text)
    assert re.search(r"vssl_uncertainty_count [1-9]", text)


def test_the_description_names_every_route(http: httpx.Client) -> None:
    paths = http.get("/openapi.json").json()["paths"]
    assert {
        "/embed",
        "/search",
        "/gallery",
        "/gallery/{id}",
        "/model",
        "/livez",
        "/readyz",
        "/metrics",
    } <= set(paths)
