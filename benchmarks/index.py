"""What the gallery costs: exact distances against plain FAISS, approximate indexes against peers, and its own work.

    python -m benchmarks.index exact [--items 100000] [--dim 128]
    python -m benchmarks.index peers [--items 200000] [--dim 128] [--recall 0.99]
    python -m benchmarks.index gallery [--items 100000] [--dim 128]

`exact`: every distance beside `IndexFlatIP` on the means alone (same items, same dimension),
batches of 1 and 256, CPU time of one thread, least of several rounds taken in turn.
`peers`: HNSW candidates ranked exactly beside plain FAISS HNSW, hnswlib and usearch on the same
means, each with the same links and construction effort; the search effort is raised until
recall@10 against the exact cosine answer is reached; median CPU time of single queries.
`gallery`: add, open, replace, search with and without filters, snapshot; wall time.

Items are classes of a hundred images about centres on the unit sphere; variances spread as in
tests/index/regimes.py (mild); queries are further images of the same classes.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import faiss
import numpy as np

from index.candidates import CandidateIndex, Recipe
from index.distances import NAMES
from index.exact import ExactIndex
from index.gallery import Gallery
from tests.index.regimes import gaussians
from vssl.card import ModelCard
from vssl.gaussian import GaussianEmbedding
from vssl.preprocess import Preprocess
from vssl.store import Rows

K = 10
EFFORTS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048)


def data(items: int, queries: int, dim: int) -> tuple[GaussianEmbedding, GaussianEmbedding]:
    """Return normalised items and queries of the same classes."""
    random = np.random.default_rng(1)
    centres = gaussians(max(1, items // 100), dim, seed=2).mean
    labels = random.integers(0, len(centres), items + queries)
    spread = gaussians(items + queries, dim).variance
    mean = centres[labels] + random.normal(size=spread.shape).astype(np.float32) * np.sqrt(spread)
    every = GaussianEmbedding(mean.astype(np.float32), spread).normalised()
    return every[:items], every[items:]


def least(rounds: int, *calls: Callable[[], object]) -> list[float]:
    """Return the least CPU seconds of each call, taken in turn so that all see the same machine."""
    best = [float("inf")] * len(calls)
    for _ in range(rounds):
        for number, call in enumerate(calls):
            start = time.process_time()
            call()
            best[number] = min(best[number], time.process_time() - start)
    return best


def exact(items: int, dim: int) -> None:
    """Print each distance's cost over plain FAISS on the means."""
    faiss.omp_set_num_threads(1)
    stored, asked = data(items, 256, dim)
    flat = faiss.IndexFlatIP(dim)
    flat.add(stored.mean)
    one, many = asked[:1], asked
    single, batch = least(5, lambda: flat.search(one.mean, K), lambda: flat.search(many.mean, K))
    print(f"\n{items} x {dim}, one thread, milliseconds a query (times the cost of flat on the means)")
    print(f"{'':<14}{'E/d':>6}{'batch 1':>18}{'batch 256':>18}{'build s':>9}")
    print(f"{'means, flat':<14}{1:>6.2f}{1e3 * single:>18.3f}{1e3 * batch / 256:>18.3f}")
    faiss.cvar.distance_compute_blas_threshold = 1024
    (tuned,) = least(5, lambda: flat.search(many.mean, K))
    print(f"{'  with GEMM':<14}{1:>6.2f}{'':>18}{1e3 * tuned / 256:>18.3f}")
    for name in NAMES:
        start = time.process_time()
        index = ExactIndex.build(name, stored)
        built = time.process_time() - start
        ratio = index.bytes / stored.mean.nbytes
        alone, together = least(3, lambda: index.search(one, K), lambda: index.search(many, K))  # noqa: B023
        print(
            f"{name:<14}{ratio:>6.2f}{1e3 * alone:>10.3f} ({alone / single:4.2f}x)"
            f"{1e3 * together / 256:>10.3f} ({together / batch:4.2f}x){built:>9.1f}",
            flush=True,
        )


