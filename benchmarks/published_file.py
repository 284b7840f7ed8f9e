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
from benchmarks.published_space import Doubles, Shown, nearest
from export.evaluation.fidelity import open_session
from train.data.image_cache import load_images
from train.evaluation.knn import knn_accuracy
from vssl.images.sources import open_source
from vssl.model.card import CARD_KEY, ModelCard
from vssl.model.seal import read_metadata, read_sealed

BATCH = 32
Pictures = NDArray[np.uint8]


class Served:
    """A model file on one core: pictures (N, S, S, 3) uint8 -> each output by name, float64."""

    def __init__(self, data: bytes) -> None:
        self._session = open_session(data)
        self._names = [output.name for output in self._session.get_outputs()]

    def __call__(self, pictures: Pictures) -> dict[str, Doubles]:
        """Embed pictures a batch at a time."""
        parts = [
            self._session.run(self._names, {"images": np.ascontiguousarray(pictures[at : at + BATCH])})
            for at in range(0, len(pictures), BATCH)
        ]
        joined = (np.concatenate(column) for column in zip(*parts, strict=True))
        return {name: array.astype(np.float64) for name, array in zip(self._names, joined, strict=True)}


def less_sure(served: Served, pictures: Pictures) -> dict[str, float]:
    """Return which share of damaged pictures is less sure than the pictures, by kind and severity."""
    own = served(pictures)["uncertainty"]
    return {
        f"{kind} {severity}": float((served(corrupted(pictures, kind, severity))["uncertainty"] > own).mean())
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
    data = read_sealed(arguments.model)
    card = ModelCard.from_json(read_metadata(data)[CARD_KEY])
    served = Served(data)
    caches = [
        load_images(open_source(spec), card.preprocess) for spec in (arguments.training, arguments.judged)
    ]
    names = sorted({str(label) for cache in caches for label in cache.labels})
    known_labels, labels = (np.array([names.index(str(x)) for x in cache.labels]) for cache in caches)
    known, asked = (served(cache.images) for cache in caches)
    row, cosine = nearest(torch.from_numpy(asked["mean"]))
    right = labels[row] == labels
    shown, seen = (Shown(torch.from_numpy(x["features"]).float(), torch.empty(0)) for x in (known, asked))
    values = {
        "predicted, one pass": asked["uncertainty"],
        "trace of the variance": asked["variance"].sum(1),
        "norm of the features": -np.linalg.norm(asked["features"], axis=1),
        DISTANCE: -cosine,
        "risk": after_search(asked["mean"].astype(np.float32), asked["uncertainty"], labels).risk,
        "ceiling: linear probe on labels": -probe(shown, known_labels, seen),
    }
    report = {
        "images": len(labels), "right": float(right.mean()),
        "uncertainty": table(values, right, "predicted, one pass"),
        "less_sure": less_sure(served, drawn(caches[1].images, DAMAGED)),
        "knn": {
            space: knn_accuracy(
                *(torch.from_numpy(x) for x in (known[space], known_labels, asked[space], labels)), len(names)
            )
            for space in ("mean", "features")
        },
    }  # fmt: skip
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
