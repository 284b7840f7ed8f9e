"""The openvino engine: the numbers of onnxruntime in fp32, near ones in bf16, and never silently either."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from serve.inference.backends.openvino import check_precision
from serve.inference.engine import Engine
from tests.serve.http.conftest import encoded
from tests.serve.inference.backends.conftest import computes_bf16
from tests.serve.inference.test_engine import rewrite
from tests.serve.running import VSSL, free_port
from tests.support.tiny_model import tiny_model
from vssl.errors import FormatError, ImageError, InputError
from vssl.model.card import CARD_KEY

if importlib.util.find_spec("openvino") is None:
    pytest.skip("openvino is not installed", allow_module_level=True)

OPENVINO = {"engine": "openvino"}


needs_bf16 = pytest.mark.skipif(not computes_bf16(), reason="this CPU has no bf16 units")


@pytest.fixture(scope="module")
def engines(conv: Path) -> tuple[Engine, Engine]:
    """The same model in either engine."""
    return Engine.open(conv, threads=1), Engine.open(conv, threads=1, engine="openvino")


def images(count: int, seed: int = 0, side: int = 32) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def test_it_is_the_same_model_by_every_account(engines: tuple[Engine, Engine]) -> None:
    here, there = engines
    assert (there.model_id, there.card, there.remote, there.on_gpu) == (
        here.model_id,
        here.card,
        False,
        False,
    )
    assert there.golden.to_json() == here.golden.to_json()
    assert there.check_golden() <= 1e-5
    assert (there.buckets, there.threads) == (here.buckets, 1)
    assert (there.graph.engine, there.precision, there.providers) == (
        "openvino",
        "fp32",
        ["OpenVINO CPU fp32"],
    )
    assert (here.graph.engine, here.precision, here.lowered, there.lowered) == (
        "onnxruntime",
        "fp32",
        None,
        None,
    )


@pytest.mark.parametrize("count", [0, 1, 7, 32, 45])
def test_it_gives_the_numbers_of_onnxruntime(engines: tuple[Engine, Engine], count: int) -> None:
    here, there = engines
    for expected, found in zip(here.run(images(count)), there.run(images(count)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_pixels_may_lie_in_memory_in_any_way(engines: tuple[Engine, Engine]) -> None:
    here, there = engines
    turned = images(6)[::-1, ::-1]
    for expected, found in zip(here.run(turned), there.run(turned), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_an_image_does_not_depend_on_its_batch(engines: tuple[Engine, Engine]) -> None:
    _, there = engines
    together = there.run(images(45))
    alone = [there.run(images(45)[n : n + 1]) for n in range(45)]
    for column in range(3):
        single = np.concatenate([out[column] for out in alone])
        np.testing.assert_allclose(single, together[column], rtol=0, atol=1e-5)


@pytest.mark.parametrize("threads", [1, 2])
def test_callers_share_one_engine_and_keep_their_answers(conv: Path, threads: int) -> None:
    here, there = Engine.open(conv, threads=1), Engine.open(conv, threads=threads, engine="openvino")
    sent = [images(1 + n % 4, seed=n) for n in range(24)]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(there.run, sent))
    for batch, out in zip(sent, found, strict=True):
        np.testing.assert_allclose(out[0], here.run(batch)[0], rtol=1e-4, atol=1e-5)


def test_threads_stay_on_the_cores_they_may_use(conv: Path) -> None:
    before = os.sched_getaffinity(0)
    Engine.open(conv, engine="openvino").run(images(4))
    assert os.sched_getaffinity(0) == before


def test_one_bad_image_never_fails_its_neighbours(engines: tuple[Engine, Engine]) -> None:
    here, there = engines
    sent = [encoded(0), b"not an image", encoded(1, "JPEG"), b""]
    answers = there.embed(sent)
    assert [getattr(a, "code", "ok") for a in answers] == ["ok", "unsupported_type", "ok", "empty"]
    for expected, found in zip(here.embed(sent), answers, strict=True):
        if not isinstance(found, ImageError) and not isinstance(expected, ImageError):
            np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(found.variance, expected.variance, rtol=1e-4, atol=1e-5)


class TestLowerPrecision:
    @needs_bf16
    def test_it_is_near_and_says_what_it_is(self, conv: Path) -> None:
        here = Engine.open(conv, threads=1)
        there = Engine.open(conv, threads=1, engine="openvino", precision="bf16")
        assert (there.precision, there.lowered, there.providers) == ("bf16", "bf16", ["OpenVINO CPU bf16"])
        mean, variance, features = here.run(images(64))
        rough, rough_variance, rough_features = there.run(images(64))
        for expected, found in ((mean, rough), (features, rough_features)):
            worst = np.abs(found - expected).max() / np.abs(expected).max()
            assert 1e-5 < worst < 2e-2  # it did compute in fewer bits, and not in far fewer
        assert np.abs(np.log(rough_variance / variance)).max() < 0.05

    @needs_bf16
    def test_its_golden_pair_is_held_to_bf16s_tolerance_and_no_further(self, tmp_path: Path) -> None:
        def damage(model: onnx.ModelProto, _: dict[str, str]) -> None:
            tensor = next(t for t in model.graph.initializer if t.name == "w_mean")
            values = onnx.numpy_helper.to_array(tensor).copy()
            values[0, 0] += 0.5
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, "w_mean"))

        model = tiny_model(tmp_path / "model.onnx")
        assert Engine.open(model, engine="openvino", precision="bf16").check_golden() < 5e-2
        with pytest.raises(FormatError, match="golden pair: mean differs"):
            Engine.open(rewrite(model, damage), engine="openvino", precision="bf16")

    def test_a_cpu_without_it_is_refused(self) -> None:
        check_precision("bf16", ["FP32", "BF16"])
        with pytest.raises(InputError, match="this CPU computes in FP32, INT8 only; use --precision fp32"):
            check_precision("bf16", ["INT8", "FP32"])

    def test_a_server_on_such_a_cpu_does_not_start(self, conv: Path) -> None:
        """OpenVINO's own variable makes this CPU an older one."""
        command = [*VSSL, "serve", "--model", str(conv), "--port", str(free_port()), "--engine", "openvino"]
        done = subprocess.run(
            [*command, "--precision", "bf16"],
            env={**os.environ, "OV_CPU_MAX_ISA": "AVX2"},
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert done.returncode == 1
        assert "precision bf16: this CPU computes in" in done.stderr
        assert "use --precision fp32" in done.stderr

    def test_an_unknown_one_is_refused(self, conv: Path) -> None:
        with pytest.raises(InputError, match="precision: found 'fp8', expected one of fp32, bf16"):
            Engine.open(conv, engine="openvino", precision="fp8")

    def test_onnxruntime_computes_in_the_files_own(self, conv: Path) -> None:
        with pytest.raises(InputError, match=r"onnxruntime computes in the file's own.*--engine openvino"):
            Engine.open(conv, precision="bf16")


class TestRefusals:
    def test_a_file_that_is_no_model(self, tmp_path: Path) -> None:
        (tmp_path / "model.onnx").write_bytes(b"hello")
        with pytest.raises(FormatError, match=r"not an ONNX model.*vssl export RUN model.onnx"):
            Engine.open(tmp_path / "model.onnx", engine="openvino")

    def test_a_model_that_is_not_ours(self, tmp_path: Path) -> None:
        model = rewrite(tiny_model(tmp_path / "model.onnx"), lambda _, properties: properties.pop(CARD_KEY))
        with pytest.raises(FormatError, match="carries no model card; export it with: vssl export RUN"):
            Engine.open(model, engine="openvino")

    def test_another_input_or_output(self, tmp_path: Path) -> None:
        model = tiny_model(tmp_path / "model.onnx")
        rewrite(model, lambda model, _: model.graph.output.pop())
        with pytest.raises(FormatError, match="expected the input images and the outputs mean, variance"):
            Engine.open(model, engine="openvino")

    def test_a_float_input(self, tmp_path: Path) -> None:
        def floats(model: onnx.ModelProto, _: dict[str, str]) -> None:
            model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT

        model = rewrite(tiny_model(tmp_path / "model.onnx"), floats)
        with pytest.raises(FormatError, match=r"images is tensor\(float\).*its card says tensor\(uint8\)"):
            Engine.open(model, engine="openvino")

    def test_a_fixed_batch(self, tmp_path: Path) -> None:
        def fix(model: onnx.ModelProto, _: dict[str, str]) -> None:
            for tensor in (*model.graph.input, *model.graph.output):
                tensor.type.tensor_type.shape.dim[0].dim_value = 3

        model = rewrite(tiny_model(tmp_path / "model.onnx"), fix)
        with pytest.raises(FormatError, match="batches of 3 only"):
            Engine.open(model, engine="openvino")

    def test_a_device_that_it_is_not_for(self, conv: Path) -> None:
        with pytest.raises(InputError, match="device: found 'cuda', but the engine openvino is for CPUs"):
            Engine.open(conv, engine="openvino", device="cuda")

    def test_an_unknown_engine_is_refused(self, conv: Path) -> None:
        with pytest.raises(InputError, match="engine: found 'torch', expected one of onnxruntime, openvino"):
            Engine.open(conv, engine="torch")

    def test_a_triton_server_has_its_own(self) -> None:
        with pytest.raises(InputError, match="engine: found 'openvino', but a Triton server chooses its own"):
            Engine.open("triton://127.0.0.1:1/conv", engine="openvino")


def test_a_signal_is_handled_though_another_thread_let_the_engine_go(conv: Path) -> None:
    code = (
        "import signal, sys, threading; from serve.inference.engine import Engine;"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7));"
        f"box = [Engine.open({str(conv)!r}, engine='openvino')];"
        "thread = threading.Thread(target=box.clear); thread.start(); thread.join();"
        "signal.raise_signal(signal.SIGTERM)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=200).returncode == 7


def test_without_it_nothing_of_it_is_loaded(conv: Path) -> None:
    code = (
        f"import sys; from serve.inference.engine import Engine; Engine.open({str(conv)!r}); "
        "sys.exit('openvino' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
