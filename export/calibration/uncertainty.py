"""Calibration images and forms of them made worse -> a head that predicts the uncertainty; no labels.

Four steps, each measured in docs/measurements/encoders.md. How undecided a picture is between clusters of the
calibration images predicts that its nearest neighbour is of another kind, and so does how undecided those around it
are. How far damage has moved an embedding is learnt from worse forms of images whose own embedding is known. The sum
becomes a rank: 0.9 means less sure than nine tenths of the calibration images.
Shape letters: N images, W worse forms, P inputs of the head, D embedding dimension, K directions.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from export.calibration.ambiguity import IMAGES_EACH, LENGTH_POWER, fit_ambiguity
from export.calibration.neighbourhood import fit_neighbourhood
from export.calibration.view_statistics import ViewStatistics
from export.served_encoder import UncertaintyHead
from vssl.model.card import UncertaintyFit
from vssl.rank_statistics import spearman

FEWEST = 256
"""Images below which no head is fitted: the uncertainty is then derived from the variance."""
DIRECTIONS, SEEDS = (32, 64, 128), (0, 1)
KNOTS, NEAREST = 33, 10
EPOCHS, BATCH, LEARNING_RATE, WEIGHT_DECAY = 8, 128, 1e-3, 0.1
WEIGHTS = (2.5, 5.0, 10.0)
LESS_SURE, NEAR_BEST = 0.95, 0.02
"""Share of held-out worse forms that must be less sure than their image, or how far below the best share it may be."""


def fit_uncertainty(
    good: ViewStatistics,
    bad: ViewStatistics,
    more_means: Tensor | None = None,
    seed: int = 0,
    *,
    space: str = "features",
) -> UncertaintyHead | None:
    """Fit the head on N pictures as they are and W worse forms of each; None for fewer than 256 pictures.

    more_means: served means (M, D) of further pictures, for the clusters. space: `features` or `projector`, where
    means are served.
    """
    if len(good) < FEWEST or not len(bad):
        return None
    means = good.mean if more_means is None else torch.cat([good.mean, more_means])
    counts = [count for count in DIRECTIONS if count * IMAGES_EACH <= len(means)]
    clusterings = [
        fit_ambiguity(means, count, seed + each, LENGTH_POWER[space])
        for count, each in product(counts, SEEDS)
    ]
    torch.manual_seed(seed)
    head = UncertaintyHead(clusterings, good.inputs.shape[1], KNOTS)
    with torch.inference_mode():
        entropy = torch.stack([clustering(means) for clustering in clusterings], dim=1)
    head.centre.copy_(entropy.mean(0))
    head.spread.copy_(entropy.std(0).clamp_min(1e-6))
    with torch.inference_mode():
        weight, bias = fit_neighbourhood(means, head.indecision(means))
    with torch.no_grad():
        head.neighbourhood.weight.copy_(weight[None])
        head.neighbourhood.bias.copy_(bias)
    is_held = torch.zeros(int(good.image.max()) + 1, dtype=torch.bool)
    order = torch.randperm(len(is_held), generator=torch.Generator().manual_seed(seed))
    is_held[order[: len(is_held) // 4]] = True
    _fit_displacement(head, good, bad, is_held)
    _choose_weight(head, good, bad, is_held)
    with torch.inference_mode():
        _fit_rank(head, head.score(good.inputs, good.mean))
    return head.eval()


def judge_uncertainty(
    head: UncertaintyHead, judged: ViewStatistics, bad: ViewStatistics, means: Tensor, images: int
) -> UncertaintyFit:
    """Measure the head on held-out pictures, and worse forms of them of which every second is a cropped view.

    means: (N, D) of the pictures it was fitted on, whose distance it should predict; images: how many there were.
    """
    with torch.inference_mode():
        own, worse = head(judged.inputs, judged.mean), head(bad.inputs, bad.mean)
        cosines = functional.normalize(judged.mean, dim=1) @ functional.normalize(means, dim=1).T
        far = 1.0 - cosines.topk(min(NEAREST, len(means)), dim=1).values.mean(1)
        less_sure = (worse > _of_image(judged, own, bad)).double()
    correlation = spearman(own.double().numpy(), far.double().numpy())
    return UncertaintyFit(
        images,
        float(np.nan_to_num(correlation)),
        cropped=float(less_sure[~bad.is_damaged].mean()),
        damaged=float(less_sure[bad.is_damaged].mean()),
    )


def displacement(good: ViewStatistics, bad: ViewStatistics) -> Tensor:
    """Return (W x N,): 1 - cosine between a worse form's mean and its image's."""
    return 1.0 - functional.cosine_similarity(bad.mean, _of_image(good, good.mean, bad), dim=1)


def _of_image(good: ViewStatistics, values: Tensor, bad: ViewStatistics) -> Tensor:
    """Return the images' values in the rows of their worse forms."""
    row = torch.empty(int(good.image.max()) + 1, dtype=torch.int64)
    row[good.image] = torch.arange(len(good))
    return values[row[bad.image]]


