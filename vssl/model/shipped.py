"""The models that come with the package, used where no other is named.

The photo encoder is EfficientNet-Lite0, trained by others with labels (NOTICE), with mean, variance
and uncertainty fitted by this project on natural photos. The small one is a VSSL encoder trained by this project
on CIFAR-10 at 32 px. Their cards (`vssl inspect`) say how; docs/models.md tells how they were made.
"""

from __future__ import annotations

from pathlib import Path

from vssl.errors import InputError

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
