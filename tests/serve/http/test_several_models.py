"""Several models, and versions of one, side by side on one server; requests name which."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from serve.inference.engine import Engine
from tests.serve.http.conftest import encoded, make_gallery
from tests.serve.running import PATIENCE_S, VSSL, Running, free_port, running, wait_for_metric
from tests.support.tiny_model import tiny_model
from vssl.errors import ImageError

SIDE = 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four models; the gallery is of the second version of `pets`."""
    folder = tmp_path_factory.mktemp("several")
    for seed in range(4):
        tiny_model(folder / f"{seed}.onnx", seed=seed, dim=8 + 2 * (seed == 3))
    make_gallery(folder, Engine.open(folder / "2.onnx", threads=1))
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Running]:
    models = [f"{folder}/0.onnx", f"pets={folder}/1.onnx", f"pets@2={folder}/2.onnx", f"wide={folder}/3.onnx"]
    arguments = [word for model in models for word in ("--model", model)]
    with running([*arguments, "--gallery", str(folder / "gallery")], folder) as it:
        yield it


@pytest.fixture
def http(server: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


def mean_of(folder: Path, seed: int) -> np.ndarray:
    answer = Engine.open(folder / f"{seed}.onnx", threads=1).embed([encoded(5)])[0]
    assert not isinstance(answer, ImageError)
    return answer.mean


NAMED = [(None, 0), ("tiny-0", 0), ("pets@1", 1), ("pets", 2), ("pets@2", 2), ("wide", 3)]


@pytest.mark.parametrize(("asked", "seed"), NAMED)
def test_embed_answers_with_the_model_that_is_named(
    http: httpx.Client, folder: Path, asked: str | None, seed: int
) -> None:
    query = {} if asked is None else {"model": asked}
    expected = mean_of(folder, seed)
    raw = http.post("/embed", content=encoded(5), params=query).json()
    images = [{"base64": base64.b64encode(encoded(5)).decode()}]
    in_json = http.post("/embed", json={"images": images, **query}).json()
    in_form = http.post("/embed", files={"images": encoded(5)}, data=query).json()
    for body in (raw, in_json, in_form):
        assert body["model_id"] == Engine.open(folder / f"{seed}.onnx", check=False).model_id
        assert body["dim"] == len(expected)
        np.testing.assert_allclose(body["results"][0]["mean"], expected, atol=1e-6)
    by_id = http.post("/embed", content=encoded(5), params={"model": raw["model_id"]}).json()
    assert by_id["model_id"] == raw["model_id"]


@pytest.mark.parametrize(("asked", "seed"), NAMED)
def test_the_openai_dialect_takes_the_same_names(
    http: httpx.Client, folder: Path, asked: str | None, seed: int
) -> None:
    uri = "data:image/png;base64," + base64.b64encode(encoded(5)).decode()
    body = {"input": uri, **({} if asked is None else {"model": asked})}
    (row,) = http.post("/v1/embeddings", json=body).json()["data"]
    np.testing.assert_allclose(row["embedding"], mean_of(folder, seed), atol=1e-6)


def test_every_model_is_listed(http: httpx.Client, folder: Path) -> None:
    ids = [Engine.open(folder / f"{seed}.onnx", check=False).model_id for seed in range(4)]
    listed = http.get("/v1/models").json()["data"]
    assert [(m["id"], m["model_id"]) for m in listed] == list(
        zip(["tiny-0", "pets@1", "pets@2", "wide"], ids, strict=True)
    )
    for model in listed:
        assert http.get(f"/v1/models/{model['id']}").json() == model
    described = http.get("/model", params={"model": "pets"}).json()
    assert (described["name"], described["version"], described["model_id"]) == ("pets", 2, ids[2])
    assert [m["model_id"] for m in described["models"]] == ids
    assert http.get("/model").json()["model_id"] == ids[0]


@pytest.mark.parametrize(
    ("path", "seed"), [("pets", 2), ("pets/versions/1", 1), ("pets/versions/2", 2), ("tiny-0", 0)]
)
def test_the_kserve_dialect_has_names_and_versions(
    http: httpx.Client, folder: Path, path: str, seed: int
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)
    tensor = {"name": "images", "datatype": "UINT8", "shape": list(pixels.shape)}
    request = {"inputs": [{**tensor, "data": pixels.reshape(-1).tolist()}]}
    answer = http.post(f"/v2/models/{path}/infer", json=request).json()
    assert (answer["model_name"], answer["model_version"]) == (path.split("/")[0], "2" if seed == 2 else "1")
    expected = Engine.open(folder / f"{seed}.onnx", threads=1).run(pixels)[0]
    np.testing.assert_allclose(answer["outputs"][0]["data"], expected.reshape(-1), atol=1e-6)
    assert http.get(f"/v2/models/{path}/ready").json()["ready"] is True


def test_the_kserve_dialect_lists_versions(http: httpx.Client) -> None:
    assert http.get("/v2/models/pets").json()["versions"] == ["1", "2"]
    assert http.get("/v2/models/wide").json()["versions"] == ["1"]


def test_unknown_names_and_versions_are_404(http: httpx.Client) -> None:
    answers: list[Any] = [
        http.post("/embed", content=encoded(1), params={"model": "dogs"}),
        http.post("/search", content=encoded(1), params={"model": "dogs"}),
        http.post("/v1/embeddings", json={"input": "x", "model": "dogs"}),
        http.get("/v1/models/dogs"),
        http.get("/model", params={"model": "pets@3"}),
    ]
    for answer in answers:
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
        assert "'tiny-0', 'pets', 'wide'" in answer.json()["error"]["message"]
    for path in ("dogs", "pets/versions/3"):
        assert http.get(f"/v2/models/{path}").status_code == 404
    assert "found '3', this server has '1', '2'" in http.get("/v2/models/pets/versions/3").json()["error"]


def test_a_search_uses_the_model_of_the_gallery(http: httpx.Client, folder: Path) -> None:
    found = http.post("/search", content=encoded(5), params={"k": 1}).json()
    assert found["model_id"] == Engine.open(folder / "2.onnx", check=False).model_id
    assert found["results"][0]["neighbours"][0]["id"] == "set/5.png"
    other = http.post("/search", content=encoded(5), params={"model": "wide"})
    assert (other.status_code, other.json()["error"]["code"]) == (409, "model_mismatch")
    # Of another model, named as the message says, the answers search.
    embedded = http.post("/embed", content=encoded(5)).json()
    query = {name: [embedded["results"][0][name]] for name in ("mean", "variance")}
    refused = http.post("/search", json={**query, "model_id": embedded["model_id"]})
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "model_mismatch")
    named = refused.json()["error"]["message"].partition("POST /embed?model=")[2]
    assert (
        http.post("/embed", content=encoded(5), params={"model": named}).json()["model_id"]
        == found["model_id"]
    )
    put = http.put("/gallery/new.png", content=encoded(40))
    assert put.status_code == 201


