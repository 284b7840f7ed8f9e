"""A repository written by us runs in a real Triton server and gives the engine's numbers to tritonclient."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.repositories.triton.repository import write_repository
from export.verify import run_model
from tests.serve.conv_model import conv_model
from tests.serve.running import until
from tests.support.tiny_model import tiny_model
from tests.support.triton_server import Triton, clients, need_triton, triton_server, wait_ready

OUTPUTS = ("mean", "variance", "features")
SIDE = 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of a small model under two names, and one whose golden pair is that of 224 px pictures."""
    need_triton()
    folder = tmp_path_factory.mktemp("triton")
    conv_model(folder / "conv.onnx", size=SIDE)
    tiny_model(folder / "large.onnx", size=224)
    write_repository(folder / "conv.onnx", folder / "repository", backend="python")
    write_repository(folder / "conv.onnx", folder / "repository", name="counted", backend="python")
    write_repository(folder / "large.onnx", folder / "repository", name="large", backend="python")
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Triton]:
    with triton_server(folder / "repository") as running:
        yield running


@pytest.fixture(params=["grpc", "http"])
def client(request: pytest.FixtureRequest, server: Triton) -> Iterator[tuple[Any, Any]]:
    """A client, with the module whose tensors it takes."""
    module = clients()[request.param == "http"]
    opened = module.InferenceServerClient(getattr(server, request.param))
    yield module, opened
    opened.close()


def ask(client: tuple[Any, Any], images: np.ndarray, model: str = "conv") -> dict[str, np.ndarray]:
    module, opened = client
    tensor = module.InferInput("images", list(images.shape), "UINT8")
    tensor.set_data_from_numpy(images)
    result = opened.infer(model, [tensor])
    return {name: result.as_numpy(name) for name in OUTPUTS}


def pictures(count: int, seed: int = 0, side: int = SIDE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


@pytest.mark.parametrize("count", [1, 2, 7, 32])
def test_both_protocols_give_the_numbers_of_the_file(
    client: tuple[Any, Any], folder: Path, count: int
) -> None:
    images = pictures(count)
    expected = run_model((folder / "conv.onnx").read_bytes(), images)
    found = ask(client, images)
    for name in OUTPUTS:
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-5)


def test_a_large_models_golden_pair_fits_into_the_configuration(
    client: tuple[Any, Any], folder: Path
) -> None:
    images = pictures(2, side=224)
    expected = run_model((folder / "large.onnx").read_bytes(), images)
    for name, values in ask(client, images, "large").items():
        np.testing.assert_allclose(values, expected[name], rtol=0, atol=1e-5)


def test_requests_that_triton_batches_together_get_their_own_rows(server: Triton, folder: Path) -> None:
    grpc, _ = clients()
    data = (folder / "conv.onnx").read_bytes()
    sent = [pictures(1 + n % 5, seed=n) for n in range(60)]
    opened = grpc.InferenceServerClient(server.grpc)

    def statistics() -> Any:
        return opened.get_inference_statistics("counted").model_stats[0]

    before = statistics()
    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(lambda images: ask((grpc, opened), images, "counted"), sent))
    images_sent = sum(map(len, sent))
    until(lambda: statistics().inference_count - before.inference_count == images_sent)  # it counts late
    assert statistics().execution_count - before.execution_count < len(sent)  # some did run together
    opened.close()
    for images, answer in zip(sent, found, strict=True):
        expected = run_model(data, images)
        for name in OUTPUTS:
            np.testing.assert_allclose(answer[name], expected[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 16, 32, 3), (33, SIDE, SIDE, 3), (1, 3, SIDE, SIDE)])
def test_images_of_another_shape_are_refused(client: tuple[Any, Any], shape: tuple[int, ...]) -> None:
    module, _ = client
    with pytest.raises(module.InferenceServerException):
        ask(client, np.zeros(shape, np.uint8))


def test_a_running_server_takes_up_the_next_version(tmp_path: Path) -> None:
    need_triton()
    repository = tmp_path / "repository"
    write_repository(tiny_model(tmp_path / "a.onnx"), repository, name="tiny", backend="python")
    with triton_server(repository, polling=True) as polling:
        other = tiny_model(tmp_path / "b.onnx", seed=1)
        entry = write_repository(other, repository, name="tiny", backend="python")
        assert entry.version == 2
        wait_ready(polling, "tiny", "2")
        wait_ready(polling, "tiny", "1")  # still there for those who ask for it
        grpc, _ = clients()
        opened = grpc.InferenceServerClient(polling.grpc)
        images = pictures(1, side=16)
        expected = run_model(other.read_bytes(), images)
        np.testing.assert_allclose(ask((grpc, opened), images, "tiny")["mean"], expected["mean"], atol=1e-5)
        opened.close()


def test_a_file_that_is_not_the_one_in_the_configuration_is_not_served(tmp_path: Path) -> None:
    need_triton()
    entry = write_repository(tiny_model(tmp_path / "a.onnx"), tmp_path / "repository", backend="python")
    (entry.path / "1" / "model.onnx").write_bytes(tiny_model(tmp_path / "b.onnx", seed=1).read_bytes())
    with (
        pytest.raises(RuntimeError, match="the configuration says"),
        triton_server(tmp_path / "repository"),
    ):
        pass
