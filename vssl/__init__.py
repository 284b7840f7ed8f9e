"""vssl: from a folder of unlabelled images to a search service that knows how sure it is.

The names below are imported when they are first used (`vssl.api`, `vssl.client`); `import vssl` itself loads nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from vssl.model.identity import VERSION

if TYPE_CHECKING:
    from vssl.api import Gallery, export, extract, load, train
    from vssl.client import AsyncClient, Client
    from vssl.embeddings.batch import Embedded
    from vssl.errors import VsslError

__version__ = VERSION
__all__ = [
    "AsyncClient",
    "Client",
    "Embedded",
    "Gallery",
    "VsslError",
    "__version__",
    "export",
    "extract",
    "load",
    "train",
]
HOMES = {
    "AsyncClient": "vssl.client",
    "Client": "vssl.client",
    "Embedded": "vssl.embeddings.batch",
    "VsslError": "vssl.errors",
}
"""Where a name is defined, unless in `vssl.api`."""


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'vssl' has no attribute {name!r}")
    return getattr(importlib.import_module(HOMES.get(name, "vssl.api")), name)


def __dir__() -> list[str]:
    return sorted(__all__)
