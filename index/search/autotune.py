"""A budget and the user's own vectors -> the index that keeps it, as measured.

`memory=2GB,latency=5ms,recall=0.95`: flat when it fits; otherwise HNSW, IVF and IVF-PQ are built
and their knobs turned until recall@10 against the exact answer is reached, and the fastest that
keeps everything asked for wins. Queries are drawn from the items' own Gaussians: other views of
the stored images, as the model sees them. Latency is the median of single queries on one thread.

Shape letters: N items, Q queries, D embedding dimension.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from index.arrays import Int64s
from index.distances import DistanceParameters
from index.search.approximate import ApproximateIndex, Recipe
from index.search.exact import ExactIndex
from index.search.vectors import Vectors
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.errors import InputError

K = 10
QUERIES = 200
TIMED = 100
UNITS: dict[str, dict[str, float]] = {
    "memory": {"B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KIB": 2.0**10, "MIB": 2.0**20, "GIB": 2.0**30},
    "latency": {"US": 1e-6, "MS": 1e-3, "S": 1.0},
    "recall": {"": 1.0},
}
EFFORTS = {"hnsw": (32, 64, 128, 256, 512), "ivf": (4, 8, 16, 32, 64, 128), "ivfpq": (8, 16, 32, 64, 128)}
SHORTLISTS = (20, 50, 100, 200, 400)


@dataclass(frozen=True)
class Budget:
    """memory: bytes of the search index; latency: seconds a query; recall: of the exact ten nearest."""

    memory: float | None = None
    latency: float | None = None
    recall: float = 0.95

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Parse `memory=2GB,latency=5ms,recall=0.95`, any of the three."""
        values: dict[str, float] = {}
        for entry in filter(None, (part.strip() for part in text.split(","))):
            name, _, amount = entry.partition("=")
            units = UNITS.get(name.strip())
            found = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*([A-Za-z]*)", amount.strip())
            if units is None or found is None or found[2].upper() not in units or name.strip() in values:
                raise InputError(f"budget: found {entry!r}, expected memory=2GB, latency=5ms or recall=0.95")
            values[name.strip()] = float(found[1]) * units[found[2].upper()]
        if not values or not 0 < values.get("recall", 1) <= 1:
            raise InputError(f"budget: found {text!r}, expected such as memory=2GB,latency=5ms,recall=0.95")
        return cls(**values)


@dataclass(frozen=True)
class Measured:
    """One index that was tried: recipe (None: flat), recall@10, median latency, bytes, build seconds."""

    recipe: Recipe | None
    recall: float
    latency: float
    memory: int
    build: float

    def keeps(self, budget: Budget) -> bool:
        """Say whether it is within the budget."""
        return (
            self.recall >= budget.recall
            and (budget.memory is None or self.memory <= budget.memory)
            and (budget.latency is None or self.latency <= budget.latency)
        )


@dataclass(frozen=True, eq=False)
class Selection:
    """The index that was chosen, its measurement, and everything that was tried."""

    index: ExactIndex | ApproximateIndex
    measured: Measured
    tried: tuple[Measured, ...]


def choose(
    name: str,
    items: GaussianEmbedding | Vectors,
    budget: Budget,
    *,
    parameters: DistanceParameters | None = None,
    seed: int = 0,
) -> Selection:
    """Choose an index over items (N, D) for a distance; vectors are shared with it.

    Raises InputError when nothing keeps the budget.
    """
    if not len(items):
        raise InputError("budget: there are no vectors to measure on; add images first")
    vectors = Vectors.of(items)
    queries = views(vectors, QUERIES, seed)
    start = time.perf_counter()
    exact = ExactIndex.build(name, vectors, parameters=parameters)
    built = time.perf_counter() - start
    truth = exact.search(queries, K)[1]
    flat = Measured(None, 1.0, _latency(exact, queries), exact.bytes, built)
    tried = [flat]
    if flat.keeps(budget):
        return Selection(exact, flat, tuple(tried))
    for recipe in _recipes(vectors, name, budget):
        start = time.perf_counter()
        index = ApproximateIndex.build(name, vectors, recipe, parameters=parameters)
        built, size = time.perf_counter() - start, index.bytes
        best: tuple[Measured, ApproximateIndex] | None = None
        for tuned in _tunings(index):
            recall = _recall(tuned.search(queries, K)[1], truth)
            measured = Measured(tuned.recipe, recall, _latency(tuned, queries), size, built)
            tried.append(measured)
            if measured.keeps(budget) and (best is None or measured.latency < best[0].latency):
                best = measured, tuned
            if recall >= max(budget.recall, 0.999):
                break
        if best is not None:
            return Selection(best[1], best[0], tuple(tried))
    closest = max(tried, key=lambda m: (budget.memory is None or m.memory <= budget.memory, m.recall))
    raise InputError(
        f"no index keeps the budget {budget}; of {len(tried)} tried the closest is {describe(closest)}. "
        "Allow more memory or time, or less recall: --budget memory=...,latency=...,recall=..."
    )


