"""A gallery in Milvus: the same questions and answers, on another machine or a cluster.

Two collections: `NAME` holds one entity an item (id, row, label, path, uncertainty, metadata, the
raw Gaussian as base64, and the encoding of the gallery's distance); `NAME_facts` holds what
describes the gallery, as named texts. Milvus ranks encodings by inner product (FLAT, so every
item takes part), and the definition ranks a shortlist here (index.gallery.milvus.ranking).

Unlike the gallery on disk, an addition is not one transaction: if it is cut short, some of its
items may be there; adding them again with `replace` finishes it.
Shape letters: Q queries, K neighbours, N items, D embedding dimension, E encoded dimension.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace as replace_fields
from typing import Any, Self

import numpy as np

from index.answers import result_building, validation
from index.answers.filters import Filter, Scalar, parse_filter, to_milvus
from index.answers.listing import Listing
from index.answers.metadata_columns import Columns, check_columns, counted
from index.answers.results import GalleryItem, Neighbourhood, SearchResult
from index.answers.validation import Metadata
from index.calibration.abstention import AbstentionRule
from index.calibration.fit import Fitting
from index.calibration.match import VOTERS, MatchModel
from index.gallery.milvus.encoding import Encoding
from index.gallery.milvus.facts import RemoteFacts
from index.gallery.milvus.items import FIELDS, RemoteItems
from index.gallery.milvus.ranking import MOST, nearest
from index.gallery.milvus.schema import connect, milvus_errors, unpack
from index.gallery.protocol import common_info, first_facts, match_info, needs_a_folder
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.embeddings.store import Rows
from vssl.errors import ExistsError, InputError
from vssl.model.card import ModelCard

BATCH = 500  # queries a request


class MilvusGallery:
    """A gallery in a Milvus server, or in a Milvus Lite file: a `Gallery` (index.gallery.protocol).

    Open with `open` or `create`.
    """

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
        facts = first_facts(card, model_id, distance, normalise=normalise)
        client = connect(uri)
        with milvus_errors(uri):
            if client.has_collection(name):
                if not overwrite:
                    client.close()
                    raise ExistsError(f"{uri} holds {name!r} already; choose another name or add --overwrite")
                client.drop_collection(name)
        return cls(client, uri, name, RemoteFacts.create(client, uri, name, facts, fitting))

    @classmethod
    def open(cls, uri: str, name: str, *, read_only: bool = False) -> MilvusGallery:
        """Open a gallery. Milvus takes writes from several clients; `read_only` is the caller's promise."""
        client = connect(uri)
        facts = RemoteFacts.read(client, uri, name)
        with milvus_errors(uri):
            if client.has_collection(name):
                client.load_collection(name)
        return cls(client, uri, name, facts)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self._items.count("")

    @property
    def place(self) -> str:
        """Its address, as `open_gallery` takes it."""
        return f"milvus:{self.uri}#{self.name}"

    @property
    def stale(self) -> str | None:
        """Why the fitted constants no longer fit what the gallery holds, or None while they do."""
        return self.fitting.stale(len(self), int(self._facts["next_row"]) - 1) if self.fitting else None

    @property
    def generation(self) -> int:
        """How many writes this gallery has seen through this client."""
        return self._facts.generation

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
        rows = replace_fields(rows, gaussians=validation.as_held(self.card, rows.gaussians))
        notes = validation.checked_metadata(rows, metadata)
        as_compared = self._compared(rows.gaussians)
        if not len(rows):
            return
        self._items.check_texts(rows)
        if not replace and (taken := self._items.taken(rows.ids)):
            raise ExistsError(
                f"{len(taken)} ids are in the gallery already ({taken[0]!r}, ...); add --replace"
            )
        first = int(self._facts["next_row"])
        constants = self.fitting.constants[self.distance] if self.fitting else None
        encoding = self._facts.encoding() or Encoding.of(self.distance, as_compared, constants)
        encoded, widened = encoding.items(as_compared)
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

    def _compared(self, gaussians: GaussianEmbedding) -> GaussianEmbedding:
        return validation.compared(gaussians, self.place, self.card.dim, normalise=self.normalise)

    def get(self, id_: str) -> GalleryItem:
        """Return one item. Raises InputError when there is none of that id."""
        found = self._items.entries(f"id == {json.dumps(id_, ensure_ascii=False)}", FIELDS)
        if not found:
            raise InputError(f"the gallery holds no item {id_!r}")
        gaussian, entry = unpack(found, self.card.dim), found[0]
        numbers = gaussian.mean[0], gaussian.variance[0], float(entry["uncertainty"])
        item = GalleryItem(id_, entry["label"], entry["path"], *numbers, dict(entry["metadata"]))
        return validation.item_as_answered(self.card, item)

    def contents(self) -> tuple[Rows, list[dict[str, Scalar]]]:
        """Return every item and its metadata, in the order they were added."""
        found = sorted(self._items.entries("", FIELDS), key=lambda entry: int(entry["row"]))
        spread = np.array([entry["uncertainty"] for entry in found], np.float32)
        rows = Rows(
            [entry["id"] for entry in found],
            [entry["path"] for entry in found],
            [entry["label"] for entry in found],
            validation.as_added(self.card, unpack(found, self.card.dim), spread),
        )
        return rows, [dict(entry["metadata"]) for entry in found]

    def match_model(self, distance: str) -> MatchModel | None:
        """Return the match calibration that came with the gallery for a distance."""
        text = self._facts.get(f"match.{distance}")
        return MatchModel.from_json(text) if text else None

    def columns(self) -> Columns:
        """Return the names of its metadata, and how many items have a value of each kind there; reads it all."""
        return counted(entry["metadata"] for entry in self._items.entries("", ["metadata"]))

    def info(self) -> dict[str, Any]:
        """Return what a person asks about a gallery, as plain values."""
        return common_info(self) | {
            "index": "Milvus FLAT over encodings, ranked exactly",
            "match_calibration": match_info(self.match_model(self.distance)),
        }

    def abstention(self, max_risk: float, distance: str | None = None) -> AbstentionRule:
        """Raise InputError: Milvus does not search its own items to calibrate on them."""
        raise needs_a_folder("--max-risk", self.place)

    def neighbourhood(self, k: int, *, white: bool = False) -> Neighbourhood:
        """Raise InputError: Milvus does not search its own items."""
        raise needs_a_folder("curation", self.place)

    def listing(self) -> Listing:
        """Raise InputError: the items are not kept here."""
        raise needs_a_folder("browsing", self.place)

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
        max_risk: float | None = None,
    ) -> list[SearchResult]:
        """Return the `k` nearest items of each of Q queries; see `Gallery.search`.

        Only the distance that the gallery was made for can be asked: its encodings are stored.
        """
        self.check_model(model_id, "the queries")
        queries = validation.as_held(self.card, queries)
        prepared = self._compared(queries)
        validation.check_search(k, exclude, len(queries), most=MOST - 1)
        if max_risk is not None:
            self.abstention(max_risk)
        if distance not in (None, self.distance):
            raise InputError(
                f"{self.uri}#{self.name} ranks by {self.distance}, found {distance!r}; move a gallery there again "
                f"with: vssl gallery move GALLERY milvus:{self.uri}#NAME --distance {distance}"
            )
        validation.check_asked(self.place, self.card, distance, max_uncertainty, where)
        conditions = [self._condition(where)] if where is not None else []
        if max_uncertainty is not None:
            conditions.append(f"(uncertainty <= {float(np.float32(max_uncertainty))!r})")
        condition = " and ".join(conditions)
        answers: list[SearchResult] = []
        for start in range(0, len(queries), BATCH):
            part = slice(start, start + BATCH)
            own = None if exclude is None else exclude[part]
            answers += self._search(queries[part], prepared[part], k, condition, own)
        return validation.as_answered(self.card, answers)

    def _search(
        self,
        queries: GaussianEmbedding,
        prepared: GaussianEmbedding,
        k: int,
        condition: str,
        exclude: Sequence[str | None] | None,
    ) -> list[SearchResult]:
        ranks = self._items.percentiles(queries.uncertainty.tolist())
        encoding = self._facts.encoding()
        if encoding is None:
            return result_building.without_neighbours(queries, ranks)
        wide = max(k, VOTERS) + (exclude is not None)
        ranked = nearest(self._items, encoding, prepared, wide, condition, self._compared)
        if ranked is None:
            return result_building.without_neighbours(queries, ranks)
        view, distances, found = ranked.view, ranked.distances, ranked.found
        if exclude is not None:
            distances, found = result_building.without_excluded(view, exclude, distances, found, wide - 1)
        match, unsure = self.match_model(self.distance), queries.uncertainty
        matches = result_building.match_probabilities(match, view, distances, found, unsure)
        distances, found = distances[:, :k], found[:, :k]
        return result_building.results(
            view, matches, queries, prepared, distances, found, percentiles=ranks, metadata=ranked.metadata
        )

    def _condition(self, where: Mapping[str, object]) -> str:
        """Return a filter in Milvus's words. Raises InputError for one on what no item has."""
        tree = parse_filter(where)
        if tree not in self._checked:
            check_columns(tree, lambda part: self._items.count(to_milvus(part)) > 0, self._items.names)
            self._checked.add(tree)
        return to_milvus(tree)

    def check_model(self, model_id: str | None, what: str) -> None:
        """Raise MismatchError when `model_id` is given and is not the gallery's."""
        validation.check_model(self.place, self.card, self.model_id, model_id, what)
