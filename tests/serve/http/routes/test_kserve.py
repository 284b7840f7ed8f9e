"""/v2: tritonclient.http works unmodified, in JSON and in binary tensors."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from tests.serve.http.conftest import DIM, World, encoded
from tests.serve.running import Running
from vssl.images.preprocess import load_image

SIDE = 16


@pytest.fixture
def pixels(world: World) -> np.ndarray:
    return np.stack([load_image(encoded(n), world.engine.card.preprocess) for n in range(3)])


@pytest.fixture
def triton(server: Running) -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        client_module = pytest.importorskip("tritonclient.http")
    client = client_module.InferenceServerClient(server.url.removeprefix("http://"))
    yield client
    client.close()


def test_tritonclient_finds_server_and_model(triton: Any, world: World) -> None:
    name = world.engine.card.name
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready(name)
    assert triton.is_model_ready(name, "1")
    assert not triton.is_model_ready("another")
    assert triton.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    metadata = triton.get_model_metadata(name)
    assert metadata["inputs"] == [{"name": "images", "datatype": "UINT8", "shape": [-1, SIDE, SIDE, 3]}]
    assert [o["name"] for o in metadata["outputs"]] == ["mean", "variance", "features"]


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_tritonclient_gets_the_engines_numbers(
    triton: Any, world: World, pixels: np.ndarray, binary_in: bool, binary_out: bool
) -> None:
    import tritonclient.http as client_module

    tensor = client_module.InferInput("images", list(pixels.shape), "UINT8")
    tensor.set_data_from_numpy(pixels, binary_data=binary_in)
    outputs = [
        client_module.InferRequestedOutput(name, binary_data=binary_out)
        for name in ("mean", "variance", "features")
    ]
    mean, variance, features = world.engine.run(pixels)
    for asked in (outputs, None):
        result = triton.infer(world.engine.card.name, [tensor], outputs=asked, request_id="r7")
        assert result.get_response()["id"] == "r7"
        np.testing.assert_allclose(result.as_numpy("mean"), mean, atol=1e-6)
        np.testing.assert_allclose(result.as_numpy("variance"), variance, atol=1e-6)
        np.testing.assert_allclose(result.as_numpy("features"), features, atol=1e-6)


def request(**changes: Any) -> dict[str, Any]:
    tensor = {
        "name": "images",
        "datatype": "UINT8",
        "shape": [1, SIDE, SIDE, 3],
        "data": [7] * (SIDE * SIDE * 3),
    }
    return {"inputs": [{**tensor, **changes}]}


def test_a_plain_json_request_works(http: httpx.Client, world: World) -> None:
    body = http.post(f"/v2/models/{world.engine.card.name}/infer", json=request()).json()
    assert body["model_name"] == world.engine.card.name
    assert body["outputs"][0]["shape"] == [1, DIM]


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"inputs": []},
        request(name="x"),
        request(datatype="FP32"),
        request(shape=[1, 8, 8, 3]),
        request(shape=[0, SIDE, SIDE, 3]),
        request(shape="x"),
        request(data=[1, 2]),
        request(data=[256] * (SIDE * SIDE * 3)),
        request(data=[0.5] * (SIDE * SIDE * 3)),
        request(data=["a"] * (SIDE * SIDE * 3)),
        request(data=None),
        request(parameters={"binary_data_size": 3}),
        {**request(), "outputs": [{"name": "x"}]},
        {**request(), "outputs": [{"name": "mean", "parameters": {"classification": 2}}]},
    ],
)
def test_wrong_requests_get_the_protocols_own_error(http: httpx.Client, world: World, body: Any) -> None:
    answer = http.post(f"/v2/models/{world.engine.card.name}/infer", json=body)
    assert answer.status_code == 400
    assert isinstance(answer.json()["error"], str)


def test_an_unknown_model_is_a_404(http: httpx.Client, world: World) -> None:
    for path in ("/v2/models/another", f"/v2/models/{world.engine.card.name}/versions/2"):
        answer = http.get(path)
        assert answer.status_code == 404
        assert isinstance(answer.json()["error"], str)
