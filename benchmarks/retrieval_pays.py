"""Does variance pay in retrieval? A gallery of which half is corrupted, searched by every distance.

    python -m benchmarks.retrieval_pays --model model.onnx --data cifar10:DIR [--gallery 10000] [--queries 2000]
                                        [--worse-queries] [--seed 0] [--report FILE.json]
                                        [--keep FOLDER] [--distance NAME ...]

Half of the gallery's training images are blurred, noised, squeezed by JPEG, darkened or covered, at
a random one of five severities (benchmarks.corruptions); queries are test images, and with
--worse-queries half of them are corrupted in the same way. Constants of the distances are fitted to
the gallery's labels, as `vssl index` does. --keep keeps embeddings and constants for another run.
The table compares with the control, cosine on means refused by cosine distance, which reads no
variance:

    recall@1    the nearest image is of the query's class
    mAP@R       precision averaged over the first R ranks, R images of the class
    risk, d     wrong nearest images among the 80 % of queries with the nearest neighbours
    risk, p     the same among the 80 % with the most probable matches: a logistic curve in the
                distance and both uncertainties, fitted on the gallery's own images

each with the 95 % bootstrap interval of the paired difference. Shape letters: N items, Q queries.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from benchmarks.corruptions import corrupted
from index.calibration.fit import Fitting, fit
from index.calibration.match import fit_match
from index.calibration.selection import ranking
from index.distances import NAMES, SIGNED, DistanceParameters
from index.metrics.retrieval import average_precision_at_r
from index.metrics.uncertainty import risk_at
from index.metrics.vote import class_codes
from index.search.exact import ExactIndex
from serve.inference.engine import Engine
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.images.preprocess import load_image
from vssl.images.sources import open_source

KINDS = ("blur", "noise", "jpeg", "darkness", "occlusion")
COVERAGE = 0.8
FIT_QUERIES, NEIGHBOURS = 1000, 10
BATCH = 256
RESAMPLES = 1000
Pictures = NDArray[np.uint8]
Doubles = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Side:
    """Images as embedded: Gaussians as they are, their classes (N,), and which are corrupted (N,)."""

    gaussians: GaussianEmbedding
    codes: NDArray[np.int64]
    worse: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Outcome:
    """What each query got (Q,): right or not, AP@R, and how uncertain the answer was, two ways."""

    right: Doubles
    precision: Doubles
    distance: Doubles
    uncertainty: Doubles

    def statistics(self, rows: NDArray[np.int64]) -> Doubles:
        """Return recall@1, mAP@R and both risks of some queries, (4,)."""
        error = 1 - self.right[rows]
        risks = [risk_at(score[rows], error, COVERAGE) for score in (self.distance, self.uncertainty)]
        return np.array([self.right[rows].mean(), self.precision[rows].mean(), *risks])


def pictures(engine: Engine, data: str, count: int, seed: int) -> tuple[Pictures, list[str | None]]:
    """Return `count` random images of a source as the model wants them, and their labels."""
    source = open_source(data)
    rows = np.sort(np.random.default_rng(seed).permutation(len(source.items))[:count])
    images = [load_image(source.read(int(row)), engine.card.preprocess) for row in rows]
    return np.stack(images), [source.items[row].label for row in rows]


def worsened(images: Pictures, seed: int) -> tuple[Pictures, NDArray[np.bool_]]:
    """Corrupt a random half, each image by a random kind and severity."""
    random = np.random.default_rng(seed)
    images, which = images.copy(), np.arange(len(images)) % 2 == 0
    which = random.permutation(which)
    kind, severity = random.integers(0, len(KINDS), len(images)), random.integers(1, 6, len(images))
    for number, name in enumerate(KINDS):
        for level in range(1, 6):
            rows = np.flatnonzero(which & (kind == number) & (severity == level))
            if len(rows):
                images[rows] = corrupted(images[rows], name, level, seed)
    return images, which


def embedded(engine: Engine, images: Pictures) -> GaussianEmbedding:
    """Embed images (N, S, S, 3)."""
    parts = [engine.run(images[start : start + BATCH])[:2] for start in range(0, len(images), BATCH)]
    mean, variance = (np.concatenate([part[side] for part in parts]) for side in (0, 1))
    return GaussianEmbedding(mean, variance)


def measure(name: str, gallery: Side, queries: Side, constants: DistanceParameters) -> Outcome:
    """Search the gallery for every query by one distance."""
    items, asked = gallery.gaussians.normalised(), queries.gaussians.normalised()
    index = ExactIndex.build(name, items, parameters=constants)
    distances, rows = index.search(asked, NEIGHBOURS)
    order = ranking(name, asked, items, constants)
    totals = np.bincount(gallery.codes)[queries.codes]
    relevant = gallery.codes[order[:, : totals.max()]] == queries.codes[:, None]
    own = np.random.default_rng(0).permutation(len(items))[:FIT_QUERIES]
    own_distances, own_rows = index.search(items[own], NEIGHBOURS + 1)
    others = own_rows != own[:, None]
    unsure = gallery.gaussians.uncertainty.astype(np.float64)
    match = fit_match(
        own_distances[others],
        np.broadcast_to(unsure[own][:, None], others.shape)[others],
        unsure[own_rows][others],
        (gallery.codes[own_rows] == gallery.codes[own][:, None])[others],
        signed=name in SIGNED,
    )
    uncertainty = distances[:, 0]
    if match is not None:
        own_unsure = queries.gaussians.uncertainty.astype(np.float64)
        uncertainty = -match.probability(distances[:, 0], own_unsure, unsure[rows[:, 0]])
    return Outcome(
        (gallery.codes[rows[:, 0]] == queries.codes).astype(np.float64),
        average_precision_at_r(relevant, totals),
        distances[:, 0],
        uncertainty,
    )


def resampled(outcome: Outcome, seed: int = 0) -> Doubles:
    """Return the statistics of resamples of the queries (R, 4); the same queries for every outcome."""
    random, count = np.random.default_rng(seed), len(outcome.right)
    return np.array([outcome.statistics(random.integers(0, count, count)) for _ in range(RESAMPLES)])


def report(gallery: Side, queries: Side, fitted: dict[str, DistanceParameters]) -> list[dict[str, object]]:
    """Print a table of all distances: each statistic, and its difference from the control."""
    against = [0, 1, 2, 2]  # both risks are held against refusing by cosine distance
    print(
        "| distance | recall@1 | over cosine | mAP@R | over cosine | risk, d | over control | risk, p | over control |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    rows: list[dict[str, object]] = []
    every = np.arange(len(queries.codes))
    base, drawn_base = np.empty(4), np.empty((RESAMPLES, 4))
    for name, constants in fitted.items():
        outcome = measure(name, gallery, queries, constants)
        found, drawn = outcome.statistics(every), resampled(outcome)
        if name == "cosine":  # the first
            base, drawn_base = found[against], drawn[:, against]
        low, high = np.quantile(drawn - drawn_base, [0.025, 0.975], axis=0)
        cells = [
            f"{f:.3f} | {f - b:+.3f} ({lo:+.3f} .. {hi:+.3f})"
            for f, b, lo, hi in zip(found, base, low, high, strict=True)
        ]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
        rows.append({"distance": name, "found": found.tolist(), "low": low.tolist(), "high": high.tolist()})
    return rows


def embed_both(options: argparse.Namespace) -> tuple[Side, Side]:
    """Read, corrupt and embed the gallery's images and the queries."""
    engine = Engine.open(options.model)
    images, labels = pictures(engine, options.data, options.gallery, options.seed)
    test, test_labels = pictures(engine, f"{options.data}:test", options.queries, options.seed)
    codes = class_codes([*labels, *test_labels])
    images, worse = worsened(images, options.seed)
    test_worse = np.zeros(len(test), bool)
    if options.worse_queries:
        test, test_worse = worsened(test, options.seed + 1)
    gallery = Side(embedded(engine, images), codes[: len(images)], worse)
    return gallery, Side(embedded(engine, test), codes[len(images) :], test_worse)


