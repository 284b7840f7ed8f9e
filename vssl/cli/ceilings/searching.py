"""Random Gaussians -> what an exact search costs, compared with FAISS reading the means alone.

Shape letters: N items, Q queries, D embedding dimension, E encoded dimension.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import faiss

from index.search.exact import ExactIndex
from vssl.cli.ceilings.building import random_gaussians

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
    every = random_gaussians(items + max(BATCHES), dim).normalised()
    stored, asked = every[:items], every[items:]
    flat = faiss.IndexFlatIP(dim)
    flat.add(stored.mean)
    costs = []
    with _own_threads():
        faiss.omp_set_num_threads(1)
        for name in distances:
            index = ExactIndex.build(name, stored)
            for batch in BATCHES:
                some = asked[:batch]
                faiss.cvar.distance_compute_blas_threshold = ALWAYS if batch > 1 else NEVER
                ours, plain = _least(
                    rounds, partial(index.search, some, k), partial(flat.search, some.mean, k)
                )
                width = index.bytes / stored.mean.nbytes
                costs.append(SearchCost(name, batch, 1e3 * ours / batch, 1e3 * plain / batch, width))
    return costs


def speedup(items: int, dim: int, distance: str, rounds: int = 3, k: int = 10) -> float:
    """Return how many times as fast as one core all search a batch, by the clock, the best of `rounds` in turn."""
    every = random_gaussians(items + BATCHES[-1], dim).normalised()
    index, asked = ExactIndex.build(distance, every[:items]), every[items:]
    threads = faiss.omp_get_max_threads()
    best = {1: float("inf"), threads: float("inf")}
    with _own_threads():
        faiss.cvar.distance_compute_blas_threshold = ALWAYS
        for _ in range(rounds + 1):
            for count in best:
                faiss.omp_set_num_threads(count)
                started = time.perf_counter()
                index.search(asked, k)
                best[count] = min(best[count], time.perf_counter() - started)
    return best[1] / best[threads]


@contextmanager
def _own_threads() -> Iterator[None]:
    """Put FAISS's number of threads, and when it multiplies matrices, back as they were."""
    threads, threshold = faiss.omp_get_max_threads(), faiss.cvar.distance_compute_blas_threshold
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)
        faiss.cvar.distance_compute_blas_threshold = threshold


def _least(rounds: int, *calls: Callable[[], object]) -> list[float]:
    best = [float("inf")] * len(calls)
    for turn in range(rounds + 1):
        for number, call in enumerate(calls):
            started = time.thread_time()
            call()
            if turn:
                best[number] = min(best[number], time.thread_time() - started)
    return best
