"""Recall, latency, build time and size of approximate indexes compared with plain FAISS, hnswlib and usearch.

Part of `benchmarks.index`: `python -m benchmarks.index peers [--items N] [--cache DIR]`. All hold the
same means and are asked by cosine; every graph has the same links and construction effort. The search
effort is raised until recall@10 against the exact answer is reached; then single queries are timed, CPU
milliseconds of one thread, median. Building is CPU seconds of all threads together. With a cache folder a
finished index is kept there and a stopped benchmark goes on where it was.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from index.search.approximate import ApproximateIndex, Recipe
from index.search.exact import ExactIndex
from vssl.embeddings.gaussian import GaussianEmbedding

K = 10
EFFORTS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048)
PROBES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
SYSTEMS = ("flat", "ivf", "hnsw", "hnswlib", "usearch")
TIMED = 300
BATCH = 50_000  # items that usearch is given at once: a stopped build goes on
Search = Callable[[int, np.ndarray], np.ndarray]


class Trial:
    """Items, queries, their true neighbours, and where built indexes are kept."""

    def __init__(
        self, stored: GaussianEmbedding, asked: GaussianEmbedding, wanted: float, folder: Path | None
    ) -> None:
        self.stored, self.asked, self.wanted, self.folder = stored, asked, wanted, folder
        self.exact = ExactIndex.build("cosine", stored)
        self.truth = self.exact.search(asked, K)[1]
        print(f"{'':<26}{'build, CPU s':>13}{'bytes/item':>12}{'effort':>8}{'recall@10':>11}{'ms/query':>10}")

    def kept(self, name: str) -> tuple[Path | None, float | None]:
        """Return where an index of that name is kept, and its CPU seconds if it is there already."""
        if self.folder is None:
            return None, None
        place = self.folder / name
        place.mkdir(parents=True, exist_ok=True)
        note = place / "built.json"
        return place, json.loads(note.read_text())["seconds"] if note.is_file() else None

    def report(self, name: str, built: float, size: float, search: Search, efforts: tuple[int, ...]) -> None:
        """Raise the effort until the recall is there, time single queries and print a line."""
        for effort in efforts:
            rows = search(effort, np.arange(len(self.asked)))
            recall = np.mean([len(set(a) & set(b)) / K for a, b in zip(rows, self.truth, strict=True)])
            if recall >= self.wanted or effort == efforts[-1]:
                break
        taken = []
        for q in range(min(TIMED, len(self.asked))):
            start = time.process_time()
            search(effort, np.array([q]))
            taken.append(time.process_time() - start)
        print(
            f"{name:<26}{built:>13.1f}{size / len(self.stored):>12.0f}{effort:>8}{recall:>11.4f}"
            f"{1e3 * np.median(taken):>10.3f}",
            flush=True,
        )


def _note(place: Path | None, seconds: float) -> None:
    if place is not None:
        (place / "built.json").write_text(json.dumps({"seconds": seconds}))


def _flat(trial: Trial, links: int, construction: int) -> None:
    """Exact search, ours and FAISS's own on the means alone."""
    start = time.process_time()
    plain = faiss.IndexFlatIP(trial.stored.dim)
    plain.add(trial.stored.mean)
    built = time.process_time() - start
    size = trial.stored.mean.nbytes
    trial.report("plain FAISS flat", built, size, lambda _, q: plain.search(trial.asked.mean[q], K)[1], (0,))
    trial.report("vssl exact", built, size, lambda _, q: trial.exact.search(trial.asked[q], K)[1], (0,))


