"""Serving and extraction with the openvino engine: its numbers, its end, and no mixing of precisions."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from pathlib import Path

import numpy as np
import psutil
import pytest

from serve.extraction.extract import extract
from serve.extraction.plan import Plan
from serve.inference.engine import Engine
from tests.serve.http.conftest import encoded
from tests.serve.inference.backends.conftest import computes_bf16
from tests.serve.running import PATIENCE_S, VSSL, get, post, running
from vssl.embeddings.store import read_embeddings
from vssl.errors import ImageError, MismatchError

if importlib.util.find_spec("openvino") is None:
    pytest.skip("openvino is not installed", allow_module_level=True)


needs_bf16 = pytest.mark.skipif(not computes_bf16(), reason="this CPU has no bf16 units")


def test_a_server_computes_with_it_and_says_so(tmp_path: Path, conv: Path) -> None:
    precision = "bf16" if computes_bf16() else "fp32"
    arguments = ["--model", str(conv), "--engine", "openvino", "--precision", precision]
    with running(arguments, tmp_path) as server:
        told = get(f"{server.url}/model").json()
        assert (told["engine"], told["precision"], told["providers"]) == (
            "openvino",
            precision,
            [f"OpenVINO CPU {precision}"],
        )
        answer = post(f"{server.url}/embed", content=encoded(3)).json()["results"][0]
    engine = Engine.open(conv, threads=1, engine="openvino", precision=precision)
    (expected,) = engine.embed([encoded(3)])
    assert not isinstance(expected, ImageError)
    np.testing.assert_allclose(answer["mean"], expected.mean, rtol=0, atol=1e-6)
    np.testing.assert_allclose(answer["variance"], expected.variance, rtol=1e-5, atol=0)


def test_its_server_ends_when_asked_to_and_leaves_no_worker(tmp_path: Path, conv: Path) -> None:
    with running(["--model", str(conv), "--engine", "openvino"], tmp_path) as server:
        workers = psutil.Process(server.process.pid).children(recursive=True)
        assert workers
        assert server.terminate() == 0, server.log.read_text()
        _, alive = psutil.wait_procs(workers, timeout=PATIENCE_S)
        for worker in alive:
            worker.kill()
        assert not alive


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for n in range(5):
        (folder / f"{n}.png").write_bytes(encoded(n))
    return folder


def test_extraction_computes_with_it(tmp_path: Path, folder: Path, conv: Path) -> None:
    command = [*VSSL, "extract", str(folder), str(tmp_path / "out"), "--model", str(conv), "--json"]
    done = subprocess.run([*command, "--engine", "openvino"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["rows"] == 5
    extract(folder, tmp_path / "reference", model=conv)
    found, expected = read_embeddings(tmp_path / "out"), read_embeddings(tmp_path / "reference")
    np.testing.assert_allclose(found.rows.gaussians.mean, expected.rows.gaussians.mean, rtol=1e-4, atol=1e-5)


@needs_bf16
def test_rows_of_two_precisions_do_not_mix(tmp_path: Path, folder: Path, conv: Path) -> None:
    extract(folder, tmp_path / "out", model=conv)
    (folder / "more.png").write_bytes(encoded(9))
    with pytest.raises(MismatchError, match=r"precision below the model's own: was None, now bf16"):
        extract(folder, tmp_path / "out", model=conv, engine="openvino", precision="bf16", update=True)
    extract(folder, tmp_path / "out", model=conv, engine="openvino", update=True)  # fp32 is the same


def test_a_folder_of_before_there_were_precisions_is_still_read(tmp_path: Path) -> None:
    plan = Plan("ab" * 32, 10, "h", 4, 2, False, False, "float32", 100, 1000)
    values = {name: value for name, value in vars(plan).items() if name != "lowered"}
    assert Plan.read(values, tmp_path) == plan
