"""The models that come with the package, used where no other is named.

The photo encoder is EfficientNet-Lite0, trained by others with labels (NOTICE), with mean, variance
and uncertainty fitted by this project on natural photos. The small one is a VSSL encoder trained by this project
on CIFAR-10 at 32 px. Their cards (`vssl inspect`) say how; docs/reference/models.md tells how they were made.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from vssl.errors import InputError
from vssl.model.identity import sha256_file

PHOTOS = "photos-lite0.onnx"
CIFAR10 = "small-cifar10.onnx"


def shipped_model(name: str = PHOTOS) -> Path:
    """Return the file of PHOTOS or CIFAR10. Raises InputError where an installation left it out."""
    path = Path(__file__).with_name(name)
    if not path.is_file():
        raise InputError(
            f"this installation lacks the model it should bring, {path}; name your own: --model model.onnx"
        )
    return path


def find_model(model_id: str, folders: Iterable[Path]) -> Path | None:
    """Return a file of that id: one that comes with the package, or one that lies in these folders."""
    for path in (*Path(__file__).parent.glob("*.onnx"), *(p for f in folders for p in f.glob("*.onnx"))):
        if path.is_file() and sha256_file(path) == model_id:
            return path
    return None
