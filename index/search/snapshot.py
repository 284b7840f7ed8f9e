"""An exact index <-> two files, `exact.faiss` and `exact.json`, checked when read.

FAISS writes no checksum and reads a flipped bit without complaint, so the JSON carries the
sha256 of the index file and a digest of the items it was built from. Files are written under a
temporary name, flushed and renamed, the JSON last.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from index.distances.encoding import Anchor
from index.distances.parameters import DistanceParameters, Float64s
from index.distances.table import named
from index.search.vectors import Vectors
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.errors import FormatError, VsslError
from vssl.files import put_in_place, write_json
from vssl.model.identity import sha256_file

FORMAT = 1
FEATURES, CONSTANTS = "exact.faiss", "exact.json"
MAPPED = 256 * 1024 * 1024  # larger files are mapped rather than read
REBUILD = "build the index again from the embeddings"


@dataclass(frozen=True, eq=False)
class Stored:
    """What `read` found: the distance's name and constants, and FAISS (None without items).

    rows: how many items; widest (E,): the largest magnitude of each feature; source: the file that
    FAISS is mapped from, None where it was read.
    """

    name: str
    parameters: DistanceParameters
    anchor: Anchor
    faiss: Any
    rows: int
    widest: Float64s
    source: Path | None


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
    widest: Float64s,
) -> None:
    """Write both files into an existing folder, replacing older ones."""
    path, partial = folder / FEATURES, folder / f".{FEATURES}.tmp"
    if features is not None:
        faiss.write_index(features, str(partial))
        put_in_place(partial, path)
    values = {
        "format": FORMAT,
        "distance": name,
        "parameters": parameters.to_dict(),
        "anchor": {key: array.tolist() for key, array in asdict(anchor).items()},
        "widest": widest.tolist(),
        "rows": len(items),
        "items": digest(items),
        "features": None if features is None else sha256_file(path),
    }
    write_json(folder / CONSTANTS, values)


def read(folder: Path, items: Vectors, *, verified: bool = False) -> Stored:
    """Read both files. Raises FormatError when one is absent, damaged or built from other items.

    verified: their checksums have been compared already, and the first of the items are theirs.
    """
    try:
        values = json.loads((folder / CONSTANTS).read_text(encoding="utf-8"))
        if values["format"] != FORMAT:
            raise FormatError(
                f"{folder / CONSTANTS}: found format {values['format']!r}, expected {FORMAT}; {REBUILD}"
            )
        rows = int(values["rows"])
        if not verified and (rows != len(items) or values["items"] != digest(items[:])):
            raise FormatError(
                f"{folder / CONSTANTS} was built from {rows} other items than the {len(items)} given; {REBUILD}"
            )
        features, source, widest = None, None, np.zeros(0)
        if values["features"] is not None:
            path = folder / FEATURES
            if not verified and sha256_file(path) != values["features"]:
                raise FormatError(f"{path} is damaged: its sha256 has changed; {REBUILD}")
            source = path if path.stat().st_size > MAPPED else None
            features = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC if source else 0)
            # An earlier version did not write them down.
            widest = np.array(values["widest"]) if "widest" in values else _widest(features)
        anchor = Anchor(**{key: np.array(array) for key, array in values["anchor"].items()})
        parameters = DistanceParameters.from_dict(values["parameters"])
        return Stored(named(values["distance"]).name, parameters, anchor, features, rows, widest, source)
    except VsslError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise FormatError(f"{folder / CONSTANTS} is not readable ({error}); {REBUILD}") from error


def _widest(features: Any) -> Float64s:
    """Return the largest magnitude of each column, (E,)."""
    columns = faiss.rev_swig_ptr(features.get_xb(), features.ntotal * features.d).reshape(-1, features.d)
    widest: Float64s = np.maximum(columns.max(axis=0), -columns.min(axis=0)).astype(np.float64)
    return widest
