"""Exact search under each distance: work per query, and whether brute force agrees.

    python -m benchmarks.distances [--items 100000] [--dim 128] [--queries 200] [--checked 10]
        [--regime mild|wide|clamp ...] [--distance NAME ...] [--embeddings GALLERY QUERIES]
        [--offset 10] [--copies 10]

Synthetic items are classes of a hundred images: the class centre on the unit sphere, the image
about it, each image's variance of its regime (the regimes of benchmarks/regimes.py). For every
distance the table shows, in CPU time of one thread: seconds to build, milliseconds a query in a
batch and alone; then exact float64 evaluations a query (median, mean, largest); how many of the
checked queries have the neighbours of brute force, distances bit for bit; and hubs (largest
count among ten neighbours, skewness). `posterior` has the prior of the items' labels. What is
hard for float32 can be asked for: --offset adds a common vector of that norm to every mean, --copies
gives each item that many near-duplicates, a fiftieth of its length away.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import faiss
import numpy as np

from benchmarks.regimes import REGIMES, gaussians, shifted
from index.distances import NAMES, DistanceParameters, fit_prior, pairwise
from index.metrics.retrieval import occurrences, skewness
from index.search.exact import ExactIndex
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.embeddings.store import read_embeddings

K = 10
Data = tuple[GaussianEmbedding, list[str | None], GaussianEmbedding]


def synthetic(items: int, queries: int, dim: int, regime: str) -> Data:
    """Return items, their labels and queries of the same classes."""
    random = np.random.default_rng(1)
    every = items + queries
    spread = gaussians(every, dim, regime=regime)
    centres = gaussians(max(1, items // 100), dim, seed=2).mean
    labels = random.integers(0, len(centres), every)
    noise = random.normal(0, 0.6 / dim**0.5, (every, dim)).astype(np.float32)
    all_ = GaussianEmbedding(centres[labels] + noise, spread.variance)
    return all_[:items], [str(label) for label in labels[:items]], all_[items:]


def hard(data: Data, offset: float, copies: int) -> Data:
    """Return the data with every item `copies` times, nearly, and all means moved by one vector."""
    items, labels, queries = data
    random, step = np.random.default_rng(3), np.linalg.norm(items.mean, axis=1).mean() / 50
    rows = np.repeat(np.arange(len(items) // copies), copies)
    noise = random.normal(0, step / items.dim**0.5, (len(rows), items.dim)).astype(np.float32)
    near = GaussianEmbedding(items.mean[rows] + noise, items.variance[rows])
    return shifted(near, offset), [labels[row] for row in rows], shifted(queries, offset)


def stored(gallery: Path, queries: Path, count: int) -> Data:
    """Return normalised embeddings of two folders, the queries drawn at random."""
    rows, asked = read_embeddings(gallery).rows, read_embeddings(queries).rows.gaussians.normalised()
    drawn = np.sort(np.random.default_rng(0).permutation(len(asked))[:count])
    return rows.gaussians.normalised(), rows.labels, asked[drawn]


def row(name: str, data: Data, checked: int) -> str:
    """Measure one distance."""
    items, labels, queries = data
    constants = fit_prior(items, labels) if name == "posterior" else DistanceParameters()
    started = time.process_time()
    index = ExactIndex.build(name, items, parameters=constants)
    built = time.process_time() - started
    started = time.process_time()
    found = index.search_counted(queries, K)
    batch = (time.process_time() - started) / len(queries) * 1e3
    alone = []
    for number in range(min(20, len(queries))):
        started = time.process_time()
        index.search(queries[number : number + 1], K)
        alone.append((time.process_time() - started) * 1e3)
    truth = pairwise(name, queries[:checked], items, constants)
    order = np.argsort(truth, axis=1, kind="stable")[:, :K]
    same = (order == found.rows[:checked]).all(axis=1)
    same &= (np.take_along_axis(truth, order, axis=1) == found.distances[:checked]).all(axis=1)
    counts = occurrences(found.rows, len(items))
    evaluated = found.evaluated
    return (
        f"| {name} | {built:.1f} | {batch:.2f} | {np.median(alone):.1f} | {np.median(evaluated):.0f} / "
        f"{evaluated.mean():.0f} / {evaluated.max()} | {same.sum()} of {checked} | {counts.max()} | "
        f"{skewness(counts):.1f} |"
    )


def main() -> None:
    """Print a table for each regime, or for the embeddings given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--checked", type=int, default=10)
    parser.add_argument("--regime", nargs="*", default=REGIMES)
    parser.add_argument("--distance", nargs="*", default=NAMES)
    parser.add_argument("--embeddings", nargs=2, type=Path)
    parser.add_argument("--offset", type=float, default=0.0)
    parser.add_argument("--copies", type=int, default=1)
    options = parser.parse_args()
    faiss.omp_set_num_threads(1)
    if options.embeddings:
        sets = {"embeddings": stored(*options.embeddings, options.queries)}
    else:
        sets = {
            regime: synthetic(options.items, options.queries, options.dim, regime)
            for regime in options.regime
        }
    for title, data in sets.items():
        if options.offset or options.copies > 1:
            data = hard(data, options.offset, options.copies)
            title = f"{title}, {options.copies} near-duplicates each, offset {options.offset:g}"
        print(f"\n{title}: {len(data[0])} x {data[0].dim}, {len(data[2])} queries, top {K}\n")
        print(
            "| distance | build CPU s | batch CPU ms/query | alone | evaluated | as brute force | N10 max | skew |"
        )
        print("|---|---|---|---|---|---|---|---|")
        for name in options.distance:
            print(row(name, data, options.checked), flush=True)


if __name__ == "__main__":
    main()