def _faiss(trial: Trial, kind: str, recipe: Recipe, efforts: tuple[int, ...]) -> None:
    """One of our candidate indexes, with short and long shortlists, and the FAISS index inside it."""
    place, built = trial.kept(f"vssl-{kind}")
    if built is None:
        start = time.process_time()
        index = ApproximateIndex.build("cosine", trial.stored, recipe)
        built = time.process_time() - start
        if place is not None:
            index.save(place)
        _note(place, built)
    else:
        assert place is not None
        index = ApproximateIndex.load(place, trial.stored)
    size = index.bytes
    tuned = cache(index.with_effort)
    for shortlist in (1, 20):
        trial.report(
            f"vssl {kind}, shortlist {shortlist}",
            built,
            size,
            lambda e, q, s=shortlist: tuned(e, s).search(trial.asked[q], K)[1],  # type: ignore[misc]
            efforts,
        )
    plain: Any = index._faiss

    def search(effort: int, rows: np.ndarray) -> np.ndarray:
        if kind == "hnsw":
            how = faiss.SearchParametersHNSW(efSearch=effort)
        else:
            how = faiss.SearchParametersIVF(nprobe=effort)
        found: np.ndarray = plain.search(trial.asked.mean[rows], K, params=how)[1]
        return found

    trial.report(f"plain FAISS {kind} (same)", built, size, search, efforts)


def _ivf(trial: Trial, links: int, construction: int) -> None:
    _faiss(trial, "ivf", Recipe("ivf"), PROBES)


def _hnsw(trial: Trial, links: int, construction: int) -> None:
    _faiss(trial, "hnsw", Recipe("hnsw", links=links, construction=construction), EFFORTS)


def _hnswlib(trial: Trial, links: int, construction: int) -> None:
    try:
        import hnswlib
    except ModuleNotFoundError:
        print("hnswlib is not installed")
        return
    index = hnswlib.Index("cosine", trial.stored.dim)
    place, built = trial.kept("hnswlib")
    if built is None:
        index.init_index(len(trial.stored), ef_construction=construction, M=links)
        start = time.process_time()
        index.add_items(trial.stored.mean, num_threads=faiss.omp_get_max_threads())
        built = time.process_time() - start
        if place is not None:
            index.save_index(str(place / "index"))
        _note(place, built)
    else:
        index.load_index(str(place / "index"))  # type: ignore[operator]

    def search(effort: int, rows: np.ndarray) -> np.ndarray:
        index.set_ef(effort)
        return index.knn_query(trial.asked.mean[rows], K, num_threads=1)[0].astype(np.int64)

    trial.report("hnswlib", built, index.index_file_size(), search, EFFORTS)


def _usearch(trial: Trial, links: int, construction: int) -> None:
    try:
        from usearch.index import Index
    except ModuleNotFoundError:
        print("usearch is not installed")
        return
    index = Index(
        ndim=trial.stored.dim, metric="cos", dtype="f32", connectivity=links, expansion_add=construction
    )
    place, built = trial.kept("usearch")
    file = place / "index" if place is not None else None
    built = built or 0.0
    if file is not None and file.is_file():
        index.load(str(file))
    for first in range(len(index), len(trial.stored), BATCH):
        rows = np.arange(first, min(first + BATCH, len(trial.stored)))
        start = time.process_time()
        index.add(rows, trial.stored.mean[rows], threads=faiss.omp_get_max_threads())
        built += time.process_time() - start
        if file is not None:
            index.save(str(file))
        _note(place, built)

    def search(effort: int, rows: np.ndarray) -> np.ndarray:
        index.expansion_search = effort
        found = index.search(trial.asked.mean[rows], K, threads=1)
        return np.asarray(found.keys, np.int64).reshape(len(rows), -1)

    trial.report("usearch", built, index.serialized_length, search, EFFORTS)


def compare(
    stored: GaussianEmbedding,
    asked: GaussianEmbedding,
    *,
    wanted: float,
    links: int,
    construction: int,
    systems: list[str],
    folder: Path | None,
) -> None:
    """Print a line for each system."""
    threads = faiss.omp_get_max_threads()
    print(
        f"\n{len(stored)} x {stored.dim}, {links} links, construction effort {construction}, "
        f"{threads} thread(s) to build, one to search"
    )
    trial = Trial(stored, asked, wanted, folder)
    parts = {"flat": _flat, "ivf": _ivf, "hnsw": _hnsw, "hnswlib": _hnswlib, "usearch": _usearch}
    for name in systems:
        parts[name](trial, links, construction)
