"""Folders nested deeper than Python's calls may nest, made and removed without recursion."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def deep_folder(root: Path, depth: int, data: bytes) -> Iterator[Path]:
    """Give a folder with `top.jpg` in it and `x.jpg` so many folders below."""
    root.mkdir()
    (root / "top.jpg").write_bytes(data)
    try:
        here = os.open(root, os.O_RDONLY)
        for _ in range(depth):
            os.mkdir("d", dir_fd=here)
            inner = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = inner
        with os.fdopen(os.open("x.jpg", os.O_WRONLY | os.O_CREAT, dir_fd=here), "wb") as file:
            file.write(data)
        os.close(here)
        yield root
    finally:
        subprocess.run(["rm", "-rf", str(root)], check=True)
