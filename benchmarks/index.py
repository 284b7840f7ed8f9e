"""What the gallery costs: exact distances against plain FAISS, approximate indexes against peers, and its own work.

    python -m benchmarks.index exact [--items 100000] [--dim 128]
    python -m benchmarks.index overlap [--items 100000] [--dim 256]
    python -m benchmarks.index peers [--items 1000000] [--dim 128] [--links 16] [--construction 40]
        [--recall 0.99] [--systems NAME ...] [--cache DIR]
    python -m benchmarks.index gallery [--items 100000] [--dim 128]

`exact`: every distance beside `IndexFlatIP` on the means alone (same items, same dimension), batches of 1
and 256, CPU time of one thread, least of several rounds taken in turn. At most 1.1 times the encoded
dimension over d is what it should cost.
`overlap`: the distances that are no inner product, `mls` and `posterior` (with the prior of the items'
labels), beside a blocked brute force in NumPy, batch of 64: CPU time with one thread, then the time on the
clock with every core free to both (NumPy's element-wise operations use one).
`peers`: benchmarks.peers.
`gallery`: add, open, replace, search with and without filters, snapshot; then the memory of a fresh
process that opens it and searches (`opened`).

Items are classes of a hundred images about centres on the unit sphere; variances spread as in
tests/index/regimes.py (mild); queries are further images of the same classes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from benchmarks import peers
from index.distances import NAMES, DistanceParameters, fit_prior, pairwise
from index.distances.predictive import predicted
from index.gallery.folder.gallery import FolderGallery
from index.search.exact import ExactIndex
from tests.index.regimes import gaussians
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.embeddings.store import Rows
from vssl.images.preprocess import Preprocess
from vssl.model.card import ModelCard

K = 10
Float32s = NDArray[np.float32]


def data(items: int, queries: int, dim: int) -> tuple[GaussianEmbedding, GaussianEmbedding, list[str | None]]:
    """Return normalised items, queries of the same classes, and the items' labels."""
    random = np.random.default_rng(1)
    centres = gaussians(max(1, items // 100), dim, seed=2).mean
    labels = random.integers(0, len(centres), items + queries)
    spread = gaussians(items + queries, dim).variance
    mean = centres[labels] + random.normal(size=spread.shape).astype(np.float32) * np.sqrt(spread)
    every = GaussianEmbedding(mean.astype(np.float32), spread).normalised()
    return every[:items], every[items:], [str(label) for label in labels[:items]]


def least(
    rounds: int, *calls: Callable[[], object], clock: Callable[[], float] = time.process_time
) -> list[float]:
    """Return the least seconds of each call, taken in turn so that all see the same machine.

    Each is called twice in a row, so that none is charged for what another left in the caches.
    clock: CPU seconds unless told.
    """
    best = [float("inf")] * len(calls)
    for _ in range(rounds):
        for number, call in enumerate(calls):
            for _ in range(2):
                start = clock()
                call()
                best[number] = min(best[number], clock() - start)
    return best


def exact(items: int, dim: int) -> None:
    """Print each distance's cost over plain FAISS on the means."""
    faiss.omp_set_num_threads(1)
    untouched = faiss.cvar.distance_compute_blas_threshold
    stored, asked, _ = data(items, 256, dim)
    one = asked[:1]
    flat = faiss.IndexFlatIP(dim)
    for start in range(0, items, 4096):  # in blocks, as ours: an array that grew lies in larger pages
        flat.add(stored.mean[start : start + 4096])

    def plain(threshold: int) -> None:
        faiss.cvar.distance_compute_blas_threshold = threshold
        flat.search(asked.mean, K)

    (default,) = least(2, lambda: plain(untouched))
    print(f"\n{items} x {dim}, one thread, CPU milliseconds a query, beside IndexFlatIP on the means in the")
    print(
        f"same rounds; FAISS as it is takes {1e3 * default / 256:.3f} at batch 256, 'flat' there is with GEMM"
    )
    heads = ("flat 1", "ours 1", "times", "flat 256", "ours 256", "times", "build s")
    print(f"{'':<14}{'E/d':>6}{'at most':>9}" + "".join(f"{head:>9}" for head in heads))
    for name in NAMES:
        start = time.process_time()
        index = ExactIndex.build(name, stored)
        built = time.process_time() - start
        ratio = index.bytes / stored.mean.nbytes
        single, alone = least(8, lambda: flat.search(one.mean, K), lambda: index.search(one, K))  # noqa: B023
        tuned, together = least(4, lambda: plain(1024), lambda: index.search(asked, K))  # noqa: B023
        print(
            f"{name:<14}{ratio:>6.2f}{1.1 * ratio:>9.2f}{1e3 * single:>9.3f}{1e3 * alone:>9.3f}{alone / single:>9.2f}"
            f"{1e3 * tuned / 256:>9.3f}{1e3 * together / 256:>9.3f}{together / tuned:>9.2f}{built:>9.1f}",
            flush=True,
        )


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
    """Print the cost of exact `mls` and `posterior` beside blocked brute force; recall is against float64."""
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


def at_scale(items: int, dim: int, options: argparse.Namespace) -> None:
    """Compare approximate indexes, ours and others (benchmarks.peers)."""
    faiss.omp_set_num_threads(len(os.sched_getaffinity(0)))
    stored, asked, _ = data(items, 500, dim)
    peers.compare(
        stored,
        asked,
        wanted=options.recall,
        links=options.links,
        construction=options.construction,
        systems=options.systems,
        folder=options.cache,
    )


def gallery(items: int, dim: int) -> None:
    """Print what a gallery's own operations take."""
    stored, asked, _ = data(items, 256, dim)
    rows = Rows(
        [f"image{i}" for i in range(items)],
        [f"photos/image{i}.jpg" for i in range(items)],
        [f"class{i % 100}" for i in range(items)],
        stored,
    )
    metadata = [{"permille": i % 1000} for i in np.random.default_rng(0).permutation(items).tolist()]
    card = ModelCard("bench", "vssl", "none", "features", dim, dim, Preprocess(size=32, resize=32))
    print(f"\n{items} x {dim}, milliseconds\n{'':<46}{'CPU':>12}{'wall':>12}")

    def timed(what: str, call: Callable[[], object], times: int = 1) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(times):
            call()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(f"{what:<46}{1e3 * cpu / times:>12.2f}{1e3 * wall / times:>12.2f}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "gallery"
        made = FolderGallery.create(path, card=card, model_id="b" * 64)
        timed("add all, durable", lambda: made.add(rows, metadata=metadata))
        timed("save (match calibration, index, checksums)", made.save)
        timed("fit and compare all distances", lambda: made.fit("cosine"))
        fresh = iter(range(10**9))

        def one() -> None:
            row = next(fresh)
            made.add(Rows([f"new{row}"], [""], [None], asked[row % 256 : row % 256 + 1]))

        timed("add one, durable (of 200)", one, 200)
        timed("remove one, durable (of 200)", lambda: made.remove([f"new{next(fresh) - 200}"]), 200)
        made.compact()
        timed("search one", lambda: made.search(asked[:1], K), 200)
        timed("search 256 at once", lambda: made.search(asked, K), 3)
        for permille in (1, 10, 100, 500):
            where = {"permille": {"<": permille}}
            timed(f"filter {permille / 10} %, first time", lambda: made.search(asked[:1], K, where=where))  # noqa: B023
            timed(f"filter {permille / 10} %, again", lambda: made.search(asked[:1], K, where=where), 100)  # noqa: B023
        timed("snapshot", lambda: made.snapshot(Path(folder) / "copy"))
        made.close()
        timed("open, files verified", lambda: FolderGallery.open(path, read_only=True).close())
        size = sum(f.stat().st_size for f in path.rglob("*") if f.is_file())
        print(f"{'bytes an item on disk':<46}{size / items:>12.0f}")
        np.savez(Path(folder) / "asked.npz", mean=asked.mean, variance=asked.variance)
        subprocess.run(
            [sys.executable, "-m", "benchmarks.index", "opened", "--cache", str(folder)], check=True
        )


def memory() -> str:
    """Return what this process holds: its own memory, and pages of mapped files that could be dropped."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    found = {
        name: int(rest.split()[0]) // 1024
        for name, _, rest in (line.partition(":") for line in lines)
        if "Rss" in name
    }
    return f"{found['RssAnon']} MB of its own, {found['RssFile']} MB of mapped files"


def opened(folder: Path) -> None:
    """Print what a fresh process holds that opens a gallery and searches it."""
    faiss.omp_set_num_threads(1)
    with np.load(folder / "asked.npz") as stored:
        asked = GaussianEmbedding(stored["mean"], stored["variance"])
    print(f"a fresh process: {memory()}")
    wall, cpu = time.perf_counter(), time.process_time()
    with FolderGallery.open(folder / "gallery", read_only=True) as found:
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(f"  opened in {cpu:.2f} s of CPU, {wall:.2f} s: {memory()}")
        taken = []
        for row in range(20):
            start = time.process_time()
            found.search(asked[row : row + 1], K)
            taken.append(time.process_time() - start)
        first, middle = 1e3 * taken[0], 1e3 * np.median(taken)
        print(f"  20 searches, CPU ms: first {first:.1f}, median {middle:.1f}: {memory()}")


def main() -> None:
    """Parse the command line and run one part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("part", choices=("exact", "overlap", "peers", "gallery", "opened"))
    parser.add_argument("--items", type=int)
    parser.add_argument("--dim", type=int)
    parser.add_argument("--recall", type=float, default=0.99)
    parser.add_argument("--links", type=int, default=32)
    parser.add_argument("--construction", type=int, default=80)
    parser.add_argument("--systems", nargs="+", choices=peers.SYSTEMS, default=peers.SYSTEMS)
    parser.add_argument(
        "--cache", type=Path, help="a folder for built indexes; of `opened`, where the gallery is"
    )
    options = parser.parse_args()
    options.dim = options.dim or (256 if options.part == "overlap" else 128)
    if options.part == "exact":
        exact(options.items or 100_000, options.dim)
    elif options.part == "overlap":
        overlap(options.items or 100_000, options.dim)
    elif options.part == "peers":
        at_scale(options.items or 200_000, options.dim, options)
    elif options.part == "opened":
        opened(options.cache)
    else:
        gallery(options.items or 100_000, options.dim)


if __name__ == "__main__":
    main()
