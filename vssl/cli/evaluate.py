"""The verb evaluate: stored embeddings -> metrics of accuracy, retrieval and uncertainty."""

from __future__ import annotations

import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vssl import __version__
from vssl.cli.output import extras, note, print_table, refuse_existing, say_json
from vssl.files import write_json

if TYPE_CHECKING:
    from rich.table import Table

MEANING = {
    "knn_top1": "class right by a weighted vote of the k nearest",
    "knn_top5": "class among the five of most votes",
    "knn200_top1": "the same vote with k = 200",
    "knn_ece": "calibration error of the vote's confidence",
    "knn_best_top1": "the vote that did best on gallery images, named below",
    "knn_best_ece": "calibration error of its class probabilities",
    "cosine_recall_at_1": "the control: nearest by cosine has the query's class",
    "recall_at_1": "nearest neighbour has the query's class",
    "map_at_r": "precision over the first R ranks, R items of the class",
    "r_auroc": "uncertainty of the query predicts a wrong neighbour (0.5 chance)",
    "r_auroc_norm": "the same by a short mean, which needs no variance",
    "r_auroc_distance": "the same by a far neighbour, known after the search",
    "aurc": "area under risk and coverage, by uncertainty (lower is better)",
    "e_aurc": "its excess over an oracle",
    "ause": "area between sparsification curves (0 perfect)",
    "risk_at_80": "wrong neighbours among the 80 % surest queries",
    "ece": "calibration error of match probability",
    "uncertainty_mean": "of the queries",
    "coverage_uncertainty": "queries answered within --max-risk, by uncertainty",
    "coverage_distance": "the same, by distance",
    "coverage_disagreement": "the same, by how many neighbours have another label than the nearest",
    "coverage_combined": "the same, by all three",
    "coverage_best": "the same, by the score that orders the errors of gallery images best",
    "risk_best": "wrong ones among those answers",
    "ood_auroc": "out-of-distribution images are less sure (0.5 chance)",
    "ood_auroc_knn": "they are farther from their neighbours",
    "ood_auroc_likelihood": "they are less likely among them",
    "ood_auroc_mahalanobis": "they are farther from every class",
    "ood_fpr95": "queries taken for out-of-distribution where 95 % of those are",
    "human_spearman": "rank correlation with the entropy of people's votes",
    "instance_recall_at_1": "a corrupted image finds its original first",
    "hub_max": "queries that share the most frequent neighbour (of ten)",
    "hub_skew": "skewness of how often items are neighbours",
}


def register(app: typer.Typer) -> None:
    """Add `evaluate` and `anomaly` to the application."""
    app.command()(evaluate)


Distance = Annotated[str | None, typer.Option(help="Rank by this distance; the gallery's own otherwise.")]
Ood = Annotated[Path | None, typer.Option(help="Embeddings of images from elsewhere, to be told apart.")]
Corrupted = Annotated[
    list[Path] | None,
    typer.Option(help="Embeddings of a corrupted form of QUERIES (repeatable; blur-1 .. blur-5)."),
]
MaxRisk = Annotated[float | None, typer.Option(help="Share of wrong answers to abstain for, as 0.05.")]
OneClass = Annotated[
    bool, typer.Option("--one-class", help="Take each class of GALLERY in turn as the normal one.")
]


def evaluate(
    gallery: Annotated[str, typer.Argument(help="A gallery, or an embeddings folder.", show_default=False)],
    queries: Annotated[Path, typer.Argument(help="An embeddings folder.", show_default=False)],
    k: Annotated[int, typer.Option("-k", help="Neighbours that vote.", min=1)] = 20,
    distance: Distance = None,
    temperature: Annotated[float, typer.Option(help="Of the vote's weights exp(cos / T).")] = 0.07,
    resamples: Annotated[int, typer.Option(help="Bootstrap resamples of the queries.", min=1)] = 1000,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
    ood: Ood = None,
    corrupted: Corrupted = None,
    human: Annotated[Path | None, typer.Option(help="Votes of people, .npy of counts (n, C).")] = None,
    max_risk: MaxRisk = None,
    compare: Annotated[bool, typer.Option("--compare", help="Measure all twelve distances.")] = False,
    one_class: OneClass = False,
    report: Annotated[Path | None, typer.Option(help="Write the whole report here as JSON.")] = None,
    plots: Annotated[Path | None, typer.Option(help="Draw one page of plots (.png, .pdf, .svg).")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an earlier report or plots.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Measure accuracy, retrieval and uncertainty of QUERIES against GALLERY, with 95 % intervals.

    Queries whose id is in the gallery never count their own image as a neighbour.
    """
    for output in (report, plots):
        if output is not None:
            refuse_existing(output, overwrite=overwrite)
    with extras():
        from index.evaluation.dataset import read_dataset
        from index.evaluation.evaluate import Settings, SideData
        from index.evaluation.evaluate import evaluate as measure

        settings = Settings(k, temperature, distance, resamples, seed, max_risk, compare, one_class)
        side = SideData(
            None if ood is None else read_dataset(ood),
            [read_dataset(path) for path in corrupted or []],
            human,
        )
        values = measure(
            read_dataset(gallery),
            read_dataset(queries),
            settings,
            side,
            progress=lambda step: note(f"vssl: {step}"),
        )
    _write(values, report, plots)
    say_json(values) if as_json else _print(values)


def _write(values: dict[str, Any], report: Path | None, plots: Path | None) -> None:
    """Add when and how the values were measured, and write what was asked for."""
    values |= {
        "command": shlex.join(["vssl", *sys.argv[1:]]),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "vssl_version": __version__,
    }
    if report is not None:
        write_json(report, values)
        note(f"vssl: wrote {report}")
    if plots is not None:
        with extras():
            from index.evaluation.plots import plot

            plot(values, plots)
        note(f"vssl: wrote {plots}")


def _print(values: dict[str, Any]) -> None:
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    counts = values["counts"]
    console.print(
        f"{counts['queries']} queries against {counts['gallery']} images, distance {values['distance']}, "
        f"model {values['model']} ({values['model_id'][:12]})",
        soft_wrap=True,
    )
    if values["leave_one_out"]:
        console.print(f"leave-one-out: {counts['queries_in_gallery']} queries are in the gallery themselves")
    print_table(_table(values["metrics"]))
    if vote := values["chosen"].get("vote"):
        console.print(
            f"best vote: {vote['weighting']} weights of the {vote['k']} nearest at T = {vote['temperature']:.3g}; "
            f"{vote['gain']:+.3f} (standard error {vote['gain_error']:.3f}) over the control on gallery images",
            soft_wrap=True,
        )
    for line in values["notes"]:
        console.print(f"note: {line}", soft_wrap=True)


def _table(metrics: dict[str, float]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title, side in (("metric", "left"), ("value", "right"), ("95 % interval", "left"), ("", "left")):
        # A name that were cut over two lines could not be searched for.
        table.add_column(title, justify=side, overflow="fold", no_wrap=title == "metric")  # type: ignore[arg-type]
    for name in [n for n in metrics if not n.endswith(("_low", "_high"))]:
        low, high = metrics[f"{name}_low"], metrics[f"{name}_high"]
        table.add_row(
            escape(name), _shown(metrics[name]), f"{_shown(low)} .. {_shown(high)}", MEANING.get(name, "")
        )
    return table


def _shown(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.0f}"