def kept(file: Path, options: argparse.Namespace) -> tuple[Side, Side]:
    """Return both sides from a file, or embed them and write it."""
    if not file.exists():
        sides = embed_both(options)
        arrays = [(s.gaussians.mean, s.gaussians.variance, s.codes, s.worse) for s in sides]
        np.savez(file, *(array for side in arrays for array in side))
    with np.load(file) as found:
        parts = [found[f"arr_{number}"] for number in range(8)]
    first, second = (Side(GaussianEmbedding(p[0], p[1]), p[2], p[3]) for p in (parts[:4], parts[4:]))
    return first, second


def main() -> None:
    """Embed both sides and print a table for clean queries, or for half-corrupted ones."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", required=True, help="cifar10:DIR; its test images are DIR:test")
    parser.add_argument("--gallery", type=int, default=10_000)
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--worse-queries", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--distance", nargs="*", default=NAMES, help="cosine is always among them")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--report", type=Path)
    options = parser.parse_args()
    faiss.omp_set_num_threads(1)
    folder = options.keep or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    gallery, queries = kept(folder / f"embeddings{'-worse' * options.worse_queries}.npz", options)
    if not (folder / "fitting.json").exists():
        labels = [str(code) for code in gallery.codes]
        found = fit(gallery.gaussians.normalised(), labels, seed=options.seed)
        (folder / "fitting.json").write_text(found.to_json(), encoding="utf-8")
    fitting = Fitting.from_json((folder / "fitting.json").read_text(encoding="utf-8"))
    unsure, worse = gallery.gaussians.uncertainty, gallery.worse
    print(
        f"{len(worse)} images, {worse.sum()} corrupted; {len(queries.worse)} queries, {queries.worse.sum()} corrupted"
    )
    print(f"median uncertainty {np.median(unsure[~worse]):.4f}, of corrupted {np.median(unsure[worse]):.4f}")
    print(f"chosen on held-out gallery images: {fitting.distance}\n")
    rows = report(
        gallery, queries, {n: c for n, c in fitting.constants.items() if n in ("cosine", *options.distance)}
    )
    if options.report:
        options.report.write_text(json.dumps({"chosen": fitting.distance, "rows": rows}), encoding="utf-8")


if __name__ == "__main__":
    main()