def peers(items: int, dim: int, wanted: float) -> None:
    """Print latency at the wanted recall, build time and size beside other HNSWs."""
    threads = len(os.sched_getaffinity(0))
    stored, asked = data(items, 500, dim)
    truth = ExactIndex.build("cosine", stored).search(asked, K)[1]
    print(f"\n{items} x {dim}, 32 links, construction effort 80, {threads} threads to build, 1 to search")
    print(f"{'':<22}{'build s':>9}{'bytes/item':>12}{'effort':>8}{'recall@10':>11}{'ms/query':>10}")

    def report(name: str, built: float, size: float, search: Callable[[int, np.ndarray], np.ndarray]) -> None:
        for effort in EFFORTS:
            rows = search(effort, np.arange(len(asked)))
            recall = np.mean([len(set(a) & set(b)) / K for a, b in zip(rows, truth, strict=True)])
            if recall >= wanted or effort == EFFORTS[-1]:
                break
        taken = []
        for q in range(len(asked)):
            start = time.process_time()
            search(effort, np.array([q]))
            taken.append(time.process_time() - start)
        print(
            f"{name:<22}{built:>9.1f}{size / items:>12.0f}{effort:>8}{recall:>11.4f}{1e3 * np.median(taken):>10.3f}",
            flush=True,
        )

    faiss.omp_set_num_threads(threads)
    start = time.perf_counter()
    index = CandidateIndex.build("cosine", stored, Recipe("hnsw"))
    built = time.perf_counter() - start
    tuned = cache(index.with_effort)
    for shortlist in (1, 20):
        report(
            f"vssl, shortlist {shortlist}",
            built,
            index.bytes,
            lambda e, q, s=shortlist: tuned(e, s).search(asked[q], K)[1],  # type: ignore[misc]
        )
    plain = index._faiss

    def plain_search(effort: int, rows: np.ndarray) -> np.ndarray:
        how = faiss.SearchParametersHNSW(efSearch=effort)
        found: np.ndarray = plain.search(asked.mean[rows], K, params=how)[1]
        return found

    faiss.omp_set_num_threads(1)
    report("FAISS HNSW (the same)", built, index.bytes, plain_search)
    _hnswlib(stored, asked, threads, report)
    _usearch(stored, asked, threads, report)


def _hnswlib(stored: GaussianEmbedding, asked: GaussianEmbedding, threads: int, report: Callable) -> None:
    try:
        import hnswlib
    except ModuleNotFoundError:
        print("hnswlib is not installed")
        return
    index = hnswlib.Index("cosine", stored.dim)
    index.init_index(len(stored), ef_construction=80, M=32)
    start = time.perf_counter()
    index.add_items(stored.mean, num_threads=threads)
    built = time.perf_counter() - start

    def search(effort: int, rows: np.ndarray) -> np.ndarray:
        index.set_ef(effort)
        return index.knn_query(asked.mean[rows], K, num_threads=1)[0].astype(np.int64)

    report("hnswlib", built, index.index_file_size(), search)


def _usearch(stored: GaussianEmbedding, asked: GaussianEmbedding, threads: int, report: Callable) -> None:
    try:
        from usearch.index import Index
    except ModuleNotFoundError:
        print("usearch is not installed")
        return
    index = Index(ndim=stored.dim, metric="cos", dtype="f32", connectivity=32, expansion_add=80)
    start = time.perf_counter()
    index.add(np.arange(len(stored)), stored.mean, threads=threads)
    built = time.perf_counter() - start

    def search(effort: int, rows: np.ndarray) -> np.ndarray:
        index.expansion_search = effort
        found = index.search(asked.mean[rows], K, threads=1)
        return np.asarray(found.keys, np.int64).reshape(len(rows), -1)

    report("usearch", built, index.serialized_length, search)


def gallery(items: int, dim: int) -> None:
    """Print what a gallery's own operations take."""
    stored, asked = data(items, 256, dim)
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
        made = Gallery.create(path, card=card, model_id="b" * 64)
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
        timed("open, index verified and loaded", lambda: Gallery.open(path, read_only=True).close())
        size = sum(f.stat().st_size for f in path.rglob("*") if f.is_file())
        print(f"{'bytes an item on disk':<46}{size / items:>12.0f}")
    print(
        f"{'largest resident memory, MB':<46}{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:>12.0f}"
    )


def main() -> None:
    """Parse the command line and run one part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("part", choices=("exact", "peers", "gallery"))
    parser.add_argument("--items", type=int)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--recall", type=float, default=0.99)
    options = parser.parse_args()
    if options.part == "exact":
        exact(options.items or 100_000, options.dim)
    elif options.part == "peers":
        peers(options.items or 200_000, options.dim, options.recall)
    else:
        gallery(options.items or 100_000, options.dim)


if __name__ == "__main__":
    main()
