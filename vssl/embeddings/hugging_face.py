"""An Arrow schema -> the metadata entry `huggingface`, by which `datasets` reads the columns' features.

The dataset viewer, `datasets.load_dataset` and tools that follow them find in it that a column is an image or
a vector of fixed length.
"""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

KEY = "huggingface"
PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""A column of pictures, as `datasets` stores them."""


def features_entry(schema: pa.Schema) -> dict[str, str]:
    """Return the entry for a schema of texts, numbers, fixed-size lists and pictures."""
    features = {field.name: _feature(field.type) for field in schema}
    return {KEY: json.dumps({"info": {"features": features}})}


def _feature(kind: pa.DataType) -> dict[str, Any]:
    if kind == PICTURE:
        return {"_type": "Image"}
    if pa.types.is_fixed_size_list(kind):
        return {"feature": _feature(kind.value_type), "length": kind.list_size, "_type": "List"}
    names = {pa.float16(): "float16", pa.float32(): "float32"}
    return {"dtype": names.get(kind, str(kind)), "_type": "Value"}
