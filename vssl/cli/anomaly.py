"""The verb anomaly: a gallery of normal images + queries -> how anomalous each query is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vssl.cli.options import JsonLines
from vssl.cli.output import Column, say_json, show_table


def anomaly(
    gallery: Annotated[
        str, typer.Argument(help="A gallery, or embeddings, of normal images.", show_default=False)
    ],
    queries: Annotated[Path, typer.Argument(help="An embeddings folder or file.", show_default=False)],
    k: Annotated[int, typer.Option("-k", help="Nearest normal images that are looked at.", min=1)] = 2,
    limit: Annotated[int, typer.Option(help="Show this many of the most anomalous; 0 for all.", min=0)] = 20,
    as_json: JsonLines = False,
) -> None:
    """Score how anomalous each of QUERIES is against GALLERY: by nearness and by likelihood.

    A percentile says how many normal images, each against the others, score lower.
    """
    from index.evaluation.dataset import read_dataset
    from index.evaluation.ood import rank_anomalies

    rows = rank_anomalies(read_dataset(gallery), read_dataset(queries), k=k)
    if as_json:
        for row in rows:
            say_json(row)
        return
    rows = sorted(rows, key=lambda row: (-row["knn_percentile"], -row["knn"]))[: limit or len(rows)]
    digits = {"knn": 4, "knn_percentile": 1, "likelihood": 2, "likelihood_percentile": 1, "uncertainty": 4}
    names = [name for name in digits if name in (rows[0] if rows else digits)]
    columns: list[Column] = [("id", "left"), *((name.rpartition("_")[2], "right") for name in names)]
    cells = ([row["id"], *(f"{row[name]:.{digits[name]}f}" for name in names)] for row in rows)
    show_table("the most anomalous first", columns, cells)
