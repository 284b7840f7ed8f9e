"""A run's metrics.jsonl -> RUN/curves.png: plots of loss, accuracy, uncertainty and rates.

Needs matplotlib.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from train.state.checkpoint import load_checkpoint
from train.state.metrics_log import read_metrics
from vssl.errors import InputError

CURVES_NAME = "curves.png"
Rows = Sequence[Mapping[str, Any]]

BLUE, ORANGE, GREEN, GREY = "#2166ac", "#d6604d", "#1b7837", "#8a8a8a"


def plot_curves(run: Path) -> Path:
    """Draw a run's curves into its folder and return the picture's path.

    Raises InputError when the run has no metrics.
    """
    rows = read_metrics(run)
    if not rows:
        raise InputError(f"no metrics in {str(run)!r}; expected the folder of a training run")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.0, 6.4), layout="constrained")
    axes = figure.subplots(2, 3)
    for axis in axes.ravel():
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
        axis.margins(y=0.12)
    _loss(axes[0, 0], rows)
    _accuracy(axes[0, 1], rows)
    _informativeness(axes[0, 2], rows)
    _rates(axes[1, 0], rows)
    _spreads(axes[1, 1], rows)
    _rank(axes[1, 2], rows)
    for axis in axes[1]:
        axis.set_xlabel("epoch")
    figure.suptitle(_title(run, rows), fontsize=11)
    path = run / CURVES_NAME
    figure.savefig(path, dpi=110)
    return path


def _series(rows: Rows, name: str) -> tuple[list[int], list[float]]:
    """Return the epochs at which a figure was logged, and the figure."""
    found = [(row["epoch"], row[name]) for row in rows if row.get(name) is not None]
    return [epoch for epoch, _ in found], [value for _, value in found]


def _line(axis: Any, rows: Rows, name: str, label: str, colour: str, style: str = "-") -> bool:
    """Draw one figure, with its last value in the legend, if it was ever logged."""
    epochs, values = _series(rows, name)
    if not values:
        return False
    marker = "o" if len(values) < 30 else None
    axis.plot(
        epochs, values, style, color=colour, marker=marker, markersize=3, label=f"{label} {values[-1]:.3g}"
    )
    return True


def _finish(axis: Any, drawn: Sequence[bool], missing: str) -> None:
    if any(drawn):
        axis.legend(frameon=False, fontsize=8)
    else:
        axis.text(0.5, 0.5, missing, ha="center", va="center", transform=axis.transAxes, color=GREY)
        axis.set(xticks=[], yticks=[])


def _loss(axis: Any, rows: Rows) -> None:
    axis.set_title("loss")
    drawn = [_line(axis, rows, "loss", "loss", BLUE)]
    _finish(axis, drawn, "not trained")


def _accuracy(axis: Any, rows: Rows) -> None:
    axis.set_title("accuracy on held-out images")
    drawn = [
        _line(axis, rows, "knn_top1", "k-NN", BLUE),
        _line(axis, rows, "linear_top1", "linear", ORANGE),
    ]
    untrained = rows[0].get("knn_top1") if rows[0]["epoch"] == 0 else None
    if untrained is not None:
        axis.axhline(untrained, color=GREY, linewidth=0.8, linestyle=":", label="k-NN, untrained")
    if not any(drawn):
        axis.set_title("view recall on held-out images")
        drawn = [_line(axis, rows, "view_recall", "view recall", BLUE)]
    _finish(axis, drawn, "not evaluated")


def _informativeness(axis: Any, rows: Rows) -> None:
    axis.set_title("R-AUROC on held-out images")
    drawn = [
        _line(axis, rows, "r_auroc", "variance head", BLUE),
        _line(axis, rows, "r_auroc_views", "spread over views", ORANGE),
    ]
    if any(drawn):
        axis.axhline(0.5, color=GREY, linewidth=0.8, linestyle=":", label="chance")
    _finish(axis, drawn, "needs labels")


def _rates(axis: Any, rows: Rows) -> None:
    axis.set_title("learning rate")
    epochs, values = _series(rows, "learning_rate")
    if values:
        axis.plot(epochs, values, color=BLUE, label=f"highest {max(values):.3g}")
        axis.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
        axis.set_ylim(bottom=0)
    _finish(axis, [bool(values)], "not trained")


def _spreads(axis: Any, rows: Rows) -> None:
    axis.set_title("spread of codes (0 = collapsed)")
    drawn = [
        _line(axis, rows, "spread_features", "features", BLUE),
        _line(axis, rows, "spread_mean", "means", ORANGE),
        _line(axis, rows, "variance_spread", "variance over images", GREEN),
    ]
    axis.set_ylim(bottom=0)
    _finish(axis, drawn, "not evaluated")


def _rank(axis: Any, rows: Rows) -> None:
    axis.set_title("effective rank")
    drawn = [
        _line(axis, rows, "rank_features", "features", BLUE),
        _line(axis, rows, "rank_mean", "means", ORANGE),
    ]
    axis.set_ylim(bottom=0)
    _finish(axis, drawn, "not evaluated")


def _title(run: Path, rows: Rows) -> str:
    """Say which run it is, and how long it has been going."""
    try:
        config = load_checkpoint(run).config
        name = f"{config.method}, recipe {config.recipe}, seed {config.seed}"
    except InputError:  # stopped before its first checkpoint
        name = str(run)
    seconds = rows[-1].get("seconds")
    length = ""
    if seconds:
        length = f", {seconds:.0f} s" if seconds < 120 else f", {seconds / 60:.0f} minutes"
    return f"{name}: {rows[-1]['epoch']} epochs{length}"
