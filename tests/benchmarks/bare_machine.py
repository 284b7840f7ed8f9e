"""Run a module as a program on a machine without what a GPU machine lacks: its imports fail.

python -m tests.benchmarks.bare_machine MODULE ARGUMENT...
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

ABSENT = (
    "bentoml", "datasets", "duckdb", "faiss", "fsspec", "h11", "httpx", "lightly", "matplotlib", "milvus_lite",
    "onnxscript", "openvino", "orjson", "pandas", "polars", "psutil", "pybase64", "pymilvus", "ray", "rich",
    "starlette", "torchmetrics", "tritonclient", "typer", "uvicorn",
)  # fmt: skip
"""Declared by this project for other verbs, and not installed with torch, torchvision, numpy, Pillow and pyarrow."""


class Bare(MetaPathFinder):
    """Finds what another finder finds, but for the packages that are absent."""

    def __init__(self, finder: MetaPathFinder) -> None:
        self.finder = finder

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return None if name.split(".")[0] in ABSENT else self.finder.find_spec(name, path, target)


if __name__ == "__main__":
    sys.meta_path[:] = [Bare(finder) for finder in sys.meta_path]  # type: ignore[arg-type]
    module = sys.argv[1]
    sys.argv = sys.argv[1:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
