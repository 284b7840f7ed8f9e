"""The model that comes with the package, for whoever names no other.

A small VSSL encoder trained by this project on the 50,000 training images of CIFAR-10 at 32 px;
its card (`vssl inspect`) says how, and what it reached on the test images. docs/models.md tells
how it was made.
"""

from __future__ import annotations

from pathlib import Path

from vssl.errors import InputError

SHIPPED = "small-cifar10.onnx"


def shipped_model() -> Path:
    """Return the file. Raises InputError where an installation left it out."""
    path = Path(__file__).with_name(SHIPPED)
    if not path.is_file():
        raise InputError(
            f"this installation lacks the model it should bring, {path}; name your own: --model model.onnx"
        )
    return path
