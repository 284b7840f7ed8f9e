"""What the distances cost that are no inner product, `mls` and `posterior`, compared with brute force in NumPy.

    python -m benchmarks.overlap [--items 100000] [--dim 256]

A batch of 64; `posterior` with the prior of the items' labels. CPU time with one thread, then the time on the
clock with every core free to both (NumPy's element-wise operations use one). Items as in benchmarks.index.
"""

from __future__ import annotations

import argparse
import os
import time

import faiss
import numpy as np
from numpy.typing import NDArray

from benchmarks.index import Float32s, K, data, least
from index.distances import DistanceParameters, fit_prior, pairwise
from index.distances.predictive import predicted
from index.search.exact import ExactIndex
from vssl.embeddings.gaussian import GaussianEmbedding


def as_written(mean: Float32s, variance: Float32s, asked: GaussianEmbedding, k: int) -> NDArray[np.int64]:
    """Return the rows (Q, k) of largest sum (m - mu)^2/(s + v) + ln(s + v): the formula, in blocks, in float32."""
    sums = np.empty((len(asked), len(mean)), np.float32)
    for start in range(0, len(mean), 4096):
        mu, v = mean[start : start + 4096], variance[start : start + 4096]
        for q in range(len(asked)):
            total = asked.variance[q] + v
            terms = (asked.mean[q] - mu) ** 2 / total + np.log(total)
            sums[q, start : start + len(mu)] = terms.sum(axis=1)
    return _best(sums, k)


def in_cache(mean: Float32s, variance: Float32s, asked: GaussianEmbedding, k: int) -> NDArray[np.int64]:
    """Return the same rows, as fast as NumPy can: in place, in blocks that stay in the second cache."""
    sums = np.empty((len(asked), len(mean)), np.float32)
    block = max(1, (1 << 16) // mean.shape[1])  # temporaries of 256 KB
    apart, total = np.empty((block, mean.shape[1]), np.float32), np.empty((block, mean.shape[1]), np.float32)
    for start in range(0, len(mean), block):
        mu, v = mean[start : start + block], variance[start : start + block]
        a, t = apart[: len(mu)], total[: len(mu)]
        for q in range(len(asked)):
            np.subtract(mu, asked.mean[q], out=a)
            np.square(a, out=a)
            np.add(v, asked.variance[q], out=t)
            np.divide(a, t, out=a)
            np.log(t, out=t)
            np.add(a, t, out=a)
            a.sum(axis=1, out=sums[q, start : start + len(mu)])
    return _best(sums, k)


def _best(sums: Float32s, k: int) -> NDArray[np.int64]:
    best = np.argpartition(sums, k, axis=1)[:, :k]
    return np.take_along_axis(best, np.argsort(np.take_along_axis(sums, best, axis=1), axis=1), axis=1)


def overlap(items: int, dim: int) -> None:
    """Print the cost of exact `mls` and `posterior` compared with blocked brute force; recall is against float64."""
    stored, asked, labels = data(items, 64, dim)
    cores = len(os.sched_getaffinity(0))
    print(
        f"\n{items} x {dim}, batch of 64, top {K}, milliseconds a query: CPU of one thread, then the clock "
        f"of {cores} cores"
    )
    heads = ("as written", "in cache", "ours", "times", "times")
    print(f"{'':<16}" + "".join(f"{head:>11}" for head in heads))
    for name in ("mls", "posterior"):
        constants = fit_prior(stored, labels) if name == "posterior" else DistanceParameters()
        index = ExactIndex.build(name, stored, parameters=constants)
        mean, variance, shifted = stored.mean, stored.variance, asked
        if name == "posterior":  # of what an item predicts; that is computed once, and not timed
            seen = predicted(constants.scaled(stored), constants)
            mean, variance = seen.mean.astype(np.float32), seen.variance.astype(np.float32)
            centre = np.array(constants.centre, np.float32)
            shifted = GaussianEmbedding(asked.mean - centre, asked.variance)
        calls = (
            lambda: as_written(mean, variance, shifted, K),  # noqa: B023
            lambda: in_cache(mean, variance, shifted, K),  # noqa: B023
            lambda: index.search(asked, K),  # noqa: B023
        )
        for what, threads, clock in (("CPU", 1, time.process_time), ("clock", cores, time.perf_counter)):
            faiss.omp_set_num_threads(threads)
            plain, slow, fast = least(1, *calls, clock=clock)
            print(
                f"{name + ', ' + what:<16}{1e3 * plain / 64:>11.2f}{1e3 * slow / 64:>11.2f}{1e3 * fast / 64:>11.2f}"
                f"{plain / fast:>11.1f}{slow / fast:>11.1f}",
                flush=True,
            )
        found = index.search_counted(asked, K)
        truth = np.argsort(pairwise(name, asked[:16], stored, constants), axis=1, kind="stable")[:, :K]
        recall = np.mean([len(set(a) & set(b)) / K for a, b in zip(found.rows[:16], truth, strict=True)])
        print(
            f"{name}: recall {recall:.4f}; evaluated in float64 a query, median {np.median(found.evaluated):.0f}, "
            f"mean {found.evaluated.mean():.0f}, most {found.evaluated.max()}"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=256)
    arguments = parser.parse_args()
    overlap(arguments.items, arguments.dim)


if __name__ == "__main__":
    main()
