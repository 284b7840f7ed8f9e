"""A gallery in Milvus: the same questions and answers, on another machine or a cluster.

Two collections: `NAME` holds one entity an item (id, row, label, path, uncertainty, metadata, the
raw Gaussian as base64, and the encoding of the gallery's distance); `NAME_facts` holds what
describes the gallery, as named texts. Milvus ranks encodings by inner product (FLAT, so every
item takes part); the raw Gaussians of a shortlist come back, the definition ranks them here in
float64, and the shortlist grows until none that was left out can be nearer.

Unlike the gallery on disk, an addition is not one transaction: if it is cut short, some of its
items may be there; adding them again with `replace` finishes it.
Shape letters: Q queries, K neighbours, N items, D embedding dimension, E encoded dimension.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.admission import Metadata, admitted
from index.distances.parameters import Float64s
from index.distances.table import named
from index.filters import Scalar, parse_filter, to_milvus
from index.matching import MatchModel
from index.records import GALLERY_FORMAT
from index.remote_schema import TEXT, connect, create_facts, create_items, pack, speaking, unpack
from index.rerank import rerank
from index.results import GalleryItem, SearchResult
from index.scores import left_out, results
from index.stored_encoding import Encoding
from index.view import Vectors, View
from vssl.card import ModelCard
from vssl.errors import ExistsError, FormatError, InputError, MismatchError
from vssl.gaussian import GaussianEmbedding
from vssl.identity import short_id
from vssl.store import Rows

BATCH = 500  # entities a request
SHORTLIST = 48  # candidates beyond k asked for first
MOST = 16_384  # Milvus returns no more
FIELDS = ["id", "row", "label", "path", "uncertainty", "raw"]


class MilvusGallery:
    """A gallery in a Milvus server, or in a Milvus Lite file. Open with `open` or `create`."""

    def __init__(self, client: Any, uri: str, name: str, facts: dict[str, str]) -> None:
        self._client = client
        self._facts = facts
        self.uri, self.name = uri, name
        if facts.get("format") != str(GALLERY_FORMAT):
            raise FormatError(
                f"{uri}#{name}: found gallery format {facts.get('format')}, expected {GALLERY_FORMAT}; "
                "move the gallery there again: vssl gallery move GALLERY milvus:URI#NAME"
            )
        self.model_id = facts["model_id"]
        self.card = ModelCard.from_json(facts["card"])
        self.distance = facts["distance"]
        self.normalise = facts["normalise"] == "1"

    # --- opening and closing -----------------------------------------------------------

    @classmethod
    def create(
        cls,
        uri: str,
        name: str,
        *,
        card: ModelCard,
        model_id: str,
        distance: str = "cosine",
        normalise: bool = True,
        overwrite: bool = False,
    ) -> MilvusGallery:
        """Make an empty gallery. Raises ExistsError when the collection is there and not to be replaced."""
        named(distance)
        client = connect(uri)
        with speaking(uri):
            if client.has_collection(name):
                if not overwrite:
                    client.close()
                    raise ExistsError(f"{uri} holds {name!r} already; choose another name or add --overwrite")
                client.drop_collection(name)
            if client.has_collection(f"{name}_facts"):
                client.drop_collection(f"{name}_facts")
            create_facts(client, f"{name}_facts")
        facts = {
            "format": str(GALLERY_FORMAT),
            "generation": "0",
            "next_row": "1",
            "model_id": model_id,
            "card": card.to_json(),
            "distance": distance,
            "normalise": "1" if normalise else "0",
        }
        gallery = cls(client, uri, name, facts)
        gallery._write_facts(facts)
        return gallery

    @classmethod
    def open(cls, uri: str, name: str, *, read_only: bool = False) -> MilvusGallery:
        """Open a gallery. Milvus takes writes from several clients; `read_only` is the caller's promise."""
        client = connect(uri)
        with speaking(uri):
            if not client.has_collection(f"{name}_facts"):
                client.close()
                raise InputError(
                    f"{uri} holds no gallery {name!r}; put one there with: "
                    f"vssl gallery move GALLERY milvus:{uri}#{name}"
                )
            client.load_collection(f"{name}_facts")
            found = client.query(f"{name}_facts", filter="", limit=1000, output_fields=["name", "value"])
            if client.has_collection(name):
                client.load_collection(name)
        return cls(client, uri, name, {entry["name"]: entry["value"] for entry in found})

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def __enter__(self) -> MilvusGallery:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self._count("")

    @property
    def generation(self) -> int:
        """How many writes this gallery has seen through this client."""
        return int(self._facts["generation"])

    # --- writing -----------------------------------------------------------------------

    def add(
        self,
        rows: Rows,
        *,
        replace: bool = False,
        metadata: Sequence[Metadata] | None = None,
        model_id: str | None = None,
    ) -> None:
        """Add N embedded images; see `Gallery.add`. The first ones fix what encodings are built about."""
        self.check_model(model_id, "these embeddings")
        notes = admitted(rows, metadata)
        compared = self._compared(rows.gaussians)
        if not len(rows):
            return
        for text in (*rows.ids, *rows.paths, *(label or "" for label in rows.labels)):
            if len(text.encode()) > TEXT:
                raise InputError(
                    f"found a text of {len(text.encode())} bytes, Milvus takes at most {TEXT}: {text[:60]!r}"
                )
        with speaking(self.uri):
            if not replace and (taken := self._taken(rows.ids)):
                raise ExistsError(
                    f"{len(taken)} ids are in the gallery already ({taken[0]!r}, ...); add --replace"
                )
            encoded = self._encode(compared)
            first = int(self._facts["next_row"])
            for start in range(0, len(rows), BATCH):
                batch = range(start, min(start + BATCH, len(rows)))
                spread = rows.gaussians[start : start + BATCH].uncertainty.tolist()
                self._client.upsert(
                    self.name,
                    [
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
                    ],
                )
            self._wrote(next_row=str(first + len(rows)))

    def remove(self, ids: Sequence[str]) -> int:
        """Remove items by id; returns how many of them were there."""
        gone = self._taken(list(dict.fromkeys(ids)))
        with speaking(self.uri):
            for start in range(0, len(gone), BATCH):
                self._client.delete(self.name, ids=gone[start : start + BATCH])
            self._wrote()
        return len(gone)

    def remove_where(self, where: Mapping[str, object]) -> int:
        """Remove the items that a filter keeps; returns how many."""
        return self.remove([entry["id"] for entry in self._entries(to_milvus(parse_filter(where)), ["id"])])

    def set_match(self, distance: str, match: MatchModel) -> None:
        """Take over a match calibration from a gallery with the same items."""
        self._write_facts({f"match.{distance}": match.to_json()})

    def _wrote(self, **facts: str) -> None:
        self._write_facts({**facts, "generation": str(self.generation + 1)})

    def _write_facts(self, facts: Mapping[str, str]) -> None:
        self._facts.update(facts)
        entries = [{"name": name, "value": value, "nothing": [0.0, 0.0]} for name, value in facts.items()]
        with speaking(self.uri):
            self._client.upsert(f"{self.name}_facts", entries)

    def _encode(self, compared: GaussianEmbedding) -> NDArray[np.float32]:
        """Return encodings (N, E); the first items fix their constants and make the collection."""
        encoding = Encoding.from_texts(self.distance, self._facts) or Encoding.of(self.distance, compared)
        encoded, widened = encoding.items(compared)
        if not self._client.has_collection(self.name):
            create_items(self._client, self.name, encoded.shape[1])
        self._write_facts(widened.to_texts())
        return encoded

    def _compared(self, gaussians: GaussianEmbedding) -> GaussianEmbedding:
        if gaussians.dim != self.card.dim:
            raise InputError(
                f"found vectors of {gaussians.dim} dimensions, the gallery holds {self.card.dim}"
            )
        return gaussians.normalised() if self.normalise else gaussians

    # --- reading -----------------------------------------------------------------------

    def get(self, id_: str) -> GalleryItem:
        """Return one item. Raises InputError when there is none of that id."""
        found = self._entries(f"id == {json.dumps(id_, ensure_ascii=False)}", [*FIELDS, "metadata"])
        if not found:
            raise InputError(f"the gallery holds no item {id_!r}")
        gaussian = unpack(found, self.card.dim)
        return GalleryItem(
            id_,
            found[0]["label"],
            found[0]["path"],
            gaussian.mean[0],
            gaussian.variance[0],
            float(found[0]["uncertainty"]),
            dict(found[0]["metadata"]),
        )

    def contents(self) -> tuple[Rows, list[dict[str, Scalar]]]:
        """Return every item and its metadata, in the order they were added."""
        found = sorted(self._entries("", [*FIELDS, "metadata"]), key=lambda entry: int(entry["row"]))
        rows = Rows(
            [entry["id"] for entry in found],
            [entry["path"] for entry in found],
            [entry["label"] for entry in found],
            unpack(found, self.card.dim),
        )
        return rows, [dict(entry["metadata"]) for entry in found]

    def match_model(self, distance: str) -> MatchModel | None:
        """Return the match calibration that came with the gallery for a distance."""
        text = self._facts.get(f"match.{distance}")
        return MatchModel.from_json(text) if text else None

    def info(self) -> dict[str, Any]:
        """Return what a person asks about a gallery, as plain values."""
        match = self.match_model(self.distance)
        return {
            "path": f"milvus:{self.uri}#{self.name}",
            "format": GALLERY_FORMAT,
            "model_id": self.model_id,
            "model": self.card.name,
            "items": len(self),
            "dim": self.card.dim,
            "distance": self.distance,
            "normalise": self.normalise,
            "generation": self.generation,
            "index": "Milvus FLAT over encodings, ranked exactly",
            "match_calibration": json.loads(match.to_json()) if match else None,
        }

    def search(
        self,
        queries: GaussianEmbedding,
        k: int = 10,
        *,
        distance: str | None = None,
        max_uncertainty: float | None = None,
        where: Mapping[str, object] | None = None,
        model_id: str | None = None,
        exclude: Sequence[str | None] | None = None,
    ) -> list[SearchResult]:
        """Return the `k` nearest items of each of Q queries; see `Gallery.search`.

        Only the distance that the gallery was made for can be asked: its encodings are stored.
        """
        self.check_model(model_id, "the queries")
        asked = self._compared(queries)
        if not 1 <= k <= MOST - 1:
            raise InputError(f"k: found {k}, expected 1 to {MOST - 1}")
        if exclude is not None and len(exclude) != len(queries):
            raise InputError(f"exclude: found {len(exclude)} ids for {len(queries)} queries")
        if distance not in (None, self.distance):
            raise InputError(
                f"{self.uri}#{self.name} ranks by {self.distance}, found {distance!r}; move a gallery there again "
                f"with: vssl gallery move GALLERY milvus:{self.uri}#NAME --distance {distance}"
            )
        conditions = [to_milvus(parse_filter(where))] if where is not None else []
        if max_uncertainty is not None:
            conditions.append(f"(uncertainty <= {float(np.float32(max_uncertainty))!r})")
        condition = " and ".join(conditions)
        answers: list[SearchResult] = []
        for start in range(0, len(queries), BATCH):
            part = slice(start, start + BATCH)
            own = None if exclude is None else exclude[part]
            answers += self._search(queries[part], asked[part], k, condition, own)
        return answers

    def _search(
        self,
        queries: GaussianEmbedding,
        asked: GaussianEmbedding,
        k: int,
        condition: str,
        exclude: Sequence[str | None] | None,
    ) -> list[SearchResult]:
        ranks = self._percentiles(queries)
        encoding = Encoding.from_texts(self.distance, self._facts)
        if encoding is None:
            return _without_neighbours(queries, ranks)
        phi, offset = encoding.queries(asked)
        wanted = k + (exclude is not None)
        length = min(MOST, wanted + SHORTLIST)
        while True:
            view, candidates, scores = self._shortlists(phi, length, condition)
            items = view.items
            if not len(items):
                return _without_neighbours(queries, ranks)
            distances, found = rerank(
                self.distance, encoding.parameters, items.mean, items.variance, asked, candidates, wanted
            )
            everything = (candidates < 0).any(axis=1)
            certain = distances[:, -1] < encoding.left(offset, scores)
            if length == MOST or (everything | certain).all():
                break
            length = min(MOST, 4 * length)
        if exclude is not None:
            distances, found = left_out(view, exclude, distances, found, k)
        match = self.match_model(self.distance)
        return results(view, match, queries, asked, distances, found, ranks)

    def _shortlists(
        self, phi: NDArray[np.float32], length: int, condition: str
    ) -> tuple[View, NDArray[np.int64], Float64s]:
        """Return a view of all items found, its positions (Q, L) a query, -1 where none, and last scores (Q,)."""
        with speaking(self.uri):
            hits = self._client.search(
                self.name,
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
        entries = [known[row] for row in rows.tolist()]
        candidates = np.full((len(hits), length), -1)
        scores = np.full(len(hits), -np.inf)
        for q, found in enumerate(hits):
            own = np.array([int(hit["entity"]["row"]) for hit in found], np.int64)
            candidates[q, : len(own)] = np.searchsorted(rows, own)
            if len(found):
                scores[q] = found[-1]["distance"]
        view = View(
            self.generation,
            rows,
            np.zeros(len(rows), np.int64),
            np.ones(len(rows), bool),
            [entry["id"] for entry in entries],
            [entry["label"] for entry in entries],
            [entry["path"] for entry in entries],
            np.array([entry["uncertainty"] for entry in entries], np.float32),
            Vectors(self._compared(unpack(entries, self.card.dim))),
        )
        return view, candidates, scores

    def _percentiles(self, queries: GaussianEmbedding) -> list[float | None]:
        total = len(self)
        if not total:
            return [None] * len(queries)
        spread = queries.uncertainty.tolist()
        return [100.0 * self._count(f"uncertainty < {value!r}") / total for value in spread]

    def _count(self, condition: str) -> int:
        with speaking(self.uri):
            if not self._client.has_collection(self.name):
                return 0
            found = self._client.query(self.name, filter=condition, output_fields=["count(*)"])
        return int(found[0]["count(*)"])

    def _taken(self, ids: Sequence[str]) -> list[str]:
        """Return those ids that the gallery holds."""
        taken: list[str] = []
        for start in range(0, len(ids), BATCH):
            names = json.dumps(ids[start : start + BATCH], ensure_ascii=False)
            taken += [entry["id"] for entry in self._entries(f"id in {names}", ["id"])]
        return taken

    def _entries(self, condition: str, fields: list[str]) -> list[dict[str, Any]]:
        with speaking(self.uri):
            if not self._client.has_collection(self.name):
                return []
            pages = self._client.query_iterator(
                self.name, filter=condition, batch_size=1000, output_fields=fields
            )
            entries: list[dict[str, Any]] = []
            while page := pages.next():
                entries += page
            pages.close()
        return entries

    def check_model(self, model_id: str | None, what: str) -> None:
        """Raise MismatchError when `model_id` is given and is not the gallery's."""
        if model_id is not None and model_id != self.model_id:
            raise MismatchError(
                f"{what} are of model {short_id(model_id)}, the gallery {self.uri}#{self.name} of "
                f"{short_id(self.model_id)} ({self.card.name}); use that model, or build a gallery for the new one"
            )


def _without_neighbours(queries: GaussianEmbedding, ranks: list[float | None]) -> list[SearchResult]:
    return [
        SearchResult(own, rank, []) for own, rank in zip(queries.uncertainty.tolist(), ranks, strict=True)
    ]
