"""What a gallery was fitted to -> a table for a person: every distance, and which one is used."""

from __future__ import annotations

from typing import Any

from vssl.cli.output import say
from vssl.cli.tables import Column, show_table

COLUMNS: tuple[Column, ...] = (
    ("distance", "left"),
    ("variance times", "right"),
    ("mAP@R", "right"),
    ("95 % interval", "left"),
    ("over cosine", "left"),
    ("recall@1", "right"),
    ("hub max", "right"),
    ("hub skew", "right"),
)


def show_fitting(distance: str, fitting: dict[str, Any]) -> None:
    """Print the facts of `index.calibration.fit.Fitting.facts`, the gallery's own distance marked."""
    rows = []
    for name, figures in fitting["trials"].items():
        quality = ("", "", "", "")
        if "map_at_r" in figures:
            quality = (
                f"{figures['map_at_r']:.3f}",
                f"{figures['low']:.3f} .. {figures['high']:.3f}",
                "" if name == "cosine" else f"{figures['gain']:+.3f} (se {figures['gain_error']:.3f})",
                f"{figures['recall_at_1']:.3f}",
            )
        own = f"{name} *" if name == distance else name
        hubs = str(figures["hub_max"]), f"{figures['hub_skew']:.1f}"
        rows.append((own, f"{figures['alpha']:.4g}", *quality, *hubs))
    show_table(f"* {distance}: {fitting['chosen']}", COLUMNS, rows)
    say(fitting["basis"])
    if fitting.get("stale"):
        say(f"stale: {fitting['stale']}")
