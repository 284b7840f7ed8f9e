"""Requests of every route, changed at random: a client's error at most, and an answer in time."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.serve.http.conftest import encoded

PICTURE = encoded(100)
TEXT = base64.b64encode(PICTURE).decode()
FORM = (
    b'--B\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n' + PICTURE + b"\r\n--B--\r\n"
)
JSON = {"Content-Type": "application/json"}
BODIES: list[tuple[str, str, dict[str, str], bytes]] = [
    ("POST", "/embed", {}, PICTURE),
    ("POST", "/embed", {"Content-Type": "multipart/form-data; boundary=B"}, FORM),
    ("POST", "/embed", JSON, json.dumps({"images": [{"base64": TEXT}]}).encode()),
    (
        "POST",
        "/search",
        JSON,
        json.dumps({"images": [{"base64": TEXT}], "where": {"label": "even"}}).encode(),
    ),
    ("POST", "/search", JSON, json.dumps({"mean": [0.5] * 8, "variance": [0.1] * 8}).encode()),
    ("PUT", "/gallery/fuzz", {}, PICTURE),
    ("POST", "/v1/embeddings", JSON, json.dumps({"input": f"data:image/png;base64,{TEXT}"}).encode()),
    ("POST", "/v2/models/tiny-0/infer", {}, b'{"inputs": [{"name": "images", "shape": [1, 16, 16, 3]}]}'),
]
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
)
NAMES = (
    "images",
    "k",
    "distance",
    "where",
    "max_uncertainty",
    "model",
    "mean",
    "variance",
    "label",
    "metadata",
)
NAMES += ("input", "dimensions", "encoding_format", "inputs", "outputs", "parameters", "id")
usual = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    derandomize=True,
)


def answered(http: httpx.Client, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
    answer = http.request(method, path, headers=headers, content=body)
    assert answer.status_code < 500, (method, path, headers, body[:500], answer.text[:500])


@usual
@given(st.sampled_from(BODIES), st.data())
def test_changed_bytes(
    http: httpx.Client, kind: tuple[str, str, dict[str, str], bytes], data: st.DataObject
) -> None:
    method, path, headers, body = kind
    start = data.draw(st.integers(0, len(body)))
    end = data.draw(st.integers(start, min(len(body), start + 40)))
    answered(http, method, path, headers, body[:start] + data.draw(st.binary(max_size=12)) + body[end:])


@usual
@given(st.sampled_from(BODIES), st.dictionaries(st.sampled_from(NAMES), VALUES, min_size=1, max_size=5))
def test_values_of_every_type(
    http: httpx.Client, kind: tuple[str, str, dict[str, str], bytes], values: dict[str, Any]
) -> None:
    answered(http, kind[0], kind[1], JSON, json.dumps({"images": [{"base64": TEXT}], **values}).encode())


@usual
@given(st.sampled_from(["/gallery/", "/thumbnails/", "/v2/models/", "/"]), st.text(min_size=1, max_size=30))
def test_any_path(http: httpx.Client, start: str, text: str) -> None:
    path = start + "".join(f"%{byte:02X}" for byte in text.encode("utf-8", "surrogatepass"))
    for method in ("GET", "PUT", "DELETE", "POST"):
        answered(http, method, path, {}, PICTURE)


@usual
@given(st.sampled_from(["k", "where", "distance", "model", "label", "metadata", "x"]), st.text(max_size=40))
def test_any_query(http: httpx.Client, name: str, value: str) -> None:
    query = f"{name}=" + "".join(f"%{byte:02X}" for byte in value.encode("utf-8", "surrogatepass"))
    for method, path in (("POST", "/search"), ("PUT", "/gallery/fuzz"), ("POST", "/embed")):
        answered(http, method, f"{path}?{query}", {}, PICTURE)
