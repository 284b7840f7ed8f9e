"""A report -> one page of plots: what its curves and intervals look like.

Needs matplotlib, of the extra `plots`.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vssl.errors import InputError
from vssl.images.plotting import GREY, say_absent, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RATE, ENDS = "uncertainty_increase_rate:", ("_low", "_high")
SHARES = (
    "knn_top1", "recall_at_1", "recall_at_10", "map_at_r", "instance_recall_at_1", "r_auroc", "r_auroc_norm",
    "r_auroc_distance", "r_auroc_risk", "r_auroc_match", "ood_auroc", "ood_auroc_knn", "ood_auroc_likelihood",
    "ood_auroc_mahalanobis", "one_class_knn", "one_class_likelihood",
)  # fmt: skip


def write_plots(report: dict[str, Any], path: Path) -> None:
    """Draw the page to `path` (.png, .pdf or .svg).

    Raises InputError for another ending.
    """
    if path.suffix not in (".png", ".pdf", ".svg"):
        raise InputError(f"{path}: expected a name that ends in .png, .pdf or .svg")
    draw(report).savefig(path)


def draw(report: dict[str, Any]) -> Figure:
    """Return the page: four plots, and two more where corrupted queries were measured."""
    from matplotlib.figure import Figure

    rates = [name for name in report["metrics"] if name.startswith(RATE) and not name.endswith(ENDS)]
    figure = Figure(figsize=(11.7, 12.2 if rates else 8.3), layout="constrained")
    axes = figure.subplots(3 if rates else 2, 2).ravel()
    for axis in axes:
        styled(axis)
    _risk_coverage(axes[0], report["curves"].get("risk_coverage"))
    _reliability(axes[1], report["curves"].get("reliability"), report["metrics"])
    _shares(axes[2], report["metrics"])
    _distances(axes[3], report["metrics"])
    if rates:
        _corruptions(axes[4], report["curves"].get("corruptions"), report["curves"].get("severities"))
        axes[5].set(title="Corrupted images less sure than their originals", xlim=(-0.02, 1.02))
        _bars(axes[5], rates[::-1], [name.removeprefix(RATE) for name in rates[::-1]], report["metrics"])
    counts = report["counts"]
    figure.suptitle(
        f"{report['model']} ({report['model_id'][:12]}): {counts['queries']} queries, "
        f"{counts['gallery']} images, distance {report['distance']}"
    )
    return figure


def _risk_coverage(axis: Any, curves: dict[str, list[float]] | None) -> None:
    axis.set(title="Risk and coverage", xlabel="share of queries answered", ylabel="wrong nearest neighbours")
    for name, values in (curves or {}).items():
        steps = [(i + 1) / len(values) for i in range(len(values))]
        axis.plot(steps, values, label=f"by {name}", linestyle="--" if name == "oracle" else "-")
    if curves:
        axis.legend()
    else:
        say_absent(axis, "needs labels")


def _reliability(axis: Any, curves: dict[str, list[float]] | None, metrics: dict[str, float]) -> None:
    axis.set(title="Reliability of match probability", xlabel="predicted", ylabel="observed")
    axis.plot([0, 1], [0, 1], linestyle=":", color=GREY)
    if curves:
        axis.plot(curves["predicted"], curves["observed"], marker="o", label=f"ECE {metrics['ece']:.3f}")
        axis.legend()
    else:
        say_absent(axis, "needs a labelled gallery")


def _shares(axis: Any, metrics: dict[str, float]) -> None:
    names = [name for name in reversed(SHARES) if name in metrics]
    axis.set(title="Metrics with 95 % intervals", xlim=(-0.02, 1.02))
    _bars(axis, names, names, metrics)


def _distances(axis: Any, metrics: dict[str, float]) -> None:
    axis.set(title="Nearest neighbour right, by distance")
    names = [key.partition(":")[2] for key in metrics if key.startswith("recall_at_1:")]
    names = [name for name in reversed(names) if not name.endswith(ENDS)]
    if names:
        labels = [f"{name} (hub {metrics[f'hub:{name}_max']:.0f})" for name in names]
        _bars(axis, [f"recall_at_1:{name}" for name in names], labels, metrics)
    else:
        say_absent(axis, "needs labels and --compare")


def _corruptions(
    axis: Any, curves: dict[str, list[float]] | None, severities: dict[str, list[float]] | None
) -> None:
    axis.set(
        title="Uncertainty of corrupted images",
        xlabel="severity (0: the original)",
        ylabel="mean uncertainty",
    )
    for (name, values), marker in zip((curves or {}).items(), itertools.cycle("os^Dv<"), strict=False):
        axis.plot((severities or {})[name], values, marker=marker, label=name)
    axis.locator_params(axis="x", integer=True)
    if curves:
        axis.legend()
    else:
        say_absent(axis, "needs several severities, as blur-1 and blur-2")


def _bars(axis: Any, names: list[str], labels: list[str], metrics: dict[str, float]) -> None:
    values = [metrics[name] for name in names]
    # A percentile interval need not hold the value itself.
    below = [max(0.0, metrics[name] - metrics[f"{name}_low"]) for name in names]
    above = [max(0.0, metrics[f"{name}_high"] - metrics[name]) for name in names]
    axis.errorbar(values, range(len(names)), xerr=[below, above], fmt="o", capsize=3)
    axis.set_yticks(range(len(names)), labels)
