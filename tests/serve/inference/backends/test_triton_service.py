"""A service before a real Triton server: it outlives the server, and takes up newer versions of its model."""

from __future__ import annotations

import subprocess
from pathlib import Path

import httpx
import numpy as np

from export.repositories.triton.repository import write_repository
from serve.inference.engine import Engine
from tests.serve.http.conftest import encoded
from tests.serve.running import PATIENCE_S, VSSL, free_port, get, post, running, until, wait_ready
from tests.support.tiny_model import tiny_model
from tests.support.triton_server import START_S, need_triton, triton_server
from vssl.errors import ImageError


def test_the_service_outlives_its_triton_server(tmp_path: Path) -> None:
    need_triton()
    model = tiny_model(tmp_path / "model.onnx")
    repository = tmp_path / "repository"
    write_repository(model, repository, name="pets", backend="python")
    ports = (free_port(), free_port())
    expected = Engine.open(model, threads=1).embed([encoded(1)])[0]
    assert not isinstance(expected, ImageError)
    with (
        triton_server(repository, ports=ports) as triton,
        running(["--model", triton.url("pets")], tmp_path) as server,
    ):
        said = server.log.read_text()
        assert "model   tiny-0" in said
        answer = post(f"{server.url}/embed", content=encoded(1)).json()["results"][0]
        np.testing.assert_allclose(answer["mean"], expected.mean, rtol=0, atol=1e-5)
        np.testing.assert_allclose(answer["variance"], expected.variance, rtol=0, atol=1e-5)
        assert get(f"{server.url}/model").json()["providers"] == [triton.url("pets/1")]
        triton.stop()
        answer_away = post(f"{server.url}/embed", content=encoded(1))
        assert (answer_away.status_code, answer_away.json()["error"]["code"]) == (
            503,
            "model_unreachable",
        )
        assert int(answer_away.headers["retry-after"]) >= 1
        assert get(f"{server.url}/livez").status_code == 200
        until(lambda: get(f"{server.url}/readyz").status_code == 503)  # an answer holds for a second
        with triton_server(repository, ports=ports):
            wait_ready(server)
            assert post(f"{server.url}/embed", content=encoded(1)).status_code == 200
        assert server.terminate() == 0


def test_a_newer_version_is_taken_up_without_a_failed_request(tmp_path: Path) -> None:
    need_triton()
    repository = tmp_path / "repository"
    first, second = (tiny_model(tmp_path / f"{seed}.onnx", seed=seed) for seed in (0, 1))
    write_repository(first, repository, name="pets", backend="python")
    ids, statuses = [], set()
    with (
        triton_server(repository, polling=True) as triton,
        running(["--model", triton.url("pets")], tmp_path) as server,
        httpx.Client(base_url=server.url, timeout=PATIENCE_S) as client,
    ):
        write_repository(second, repository, name="pets", backend="python")

        def is_taken_up() -> bool:
            answer = client.post("/embed", content=encoded(1))
            statuses.add(answer.status_code)
            if answer.status_code == 200 and answer.json()["model_id"] not in ids:
                ids.append(answer.json()["model_id"])
            return len(ids) == 2

        until(is_taken_up, START_S)
    assert ids == [Engine.open(path, check=False).model_id for path in (first, second)]
    assert statuses == {200}


def test_a_service_whose_triton_server_is_away_does_not_start() -> None:
    command = [*VSSL, "serve", "--model", f"triton://127.0.0.1:{free_port()}/pets"]
    done = subprocess.run(
        [*command, "--port", str(free_port())], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 1
    assert "no Triton server answers" in done.stderr
    assert "Traceback" not in done.stderr
