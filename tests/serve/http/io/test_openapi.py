"""/openapi.json: true to the routes, and a fuzzer that reads it finds nothing."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from serve.http.app import DESCRIBED
from serve.inference.engine import Engine
from tests.serve.http.conftest import DIM, World, make_gallery
from tests.serve.running import Running, running
from tests.support.tiny_model import tiny_model

CONFIG = Path(__file__).resolve().parents[2] / "schemathesis.toml"


def test_every_route_and_no_other_is_described(http: httpx.Client) -> None:
    paths = http.get("/openapi.json").json()["paths"]
    described = {(m.upper(), p) for p, item in paths.items() for m in item if m != "parameters"}
    served = {(r.method, r.path.replace("{id:path}", "{id}")) for r in DESCRIBED}
    assert described == served


def test_every_route_says_what_it_is_and_how_to_try_it(http: httpx.Client) -> None:
    for path, item in http.get("/openapi.json").json()["paths"].items():
        for operation in item.values():
            assert operation["summary"], path
            assert operation["x-codeSamples"][0]["source"].startswith(("curl ", "python: ")), path
            assert "200" in operation["responses"], path


def test_a_malformed_query_is_a_failure_that_each_route_names(http: httpx.Client) -> None:
    for path, item in http.get("/openapi.json").json()["paths"].items():
        for method, operation in item.items():
            answer = http.request(method, f"{path}?a=%FF")
            assert answer.status_code == 400
            assert "400" in operation["responses"], path


def test_what_the_server_narrows_stands_in_it(http: httpx.Client, world: World) -> None:
    schemas = http.get("/openapi.json").json()["components"]["schemas"]
    assert (schemas["Vector"]["minItems"], schemas["Vector"]["maxItems"]) == (DIM, DIM)
    assert schemas["Images"]["maxItems"] == 16
    assert world.engine.model_id in schemas["ModelName"]["enum"]
    assert schemas["ImageSearch"]["additionalProperties"] is False


def test_every_reference_points_somewhere(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    schemas = document["components"]["schemas"]

    def check(value: object) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                if key == "$ref":
                    assert inner.removeprefix("#/components/schemas/") in schemas
                check(inner)
        elif isinstance(value, list):
            for inner in value:
                check(inner)

    check(document)


@pytest.mark.skipif(importlib.util.find_spec("schemathesis") is None, reason="schemathesis is not installed")
def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model.onnx", dim=DIM)
    make_gallery(tmp_path, Engine.open(model, threads=1))
    arguments = ["--model", str(model), "--gallery", str(tmp_path / "gallery"), "--show-images"]
    limits = {"VSSL_MAX_BODY_BYTES": "2000000", "VSSL_MAX_ITEMS": "16"}
    with running(arguments, tmp_path, environment=limits) as server:  # its own: it writes to the gallery
        fuzz(server)


def fuzz(server: Running) -> None:
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run"]
    options = ["--max-examples", "10", "--seed", "1", "--no-color", "--phases", "examples,coverage,fuzzing"]
    done = subprocess.run(
        [*command, f"{server.url}/openapi.json", *options], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
