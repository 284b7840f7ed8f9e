"""A device and a config's precision -> the arithmetic that a run or a measurement computes in."""

from __future__ import annotations

import torch


def use_full_precision() -> None:
    """Let this process compute float32 as float32 on GPUs too.

    cuDNN's convolutions otherwise round float32 to TF32, ten bits of mantissa, unless told not to. Steps in bf16
    are not slower for it: their large products are not float32.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def tune_convolutions() -> None:
    """Let cuDNN time its algorithms once per shape and keep the fastest: training sees one shape again and again."""
    torch.backends.cudnn.benchmark = True


def computes_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is native there: recent GPUs, and CPUs with matrix tiles."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):
        return False
    return bool(torch.cpu.get_capabilities().get("amx_bf16", False))
