"""A published encoder and two sets of images -> which number predicts that the nearest neighbour is wrong.

    python -m benchmarks.published NETWORK WEIGHTS FIT_IMAGES JUDGED_IMAGES [--size 112] [--cache DIR]

as in `python -m benchmarks.published timm/tf_efficientnet_lite0 lite0.pth cifar10:DIR cifar10:DIR:test
--size 112`. What is served is fitted on FIT_IMAGES without labels, as `vssl export` does; labels of JUDGED_IMAGES
say whether the nearest other judged image is of the same class. The ceiling is a linear probe on the
labels of FIT_IMAGES. Two tables: R-AUROC with 95 % intervals and the difference from what is served in one
pass, and retrieval over dimension and whitening. Embeddings are kept in --cache.
Shape letters: N images, F feature dimension, P inputs of the heads, D embedding dimension.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from benchmarks.corruptions import corrupted
from export.calibration.degrade import degrade
from export.calibration.uncertainty import fit_uncertainty
from export.calibration.view_statistics import ViewStatistics
from export.calibration.whitening import served_map
from export.served_encoder import ServedMean, UncertaintyHead, head_inputs
from export.sources.encoder_graph import OnnxEncoder
from export.sources.published import published_encoder
from index.metrics.bootstrap import interval
from index.metrics.uncertainty import r_auroc
from train.data.image_cache import load_images
from train.models.encoder import EncoderOutput
from vssl.images.sources import open_source

Doubles = NDArray[np.float64]
BATCH, DAMAGED = 32, 300
DIMENSIONS, WHITENINGS = (64, 128, 256, None), (0.0, 0.5, 1.0)
SEVERE = {
    "cropped": [("crop", s) for s in (1, 3, 5)],
    "corrupted": [(k, s) for k in ("noise", "jpeg", "darkness", "occlusion") for s in (3, 5)],
}


@dataclass(frozen=True, eq=False)
class Shown:
    """What an encoder says of N pictures: features (N, F) and the heads' inputs (N, P)."""

    features: Tensor
    inputs: Tensor


class Embedder:
    """An encoder that embeds each named set of pictures once."""

    def __init__(self, encoder: OnnxEncoder, cache: Path) -> None:
        self.encoder, self.cache = encoder, cache
        cache.mkdir(parents=True, exist_ok=True)

    def __call__(self, name: str, pictures: Callable[[], NDArray[np.uint8]]) -> Shown:
        """Return the cached answer, or embed what `pictures()` gives, (N, S, S, 3)."""
        place = self.cache / f"{name}.npz"
        if not place.exists():
            features, inputs = [], []
            with torch.inference_mode():
                for part in torch.split(torch.from_numpy(np.ascontiguousarray(pictures())), BATCH):
                    output = self.encoder(part.float())
                    features.append(output.features)
                    inputs.append(head_inputs(output.features, part.float()))
            np.savez(place, features=torch.cat(features).numpy(), inputs=torch.cat(inputs).numpy())
        found = np.load(place)
        return Shown(torch.from_numpy(found["features"]), torch.from_numpy(found["inputs"]))


def worse_forms(pictures: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """Return each picture made worse in one way, as calibration does."""
    generator = torch.Generator().manual_seed(seed)
    parts = [
        degrade(part.float(), generator).to(torch.uint8) for part in torch.split(torch.from_numpy(pictures), BATCH)
    ]  # fmt: skip
    return torch.cat(parts).numpy()


def of(served: ServedMean, shown: Shown) -> Tensor:
    """Return what is served as the mean (N, D)."""
    with torch.inference_mode():
        return served(EncoderOutput(shown.features, shown.features, None)).clone()


def statistics(shown: Shown, mean: Tensor) -> ViewStatistics:
    """Return pictures as the uncertainty's fit takes them; it asks for no variance."""
    rows = torch.arange(len(mean))
    return ViewStatistics(
        shown.inputs, mean, torch.ones(len(mean), 1), rows, torch.zeros(len(mean), dtype=torch.bool)
    )


def nearest(means: Tensor) -> tuple[NDArray[np.int64], Doubles]:
    """Return each picture's nearest other one and the cosine to it."""
    unit = functional.normalize(means, dim=1)
    rows, cosines = [], []
    for start in range(0, len(unit), 1024):
        similarity = unit[start : start + 1024] @ unit.T
        places = torch.arange(len(similarity))
        similarity[places, start + places] = -2.0
        value, row = similarity.max(dim=1)
        rows.append(row)
        cosines.append(value)
    return torch.cat(rows).numpy(), torch.cat(cosines).double().numpy()


def mean_average_precision(means: Tensor, labels: NDArray[np.int64], most: int = 1000) -> float:
    """Return mAP@R: of the R nearest, R the number of others of the class, over up to `most` queries."""
    unit, truth = functional.normalize(means, dim=1), torch.from_numpy(labels)
    total, asked = 0.0, torch.randperm(len(unit), generator=torch.Generator().manual_seed(0))[:most]
    for row in asked.tolist():
        similarity = unit @ unit[row]
        similarity[row] = -2.0
        count = int((truth == truth[row]).sum()) - 1
        if count:
            hit = (truth[similarity.topk(count).indices] == truth[row]).double()
            total += float((hit * hit.cumsum(0) / torch.arange(1, count + 1)).sum()) / count
    return total / len(asked)


def probe(known: Shown, labels: NDArray[np.int64], asked: Shown, epochs: int = 12) -> Doubles:
    """Return the largest probability (N,) of a linear probe on labels: the ceiling."""
    torch.manual_seed(0)
    mean, deviation = known.features.mean(0), known.features.std(0).clamp_min(1e-6)
    inputs, truth = (known.features - mean) / deviation, torch.from_numpy(labels)
    net = torch.nn.Linear(inputs.shape[1], int(truth.max()) + 1)
    optimiser = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.05)
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(len(inputs)), 128):
            optimiser.zero_grad()
            functional.cross_entropy(net(inputs[rows]), truth[rows]).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    with torch.inference_mode():
        shares = net((asked.features - mean) / deviation).softmax(dim=1)
    return shares.max(dim=1).values.double().numpy()


