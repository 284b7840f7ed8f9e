"""An exact index <-> two files, `exact.faiss` and `exact.json`, checked when read.

FAISS writes no checksum and reads a flipped bit without complaint, so the JSON carries the
sha256 of the index file and a digest of the items it was built from. Files are written under a
temporary name, flushed and renamed, the JSON last.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from index.distances.encoding import Anchor
from index.distances.parameters import DistanceParameters
from index.distances.table import named
from vssl.errors import FormatError, VsslError
from vssl.gaussian import GaussianEmbedding
from vssl.identity import sha256_file
from vssl.store import write_json

FORMAT = 1
FEATURES, CONSTANTS = "exact.faiss", "exact.json"
REBUILD = "build the index again from the embeddings"


@dataclass(frozen=True, eq=False)
class Stored:
    """What `read` found: the distance's name and constants, and FAISS (None without items)."""

    name: str
    parameters: DistanceParameters
    anchor: Anchor
    faiss: Any


def digest(items: GaussianEmbedding) -> str:
    """Return the hex sha256 of the items' numbers and shape."""
    value = hashlib.sha256(f"{items.mean.shape}".encode())
    for array in (items.mean, items.variance):
        value.update(np.ascontiguousarray(array).data)
    return value.hexdigest()


def write(
    folder: Path,
    features: faiss.IndexFlatIP | None,
    items: GaussianEmbedding,
    name: str,
    parameters: DistanceParameters,
    anchor: Anchor,
) -> None:
    """Write both files into an existing folder, replacing older ones."""
    path, partial = folder / FEATURES, folder / f".{FEATURES}.tmp"
    if features is not None:
        faiss.write_index(features, str(partial))
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    values = {
        "format": FORMAT,
        "distance": name,
        "parameters": parameters.to_dict(),
        "anchor": {key: array.tolist() for key, array in asdict(anchor).items()},
        "rows": len(items),
        "items": digest(items),
        "features": None if features is None else sha256_file(path),
    }
    write_json(values, folder / CONSTANTS)


def read(folder: Path, items: GaussianEmbedding) -> Stored:
    """Read both files. Raises FormatError when one is absent, damaged or built from other items."""
    try:
        values = json.loads((folder / CONSTANTS).read_text(encoding="utf-8"))
        if values["format"] != FORMAT:
            raise FormatError(
                f"{folder / CONSTANTS}: found format {values['format']!r}, expected {FORMAT}; {REBUILD}"
            )
        if values["rows"] != len(items) or values["items"] != digest(items):
            raise FormatError(
                f"{folder / CONSTANTS} was built from {values['rows']} other items than the {len(items)} "
                f"given; {REBUILD}"
            )
        features = None
        if values["features"] is not None:
            if sha256_file(folder / FEATURES) != values["features"]:
                raise FormatError(f"{folder / FEATURES} is damaged: its sha256 has changed; {REBUILD}")
            features = faiss.read_index(str(folder / FEATURES))
        anchor = Anchor(**{key: np.array(array) for key, array in values["anchor"].items()})
        parameters = DistanceParameters.from_dict(values["parameters"])
        return Stored(named(values["distance"]).name, parameters, anchor, features)
    except VsslError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise FormatError(f"{folder / CONSTANTS} is not readable ({error}); {REBUILD}") from error
