"""What the gallery costs: exact distances against plain FAISS, approximate indexes against peers, and its own work.

    python -m benchmarks.index exact [--items 100000] [--dim 128]
    python -m benchmarks.index peers [--items 1000000] [--dim 128] [--links 16] [--construction 40]
        [--recall 0.99] [--systems NAME ...] [--cache DIR]
    python -m benchmarks.index gallery [--items 100000] [--dim 128]

`exact`: every distance compared with `IndexFlatIP` on the means alone (same items, same dimension), batches of 1
and 256, CPU time of one thread, least of several rounds taken in turn. At most 1.1 times the encoded
dimension over d is what it should cost.
`peers`: benchmarks.peers.
`gallery`: add, open, replace, search with and without filters, snapshot; then the memory of a fresh
process that opens it and searches (`opened`).

Items are classes of a hundred images about centres on the unit sphere; variances spread as in
benchmarks/regimes.py (mild); queries are further images of the same classes.
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
from benchmarks.regimes import gaussians
from index.distances import NAMES
from index.gallery.folder.gallery import FolderGallery
from index.search.exact import ExactIndex
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
    clock: CPU seconds by default.
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
    print(f"\n{items} x {dim}, one thread, CPU milliseconds a query, against IndexFlatIP on the means in the")
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
    parser.add_argument("part", choices=("exact", "peers", "gallery", "opened"))
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
    options.dim = options.dim or 128
    if options.part == "exact":
        exact(options.items or 100_000, options.dim)
    elif options.part == "peers":
        at_scale(options.items or 200_000, options.dim, options)
    elif options.part == "opened":
        opened(options.cache)
    else:
        gallery(options.items or 100_000, options.dim)


if __name__ == "__main__":
    main()
