"""The verb doctor: this machine -> what is installed, which engines and GPUs work, and what to install."""

from __future__ import annotations

import os
import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any

from vssl.cli.options import Json
from vssl.cli.output import Column, say, say_json, show_table
from vssl.errors import VsslError
from vssl.model.identity import VERSION

COLUMNS: tuple[Column, ...] = (("extra", "left"), ("installed", "left"), ("missing", "left"))
USES = {"train": "training and export", "cpu": "serving, extraction, search", "gpu": "the same on CUDA 13"}
"""Extras that most people want, and what for; the others are named without."""


def doctor(as_json: Json = False) -> None:
    """Say what is installed, which engines and GPUs work here, and what to install."""
    found: dict[str, Any] = {
        "vssl": VERSION,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {len(os.sched_getaffinity(0))} cores",
        "extras": extras_installed(),
        "engines": engines(),
        "advice": [],
    }
    found["advice"] = advice(found)
    if as_json:
        say_json(found)
        return
    say(f"vssl {found['vssl']}, Python {found['python']} ({sys.executable}), {found['machine']}")
    rows = [
        (
            name,
            ", ".join(f"{k}=={v}" for k, v in packages.items() if v),
            ", ".join(k for k, v in packages.items() if not v),
        )
        for name, packages in found["extras"].items()
    ]
    show_table("what is installed", COLUMNS, rows)
    for name, state in found["engines"].items():
        say(f"{name:<22} {state}")
    for line in found["advice"]:
        say(f"next: {line}")


def extras_installed() -> dict[str, dict[str, str | None]]:
    """Return the packages of each extra with their versions, None for one that is not installed."""
    extras: dict[str, dict[str, str | None]] = {}
    for requirement in requires("vssl") or []:
        extra = re.search(r"""extra == ['"]([\w-]+)['"]""", requirement)
        if extra is None or extra[1] == "dev" or ("win32" in requirement and sys.platform == "win32"):
            continue
        name = re.match(r"[\w.-]+", requirement)
        if name is not None:
            extras.setdefault(extra[1], {})[name[0]] = _version(name[0])
    return extras


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def engines() -> dict[str, str]:
    """Return, of each engine, what it can compute on here, or why not."""
    found: dict[str, str] = {}
    for name, probe in (
        ("torch", _torch), ("onnxruntime", _onnxruntime), ("openvino", _openvino), ("tensorrt", _tensorrt),
        ("faiss", _faiss), ("the shipped model", _shipped),
    ):  # fmt: skip
        try:
            found[name] = probe()
        except ImportError as error:
            found[name] = f"not installed ({error.name or error})"
        except VsslError as error:
            found[name] = f"does not work: {error}"
    return found


def _torch() -> str:
    import torch

    if not torch.cuda.is_available():
        return "CPU"
    return ", ".join(torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count()))


def _onnxruntime() -> str:
    import onnxruntime

    return ", ".join(p.removesuffix("ExecutionProvider") for p in onnxruntime.get_available_providers())


def _openvino() -> str:
    import openvino

    return ", ".join(openvino.Core().available_devices)


def _tensorrt() -> str:
    import tensorrt_libs  # noqa: F401

    return "libraries found"


def _faiss() -> str:
    import faiss

    gpus = faiss.get_num_gpus() if hasattr(faiss, "get_num_gpus") else 0
    return f"{gpus} GPUs" if gpus else "CPU"


def _shipped() -> str:
    from vssl import api

    return f"answers its golden pair on {', '.join(api.load().engine.providers)}"


def advice(found: dict[str, Any]) -> list[str]:
    """Return what to do next, most needed first."""
    lines = []
    extras, both = found["extras"], ("onnxruntime", "onnxruntime-gpu")
    if all(_version(name) for name in both):
        lines.append("onnxruntime and onnxruntime-gpu overwrite each other: pip uninstall one of them")
    serving = "gpu" if _version("onnxruntime-gpu") else "cpu"
    missing = {
        name: [k for k, there in extras.get(name, {}).items() if there is None] for name in ("train", serving)
    }
    lines += [
        f"for {USES[name]}, pip install 'vssl[{name}]' (missing: {', '.join(packages)})"
        for name, packages in missing.items()
        if packages
    ]
    return lines or ["vssl demo, or vssl extract IMAGES EMBEDDINGS"]
