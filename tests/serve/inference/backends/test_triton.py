"""The triton:// engine: a real Triton server behind the same interface, with the same numbers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from export.repositories.triton.repository import write_repository
from serve.extraction.extract import extract
from serve.inference.backends import triton as backend
from serve.inference.backends.triton import TritonServerError
from serve.inference.engine import Engine
from tests.serve.conv_model import conv_model
from tests.serve.http.conftest import encoded
from tests.serve.running import VSSL, free_port, until
from tests.support.tiny_model import tiny_model
from tests.support.triton_server import Triton, need_triton, triton_server
from vssl.embeddings.store import read_embeddings
from vssl.errors import FormatError, ImageError, InputError
from vssl.model.card import ModelCard
from vssl.model.golden import Golden
from vssl.model.seal import read_metadata

IDENTITY = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        images = [pb_utils.get_input_tensor_by_name(r, "images").as_numpy() for r in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("same", x)]) for x in images]
"""
HELD = """

import os, time
execute = TritonPythonModel.execute

def held(self, requests):
    while os.path.exists({closed!r}):
        time.sleep(0.01)
    return execute(self, requests)

TritonPythonModel.execute = held
"""
FOREIGN = """
backend: "python"
max_batch_size: 4
input [ { name: "images" data_type: TYPE_UINT8 dims: [ 8 ] } ]
output [ { name: "same" data_type: TYPE_UINT8 dims: [ 8 ] } ]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository: `conv`; `pets` in two versions; some that the engine must refuse."""
    need_triton()
    folder = tmp_path_factory.mktemp("triton")
    repository = folder / "repository"
    conv_model(folder / "conv.onnx")
    write_repository(folder / "conv.onnx", repository, backend="python")
    for seed in (0, 1):
        tiny_model(folder / f"tiny-{seed}.onnx", seed=seed)
        write_repository(folder / f"tiny-{seed}.onnx", repository, name="pets", backend="python")
    foreign = repository / "foreign"
    (foreign / "1").mkdir(parents=True)
    (foreign / "1" / "model.py").write_text(IDENTITY)
    (foreign / "config.pbtxt").write_text(FOREIGN)
    for name, change in (("drifted", drifted), ("narrow", narrow), ("bounded", bounded)):
        entry = write_repository(folder / "tiny-0.onnx", repository, name=name, backend="python")
        config = entry.path / "config.pbtxt"
        config.write_text(change(config.read_text(), read_metadata((folder / "tiny-0.onnx").read_bytes())))
    with (repository / "bounded" / "1" / "model.py").open("a") as file:
        file.write(HELD.format(closed=str(folder / "closed")))
    return folder


def drifted(text: str, held: dict[str, str]) -> str:
    """Expect other answers than the model gives."""
    golden = Golden.from_json(held["vssl.golden"])
    return swap(text, held["vssl.golden"], replace(golden, mean=golden.mean + 1).to_json())


def narrow(text: str, held: dict[str, str]) -> str:
    """Claim fewer dimensions than the model has."""
    return swap(text, held["vssl.card"], replace(ModelCard.from_json(held["vssl.card"]), dim=7).to_json())


def bounded(text: str, held: dict[str, str]) -> str:
    """Let one request wait and no more."""
    return text.replace(
        "dynamic_batching {", "dynamic_batching {\n  default_queue_policy { max_queue_size: 1 }"
    )


def swap(text: str, old: str, new: str) -> str:
    assert old.replace('"', '\\"') in text
    return text.replace(old.replace('"', '\\"'), new.replace('"', '\\"'))


@pytest.fixture(scope="module")
def triton(folder: Path) -> Iterator[Triton]:
    with triton_server(folder / "repository") as server:
        yield server


@pytest.fixture(scope="module")
def engines(triton: Triton, folder: Path) -> Iterator[tuple[Engine, Engine]]:
    """The same model here and on the server."""
    remote = Engine.open(triton.url("conv"))
    yield Engine.open(folder / "conv.onnx", threads=1), remote
    remote.close()


