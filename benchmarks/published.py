"""A published encoder and two sets of images -> which number predicts that the nearest neighbour is wrong.

    python -m benchmarks.published NETWORK WEIGHTS FIT_IMAGES JUDGED_IMAGES [--size 112] [--most N] [--cache DIR]

as in `python -m benchmarks.published timm/tf_efficientnet_lite0 lite0.pth cifar10:DIR cifar10:DIR:test
--size 112`. What is served is fitted on FIT_IMAGES without labels, as `vssl export` does; labels of JUDGED_IMAGES
say whether the nearest other judged image is of the same class. The ceiling is a linear probe on the
labels of FIT_IMAGES. Printed: R-AUROC with 95 % intervals and the difference from what is served in one
pass and from the distance found; the variance on 64 views of 200 judged images, and how well 32 of those views rank
the other 32; damaged images; retrieval over dimension and whitening (published_space.py); what is known after a
search (published_search.py). Embeddings are kept in --cache.
Shape letters: N images, F feature dimension, P inputs of the heads, D embedding dimension.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from benchmarks.corruptions import corrupted
from benchmarks.published_search import after_search, judge_search
from benchmarks.published_space import Doubles, Shown, nearest, of, spaces
from export.calibration.degrade import degrade
from export.calibration.head import CalibrationConfig, fit_head
from export.calibration.head import judge as judge_variance
from export.calibration.uncertainty import fit_uncertainty
from export.calibration.view_statistics import ViewStatistics, view_statistics
from export.calibration.whitening import served_map
from export.served_encoder import ServedMean, UncertaintyHead, VarianceHead, head_inputs
from export.sources.encoder_graph import OnnxEncoder
from export.sources.published import published_encoder
from index.metrics.bootstrap import interval
from index.metrics.uncertainty import r_auroc
from train.augment.views import Views
from train.data.image_cache import load_images
from vssl.images.sources import open_source
from vssl.rank_statistics import spearman

BATCH, DAMAGED = 32, 300
VARIED, JUDGED = 1000, 200  # images whose views the variance is fitted on, and judged on
DISTANCE = "distance to the nearest found"
Pictures = NDArray[np.uint8]
SEVERE = {
    "cropped": [("crop", s) for s in (1, 3, 5)],
    "corrupted": [(k, s) for k in ("noise", "jpeg", "darkness", "occlusion") for s in (3, 5)],
}


class Embedder:
    """An encoder that embeds each named set of pictures once."""

    def __init__(self, encoder: OnnxEncoder, cache: Path) -> None:
        self.encoder, self.cache = encoder, cache
        cache.mkdir(parents=True, exist_ok=True)

    def __call__(self, name: str, pictures: Callable[[], Pictures]) -> Shown:
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


def worse_forms(pictures: Pictures, seed: int) -> Pictures:
    """Return each picture made worse in one way, as calibration does."""
    generator = torch.Generator().manual_seed(seed)
    parts = [
        degrade(part.float(), generator).to(torch.uint8) for part in torch.split(torch.from_numpy(pictures), BATCH)
    ]  # fmt: skip
    return torch.cat(parts).numpy()


def drawn(pictures: Pictures, most: int) -> Pictures:
    """Return up to `most` pictures drawn at random: a folder's are sorted by class."""
    return np.ascontiguousarray(pictures[np.random.default_rng(1).permutation(len(pictures))[:most]])


def viewed(views: Views, pictures: Pictures, seed: int) -> Pictures:
    """Return one view of the training of each picture."""
    generator, parts = torch.Generator().manual_seed(seed), torch.split(torch.from_numpy(pictures), BATCH)
    return torch.cat([views(part.float(), generator).round().to(torch.uint8) for part in parts]).numpy()


def statistics(shown: Shown, mean: Tensor) -> ViewStatistics:
    """Return pictures as the uncertainty's fit takes them; it asks for no variance."""
    rows = torch.arange(len(mean))
    return ViewStatistics(
        shown.inputs, mean, torch.ones(len(mean), 1), rows, torch.zeros(len(mean), dtype=torch.bool)
    )


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


def kept(place: Path, make: Callable[[], tuple[ViewStatistics, ViewStatistics]]) -> list[ViewStatistics]:
    """Return both statistics of a file, or make and write them."""
    names = [field.name for field in fields(ViewStatistics)]
    if not place.exists():
        made = make()
        np.savez(place, **{f"{n}-{i}": getattr(made[i], n).numpy() for i in (0, 1) for n in names})
    found = np.load(place)
    return [ViewStatistics(*(torch.from_numpy(found[f"{n}-{i}"]) for n in names)) for i in (0, 1)]