def _fit_displacement(
    head: UncertaintyHead, good: ViewStatistics, bad: ViewStatistics, is_held: Tensor
) -> None:
    """Learn the displacement of worse forms, 0 for images as they are, in units of its standard deviation."""
    moved = displacement(good, bad)
    inputs = torch.cat([good.inputs, bad.inputs])
    target = torch.cat([torch.zeros(len(good)), moved / moved.std().clamp_min(1e-6)])
    fit = torch.nonzero(~is_held[torch.cat([good.image, bad.image])])[:, 0]
    head.shift.copy_(inputs[fit].mean(0))
    head.scale.copy_(1.0 / inputs[fit].std(0).clamp_min(1e-6))
    steps = EPOCHS * -(-len(fit) // BATCH)
    optimiser = torch.optim.AdamW(head.damage.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(EPOCHS):
        for rows in torch.split(fit[torch.randperm(len(fit))], BATCH):
            optimiser.zero_grad()
            loss = functional.mse_loss(head.displacement(inputs[rows]), target[rows])
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()


def _choose_weight(head: UncertaintyHead, good: ViewStatistics, bad: ViewStatistics, is_held: Tensor) -> None:
    """Let damage count as little as makes held-out worse forms less sure than their images."""
    with torch.inference_mode():
        held, held_bad = is_held[good.image], is_held[bad.image]
        head.floor.copy_(head.displacement(good.inputs[held]).median())
        shares = []
        for weight in WEIGHTS:
            head.weight.fill_(weight)
            own = _of_image(good, head.score(good.inputs, good.mean), bad)[held_bad]
            less_sure = head.score(bad.inputs[held_bad], bad.mean[held_bad]) > own
            shares.append(float(less_sure.double().mean()))
        needed = min(LESS_SURE, max(shares) - NEAR_BEST)
        head.weight.fill_(next(w for w, share in zip(WEIGHTS, shares, strict=True) if share >= needed))


def _fit_rank(head: UncertaintyHead, scores: Tensor) -> None:
    """Map scores to their rank among the images: piecewise linear in the logit, and going on beyond the ends."""
    shares = (torch.arange(KNOTS) + 0.5) / KNOTS
    knots = torch.quantile(scores.double(), shares.double())
    steps = torch.diff(knots).clamp_min(1e-6)
    knots = torch.cat([knots[:1], knots[:1] + torch.cumsum(steps, 0)])
    slopes = torch.diff(torch.logit(shares.double())) / steps
    # Below the first knot the first slope goes on: the line begins where the smallest logit lies.
    reach = (torch.logit(shares[0].double()) + 15.0) / slopes[0]
    head.knots.copy_(torch.cat([knots[:1] - reach, knots[1:]]))
    changes = torch.cat([slopes[:1], torch.diff(slopes), torch.zeros(1, dtype=slopes.dtype)])
    head.slopes.copy_(changes)
    head.start.fill_(-15.0)
