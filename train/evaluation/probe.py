"""A trained run and labelled images -> how good its features are: k-NN and linear accuracy.

The protocol is fixed so that figures can be compared: no augmentation, images as search will see
them, k-NN with k = 20, T = 0.07 and cosine, and two linear classifiers. The offline one is trained to
convergence on frozen, standardised features. The online one was trained with the encoder, on the
features of the student's views, and is stored with the run; published tables on CIFAR give its accuracy.
Shape letters: N images, F feature dimension, C classes, Q held-out images.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from train.data.image_cache import ImageCache, load_images
from train.evaluation.knn import knn_predict
from train.evaluation.linear import linear_predict
from train.evaluation.monitor import embed
from train.methods import build_encoder
from train.models.encoder import EncoderOutput
from train.state.arithmetic import use_full_precision
from train.state.checkpoint import Checkpoint, load_checkpoint
from train.state.randomness import held_out
from vssl.errors import InputError
from vssl.images.items import ImageSource
from vssl.images.sources import open_source

NEIGHBOURS, TEMPERATURE = 20, 0.07
HELD_OUT = 0.2


@dataclass(frozen=True)
class Accuracy:
    """A share of Q held-out images, with its 95 % Wilson interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ProbeResult:
    """Accuracies by branch, space and kind.

    branch: `student` or `teacher`; space: `features` or `projector`; kind: `knn`, `linear` (the offline
    classifier) or `online` (the run's stored one, of features alone: the student's classifier on either
    branch). online_left_out: why there is no `online` figure, or None.
    """

    accuracies: dict[tuple[str, str, str], Accuracy]
    train_images: int
    test_images: int
    classes: int
    online_left_out: str | None = None


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
    held out, and the online classifier, which may have seen their labels, is left out. Raises
    InputError when there are not two classes on both sides.
    """
    use_full_precision()
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
    caches = [
        load_images(source, checkpoint.preprocess, rows=rows, threads=torch.get_num_threads(), tick=tick)
        for source, rows in (train, test)
    ]
    labels, truth = (_numbers(cache, names).to(where) for cache in caches)
    left_out = _why_not_online(checkpoint, names, test_spec)
    classifier = online_classifier(checkpoint, names).to(where) if left_out is None else None
    accuracies: dict[tuple[str, str, str], Accuracy] = {}
    for branch in ("student", "teacher") if checkpoint.teacher is not None else ("student",):
        encoder = build_encoder(checkpoint, branch).to(where)
        codes = tuple(embed(encoder, cache.images, where) for cache in caches)
        for (space, kind), predicted in _predictions(codes, labels, len(names), classifier).items():
            accuracies[branch, space, kind] = _accuracy(predicted, truth)
    return ProbeResult(accuracies, len(labels), len(truth), len(names), left_out)


def online_classifier(checkpoint: Checkpoint, names: list[str]) -> nn.Linear:
    """Return a run's online classifier, features (N, F) -> scores (N, C), its rows in the order of `names`."""
    weights = checkpoint.classifier["weights"]
    number = {name: place for place, name in enumerate(checkpoint.classifier["classes"])}
    rows = torch.tensor([number[name] for name in names])
    classifier = nn.Linear(weights["weight"].shape[1], len(names))
    classifier.load_state_dict({name: value[rows] for name, value in weights.items()})
    return classifier.requires_grad_(False)


def _why_not_online(checkpoint: Checkpoint, names: list[str], test_spec: str | None) -> str | None:
    """Say why the online classifier has no figure on these images, or None where it has one."""
    stored = checkpoint.classifier.get("classes")
    if not checkpoint.classifier:
        return "the run was trained without labels"
    if stored is None:
        return "the run is of an earlier version, which did not store the names of its classes"
    if not test_spec:
        return "it may have seen the labels of the held-out images; give other images with --test"
    unknown = [name for name in names if name not in stored]
    if unknown:
        return f"it knows {len(stored)} classes, {unknown[0]!r} is none of them"
    return None


def _predictions(
    codes: tuple[EncoderOutput, ...], labels: Tensor, classes: int, classifier: nn.Linear | None
) -> dict[tuple[str, str], Tensor]:
    """Return the predicted class numbers (Q,) by (space, kind); codes: of training and test images."""
    known, held_out = codes
    predicted: dict[tuple[str, str], Tensor] = {}
    for space, train, queries in (
        ("features", known.features, held_out.features),
        ("projector", known.mean, held_out.mean),
    ):
        predicted[space, "knn"] = knn_predict(train, labels, queries, classes, NEIGHBOURS, TEMPERATURE)
        predicted[space, "linear"] = linear_predict(train, labels, queries, classes)
        if space == "features" and classifier is not None:
            predicted[space, "online"] = classifier(queries.float()).argmax(dim=1)
    return predicted


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


def _numbers(cache: ImageCache, names: list[str]) -> Tensor:
    """Return class numbers, (N,); a class unseen in training is -1 and always counts as wrong."""
    number = {name: place for place, name in enumerate(names)}
    return torch.tensor([number.get(str(label), -1) for label in cache.labels])
