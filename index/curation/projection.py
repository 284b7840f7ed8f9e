"""A gallery -> a map: a place in the plane for every image, and how likely its nearest is of another kind.

Computed once by `vssl gallery map`, from the gallery's own neighbours, and kept in `derived/map.parquet`; an image that
came later lies amid its neighbours. Shape letters: N items, K neighbours, D embedding dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from index.answers.results import Neighbourhood
from index.arrays import Int64s
from index.calibration.match import VOTERS
from index.gallery.protocol import Gallery
from index.metrics.vote import class_codes
from vssl.embeddings.gaussian import Floats, GaussianEmbedding
from vssl.embeddings.store import write_table
from vssl.errors import InputError

FILE = Path("derived") / "map.parquet"
NEIGHBOURS = 15  # of equal weight: as good a map as perplexity 30 needs 90 for, with a sixth of the memory
FEWEST = 50  # items that t-SNE is run for; fewer lie on their two principal directions
EXAGGERATED, ROUNDS = 250, 500
SEED = 0
AMID = 5  # neighbours that a later item lies amid
MOST_LATER = 1000  # items that are placed when a map is read; make it again where more are new


@dataclass(frozen=True, eq=False)
class GalleryMap:
    """Places (N, 2) float32 and match risk (N,) float32 of N items by id.

    risk: one minus the calibrated probability that the nearest other has the same label; NaN where the
    gallery cannot calibrate it.
    """

    ids: list[str]
    places: Floats
    risk: Floats


def project(gallery: Gallery, *, jobs: int = -1) -> GalleryMap:
    """Return the map of a gallery: t-SNE (van der Maaten and Hinton 2008) by openTSNE on the exact neighbours.

    jobs: threads, -1 for all cores. Raises InputError for an empty gallery.
    """
    near = gallery.neighbourhood(min(VOTERS, max(1, len(gallery) - 1)))
    if not len(near):
        raise InputError("this gallery is empty: there is nothing to make a map of")
    items, _ = gallery.contents()
    at = {id_: row for row, id_ in enumerate(items.ids)}
    means = items.gaussians.mean[[at[id_] for id_ in near.ids]]
    start = principal(means)
    places = start if len(near) < FEWEST else _tsne(near, start, jobs)
    return GalleryMap(near.ids, places.astype(np.float32), _match_risk(gallery, near))


def principal(means: Floats) -> Floats:
    """Return (N, 2): means at length one along the two directions in which they vary most."""
    unit = means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    apart = (unit - unit.mean(axis=0)).astype(np.float64)
    _, directions = np.linalg.eigh(apart.T @ apart)
    found = apart @ directions[:, ::-1][:, :2]
    if found.shape[1] < 2:
        found = np.concatenate([found, np.zeros((len(found), 1))], axis=1)
    places: Floats = found.astype(np.float32)
    return places


def _tsne(near: Neighbourhood, start: Floats, jobs: int) -> Floats:
    from openTSNE import TSNEEmbedding
    from openTSNE.affinity import Uniform
    from openTSNE.nearest_neighbors import PrecomputedNeighbors

    rows, distances = near.graph.rows[:, :NEIGHBOURS], near.graph.distances[:, :NEIGHBOURS]
    k = rows.shape[1]
    known = PrecomputedNeighbors(rows.astype(np.int64), np.maximum(distances - distances.min(), 0.0))
    affinities = Uniform(knn_index=known, k_neighbors=k, n_jobs=jobs, random_state=SEED)
    scaled = start.astype(np.float64) / max(float(start[:, 0].std()), 1e-12) * 1e-4
    embedding = TSNEEmbedding(
        scaled,
        affinities,
        n_jobs=jobs,
        random_state=SEED,
        negative_gradient_method="fft" if len(near) > 5000 else "bh",
    )
    embedding = embedding.optimize(EXAGGERATED, exaggeration=12, momentum=0.5)
    embedding = embedding.optimize(ROUNDS, momentum=0.8)
    return np.asarray(embedding, np.float32)


def _match_risk(gallery: Gallery, near: Neighbourhood) -> Floats:
    match = gallery.match_model(gallery.distance)
    risk = np.full(len(near), np.nan, np.float32)
    first = near.graph.rows[:, 0]
    there = first >= 0
    if match is not None and there.any():
        own = near.uncertainty_or_zero.astype(np.float64)
        rows, distances = near.graph.rows[there], near.graph.distances[there]
        codes = np.where(rows >= 0, class_codes(near.labels)[rows], -1)
        unsure = own[there][:, None], own[np.maximum(rows, 0)]
        finite = np.where(rows >= 0, distances, 0.0)
        risk[there] = 1.0 - match.probability(finite, *unsure, match.votes(distances, codes))[:, 0]
    return risk


def write_map(gallery: Path, found: GalleryMap) -> Path:
    """Write a map next to the gallery's indexes; returns its file."""
    columns: dict[str, Any] = {
        "id": found.ids,
        "x": found.places[:, 0],
        "y": found.places[:, 1],
        "match_risk": found.risk,
    }
    file = gallery / FILE
    file.parent.mkdir(exist_ok=True)
    write_table(pa.table(columns), file)
    return file


def read_map(gallery: Path) -> GalleryMap | None:
    """Return the map of a gallery folder, None where none was made."""
    file = gallery / FILE
    if not file.is_file():
        return None
    table = pq.read_table(file)
    places = np.stack([table[name].to_numpy() for name in ("x", "y")], axis=1)
    return GalleryMap(table["id"].to_pylist(), places, table["match_risk"].to_numpy())


def place_items(gallery: Gallery, known: GalleryMap, ids: Sequence[str]) -> tuple[Floats, Floats]:
    """Return places (N, 2) and match risk (N,) of items by id; NaN where a map says nothing.

    Up to MOST_LATER items that the map does not know lie at the mean of their nearest known ones.
    """
    at = {id_: row for row, id_ in enumerate(known.ids)}
    rows = np.array([at.get(id_, -1) for id_ in ids], np.int64)
    places = np.where(rows[:, None] >= 0, known.places[rows], np.nan).astype(np.float32)
    risk = np.where(rows >= 0, known.risk[rows], np.nan).astype(np.float32)
    later: Int64s = np.flatnonzero(rows < 0)[:MOST_LATER]
    if len(later):
        items = [gallery.get(ids[row]) for row in later.tolist()]
        asked = GaussianEmbedding.concatenate([item.gaussian for item in items])
        found = gallery.search(asked, 2 * AMID, exclude=[item.id for item in items])
        for row, result in zip(later.tolist(), found, strict=True):
            amid = [at[one.id] for one in result.neighbours if one.id in at][:AMID]
            if amid:
                places[row] = known.places[amid].mean(axis=0)
    return places, risk
