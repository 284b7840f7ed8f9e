"""The items of a gallery in one Milvus collection: counted, read, written, and ranked by inner product.

Shape letters: Q queries, L shortlist, N items, E encoded dimension.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.answers.validation import Metadata
from index.arrays import Float64s, Int64s
from index.gallery.milvus.schema import TEXT, create_items, milvus_errors, pack
from vssl.embeddings.store import Rows
from vssl.errors import InputError

BATCH = 500  # entities a request
FIELDS = ["id", "row", "label", "path", "uncertainty", "raw", "metadata"]


class RemoteItems:
    """The collection `name`; it is made when the first items say how wide an encoding is."""

    def __init__(self, client: Any, uri: str, name: str) -> None:
        self._client = client
        self._uri = uri
        self._name = name

    def make(self, width: int) -> None:
        """Make the collection for encodings (E,) of that width, unless it is there."""
        if not self._client.has_collection(self._name):
            create_items(self._client, self._name, width)

    def count(self, condition: str) -> int:
        """Return how many items fit a condition, all for an empty one."""
        with milvus_errors(self._uri):
            if not self._client.has_collection(self._name):
                return 0
            found = self._client.query(self._name, filter=condition, output_fields=["count(*)"])
        return int(found[0]["count(*)"])

    def percentiles(self, uncertainty: Sequence[float]) -> list[float | None]:
        """Return for each of Q uncertainties the share of the items that are surer, 0..100; None of no items."""
        total = self.count("")
        if not total:
            return [None] * len(uncertainty)
        return [100.0 * self.count(f"uncertainty < {value!r}") / total for value in uncertainty]

    def taken(self, ids: Sequence[str]) -> list[str]:
        """Return those ids that the collection holds."""
        taken: list[str] = []
        for start in range(0, len(ids), BATCH):
            names = json.dumps(ids[start : start + BATCH], ensure_ascii=False)
            taken += [entry["id"] for entry in self.entries(f"id in {names}", ["id"])]
        return taken

    def entries(self, condition: str, fields: list[str]) -> list[dict[str, Any]]:
        """Return some fields of all items that fit a condition."""
        with milvus_errors(self._uri):
            if not self._client.has_collection(self._name):
                return []
            pages = self._client.query_iterator(
                self._name, filter=condition, batch_size=1000, output_fields=fields
            )
            entries: list[dict[str, Any]] = []
            while page := pages.next():
                entries += page
            pages.close()
        return entries

    def names(self) -> list[str]:
        """Return names of metadata, of the first items."""
        with milvus_errors(self._uri):
            found = self._client.query(self._name, filter="", limit=1000, output_fields=["metadata"])
        return sorted({name for entry in found for name in entry["metadata"]})

    def check_texts(self, rows: Rows) -> None:
        """Raise InputError for an id, path or label that is longer than a field may be."""
        for text in (*rows.ids, *rows.paths, *(label or "" for label in rows.labels)):
            if len(text.encode()) > TEXT:
                raise InputError(
                    f"found a text of {len(text.encode())} bytes, Milvus takes at most {TEXT}: {text[:60]!r}"
                )

    def upsert(self, rows: Rows, notes: Sequence[Metadata], encoded: NDArray[np.float32], first: int) -> None:
        """Write N items with their metadata and encodings (N, E), numbered from `first`."""
        with milvus_errors(self._uri):
            for start in range(0, len(rows), BATCH):
                batch = range(start, min(start + BATCH, len(rows)))
                spread = rows.gaussians[start : start + BATCH].uncertainty.tolist()
                entities = [
                    {
                        "id": rows.ids[i],
                        "row": first + i,
                        "label": rows.labels[i],
                        "path": rows.paths[i],
                        "uncertainty": spread[i - start],
                        "metadata": {n: v for n, v in notes[i].items() if v is not None},
                        "raw": pack(rows.gaussians, i),
                        "encoding": encoded[i].tolist(),
                    }
                    for i in batch
                ]
                self._client.upsert(self._name, entities)

    def delete(self, ids: Sequence[str]) -> None:
        """Remove items by id."""
        with milvus_errors(self._uri):
            for start in range(0, len(ids), BATCH):
                self._client.delete(self._name, ids=ids[start : start + BATCH])

    def ranked(
        self, phi: NDArray[np.float32], length: int, condition: str
    ) -> tuple[list[dict[str, Any]], Int64s, Float64s]:
        """Return the items of largest inner product with queries (Q, E) that fit a condition.

        All items that any query found, in row order; for each query its places among them (Q, L),
        -1 where none; and the last of its scores (Q,), minus infinity where it found nothing.
        """
        with milvus_errors(self._uri):
            hits = self._client.search(
                self._name,
                data=phi.tolist(),
                anns_field="encoding",
                filter=condition,
                limit=length,
                output_fields=FIELDS,
                search_params={"metric_type": "IP"},
            )
        known: dict[int, dict[str, Any]] = {}
        for found in hits:
            for hit in found:
                known[int(hit["entity"]["row"])] = hit["entity"]
        rows = np.array(sorted(known), np.int64)
        candidates = np.full((len(hits), length), -1)
        scores = np.full(len(hits), -np.inf)
        for q, found in enumerate(hits):
            own = np.array([int(hit["entity"]["row"]) for hit in found], np.int64)
            candidates[q, : len(own)] = np.searchsorted(rows, own)
            if len(found):
                scores[q] = found[-1]["distance"]
        return [known[row] for row in rows.tolist()], candidates, scores
