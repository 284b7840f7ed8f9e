"""The verb anomaly: a gallery of normal images + queries -> how anomalous each query is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vssl.cli.output import extras, print_table, say_json


def register(app: typer.Typer) -> None:
    """Add this verb to the application."""
    app.command()(anomaly)


def anomaly(
    gallery: Annotated[
        str, typer.Argument(help="A gallery, or embeddings, of normal images.", show_default=False)
    ],
    queries: Annotated[Path, typer.Argument(help="An embeddings folder.", show_default=False)],
    k: Annotated[int, typer.Option("-k", help="Nearest normal images that are looked at.", min=1)] = 2,
    limit: Annotated[int, typer.Option(help="Show this many of the most anomalous; 0 for all.", min=0)] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a query, in their order.")] = False,
) -> None:
    """Score how anomalous each of QUERIES is against GALLERY: by nearness and by likelihood.

    A percentile says how many normal images, each against the others, score lower.
    """
    with extras():
        from index.evaluation.dataset import read_dataset
        from index.evaluation.ood import rank_anomalies

        rows = rank_anomalies(read_dataset(gallery), read_dataset(queries), k=k)
    if as_json:
        for row in rows:
            say_json(row)
        return
    from rich.markup import escape
    from rich.table import Table

    rows = sorted(rows, key=lambda row: (-row["knn_percentile"], -row["knn"]))
    table = Table(box=None, pad_edge=False)
    for title in ("id", "knn", "percentile", "likelihood", "percentile", "uncertainty"):
        table.add_column(title, justify="left" if title == "id" else "right", overflow="fold")
    for row in rows[: limit or len(rows)]:
        table.add_row(
            escape(row["id"]),
            f"{row['knn']:.4f}",
            f"{row['knn_percentile']:.1f}",
            f"{row['likelihood']:.2f}",
            f"{row['likelihood_percentile']:.1f}",
            f"{row['uncertainty']:.4f}",
        )
    print_table(table)