def table(values: dict[str, Doubles], right: NDArray[np.bool_], served: str) -> list[dict[str, object]]:
    """Return one row a signal: R-AUROC, and served minus it by a paired bootstrap."""
    rows: list[dict[str, object]] = []
    for name, value in values.items():
        found = r_auroc(value, right)
        low, high = interval(lambda at, v=value: r_auroc(v[at], right[at]), len(right), resamples=300)
        ahead = interval(
            lambda at, v=value: r_auroc(values[served][at], right[at]) - r_auroc(v[at], right[at]),
            len(right),
            resamples=300,
        )
        rows.append({"signal": name, "r_auroc": found, "low": low, "high": high, "served_minus_this": ahead})
    return rows


def standard(values: Doubles) -> Doubles:
    """Return values with mean 0 and spread 1."""
    return (values - values.mean()) / values.std()


def less_sure(
    embed: Embedder, head: UncertaintyHead, served: ServedMean, pictures: NDArray[np.uint8], name: str
) -> dict[str, float]:
    """Return the share of damaged pictures that are less sure than the pictures themselves."""

    def said(shown: Shown) -> Tensor:
        with torch.inference_mode():
            return head(shown.inputs, of(served, shown))

    own, shares = said(embed(f"{name}-some", lambda: pictures)), {}
    for group, kinds in SEVERE.items():
        found = []
        for kind, severity in kinds:
            shown = embed(f"{name}-{kind}-{severity}", lambda k=kind, s=severity: corrupted(pictures, k, s))
            found.append(float((said(shown) > own).double().mean()))
        shares[group] = float(np.mean(found))
    return shares


def main() -> None:
    """Embed, fit, judge and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("network")
    parser.add_argument("weights", type=Path)
    parser.add_argument("fit_images")
    parser.add_argument("judged_images")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--most", type=int, default=12_000)
    parser.add_argument("--cache", type=Path, default=Path("runs/published"))
    arguments = parser.parse_args()
    source = published_encoder(arguments.network, arguments.weights, size=arguments.size)
    embed = Embedder(OnnxEncoder(source.graph), arguments.cache)
    caches = {}
    for role, spec in (("fit", arguments.fit_images), ("judged", arguments.judged_images)):
        images = open_source(spec)
        rows = np.random.default_rng(0).permutation(len(images.items))[: arguments.most]
        caches[role] = load_images(images, source.preprocess, rows=sorted(rows.tolist()))
    names = sorted({label for cache in caches.values() for label in cache.labels if label is not None})
    labels = {role: np.array([names.index(str(x)) for x in cache.labels]) for role, cache in caches.items()}
    known = embed("fit", lambda: caches["fit"].images)
    worse = embed("fit-worse", lambda: worse_forms(caches["fit"].images, 0))
    asked = embed("judged", lambda: caches["judged"].images)
    some = np.ascontiguousarray(caches["judged"].images[:DAMAGED])
    report = judge(known, worse, asked, labels["fit"], labels["judged"])
    head, served = report.pop("head"), report.pop("served")
    report["less_sure"] = less_sure(embed, head, served, some, "judged")  # type: ignore[arg-type]
    print(json.dumps(report, indent=1))


def judge(
    known: Shown, worse: Shown, asked: Shown, fit_labels: NDArray[np.int64], labels: NDArray[np.int64]
) -> dict[str, object]:
    """Fit on `known` and its worse forms, judge on `asked`; returns both tables and what was fitted."""
    served = served_map(known.features.double(), "features", 0.0, 128)
    own, mean = of(served, known), of(served, asked)
    head = fit_uncertainty(statistics(known, own), statistics(worse, of(served, worse)))
    assert head is not None
    row, cosine = nearest(mean)
    right = labels[row] == labels
    with torch.inference_mode():
        one_pass = head.score(asked.inputs, mean).double().numpy()
    unit_known, unit_asked = functional.normalize(own, dim=1), functional.normalize(mean, dim=1)
    density = torch.cat(
        [1 - (part @ unit_known.T).topk(10).values.mean(1) for part in torch.split(unit_asked, 1024)]
    )
    values = {
        "predicted, one pass": one_pass,
        "norm of the features": -asked.features.norm(dim=1).double().numpy(),
        "distance to 10 of the fit images": density.double().numpy(),
        "distance to the nearest found": -cosine,
        "distance found and predicted, joined": standard(-cosine) + 0.5 * standard(one_pass),
        "ceiling: linear probe on labels": -probe(known, fit_labels, asked),
    }
    spaces = []
    for dim in DIMENSIONS:
        for whitening in WHITENINGS:
            mapped = of(served_map(known.features.double(), "features", whitening, dim), asked)
            found = labels[nearest(mapped)[0]] == labels
            spaces.append(
                {"dim": dim or known.features.shape[1], "whitening": whitening, "recall_at_1": float(found.mean()),
                 "map_at_r": mean_average_precision(mapped, labels)}
            )  # fmt: skip
    return {
        "head": head, "served": served, "right": float(right.mean()), "images": len(labels),
        "uncertainty": table(values, right, "predicted, one pass"), "spaces": spaces,
    }  # fmt: skip


if __name__ == "__main__":
    main()
