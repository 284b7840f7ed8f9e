"""A trained run and labelled images -> how good its features are: k-NN and linear accuracy.

The protocol is fixed so that figures can be compared: no augmentation, images as search will see
them, k-NN with k = 20, T = 0.07 and cosine, and a linear classifier trained to convergence on
frozen, standardised features. Shape letters: N images, F feature dimension, Q held-out images.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from train.data.image_cache import ImageBank, load_bank
from train.evaluation.knn import knn_predict
from train.evaluation.monitor import embed
from train.models.encoder import build_encoder
from train.state.checkpoint import load_checkpoint
from train.state.randomness import held_out
from vssl.errors import InputError
from vssl.images.items import ImageSource
from vssl.images.sources import open_source

NEIGHBOURS, TEMPERATURE = 20, 0.07
HELD_OUT = 0.2
DECAYS = (1e-4, 1e-3, 1e-2, 1e-1)
"""Weight decays of the linear classifier, chosen among on a part of the training images."""


@dataclass(frozen=True)
class Accuracy:
    """A share of Q held-out images, with its 95 % Wilson interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ProbeResult:
    """Accuracies by (`student` or `teacher`, `features` or `projector`, `knn` or `linear`)."""

    accuracies: dict[tuple[str, str, str], Accuracy]
    train_images: int
    test_images: int
    classes: int


def probe(
    run: Path,
    spec: str,
    test_spec: str | None = None,
    *,
    device: torch.device | None = None,
    tick: Callable[[int], None] | None = None,
) -> ProbeResult:
    """Measure a run on labelled images.

    test_spec: the held-out images; without it a fifth of `spec`, chosen by a hash of the ids, is
    held out. Raises InputError when there are not two classes on both sides.
    """
    checkpoint = load_checkpoint(run)
    where = device or torch.device("cpu")
    train = _labelled(open_source(spec), None if test_spec else False)
    test = _labelled(open_source(test_spec or spec), None if test_spec else True)
    names = sorted({str(train[0].items[row].label) for row in train[1]})
    known = [row for row in test[1] if test[0].items[row].label in names]
    if len(names) < 2 or not known:
        raise InputError(
            f"probe: found {len(names)} classes in {spec!r} and {len(known)} images of them to test on, "
            "expected at least 2 classes; labels are the names of the folders that hold the images"
        )
    banks = [load_bank(source, checkpoint.preprocess, rows=rows, tick=tick) for source, rows in (train, test)]
    labels, truth = (_numbers(bank, names).to(where) for bank in banks)
    accuracies: dict[tuple[str, str, str], Accuracy] = {}
    for branch in ("student", "teacher") if checkpoint.teacher is not None else ("student",):
        encoder = build_encoder(checkpoint, branch).to(where)
        known_output, test_output = (embed(encoder, bank.images, where) for bank in banks)
        for space in ("features", "projector"):
            bank_codes, codes = (
                o.features if space == "features" else o.mean for o in (known_output, test_output)
            )
            predicted = knn_predict(bank_codes, labels, codes, len(names), NEIGHBOURS, TEMPERATURE)
            accuracies[branch, space, "knn"] = _accuracy(predicted, truth)
            predicted = linear_predict(bank_codes, labels, codes, len(names))
            accuracies[branch, space, "linear"] = _accuracy(predicted, truth)
    return ProbeResult(accuracies, len(labels), len(truth), len(names))


def linear_predict(features: Tensor, labels: Tensor, queries: Tensor, classes: int) -> Tensor:
    """Fit multinomial logistic regression on frozen features and predict, (N, F), (N,) -> (Q,).

    Features are standardised by the training ones; the weight decay is chosen on every fifth
    training image and the classifier then fitted on all.
    """
    mean, deviation = features.mean(dim=0), features.std(dim=0).clamp(min=1e-6)
    known, asked = (features - mean) / deviation, (queries - mean) / deviation
    part = torch.arange(len(known), device=known.device) % 5 == 0
    best = max(
        DECAYS,
        key=lambda decay: float(
            (_fit(known[~part], labels[~part], classes, decay)(known[part]).argmax(dim=1) == labels[part])
            .float()
            .mean()
        ),
    )
    with torch.no_grad():
        predicted: Tensor = _fit(known, labels, classes, best)(asked).argmax(dim=1)
    return predicted


def _fit(features: Tensor, labels: Tensor, classes: int, decay: float) -> nn.Linear:
    classifier = nn.Linear(features.shape[1], classes).to(features.device)
    nn.init.zeros_(classifier.weight)  # the problem is convex: the start does not matter
    nn.init.zeros_(classifier.bias)
    optimiser = torch.optim.LBFGS(classifier.parameters(), max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimiser.zero_grad()
        loss = functional.cross_entropy(classifier(features), labels)
        loss = loss + 0.5 * decay * classifier.weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    return classifier


def wilson(right: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """Return the Wilson score interval of a share."""
    share, square = right / count, z * z / count
    middle = (share + square / 2) / (1 + square)
    half = z / (1 + square) * math.sqrt(share * (1 - share) / count + square / (4 * count))
    return max(middle - half, 0.0), min(middle + half, 1.0)


def _accuracy(predicted: Tensor, truth: Tensor) -> Accuracy:
    right = int((predicted == truth).sum())
    return Accuracy(right / len(truth), *wilson(right, len(truth)))


def _labelled(source: ImageSource, out: bool | None) -> tuple[ImageSource, list[int]]:
    """Choose the labelled rows, of the held-out part or of the rest where `out` says so."""
    rows = [
        row
        for row, item in enumerate(source.items)
        if item.label is not None and (out is None or held_out(item.id, HELD_OUT) == out)
    ]
    return source, rows


def _numbers(bank: ImageBank, names: list[str]) -> Tensor:
    """Return class numbers, (N,); a class unseen in training is -1 and always counts as wrong."""
    number = {name: place for place, name in enumerate(names)}
    return torch.tensor([number.get(str(label), -1) for label in bank.labels])
