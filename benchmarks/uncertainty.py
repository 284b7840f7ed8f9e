"""A trained run and labelled images -> which one-number uncertainty tells right neighbours from wrong.

Every idea is measured on the same encoder and the same test images: R-AUROC (is the nearest
neighbour among the test images, by cosine, of the image's class?), the share of cropped and of
corrupted images that are less sure than their originals, and, for those that are variances, the
calibration: predicted over measured total variance of real views, and rank correlation.

    python -m benchmarks.uncertainty RUN TRAIN_IMAGES TEST_IMAGES [--images 5000] [--views 64]

as in `python -m benchmarks.uncertainty runs/vssl cifar10:DIR cifar10:DIR:test`. Nothing is fitted
on the test images, and labels are used to judge only. Shape letters: N images, V views, D
embedding dimension, F feature dimension.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from benchmarks.corruptions import CORRUPTIONS, UNSEEN, corrupted
from benchmarks.uncertainty_ideas import (
    Idea,
    Shown,
    applied,
    fit,
    neighbour_distance,
    own_variance,
    regression,
    retrieval_loss,
    show,
    view_codes,
)
from export.calibration.head import CalibrationConfig, fit_head, rank_correlation
from export.calibration.view_statistics import empty_like, view_statistics
from export.calibration.whitening import fit_mean
from index.metrics.bootstrap import interval
from index.metrics.uncertainty import r_auroc
from train.augment.views import Views
from train.data.image_cache import load_images
from train.evaluation.uncertainty import nearest_is_wrong
from train.methods import build_encoder
from train.models.encoder import Encoder
from train.state.checkpoint import load_checkpoint
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.images.sources import open_source

Doubles = NDArray[np.float64]
HELD = 10_000


def ranks(values: Doubles) -> Doubles:
    """Replace values by their ranks in 0..1."""
    return np.argsort(np.argsort(values)) / len(values)


def lead(value: Doubles, other: Doubles, right: NDArray[np.bool_]) -> str:
    """R-AUROC of `value` minus that of `other` with 95 %, both of the same images drawn again."""
    low, high = interval(
        lambda rows: r_auroc(value[rows], right[rows]) - r_auroc(other[rows], right[rows]),
        len(value),
        resamples=300,
    )
    return f"{r_auroc(value, right) - r_auroc(other, right):+.3f} ({low:+.3f} to {high:+.3f})"


def r_auroc_interval(value: Doubles, right: NDArray[np.bool_]) -> tuple[float, float]:
    """95 % by drawing the images again."""
    return interval(lambda rows: r_auroc(value[rows], right[rows]), len(value), resamples=300)


def main() -> None:
    """Measure every idea in both spaces and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("train", help="images the ideas are fitted on, as cifar10:DIR")
    parser.add_argument("test", help="labelled images, as cifar10:DIR:test")
    parser.add_argument("--images", type=int, default=5000, help="test images")
    parser.add_argument("--fit-images", type=int, default=4000)
    parser.add_argument("--views", type=int, default=64)
    parser.add_argument("--spaces", nargs="+", default=["projector", "features"])
    parser.add_argument("--whitening", type=float, default=0.5)
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    checkpoint = load_checkpoint(arguments.run)
    config = checkpoint.config
    views = Views(config.augment, config.size)
    train_source, test_source = open_source(arguments.train), open_source(arguments.test)
    chosen = np.random.default_rng(0).permutation(len(train_source.items))[: arguments.fit_images + HELD]
    cache = load_images(train_source, checkpoint.preprocess, rows=np.sort(chosen).tolist())
    test = load_images(test_source, checkpoint.preprocess, rows=list(range(arguments.images)))
    names = sorted({str(label) for label in test.labels})
    labels = np.array([names.index(str(label)) for label in test.labels])
    mixed = np.random.default_rng(1).permutation(len(cache.images))
    fit_images, rest = (
        cache.images[rows] for rows in (mixed[: arguments.fit_images], mixed[arguments.fit_images :])
    )
    student = build_encoder(checkpoint)
    results: list[dict[str, Any]] = []
    for space in arguments.spaces:
        results += measure(
            student, checkpoint, views, fit_images, rest, test.images, labels, space, arguments
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


def measure(
    student: Encoder,
    checkpoint: Any,
    views: Views,
    fit_images: NDArray[np.uint8],
    rest: NDArray[np.uint8],
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    space: str,
    arguments: argparse.Namespace,
) -> list[dict[str, Any]]:
    """Measure every idea in one space."""
    settings = CalibrationConfig()
    served_mean = fit_mean(student, fit_images, space, student.size, arguments.whitening)
    fitted, statistics = fit(student, views, fit_images, served_mean, settings)
    plain = show(student, fit_images)
    plain_mean = fitted.mean(plain)
    gallery = fitted.mean(show(student, rest))
    output = show(student, images)
    mean = fitted.mean(output)
    right = ~nearest_is_wrong(mean, torch.from_numpy(labels)).numpy()
    seen, _ = view_statistics(
        student, views, images, served_mean, count=arguments.views, seed=77, size=student.size
    )
    seen32, _ = view_statistics(student, views, images, served_mean, count=32, seed=78, size=student.size)

    spread_target = torch.from_numpy(
        np.log(GaussianEmbedding(plain_mean.numpy(), statistics.variance.numpy()).uncertainty.clip(1e-6))
    )
    scalar = applied(regression(plain.features, spread_target))
    first, second = (view_codes(student, views, fit_images, served_mean, seed) for seed in (5, 6))
    lost = applied(regression(plain.features, retrieval_loss(first, second, 0.1)))
    density = applied(regression(plain.features, neighbour_distance(plain_mean, gallery).log()))

    def served(o: Shown) -> Doubles:
        return fitted.gaussians(o).uncertainty.astype(np.float64)

    constant = statistics.variance.mean(0, keepdim=True)
    undamaged = replace(fitted, variance=fit_head(statistics, empty_like(statistics), settings))

    def predicted_by_head(o: Shown) -> Doubles:
        assert fitted.uncertainty is not None
        with torch.inference_mode():
            return fitted.uncertainty.score(o.inputs, fitted.mean(o)).double().numpy()

    def indecision(o: Shown) -> Doubles:
        assert fitted.uncertainty is not None
        with torch.inference_mode():
            return fitted.uncertainty.indecision(fitted.mean(o)).double().numpy()

    ideas: dict[str, Idea] = {
        "predicted (served)": predicted_by_head,
        "indecision between clusters alone": indecision,
        "spread of the fitted variance": served,
        "the same without damage": lambda o: undamaged.gaussians(o).uncertainty.astype(np.float64),
        "trace of the fitted variance": lambda o: fitted.gaussians(o).variance.sum(1).astype(np.float64),
        "one variance for all, scaled": lambda o: GaussianEmbedding(
            fitted.mean(o).numpy(), constant.expand(len(o.mean), -1).contiguous().numpy()
        ).uncertainty.astype(np.float64),
        "norm of the mean": lambda o: -fitted.mean(o).norm(dim=1).double().numpy(),
        "norm of the features": lambda o: -o.features.norm(dim=1).double().numpy(),
        "scalar head on the spread": scalar,
        "predicted instance-retrieval loss": lost,
        "predicted neighbour distance": density,
        "served x predicted neighbour distance": lambda o: np.log(served(o)) + density(o),
        "distance to 50 of the training images": lambda o: (
            neighbour_distance(fitted.mean(o), gallery).double().numpy()
        ),
    }
    if space == "projector" and output.raw_variance is not None:
        ideas["raw head, softplus"] = lambda o: own_variance(o, functional.softplus, fitted.mean(o))
        ideas["raw head, exp"] = lambda o: own_variance(o, torch.exp, fitted.mean(o))
    fixed = {
        "32 views": GaussianEmbedding(mean.numpy(), seen32.variance.numpy()).uncertainty.astype(np.float64),
        f"{arguments.views} views": GaussianEmbedding(mean.numpy(), seen.variance.numpy()).uncertainty.astype(
            np.float64
        ),
    }
    if checkpoint.teacher is not None:
        teacher = build_encoder(checkpoint, "teacher")
        other_mean = fit_mean(teacher, fit_images, space, teacher.size, arguments.whitening)
        other, _ = fit(teacher, views, fit_images, other_mean, settings)
        kept = other.gaussians(show(teacher, images)).uncertainty.astype(np.float64)
        fixed["teacher's fitted head"] = kept
        fixed["student and teacher, rank sum"] = ranks(kept) + ranks(served(output))
    worse = {
        (name, severity): show(student, corrupted(images[:2000], name, severity))
        for name in CORRUPTIONS | UNSEEN
        for severity in range(1, 6)
    }
    predicted = fitted.gaussians(output).variance.sum(1).astype(np.float64)
    measured = seen.variance.sum(1).double().numpy()
    print(
        f"\n{space}: nearest neighbour right {right.mean():.3f}; of {len(images)} test images, the head's "
        f"variance over that of {arguments.views} views: {predicted.sum() / measured.sum():.3f} in total, "
        f"{np.mean(predicted / measured):.3f} in the mean of ratios, rank correlation "
        f"{rank_correlation(predicted, measured):.3f}"
    )
    flat = constant.expand(len(images), -1).sum(1).double().numpy()
    lines = [f"one variance for all: {flat.sum() / measured.sum():.3f}, rank correlation 0"]
    if output.raw_variance is not None and space == "projector":
        for name, read in (("softplus", functional.softplus), ("exp", torch.exp)):
            raw = read(output.raw_variance.clamp(-20, 20)).sum(1).double().numpy()
            lines.append(
                f"raw head, {name}: {raw.sum() / measured.sum():.3g}, "
                f"rank correlation {rank_correlation(raw, measured):.3f}"
            )
    print("uncalibrated, to compare: " + "; ".join(lines))
    print(
        "\n| uncertainty | R-AUROC (95 %) | served minus this (95 %) | cropped less sure | corrupted, 3 / 5 "
        "| of other kinds, 3 / 5 |\n|---|---|---|---|---|---|"
    )
    results = []
    values = {name: idea(output) for name, idea in ideas.items()} | fixed
    for name, value in sorted(values.items(), key=lambda pair: -r_auroc(pair[1], right)):
        found = r_auroc(value, right)
        low, high = r_auroc_interval(value, right)
        row = {"space": space, "idea": name, "r_auroc": found, "low": low, "high": high}
        ahead = lead(values["predicted (served)"], value, right)
        shares = "| | | |"
        if name in ideas:
            less = {key: float((ideas[name](o) > value[: len(o.mean)]).mean()) for key, o in worse.items()}
            row["less_sure"] = {f"{n}-{s}": share for (n, s), share in less.items()}
            cropped = np.mean([less["crop", s] for s in range(1, 6)])
            known = [n for n in CORRUPTIONS if n != "crop"]
            damage = [np.mean([less[n, s] for n in kinds]) for kinds in (known, UNSEEN) for s in (3, 5)]
            shares = (
                f"| {cropped:.2f} | {damage[0]:.2f} / {damage[1]:.2f} | {damage[2]:.2f} / {damage[3]:.2f} |"
            )
        print(f"| {name} | {found:.3f} ({low:.3f} to {high:.3f}) | {ahead} {shares}", flush=True)
        results.append(row)
    return results


if __name__ == "__main__":
    main()
