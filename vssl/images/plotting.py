"""How plots look: colours that the colour-blind can tell apart, axes without a box, a word where there is nothing.

The plots themselves are drawn by `train.evaluation.curves` and `index.evaluation.plots`, with matplotlib.
"""

from __future__ import annotations

from typing import Any

COLOURS, GREY = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"), "#6f6f6f"
"""Of Okabe and Ito, which the colour-blind can tell apart."""


def styled(axis: Any) -> Any:
    """Give axes the colours and a pale grid, and take the box away; returns them."""
    axis.set_prop_cycle(color=COLOURS)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25)
    return axis


def say_absent(axis: Any, text: str) -> None:
    """Say in the middle of axes why nothing is drawn there."""
    axis.text(0.5, 0.5, text, ha="center", va="center", transform=axis.transAxes, color=GREY)
