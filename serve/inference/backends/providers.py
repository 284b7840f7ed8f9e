"""A device and a precision -> the providers that onnxruntime is asked for, or a refusal.

onnxruntime offers what its wheel holds, whether or not the libraries behind it are there; whether a
provider did load is checked once the session exists (`serve.inference.backends.session`).
Shape letters: N images, S side.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import onnxruntime as ort

from serve.inference.backends.triton import is_triton
from vssl.errors import InputError
from vssl.model.batch_sizes import batch_sizes

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
DEVICES = ("auto", "cpu", "cuda")
TENSORRT_PRECISIONS = ("fp32", "fp16", "bf16")

_CUDA_OPTIONS = {
    "arena_extend_strategy": "kSameAsRequested",  # no doubling: memory stays what a batch needs
    "cudnn_conv_algo_search": "HEURISTIC",  # the exhaustive search picks differently from run to run
    "use_tf32": "0",  # 10-bit products would break the golden pair's tolerance
}
ENGINES = ("onnxruntime", "openvino", "tensorrt")


def check_engine(model: Path | str, *, engine: str, precision: str | None, device: str) -> None:
    """Raise InputError where engine, precision, device and the model's source do not fit together."""
    if engine not in ENGINES:
        raise InputError(f"engine: found {engine!r}, expected one of {', '.join(ENGINES)}")
    if is_triton(model) and (engine != "onnxruntime" or device != "auto"):
        found = f"device: found {device!r}" if device != "auto" else f"engine: found {engine!r}"
        raise InputError(f"{found}, but a Triton server chooses its own; leave it out")
    if engine == "openvino" and device not in ("auto", "cpu"):
        raise InputError(f"device: found {device!r}, but the engine openvino is for CPUs; leave it out")
    if engine == "tensorrt" and device not in ("auto", "cuda"):
        raise InputError(f"device: found {device!r}, but the engine tensorrt is for GPUs; leave it out")
    if engine == "onnxruntime" and precision is not None:
        raise InputError(
            f"precision: found {precision!r}, but {engine} computes in the file's own; choose it at export "
            "(vssl export --precision), or use --engine openvino, or tensorrt on a GPU"
        )


def providers_for(device: str) -> list[Any]:
    """Return onnxruntime's providers for `auto`, `cpu` or `cuda`; InputError when there are none."""
    if device not in DEVICES:
        raise InputError(f"device: found {device!r}, expected one of {', '.join(DEVICES)}")
    if device == "cuda":
        _need(CUDA, "device cuda", "use --device cpu")
    if device == "cpu" or CUDA not in ort.get_available_providers():
        return [CPU]
    ort.preload_dlls()  # CUDA and cuDNN from their wheels, whether or not torch is there
    return [(CUDA, _CUDA_OPTIONS), CPU]


def tensorrt_providers(side: int, precision: str, model_id: str) -> list[Any]:
    """Return the providers that compile the graph with TensorRT; what it cannot take runs on CUDA.

    side: S, of the images. precision: what TensorRT computes in. model_id: names the folder under
    the user's cache where what it compiled is kept, since that takes minutes. Raises InputError for an
    unknown precision, or when this onnxruntime has no TensorRT.
    """
    if precision not in TENSORRT_PRECISIONS:
        raise InputError(f"precision: found {precision!r}, expected one of {', '.join(TENSORRT_PRECISIONS)}")
    _need(TENSORRT, "engine tensorrt", "use --engine onnxruntime")
    if precision == "fp32":
        os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")  # TensorRT has no option of its own for it here
    with contextlib.suppress(ImportError):
        import tensorrt_libs  # noqa: F401  (the wheel that loads TensorRT's libraries)
    ort.preload_dlls()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vssl" / "tensorrt" / model_id
    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    most = batch_sizes(side, gpu=True)[-1]

    def shape(batch: int) -> str:
        return f"images:{batch}x{side}x{side}x3"

    options = {
        "trt_fp16_enable": str(int(precision == "fp16")),
        "trt_bf16_enable": str(int(precision == "bf16")),
        "trt_profile_min_shapes": shape(1),
        "trt_profile_opt_shapes": shape(most),
        "trt_profile_max_shapes": shape(most),
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(cache),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(cache),
    }
    return [(TENSORRT, options), (CUDA, _CUDA_OPTIONS), CPU]


def _need(provider: str, asked: str, otherwise: str) -> None:
    offered = ort.get_available_providers()
    if provider not in offered:
        raise InputError(
            f"{asked}: this onnxruntime offers {', '.join(offered)}, expected {provider}; install it with: "
            f"pip install 'vssl[gpu]' in an environment without vssl[cpu], or {otherwise}"
        )
