"""File bytes -> identity: the model id is the sha256 of model.onnx."""

from __future__ import annotations

import hashlib
from pathlib import Path


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