def images(count: int, seed: int = 0, side: int = 32) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def test_it_is_the_same_model_by_every_account(engines: tuple[Engine, Engine], triton: Triton) -> None:
    here, there = engines
    assert (there.model_id, there.card, there.remote) == (here.model_id, here.card, True)
    assert there.golden.to_json() == here.golden.to_json()
    assert there.check_golden() <= 1e-5
    assert there.source == triton.url("conv")
    assert there.providers == [triton.url("conv/1")]
    assert there.buckets == here.buckets


@pytest.mark.parametrize("count", [0, 1, 7, 32, 45])
def test_it_gives_the_numbers_of_the_local_engine(engines: tuple[Engine, Engine], count: int) -> None:
    here, there = engines
    for expected, found in zip(here.run(images(count)), there.run(images(count)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_an_image_does_not_depend_on_its_batch(engines: tuple[Engine, Engine]) -> None:
    _, there = engines
    together = there.run(images(20))
    alone = [there.run(images(20)[n : n + 1]) for n in range(20)]
    for column in range(3):
        single = np.concatenate([out[column] for out in alone])
        np.testing.assert_allclose(single, together[column], rtol=0, atol=1e-5)


def test_threads_share_one_engine(engines: tuple[Engine, Engine]) -> None:
    here, there = engines
    sent = [images(1 + n % 4, seed=n) for n in range(24)]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(there.run, sent))
    for batch, out in zip(sent, found, strict=True):
        np.testing.assert_allclose(out[0], here.run(batch)[0], rtol=0, atol=1e-5)


def test_one_bad_image_never_fails_its_neighbours(engines: tuple[Engine, Engine]) -> None:
    here, there = engines
    sent = [encoded(0), b"not an image", encoded(1), b""]
    for a, b in zip(here.embed(sent), there.embed(sent), strict=True):
        if isinstance(a, ImageError):
            assert isinstance(b, ImageError)
            assert (a.code, str(a)) == (b.code, str(b))
        else:
            assert not isinstance(b, ImageError)
            np.testing.assert_allclose(b.mean, a.mean, rtol=0, atol=1e-5)
            assert b.uncertainty == pytest.approx(a.uncertainty, abs=1e-6)


def test_pixels_of_another_form_are_refused_here(engines: tuple[Engine, Engine]) -> None:
    for wrong in (np.zeros((2, 8, 8, 3), np.uint8), np.zeros((2, 32, 32, 3), np.float32)):
        with pytest.raises(InputError, match=r"expected uint8 of shape \(N, 32, 32, 3\)"):
            engines[1].infer(wrong)


def test_the_newest_version_is_taken_and_an_older_one_by_number(triton: Triton, folder: Path) -> None:
    urls = (triton.url("pets"), triton.url("pets/2"), Path(triton.url("pets/1")))
    for url, seed in zip(urls, (1, 1, 0), strict=True):
        engine = Engine.open(url)
        local = Engine.open(folder / f"tiny-{seed}.onnx", threads=1)
        assert engine.model_id == local.model_id
        np.testing.assert_allclose(
            engine.run(images(3, side=16))[0], local.run(images(3, side=16))[0], rtol=0, atol=1e-5
        )
        engine.close()


class TestRefusals:
    def test_a_server_that_is_not_there(self) -> None:
        with pytest.raises(
            TritonServerError, match=r"no Triton server answers at 127.0.0.1.*is it running"
        ) as found:
            Engine.open(f"triton://127.0.0.1:{free_port()}/pets")
        assert (found.value.status, found.value.code) == (503, "model_unreachable")

    def test_the_http_port_instead_of_the_grpc_one(self, triton: Triton) -> None:
        with pytest.raises(TritonServerError, match=r"its gRPC port \(8001 by default\)"):
            Engine.open(f"triton://{triton.http}/pets")

    @pytest.mark.parametrize("name", ["cats", "pets/7"])
    def test_a_model_or_version_that_is_not_there(self, triton: Triton, name: str) -> None:
        with pytest.raises(
            TritonServerError, match=rf"serves no '{name[:4]}'.*vssl export model.onnx --triton"
        ) as found:
            Engine.open(triton.url(name))
        assert found.value.status == 503

    def test_a_model_without_a_card(self, triton: Triton) -> None:
        with pytest.raises(FormatError, match=r"foreign/1: .*no model card.*vssl export model.onnx --triton"):
            Engine.open(triton.url("foreign"))

    def test_a_model_that_does_not_give_its_golden_pair(self, triton: Triton) -> None:
        with pytest.raises(FormatError, match=r"drifted: golden pair: mean differs"):
            Engine.open(triton.url("drifted"))
        Engine.open(triton.url("drifted"), check=False).close()

    def test_a_card_of_another_width(self, triton: Triton) -> None:
        with pytest.raises(FormatError, match=r"narrow/1 has the tensors .*'mean': \[8\].*its card says"):
            Engine.open(triton.url("narrow"))

    def test_a_device(self, triton: Triton) -> None:
        with pytest.raises(InputError, match="a Triton server chooses its own"):
            Engine.open(triton.url("conv"), device="cpu")


def test_a_server_that_does_not_answer_in_time(
    engines: tuple[Engine, Engine], triton: Triton, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "ANSWER_S", 0.5)
    process = psutil.Process(triton.process.pid)
    process.suspend()
    try:
        until(lambda: process.status() == psutil.STATUS_STOPPED)
        with pytest.raises(TritonServerError, match="did not answer in time") as found:
            engines[1].run(images(1))
    finally:
        process.resume()
    assert (found.value.status, found.value.code) == (504, "deadline")
    monkeypatch.setattr(backend, "ANSWER_S", 30.0)
    engines[1].run(images(1))


def test_a_full_queue_says_when_to_come_back(triton: Triton, folder: Path) -> None:
    engine = Engine.open(triton.url("bounded"))

    def ask(_: int) -> str:
        try:
            return f"{len(engine.run(images(1, side=16))[0])} answered"
        except TritonServerError as error:
            return f"{error.status} {error.code}, again in {error.retry_after:g} s"

    with ThreadPoolExecutor(8) as pool:
        (folder / "closed").touch()  # a model that is suspended would be taken for a dead one
        try:
            asked = [pool.submit(ask, n) for n in range(8)]
            done, _ = wait(asked, return_when=FIRST_COMPLETED)
            assert {future.result() for future in done} == {"429 queue_full, again in 1 s"}
        finally:
            (folder / "closed").unlink()
        outcomes = {future.result() for future in asked}
    assert outcomes == {"1 answered", "429 queue_full, again in 1 s"}
    engine.close()


def test_extraction_writes_what_the_local_engine_writes(triton: Triton, folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "images"
    source.mkdir()
    for n in range(9):
        (source / f"{n}.png").write_bytes(encoded(n))
    (source / "bad.png").write_bytes(b"no image")
    done = subprocess.run(
        [*VSSL, "extract", source, tmp_path / "there", "--model", triton.url("conv"), "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    summary = json.loads(done.stdout)
    extract(source, tmp_path / "here", model=folder / "conv.onnx")
    here, there = (read_embeddings(tmp_path / name) for name in ("here", "there"))
    assert (summary["rows"], summary["failures"]) == (9, 1)
    assert there.rows.ids == here.rows.ids
    assert summary["model_id"] == Engine.open(folder / "conv.onnx", check=False).model_id
    np.testing.assert_allclose(there.rows.gaussians.mean, here.rows.gaussians.mean, rtol=0, atol=1e-5)
    np.testing.assert_allclose(there.rows.gaussians.variance, here.rows.gaussians.variance, rtol=0, atol=1e-5)


def test_a_fresh_process_loads_no_torch(triton: Triton) -> None:
    code = (
        f"import sys; from serve.inference.engine import Engine; Engine.open({triton.url('conv')!r}).close(); "
        "sys.exit(any(m in sys.modules for m in ('torch', 'onnx', 'export', 'train')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