def variance_of(
    encoder: OnnxEncoder, views: Views, served: ServedMean, fit: Pictures, judged: Pictures, cache: Path
) -> tuple[VarianceHead, dict[str, object]]:
    """Fit the variance as export does, and judge it on two halves of 32 views of the judged pictures."""
    config = CalibrationConfig()

    def seen(pictures: Pictures, count: int, worse: int, seed: int) -> tuple[ViewStatistics, ViewStatistics]:
        return view_statistics(
            encoder, views, pictures, served, count=count, worse=worse, seed=seed, size=pictures.shape[1]
        )

    good, bad = kept(cache / "views.npz", lambda: seen(fit, config.views, config.worse, 0))
    first, second = (
        kept(cache / f"judged-views-{n}.npz", lambda n=n: seen(judged, 32, 0, n))[0] for n in (1, 2)
    )
    head = fit_head(good, bad, config).eval()
    both = replace(first, variance=(first.variance + second.variance) / 2)
    ratio, rank, limits = judge_variance(head, both)
    with torch.inference_mode():
        said = head(both.inputs, both.mean).sum(1).numpy()
    halves, total = (s.variance.sum(1).numpy() for s in (first, second)), both.variance.sum(1).numpy()
    return head, {
        "ratio": ratio, "ratio_interval": limits, "rank_correlation": rank, "halves": spearman(*halves),
        "rank_interval": interval(lambda at: spearman(said[at], total[at]), len(total)),
    }  # fmt: skip


def table(values: dict[str, Doubles], right: NDArray[np.bool_], served: str) -> list[dict[str, object]]:
    """Return one row a signal: R-AUROC, served minus it and it minus the distance by a paired bootstrap."""
    rows: list[dict[str, object]] = []
    for name, value in values.items():
        found = r_auroc(value, right)
        low, high = interval(lambda at, v=value: r_auroc(v[at], right[at]), len(right), resamples=300)
        ahead, over = (
            interval(
                lambda at, a=a, b=b: r_auroc(a[at], right[at]) - r_auroc(b[at], right[at]),
                len(right),
                resamples=300,
            )
            for a, b in ((values[served], value), (value, values[DISTANCE]))
        )
        rows.append(
            {"signal": name, "r_auroc": found, "low": low, "high": high, "served_minus_this": ahead,
             "this_minus_distance": over}
        )  # fmt: skip
    return rows


def less_sure(
    embed: Embedder, head: UncertaintyHead, served: ServedMean, pictures: Pictures, name: str
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
    some = drawn(caches["judged"].images, DAMAGED)
    varied = drawn(caches["fit"].images, VARIED)
    served = served_map(known.features.double(), "features", 0.0, 128)
    views = Views(source.augment, arguments.size)
    variance, calibration = variance_of(embed.encoder, views, served, varied, some[:JUDGED], arguments.cache)
    report = judge(
        served, variance, known, worse, asked, labels["fit"], labels["judged"], arguments.cache / "served.npz"
    )
    head = report.pop("head")
    own = embed("varied", lambda: varied)
    pair = [embed(f"view-{n}", lambda n=n: viewed(views, varied, n)) for n in (1, 2)]
    report |= {
        "variance": calibration,
        "spaces": spaces(known, own, (pair[0], pair[1]), asked, labels["judged"]),
    }
    report["less_sure"] = less_sure(embed, head, served, some, "judged")  # type: ignore[arg-type]
    print(json.dumps(report, indent=1))


def judge(
    served: ServedMean, variance: VarianceHead, known: Shown, worse: Shown, asked: Shown,
    fit_labels: NDArray[np.int64], labels: NDArray[np.int64], place: Path,
) -> dict[str, object]:  # fmt: skip
    """Fit on `known` and its worse forms, judge on `asked`; returns the table and what was fitted.

    place: a file of the judged means, labels and uncertainties, for published_search.py.
    """
    own, mean = of(served, known), of(served, asked)
    head = fit_uncertainty(statistics(known, own), statistics(worse, of(served, worse)))
    assert head is not None
    row, cosine = nearest(mean)
    right = labels[row] == labels
    with torch.inference_mode():
        one_pass = head.score(asked.inputs, mean).double().numpy()
        trace = variance(asked.inputs, mean).sum(1).double().numpy()
    unit_known, unit_asked = functional.normalize(own, dim=1), functional.normalize(mean, dim=1)
    np.savez(place, mean=mean.numpy(), label=labels, uncertainty=one_pass)
    found = after_search(mean.numpy(), one_pass, labels)
    density = torch.cat(
        [1 - (part @ unit_known.T).topk(10).values.mean(1) for part in torch.split(unit_asked, 1024)]
    )
    values = {
        "predicted, one pass": one_pass,
        "trace of the variance": trace,
        "norm of the features": -asked.features.norm(dim=1).double().numpy(),
        "distance to 10 of the fit images": density.double().numpy(),
        DISTANCE: -cosine,
        "risk": found.risk,
        "ceiling: linear probe on labels": -probe(known, fit_labels, asked),
    }
    return {
        "head": head, "right": float(right.mean()), "images": len(labels),
        "uncertainty": table(values, right, "predicted, one pass"), "after_search": judge_search(found),
    }  # fmt: skip


if __name__ == "__main__":
    main()
