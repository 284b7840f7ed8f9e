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

from index.answers.filters import Filter, Scalar, check_columns, parse_filter, to_milvus
from index.answers.result_building import left_out, results
from index.answers.results import GalleryItem, SearchResult
from index.answers.validation import Metadata, admitted
from index.answers.view import View
from index.calibration.fit import Fitting
from index.calibration.match import MatchModel
from index.distances.parameters import Float64s
from index.distances.table import named
from index.gallery.database import GALLERY_FORMAT
from index.gallery.milvus.encoding import Encoding
from index.gallery.milvus.facts import RemoteFacts
from index.gallery.milvus.items import FIELDS, RemoteItems
from index.gallery.milvus.schema import connect, speaking, unpack
from index.search.rerank import rerank
from index.search.vectors import Vectors
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.embeddings.store import Rows
from vssl.errors import ExistsError, InputError, MismatchError
from vssl.model.card import ModelCard
from vssl.model.identity import short_id

BATCH = 500  # queries a request
SHORTLIST = 48  # candidates beyond k asked for first
MOST = 16_384  # Milvus returns no more


class MilvusGallery:
    """A gallery in a Milvus server, or in a Milvus Lite file. Open with `open` or `create`."""

    def __init__(self, client: Any, uri: str, name: str, facts: RemoteFacts) -> None:
        self._client = client
        self._facts = facts
        self._items = RemoteItems(client, uri, name)
        self.uri, self.name = uri, name
        self.model_id = facts["model_id"]
        self.card = ModelCard.from_json(facts["card"])
        self.distance = facts["distance"]
        self.normalise = facts["normalise"] == "1"
        self.fitting = facts.fitting()
        self._checked: set[Filter] = set()  # filters whose columns were found

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
        fitting: Fitting | None = None,
    ) -> MilvusGallery:
        """Make an empty gallery. Raises ExistsError when the collection is there and not to be replaced.

        fitting: what was fitted to a gallery of the same items, with its constants.
        """
        named(distance)
        client = connect(uri)
        with speaking(uri):
            if client.has_collection(name):
                if not overwrite:
                    client.close()
                    raise ExistsError(f"{uri} holds {name!r} already; choose another name or add --overwrite")
                client.drop_collection(name)
        facts = {
            "model_id": model_id,
            "card": card.to_json(),
            "distance": distance,
            "normalise": "1" if normalise else "0",
        }
        return cls(client, uri, name, RemoteFacts.create(client, uri, name, facts, fitting))

    @classmethod
    def open(cls, uri: str, name: str, *, read_only: bool = False) -> MilvusGallery:
        """Open a gallery. Milvus takes writes from several clients; `read_only` is the caller's promise."""
        client = connect(uri)
        facts = RemoteFacts.read(client, uri, name)
        with speaking(uri):
            if client.has_collection(name):
                client.load_collection(name)
        return cls(client, uri, name, facts)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def __enter__(self) -> MilvusGallery:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self._items.count("")

    @property
    def stale(self) -> str | None:
        """Why the fitted constants no longer fit what the gallery holds, or None while they do."""
        return self.fitting.stale(len(self), int(self._facts["next_row"]) - 1) if self.fitting else None

    @property
    def generation(self) -> int:
        """How many writes this gallery has seen through this client."""
        return self._facts.generation

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
        self._items.check_texts(rows)
        if not replace and (taken := self._items.taken(rows.ids)):
            raise ExistsError(
                f"{len(taken)} ids are in the gallery already ({taken[0]!r}, ...); add --replace"
            )
        first = int(self._facts["next_row"])
        encoding = self._facts.encoding() or self._encoding(compared)
        encoded, widened = encoding.items(compared)
        self._items.make(encoded.shape[1])
        self._facts.write(widened.to_texts())  # before the items: their bounds must never be too narrow
        self._items.upsert(rows, notes, encoded, first)
        self._facts.wrote(next_row=str(first + len(rows)))

    def remove(self, ids: Sequence[str]) -> int:
        """Remove items by id; returns how many of them were there."""
        gone = self._items.taken(list(dict.fromkeys(ids)))
        self._items.delete(gone)
        self._facts.wrote()
        return len(gone)

    def remove_where(self, where: Mapping[str, object]) -> int:
        """Remove the items that a filter keeps; returns how many."""
        return self.remove([entry["id"] for entry in self._items.entries(self._condition(where), ["id"])])

    def set_match(self, distance: str, match: MatchModel) -> None:
        """Take over a match calibration from a gallery with the same items."""
        self._facts.write({f"match.{distance}": match.to_json()})

    def _encoding(self, compared: GaussianEmbedding) -> Encoding:
        """Fix the constants of the encoding by the first items."""
        constants = self.fitting.constants[self.distance] if self.fitting else None
        return Encoding.of(self.distance, compared, constants)

    def _compared(self, gaussians: GaussianEmbedding) -> GaussianEmbedding:
        if gaussians.dim != self.card.dim:
            raise InputError(
                f"found vectors of {gaussians.dim} dimensions, the gallery holds {self.card.dim}"
            )
        return gaussians.normalised() if self.normalise else gaussians

    # --- reading -----------------------------------------------------------------------

    def get(self, id_: str) -> GalleryItem:
        """Return one item. Raises InputError when there is none of that id."""
        found = self._items.entries(f"id == {json.dumps(id_, ensure_ascii=False)}", [*FIELDS, "metadata"])
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
        found = sorted(self._items.entries("", [*FIELDS, "metadata"]), key=lambda entry: int(entry["row"]))
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
            "fitting": {**self.fitting.facts(), "stale": self.stale} if self.fitting else None,
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
        conditions = [self._condition(where)] if where is not None else []
        if max_uncertainty is not None:
            conditions.append(f"(uncertainty <= {float(np.float32(max_uncertainty))!r})")
        condition = " and ".join(conditions)
        answers: list[SearchResult] = []
        for start in range(0, len(queries), BATCH):
            part = slice(start, start + BATCH)
            own = None if exclude is None else exclude[part]
            answers += self._search(queries[part], asked[part], k, condition, own)
        return answers

    def _condition(self, where: Mapping[str, object]) -> str:
        """Return a filter as Milvus has it. Raises InputError for a column, or a type of value, that no item has."""
        tree = parse_filter(where)
        if tree not in self._checked:
            check_columns(tree, lambda part: self._items.count(to_milvus(part)) > 0, self._items.names)
            self._checked.add(tree)
        return to_milvus(tree)

    def _search(
        self,
        queries: GaussianEmbedding,
        asked: GaussianEmbedding,
        k: int,
        condition: str,
        exclude: Sequence[str | None] | None,
    ) -> list[SearchResult]:
        ranks = self._percentiles(queries)
        encoding = self._facts.encoding()
        if encoding is None:
            return _without_neighbours(queries, ranks)
        phi, offset = encoding.queries(asked)
        wanted = k + (exclude is not None)
        length = min(MOST, wanted + SHORTLIST)
        while True:
            view, candidates, scores, metadata = self._shortlists(phi, length, condition)
            items = view.items
            if not len(items):
                return _without_neighbours(queries, ranks)
            distances, found = rerank(self.distance, encoding.parameters, items, asked, candidates, wanted)
            everything = (candidates < 0).any(axis=1)
            certain = distances[:, -1] < encoding.left(offset, scores)
            if length == MOST or (everything | certain).all():
                break
            length = min(MOST, 4 * length)
        if exclude is not None:
            distances, found = left_out(view, exclude, distances, found, k)
        match = self.match_model(self.distance)
        return results(view, match, queries, asked, distances, found, metadata, ranks)

    def _shortlists(
        self, phi: NDArray[np.float32], length: int, condition: str
    ) -> tuple[View, NDArray[np.int64], Float64s, dict[int, dict[str, Scalar]]]:
        """Return a view of all items found, its positions (Q, L) a query, -1 where none, last scores (Q,), metadata."""
        entries, candidates, scores = self._items.ranked(phi, length, condition)
        view = View(
            self.generation,
            np.array([entry["row"] for entry in entries], np.int64),
            np.zeros(len(entries), np.int64),
            np.ones(len(entries), bool),
            [entry["id"] for entry in entries],
            [entry["label"] for entry in entries],
            [entry["path"] for entry in entries],
            np.array([entry["uncertainty"] for entry in entries], np.float32),
            Vectors(self._compared(unpack(entries, self.card.dim))),
        )
        return view, candidates, scores, {int(entry["row"]): dict(entry["metadata"]) for entry in entries}

    def _percentiles(self, queries: GaussianEmbedding) -> list[float | None]:
        total = len(self)
        if not total:
            return [None] * len(queries)
        spread = queries.uncertainty.tolist()
        return [100.0 * self._items.count(f"uncertainty < {value!r}") / total for value in spread]

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
