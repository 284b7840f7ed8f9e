"""A model file and two labelled sets -> how well what it serves predicts that the nearest neighbour is wrong.

    python -m benchmarks.published_file model.onnx TRAINING JUDGED

Images of JUDGED search each other; TRAINING holds the labels of the ceiling, a linear probe on the file's
features, and the gallery of the 20-NN. Printed: R-AUROC with 95 % intervals and paired differences, the share of
damaged images that are less sure than the images themselves, and the 20-NN of means and features.
Shape letters: N images, S side.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.corruptions import corrupted
from benchmarks.published import DAMAGED, DISTANCE, SEVERE, drawn, probe, table
from benchmarks.published_search import after_search
from benchmarks.published_space import Shown, nearest
from serve.inference.engine import Engine
from train.data.image_cache import load_images
from train.evaluation.knn import knn_accuracy
from vssl.images.sources import open_source

Pictures = NDArray[np.uint8]


def less_sure(model: Engine, pictures: Pictures) -> dict[str, float]:
    """Return which share of damaged pictures is less sure than the pictures, by kind and severity."""
    own = model.infer(pictures).uncertainty
    return {
        f"{kind} {severity}": float(
            (model.infer(corrupted(pictures, kind, severity)).uncertainty > own).mean()
        )
        for kinds in SEVERE.values()
        for kind, severity in kinds
    }


def main() -> None:
    """Embed, judge and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("training")
    parser.add_argument("judged")
    arguments = parser.parse_args()
    model = Engine.open(arguments.model, device="cpu", threads=1)
    sets = arguments.training, arguments.judged
    caches = [load_images(open_source(spec), model.card.preprocess) for spec in sets]
    names = sorted({str(label) for cache in caches for label in cache.labels})
    known_labels, labels = (np.array([names.index(str(x)) for x in cache.labels]) for cache in caches)
    known, asked = (model.infer(cache.images) for cache in caches)
    row, cosine = nearest(torch.from_numpy(asked.mean.astype(np.float64)))
    right = labels[row] == labels
    shown, seen = (Shown(torch.from_numpy(x.features), torch.empty(0)) for x in (known, asked))
    values = {
        "predicted, one pass": asked.uncertainty,
        "trace of the variance": asked.variance.sum(1, dtype=np.float64),
        "norm of the features": -np.linalg.norm(asked.features, axis=1),
        DISTANCE: -cosine,
        "risk": after_search(asked.mean, asked.uncertainty, labels).risk,
        "ceiling: linear probe on labels": -probe(shown, known_labels, seen),
    }
    report = {
        "images": len(labels), "right": float(right.mean()),
        "uncertainty": table(values, right, "predicted, one pass"),
        "less_sure": less_sure(model, drawn(caches[1].images, DAMAGED)),
        "knn": {
            space: knn_accuracy(
                *(torch.from_numpy(x) for x in (stored, known_labels, queries, labels)), len(names)
            )
            for space, stored, queries in (
                ("mean", known.mean, asked.mean), ("features", known.features, asked.features)
            )
        },
    }  # fmt: skip
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