def describe(measured: Measured) -> str:
    """Return one line about a measurement."""
    kind = "flat"
    if measured.recipe is not None:
        recipe = measured.recipe
        knob = "efSearch" if recipe.kind == "hnsw" else "nprobe"
        kind = f"{recipe.kind} ({knob} {recipe.effort}, shortlist {recipe.shortlist})"
    return (
        f"{kind}: recall@{K} {measured.recall:.3f}, {1000 * measured.latency:.2f} ms a query, "
        f"{measured.memory / 1e6:.1f} MB, built in {measured.build:.1f} s"
    )


def views(items: GaussianEmbedding | Vectors, count: int, seed: int) -> GaussianEmbedding:
    """Draw queries (Q, D) from the Gaussians of items, with their variances.

    A drawn mean is as long as its item's: normalised galleries get normalised queries.
    """
    random = np.random.default_rng(seed)
    rows = random.choice(len(items), min(count, len(items)), replace=False)
    stored = items[rows]
    spread = np.sqrt(stored.variance)
    drawn = stored.mean + spread * random.standard_normal(spread.shape)
    length = np.maximum(np.linalg.norm(drawn, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    wanted = np.linalg.norm(stored.mean, axis=1, keepdims=True)
    return GaussianEmbedding((drawn * (wanted / length)).astype(np.float32), stored.variance)


def _recipes(items: Vectors, name: str, budget: Budget) -> Iterator[Recipe]:
    """Yield recipes whose size may fit the memory, fastest first."""
    width = items.dim * (2 if name == "wasserstein" else 1) + 16 * (name == "expected")
    sizes = {
        Recipe("hnsw", links=32): len(items) * (4 * width + 280),
        Recipe("hnsw", links=16): len(items) * (4 * width + 150),
        Recipe("ivf"): len(items) * (4 * width + 8),
        Recipe("ivfpq"): len(items) * (width // 4 + 8),
        Recipe("ivfpq", code=width // 8): len(items) * (width // 8 + 8),
    }
    for recipe, size in sizes.items():
        if budget.memory is None or 0.9 * size <= budget.memory:
            yield recipe


def _tunings(index: ApproximateIndex) -> Iterator[ApproximateIndex]:
    """Yield the index with growing effort; shortlists grow where the codes are coarse."""
    for effort, shortlist in zip(EFFORTS[index.recipe.kind], SHORTLISTS, strict=False):
        yield index.with_effort(effort, shortlist)
    yield index.with_effort(EFFORTS[index.recipe.kind][-1], 4 * SHORTLISTS[-1])


def _recall(found: Int64s, truth: Int64s) -> float:
    hits = [np.isin(row, expected[expected >= 0]).sum() for row, expected in zip(found, truth, strict=True)]
    return float(np.sum(hits) / max(1, np.count_nonzero(truth >= 0)))


def _latency(index: ExactIndex | ApproximateIndex, queries: GaussianEmbedding) -> float:
    """Return the median seconds of single queries."""
    taken = []
    for row in range(min(TIMED, len(queries))):
        one = queries[row : row + 1]
        start = time.perf_counter()
        index.search(one, K)
        taken.append(time.perf_counter() - start)
    return float(np.median(taken))
