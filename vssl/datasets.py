"""Standard data set files -> an ImageSource: Parquet with image bytes, CIFAR-10/100, STL-10.

Nothing is unpickled with open hands: the python version of CIFAR is read by an unpickler that
knows numpy arrays only.
"""

from __future__ import annotations

from pathlib import Path

from vssl.errors import InputError
from vssl.sources import ImageSource


def open_dataset(kind: str, rest: str) -> ImageSource:
    """Open `kind:rest` (see vssl.sources)."""
    raise InputError(f"{kind}: not built yet: {Path(rest)}")
