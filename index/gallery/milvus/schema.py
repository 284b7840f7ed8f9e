"""What a gallery looks like inside Milvus: its two collections, and how vectors travel as text.

Shape letters: N entities, D embedding dimension, E encoded dimension.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from index.gallery.protocol import StorageError
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.errors import MissingExtraError

TEXT = 4096  # bytes of an id, a path or a label


def pack(gaussians: GaussianEmbedding, row: int) -> str:
    """Return one Gaussian's mean and variance (D,) as base64 text, bit for bit."""
    return base64.b64encode(gaussians.mean[row].tobytes() + gaussians.variance[row].tobytes()).decode()


def unpack(entries: Sequence[Mapping[str, Any]], dim: int) -> GaussianEmbedding:
    """Return the Gaussians (N, D) of entities that hold `pack`'s text as `raw`."""
    data = b"".join(base64.b64decode(entry["raw"]) for entry in entries)
    both = np.frombuffer(data, np.float32).reshape(len(entries), 2, dim)
    return GaussianEmbedding(np.ascontiguousarray(both[:, 0]), np.ascontiguousarray(both[:, 1]))


def connect(uri: str) -> Any:
    """Return a client of a server, or of a Milvus Lite file. Raises MissingExtraError without pymilvus."""
    try:
        from pymilvus import MilvusClient
    except ModuleNotFoundError as error:
        raise MissingExtraError("pymilvus", "milvus") from error
    with milvus_errors(uri):
        return MilvusClient(uri)


def create_items(client: Any, name: str, width: int) -> None:
    """Make the collection of items, whose encodings (E,) are ranked by inner product, every one of them."""
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=TEXT)
    schema.add_field("row", DataType.INT64)
    schema.add_field("label", DataType.VARCHAR, max_length=TEXT, nullable=True)
    schema.add_field("path", DataType.VARCHAR, max_length=TEXT)
    schema.add_field("uncertainty", DataType.DOUBLE)
    schema.add_field("metadata", DataType.JSON)
    schema.add_field("raw", DataType.VARCHAR, max_length=65_535)
    schema.add_field("encoding", DataType.FLOAT_VECTOR, dim=width)
    _create(client, name, schema, "encoding", "IP")


def create_facts(client: Any, name: str) -> None:
    """Make the collection of named texts that describe the gallery."""
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("name", DataType.VARCHAR, is_primary=True, max_length=256)
    schema.add_field("value", DataType.VARCHAR, max_length=65_535)
    schema.add_field("nothing", DataType.FLOAT_VECTOR, dim=2)  # Milvus wants a vector in every collection
    _create(client, name, schema, "nothing", "L2")


def _create(client: Any, name: str, schema: Any, field: str, metric: str) -> None:
    index = client.prepare_index_params()
    index.add_index(field, index_type="FLAT", metric_type=metric)
    client.create_collection(name, schema=schema, index_params=index, consistency_level="Strong")


@contextlib.contextmanager
def milvus_errors(uri: str) -> Iterator[None]:
    """Turn Milvus's errors into ours."""
    from pymilvus.exceptions import MilvusException

    try:
        yield
    except MilvusException as error:
        raise StorageError(f"Milvus at {uri}: {' '.join(str(error.message).split())[:500]}") from error
