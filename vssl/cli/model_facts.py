"""What a card and the checks of an export say -> one line of each for a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vssl.model.card import ModelCard


def describe_calibration(fit: Any) -> str:
    """Return one line about a card's calibration."""
    if fit.kind == "none":
        return "not calibrated"
    text = f"{fit.kind} on {fit.images} images x {fit.views} views"
    if fit.ratio is None:
        return f"{text}; too few images to judge it on held-out ones"
    return (
        f"{text}; on held-out images predicted over measured {fit.ratio:.2f}, "
        f"rank correlation {fit.rank_correlation:.2f}"
    )


def describe_preprocess(card: ModelCard) -> str:
    """Return one line about what a model does to a picture."""
    p = card.preprocess
    how = (
        f"squashed to {p.size} px"
        if p.fit == "stretch"
        else f"shorter side to {p.resize}, centre {p.size} px"
    )
    mean, std = (",".join(f"{value:g}" for value in values) for values in (card.pixel_mean, card.pixel_std))
    return f"{how}, {p.interpolation}, mean {mean}, std {std}"


def describe_uncertainty(card: ModelCard) -> str:
    """Return one line about where a model's uncertainty comes from."""
    fit = card.uncertainty_fit
    if fit is None:
        return "derived from mean and variance"
    if fit.cropped is None or fit.damaged is None:
        return f"predicted, fitted on {fit.images} images"
    return (
        f"predicted, fitted on {fit.images} images; of held-out ones {fit.damaged:.0%} are less sure when damaged, "
        f"{fit.cropped:.0%} when cropped"
    )


def describe_measured(found: Mapping[str, Any]) -> str:
    """Return one line about what a model reached on labelled images."""
    ordered = "" if found["r_auroc"] is None else f", R-AUROC {found['r_auroc']:.3f}"
    return (
        f"20-NN accuracy {found['knn_top1']:.3f}{ordered} on the {found['images']} images of "
        f"{found['source']}, each against the others"
    )


def describe_fidelity(found: Any) -> str:
    """Return one line about what a lower precision loses."""
    text = (
        f"{found.speed:.1f}x the images/s of fp32 here; on {found.images} images: same neighbour for "
        f"{found.same_neighbour:.1%}, uncertainty's rank correlation {found.rank_correlation:.3f}"
    )
    if found.knn is not None:
        text += f", k-NN {found.knn_fp32:.3f} -> {found.knn:.3f}"
    if found.r_auroc is not None:
        text += f", R-AUROC {found.r_auroc_fp32:.3f} -> {found.r_auroc:.3f}"
    return text
