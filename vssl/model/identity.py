"""What names a file and what wrote it: the model id is the sha256 of model.onnx, VERSION that of vssl."""

from __future__ import annotations

import hashlib
from pathlib import Path

VERSION = "0.1.0"
"""Of this package; pyproject.toml reads it from here."""


def sha256_file(path: Path) -> str:
    """Return the hex sha256 of a file's bytes, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_bytes(data: bytes) -> str:
    """Return the hex sha256 of bytes in memory."""
    return hashlib.sha256(data).hexdigest()


def short_id(model_id: str) -> str:
    """Return the first 12 characters, for messages."""
    return model_id[:12]
