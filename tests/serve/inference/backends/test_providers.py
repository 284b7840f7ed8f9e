"""Which providers onnxruntime is asked for, and what is said where it has none of them."""

from __future__ import annotations

from pathlib import Path

import onnxruntime as ort
import pytest

from serve.inference.backends.providers import CPU, CUDA, TENSORRT, providers_for, tensorrt_providers
from serve.inference.engine import Engine
from tests.support.tiny_model import tiny_model
from vssl.errors import InputError

HERE = ort.get_available_providers()
without_gpu = pytest.mark.skipif(CUDA in HERE, reason="this onnxruntime is made for GPUs")


@pytest.fixture
def a_gpu_wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """What onnxruntime-gpu says it offers, on any machine; the cache is not the user's."""
    monkeypatch.setattr(ort, "get_available_providers", lambda: [TENSORRT, CUDA, CPU])
    monkeypatch.setattr(ort, "preload_dlls", lambda: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    return tmp_path


def test_the_cpu_is_asked_for_alone() -> None:
    assert providers_for("cpu") == [CPU]


@without_gpu
def test_auto_is_the_cpu_where_there_is_nothing_else() -> None:
    assert providers_for("auto") == [CPU]


@pytest.mark.usefixtures("a_gpu_wheel")
@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_cuda_comes_before_the_cpu(device: str) -> None:
    (cuda, options), last = providers_for(device)
    assert (cuda, last) == (CUDA, CPU)
    assert options["use_tf32"] == "0"


@pytest.mark.parametrize(("precision", "flags"), [("fp32", "00"), ("fp16", "10"), ("bf16", "01")])
def test_tensorrt_gets_the_batch_sizes_the_precision_and_a_cache_of_the_model(
    a_gpu_wheel: Path, precision: str, flags: str
) -> None:
    (first, options), (second, _), last = tensorrt_providers(32, precision, "f00d")
    assert (first, second, last) == (TENSORRT, CUDA, CPU)
    assert options["trt_fp16_enable"] + options["trt_bf16_enable"] == flags
    assert options["trt_profile_min_shapes"] == "images:1x32x32x3"
    assert options["trt_profile_max_shapes"] == "images:128x32x32x3"
    cache = a_gpu_wheel / "vssl" / "tensorrt" / "f00d"
    assert options["trt_engine_cache_path"] == str(cache)
    assert cache.stat().st_mode & 0o777 == 0o700


@without_gpu
def test_tensorrt_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"engine tensorrt: .* expected TensorrtExecutionProvider; .*vssl\[gpu\]"
    ):
        Engine.open(tiny_model(tmp_path / "model.onnx"), engine="tensorrt")


def test_tensorrt_is_for_gpus(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found 'cpu', but the engine tensorrt is for GPUs"):
        Engine.open(tiny_model(tmp_path / "model.onnx"), engine="tensorrt", device="cpu")


@pytest.mark.usefixtures("a_gpu_wheel")
def test_an_unknown_precision_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found 'int4', expected one of fp32, fp16, bf16"):
        Engine.open(tiny_model(tmp_path / "model.onnx"), engine="tensorrt", precision="int4")


@without_gpu
@pytest.mark.usefixtures("a_gpu_wheel")
@pytest.mark.parametrize(("engine", "device"), [("onnxruntime", "cuda"), ("tensorrt", "auto")])
@pytest.mark.filterwarnings("ignore:Specified provider:UserWarning")
def test_a_provider_that_does_not_load_is_refused_and_never_replaced(
    tmp_path: Path, engine: str, device: str
) -> None:
    """onnxruntime itself goes on with the CPU."""
    with pytest.raises(InputError, match="but onnxruntime loaded CPUExecutionProvider only"):
        Engine.open(tiny_model(tmp_path / "model.onnx"), engine=engine, device=device)
