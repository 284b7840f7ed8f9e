"""Near-duplicates and label suspects of CIFAR-10 against what people found there.

    vssl extract cifar10:DIR:test TEST [--features]
    vssl extract cifar10:DIR TRAIN [--features]
    python -m benchmarks.curation TEST TRAIN --lists DIR_WITH_THE_LISTS [--features] [--plain]

All 60,000 images stand in one gallery. Pairs with a test image are compared with ciFAIR's lists of
duplicates (`cifair_duplicates_cifar10.csv`, `..._test.csv`; exact, near and similar ones alike): precision
of the first n, average precision, and precision and recall of what is claimed at a probability. Suspected
labels of test images are compared with those that people voted down (`cifar10_test_label_errors_mturk.json`,
the given label has fewer than three of five votes).

--features: compare the backbone's features in place of the means (their variances are not known; one is
put in their place). --plain: order by the gallery's cosine and by separation too, as before whitening.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
import time
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from index.curation.duplicates import duplicates
from index.curation.suspects import suspects
from index.gallery.folder.gallery import FolderGallery
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.embeddings.store import Rows, read_embeddings
from vssl.images.preprocess import Preprocess
from vssl.model.card import ModelCard
from vssl.rank_statistics import auroc

CLAIMS = (0.99, 0.9, 0.7, 0.5)
FIRST = (100, 200, 300)
HALF = 25_000  # images in the first file of the training set


def read(folder: Path, name: str, *, features: bool) -> Rows:
    """Return one split in its official order, with ids NAME/INDEX."""
    rows = read_embeddings(folder).rows
    places = [path.rpartition("#") for path in rows.paths]
    number = np.array([int(row) + (HALF if "train-1" in file else 0) for file, _, row in places])
    order = np.argsort(number)
    if not np.array_equal(number[order], np.arange(len(order))):
        raise SystemExit(f"{folder} does not hold every image of a split once")
    gaussians = rows.gaussians[order]
    if features:
        if rows.features is None:
            raise SystemExit(f"{folder} holds no features; extract with --features")
        found = np.asarray(rows.features, np.float32)[order]
        gaussians = GaussianEmbedding(found, np.ones_like(found))
    ids = [f"{name}/{i}" for i in range(len(order))]
    return Rows(ids, [rows.paths[i] for i in order], [rows.labels[i] for i in order], gaussians)


def known_pairs(lists: Path) -> set[frozenset[str]]:
    """Return ciFAIR's duplicates of test images."""
    found = set()
    for name, other in (
        ("cifair_duplicates_cifar10.csv", "train"),
        ("cifair_duplicates_cifar10_test.csv", "test"),
    ):
        with (lists / name).open(newline="") as file:
            found |= {
                frozenset((f"test/{r['TestID']}", f"{other}/{r['TrainID']}")) for r in csv.DictReader(file)
            }
    return found


def ordered(title: str, hit: NDArray[np.bool_], known: int) -> None:
    """Print the precision of the first pairs and the average precision."""
    count = np.cumsum(hit)
    average = (count[hit] / (np.flatnonzero(hit) + 1)).sum() / known
    first = "  ".join(f"first {n}: {count[n - 1] / n:.2f}" for n in FIRST if n <= len(hit))
    print(f"{title:<24}{first}  average precision {average:.3f}  found at all {count[-1]} of {known}")


def report_pairs(gallery: FolderGallery, lists: Path, *, plain: bool) -> None:
    """Print what the duplicates are worth."""
    truth = known_pairs(lists)
    start = time.process_time()
    found = duplicates(gallery, limit=10**9, least=0.0)
    print(f"\nduplicates of {len(gallery)} images in {time.process_time() - start:.0f} CPU s")
    pairs = [pair for pair in found if pair.id.startswith("test") or pair.other.startswith("test")]
    hit = np.array([frozenset((pair.id, pair.other)) in truth for pair in pairs])
    ordered("closeness", hit, len(truth))
    probability = np.array([pair.probability for pair in pairs])
    for claim in CLAIMS:
        claimed = probability >= claim
        if not claimed.any():
            print(f"  said to be at least {claim:<5} none")
            continue
        print(
            f"  said to be at least {claim:<5} {claimed.sum():5d} pairs, {hit[claimed].mean():.2f} of them on the "
            f"lists, {hit[claimed].sum() / len(truth):.2f} of the lists, mean {probability[claimed].mean():.2f}"
        )
    if plain:
        near = gallery.neighbourhood(5)
        for name, value in (("cosine", near.distances), ("separation", near.separation)):
            best: dict[frozenset[str], float] = {}
            for row, others in enumerate(near.rows.tolist()):
                for column, other in enumerate(others):
                    pair = frozenset((near.ids[row], near.ids[other]))
                    if any(id_.startswith("test") for id_ in pair):
                        best[pair] = float(value[row, column])
            order = sorted(best, key=lambda pair: best[pair])
            ordered(name, np.array([pair in truth for pair in order]), len(truth))


def report_labels(gallery: FolderGallery, lists: Path, count: int) -> None:
    """Print what the suspects are worth."""
    entries = json.loads((lists / "cifar10_test_label_errors_mturk.json").read_text())
    wrong = {f"test/{entry['id']}" for entry in entries if entry["mturk"]["given"] < 3}
    score = {s.id: s.score for s in suspects(gallery, limit=10**9)}
    ids = [f"test/{i}" for i in range(count)]
    values = np.array([score.get(id_, 0.0) for id_ in ids])
    is_wrong = np.array([id_ in wrong for id_ in ids])
    order = np.argsort(-values, kind="stable")
    hit = is_wrong[order]
    seen = np.cumsum(hit)
    average = (seen[hit] / (np.flatnonzero(hit) + 1)).sum() / hit.sum()
    positives, area = int(is_wrong.sum()), auroc(values, is_wrong)
    print(
        f"suspects: {positives} test labels voted down; AUROC {area:.3f}, average precision {average:.4f} "
        f"(chance {positives / count:.4f}), of the first 100 test images {seen[99]}, of the first 500 {seen[499]}"
    )


def main() -> None:
    """Build the gallery and print both reports."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("test", type=Path)
    parser.add_argument("train", type=Path)
    parser.add_argument("--lists", type=Path, required=True)
    parser.add_argument("--features", action="store_true")
    parser.add_argument("--plain", action="store_true")
    options = parser.parse_args()
    faiss.omp_set_num_threads(1)
    parts = [read(getattr(options, name), name, features=options.features) for name in ("test", "train")]
    dim = parts[0].gaussians.dim
    card = ModelCard("curation", "vssl", "none", "features", dim, dim, Preprocess(size=32, resize=32))
    with tempfile.TemporaryDirectory() as folder:
        gallery = FolderGallery.create(Path(folder) / "gallery", card=card, model_id="c" * 64)
        for part in parts:
            gallery.add(part)
        report_pairs(gallery, options.lists, plain=options.plain)
        report_labels(gallery, options.lists, len(parts[0].ids))
        gallery.close()


if __name__ == "__main__":
    main()
