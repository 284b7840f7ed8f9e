"""A run's metrics.jsonl -> RUN/curves.png: plots of loss, accuracy, uncertainty and rates.

Needs matplotlib.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from train.state.checkpoint import load_checkpoint
from train.state.metrics_log import read_metrics
from vssl.errors import InputError
from vssl.images.plotting import COLOURS, GREY, say_absent, styled

CURVES_NAME = "curves.png"
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Panel:
    """One plot: figures of the log by name, each with its label.

    missing: the text where none was logged; level: a dotted line at a value, with its label. from_zero: the axis
    begins at 0; highest: the legend gives the highest value, instead of the last.
    """

    title: str
    missing: str
    figures: Mapping[str, str]
    level: tuple[float, str] | None = None
    from_zero: bool = False
    highest: bool = False


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
    for axis, panel in zip(axes.ravel(), _panels(rows), strict=True):
        axis.margins(y=0.12)
        _draw(styled(axis), panel, rows)
    for axis in axes[1]:
        axis.set_xlabel("epoch")
    figure.suptitle(_title(run, rows), fontsize=11)
    path = run / CURVES_NAME
    figure.savefig(path, dpi=110)
    return path


def _panels(rows: Rows) -> list[Panel]:
    """Return the six plots of a run, row by row."""
    untrained = rows[0].get("knn_top1") if rows[0]["epoch"] == 0 else None
    level = None if untrained is None else (untrained, "k-NN, untrained")
    figures = {"knn_top1": "k-NN", "linear_top1": "linear"}
    accuracy = Panel("accuracy on held-out images", "not evaluated", figures, level)
    if not any(_series(rows, name)[1] for name in figures):
        accuracy = Panel("view recall on held-out images", "not evaluated", {"view_recall": "view recall"})
    informative = {"r_auroc": "variance head", "r_auroc_views": "spread over views"}
    spreads = {
        "spread_features": "features",
        "spread_mean": "means",
        "variance_spread": "variance over images",
    }
    ranks = {"rank_features": "features", "rank_mean": "means"}
    return [
        Panel("loss", "not trained", {"loss": "loss"}),
        accuracy,
        Panel("R-AUROC on held-out images", "needs labels", informative, (0.5, "chance")),
        Panel("learning rate", "not trained", {"learning_rate": "highest"}, from_zero=True, highest=True),
        Panel("spread of codes (0 = collapsed)", "not evaluated", spreads, from_zero=True),
        Panel("effective rank", "not evaluated", ranks, from_zero=True),
    ]


def _series(rows: Rows, name: str) -> tuple[list[int], list[float]]:
    """Return the epochs at which a figure was logged, and the figure."""
    found = [(row["epoch"], row[name]) for row in rows if row.get(name) is not None]
    return [epoch for epoch, _ in found], [value for _, value in found]


def _draw(axis: Any, panel: Panel, rows: Rows) -> None:
    axis.set_title(panel.title)
    for (name, label), colour in zip(panel.figures.items(), COLOURS, strict=False):
        epochs, values = _series(rows, name)
        if values:
            shown = max(values) if panel.highest else values[-1]
            marker = "o" if len(values) < 30 and not panel.highest else None
            axis.plot(epochs, values, color=colour, marker=marker, markersize=3, label=f"{label} {shown:.3g}")
    if not axis.lines:
        say_absent(axis, panel.missing)
        axis.set(xticks=[], yticks=[])
        return
    if panel.level is not None:
        value, label = panel.level
        axis.axhline(value, color=GREY, linewidth=0.8, linestyle=":", label=label)
    if panel.from_zero:
        axis.set_ylim(bottom=0)
    if panel.highest:
        axis.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    axis.legend(frameon=False, fontsize=8)


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