def test_every_model_is_described_as_a_choice(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    (model,) = [p for p in document["paths"]["/embed"]["post"]["parameters"] if p["name"] == "model"]
    assert model["schema"] == {"$ref": "#/components/schemas/ModelName"}
    names = document["components"]["schemas"]["ModelName"]["enum"]
    assert {"tiny-0", "pets", "pets@1", "pets@2", "wide"} <= set(names)


def test_one_of_several_is_replaced_alone(tmp_path: Path) -> None:
    a, b, c = (tiny_model(tmp_path / f"{name}.onnx", seed=seed) for seed, name in enumerate("abc"))
    with (
        running(["--model", f"a={a}", "--model", f"b={b}"], tmp_path) as server,
        httpx.Client(base_url=server.url, timeout=PATIENCE_S) as client,
    ):
        first = client.post("/embed", content=encoded(1)).json()["model_id"]
        c.replace(b)
        wait_for_metric(server, 'vssl_model_reloads_total{outcome="done"} 1')
        assert client.post("/embed", content=encoded(1)).json()["model_id"] == first
        after = client.post("/embed", content=encoded(1), params={"model": "b"}).json()["model_id"]
        assert after == Engine.open(b, check=False).model_id
        assert "vssl_queue_images 0" in client.get("/metrics").text


def test_two_that_would_answer_to_one_name_are_refused(tmp_path: Path) -> None:
    models = [tiny_model(tmp_path / f"{n}.onnx") for n in range(2)]
    arguments = [word for model in models for word in ("--model", str(model))]
    done = subprocess.run(
        [*VSSL, "serve", *arguments, "--port", str(free_port())], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 1
    assert "found 'tiny-0' of version 1 twice" in done.stderr
    assert "--model NAME=FILE" in done.stderr
