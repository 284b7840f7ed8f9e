"""Encoded queries -> their nearest items in Milvus, ranked here by the definition, with a certificate.

Milvus ranks encodings by inner product; the raw Gaussians of a shortlist come back, the definition ranks
them in float64, and the shortlist grows until none that was left out can be nearer.
Shape letters: Q queries, K neighbours, L shortlist, E encoded dimension.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from index.answers.filters import Scalar
from index.answers.view import ItemColumns, View
from index.arrays import Float64s, Int64s
from index.gallery.milvus.encoding import Encoding
from index.gallery.milvus.items import RemoteItems
from index.gallery.milvus.schema import unpack
from index.search.rerank import rerank
from index.search.vectors import Vectors
from vssl.embeddings.gaussian import GaussianEmbedding

SHORTLIST = 48  # candidates beyond k asked for first
MOST = 16_384  # Milvus returns no more


@dataclass(frozen=True, eq=False)
class Ranked:
    """What Q queries found: the items any of them found, positions among those (Q, K), distances (Q, K)."""

    view: View
    metadata: dict[int, dict[str, Scalar]]
    distances: Float64s
    found: Int64s


def nearest(
    items: RemoteItems,
    encoding: Encoding,
    queries: GaussianEmbedding,
    k: int,
    condition: str,
    compared: Callable[[GaussianEmbedding], GaussianEmbedding],
) -> Ranked | None:
    """Return the k nearest items that fit a condition; None where there is none.

    queries: (Q, D) as they are compared; compared: how stored Gaussians are.
    """
    phi, offset = encoding.queries(queries)
    length = min(MOST, k + SHORTLIST)
    while True:
        entries, candidates, scores = items.ranked(phi, length, condition)
        if not entries:
            return None
        view = _view(entries, compared(unpack(entries, queries.dim)))
        distances, found = rerank(encoding.name, encoding.parameters, view.items, queries, candidates, k)
        everything = (candidates < 0).any(axis=1)
        certain = distances[:, -1] < encoding.left(offset, scores)
        if length == MOST or (everything | certain).all():
            metadata = {int(entry["row"]): dict(entry["metadata"]) for entry in entries}
            return Ranked(view, metadata, distances, found)
        length = min(MOST, 4 * length)


def _view(entries: list[dict[str, Any]], items: GaussianEmbedding) -> View:
    columns = ItemColumns(
        np.array([entry["row"] for entry in entries], np.int64),
        np.zeros(len(entries), np.int64),
        [entry["id"] for entry in entries],
        [entry["label"] for entry in entries],
        [entry["path"] for entry in entries],
        np.array([entry["uncertainty"] for entry in entries], np.float32),
    )
    return View.over(columns, 0, Vectors(items))
