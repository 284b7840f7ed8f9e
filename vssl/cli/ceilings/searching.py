"""Random Gaussians -> what an exact search costs, compared with FAISS reading the means alone.

Shape letters: N items, Q queries, D embedding dimension, E encoded dimension.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import faiss
import numpy as np

from index.search.exact import ExactIndex
from vssl.embeddings.gaussian import GaussianEmbedding

BATCHES = (1, 256)
ALWAYS, NEVER = 1, 1 << 30  # from so many numbers in a batch on FAISS multiplies matrices


@dataclass(frozen=True)
class SearchCost:
    """Milliseconds a query of one thread: of the distance, and of FAISS flat on the means (N x D).

    width: E / D, what reading the longer encoding must cost.
    """

    distance: str
    batch: int
    milliseconds: float
    flat: float
    width: float


def measure(
    items: int, dim: int, distances: tuple[str, ...], rounds: int = 3, k: int = 10
) -> list[SearchCost]:
    """Measure CPU time, the least of `rounds` taken in turn. FAISS flat uses its matrix product for batches."""
    random = np.random.default_rng(0)
    mean = random.normal(size=(items + max(BATCHES), dim)).astype(np.float32)
    spread = random.gamma(4.0, 0.25, mean.shape).astype(np.float32)
    every = GaussianEmbedding(mean, spread).normalised()
    stored, asked = every[:items], every[items:]
    flat = faiss.IndexFlatIP(dim)
    flat.add(stored.mean)
    threads, threshold = faiss.omp_get_max_threads(), faiss.cvar.distance_compute_blas_threshold
    faiss.omp_set_num_threads(1)
    costs = []
    try:
        for name in distances:
            index = ExactIndex.build(name, stored)
            for batch in BATCHES:
                some = asked[:batch]
                faiss.cvar.distance_compute_blas_threshold = ALWAYS if batch > 1 else NEVER
                ours, plain = _least(
                    rounds,
                    lambda index=index, some=some: index.search(some, k),  # type: ignore[misc]
                    lambda some=some: flat.search(some.mean, k),  # type: ignore[misc]
                )
                width = index.bytes / stored.mean.nbytes
                costs.append(SearchCost(name, batch, 1e3 * ours / batch, 1e3 * plain / batch, width))
    finally:
        faiss.omp_set_num_threads(threads)
        faiss.cvar.distance_compute_blas_threshold = threshold
    return costs


def speedup(items: int, dim: int, distance: str, rounds: int = 3, k: int = 10) -> float:
    """Return how many times as fast as one core all search a batch, by the clock, the best of `rounds` in turn."""
    random = np.random.default_rng(0)
    mean = random.normal(size=(items + BATCHES[-1], dim)).astype(np.float32)
    every = GaussianEmbedding(mean, random.gamma(4.0, 0.25, mean.shape).astype(np.float32)).normalised()
    index, asked = ExactIndex.build(distance, every[:items]), every[items:]
    threads, threshold = faiss.omp_get_max_threads(), faiss.cvar.distance_compute_blas_threshold
    best = {1: float("inf"), threads: float("inf")}
    faiss.cvar.distance_compute_blas_threshold = ALWAYS
    try:
        for _ in range(rounds + 1):
            for count in best:
                faiss.omp_set_num_threads(count)
                started = time.perf_counter()
                index.search(asked, k)
                best[count] = min(best[count], time.perf_counter() - started)
    finally:
        faiss.omp_set_num_threads(threads)
        faiss.cvar.distance_compute_blas_threshold = threshold
    return best[1] / best[threads]


def _least(rounds: int, *calls: Callable[[], object]) -> list[float]:
    best = [float("inf")] * len(calls)
    for turn in range(rounds + 1):
        for number, call in enumerate(calls):
            started = time.thread_time()
            call()
            if turn:
                best[number] = min(best[number], time.thread_time() - started)
    return best
