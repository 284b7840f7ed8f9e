"""A gallery of samples, and what it should answer: the definition of the distance on every row."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from index.distances import pairwise
from index.gallery.folder.gallery import FolderGallery
from index.gallery.folder.store import STORE, Store
from index.search.approximate import Recipe
from index.search.exact import ExactIndex
from tests.index.samples import MODEL, card
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.embeddings.store import Rows


def new(folder: Path, rows: Rows | None = None, dim: int = 8, **options) -> FolderGallery:
    gallery = FolderGallery.create(folder / "gallery", card=card(dim), model_id=MODEL, **options)
    if rows is not None:
        gallery.add(rows)
    return gallery


@contextlib.contextmanager
def raw(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection of our own to a store's file, besides the one of the store."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def with_recipe(path: Path, recipe: Recipe) -> None:
    """Let a closed gallery find the candidates of its own distance by a recipe from here on."""
    store = Store(path / STORE)
    store.set_fact("recipe", recipe.to_json())
    store.close()


def brute(
    rows: Rows, queries: GaussianEmbedding, k: int, distance: str = "cosine", keep=None
) -> list[list[str]]:
    """Ids of the k nearest, by the definition in float64 on normalised Gaussians."""
    keep = np.ones(len(rows), bool) if keep is None else keep
    index = ExactIndex.build(distance, rows.gaussians.normalised())
    table = pairwise(distance, queries.normalised(), rows.gaussians.normalised(), index.parameters)
    table = np.where(keep, table, np.inf)
    order = np.argsort(table, axis=1, kind="stable")[:, : min(k, int(keep.sum()))]
    return [[rows.ids[i] for i in row] for row in order]


def ids(results) -> list[list[str]]:
    return [[n.id for n in result.neighbours] for result in results]
