"""The verb evaluate: stored embeddings -> metrics of accuracy, retrieval and uncertainty."""

from __future__ import annotations

import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vssl.cli.glossary import METRICS
from vssl.cli.options import Json, Verbose, named
from vssl.cli.output import note, print_table, refuse_existing, say, say_json
from vssl.files import write_json
from vssl.model.identity import VERSION

if TYPE_CHECKING:
    from rich.table import Table

HEADLINES = (
    "knn_top1",
    "recall_at_1",
    "map_at_r",
    "r_auroc",
    "ece",
    "coverage_best",
    "risk_best",
    "ood_auroc",
    "one_class_knn",
    "human_spearman",
    "instance_recall_at_1",
)
"""What is printed of the metrics that there are, unless all are asked for."""
WITHOUT_LABELS = ("uncertainty_mean", "hub_max", "hub_skew")


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
    gallery: Annotated[
        str, typer.Argument(help="A gallery, or an embeddings folder or file.", show_default=False)
    ],
    queries: Annotated[Path, typer.Argument(help="An embeddings folder or file.", show_default=False)],
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
    report: Annotated[
        Path | None, typer.Option(help="Write the whole report here as JSON.", callback=named())
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Draw one page of plots (.png, .pdf, .svg).", callback=named(".png", ".pdf", ".svg")
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an earlier report or plot.")] = False,
    verbose: Verbose = False,
    as_json: Json = False,
) -> None:
    """Measure accuracy, retrieval and uncertainty of QUERIES against GALLERY, with 95 % intervals.

    Queries whose id is in the gallery never count their own image as a neighbour.
    """
    for output in (report, plot):
        if output is not None:
            refuse_existing(output, overwrite=overwrite)
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
    _write(values, report, plot)
    say_json(values) if as_json else _print(values, verbose=verbose)


def _write(values: dict[str, Any], report: Path | None, plot: Path | None) -> None:
    """Add when and how the values were measured, and write what was asked for."""
    values |= {
        "command": shlex.join(["vssl", *sys.argv[1:]]),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "vssl_version": VERSION,
    }
    if report is not None:
        write_json(report, values)
        note(f"vssl: wrote {report}")
    if plot is not None:
        from index.evaluation.plots import write_plots

        write_plots(values, plot)
        note(f"vssl: wrote {plot}")


def _print(values: dict[str, Any], *, verbose: bool) -> None:
    counts, metrics = values["counts"], values["metrics"]
    say(
        f"{counts['queries']} queries against {counts['gallery']} images, distance {values['distance']}, "
        f"model {values['model']} ({values['model_id'][:12]})"
    )
    if values["leave_one_out"]:
        say(f"leave-one-out: {counts['queries_in_gallery']} queries are in the gallery themselves")
    say(verdict(metrics))
    names = [name for name in metrics if not name.endswith(("_low", "_high"))]
    asked = [name for name in names if name.startswith("uncertainty_increase_rate:")]
    few = [name for name in HEADLINES if name in metrics] + asked
    shown = names if verbose else few or [name for name in WITHOUT_LABELS if name in metrics]
    print_table(_table(metrics, shown))
    if (vote := values["chosen"].get("vote")) and verbose:
        say(
            f"best vote: {vote['weighting']} weights of the {vote['k']} nearest at T = {vote['temperature']:.3g}; "
            f"{vote['gain']:+.3f} (standard error {vote['gain_error']:.3f}) over the control on gallery images"
        )
    for line in values["notes"]:
        say(f"note: {line}")
    if len(shown) < len(names):
        say(f"{len(names) - len(shown)} more metrics: --verbose, or --report report.json")


def verdict(metrics: dict[str, float]) -> str:
    """Return in one sentence how often the nearest image is right, and whether uncertainty knows when not."""
    if "recall_at_1" not in metrics:
        return "verdict: without labels on both sides it is unknown how often the nearest image is right"
    found = "verdict: the nearest image has the query's class for {:.1%} of the queries ({:.1%} .. {:.1%})".format(
        *(metrics[f"recall_at_1{end}"] for end in ("", "_low", "_high"))
    )
    if "r_auroc" not in metrics:
        return f"{found}; none is wrong, or all are, so uncertainty cannot be judged"
    if metrics["r_auroc_low"] > 0.5:
        return f"{found}, and the unsure queries are wrong more often"
    if metrics["r_auroc_high"] < 0.5:
        return f"{found}, but the unsure queries are wrong less often: do not go by uncertainty here"
    return f"{found}; whether the unsure ones are wrong more often cannot be told from so few"


def _table(metrics: dict[str, float], names: list[str]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    titles = (
        ("metric", "left"),
        ("value", "right"),
        ("95 % interval", "left"),
        ("better", "left"),
        ("", "left"),
    )
    for title, side in titles:
        # A name that were cut over two lines could not be searched for.
        table.add_column(title, justify=side, overflow="fold", no_wrap=title == "metric")  # type: ignore[arg-type]
    for name in names:
        low, high = metrics[f"{name}_low"], metrics[f"{name}_high"]
        interval = f"{_shown(low)} .. {_shown(high)}"
        table.add_row(escape(name), _shown(metrics[name]), interval, *METRICS.get(name, ("", "")))
    return table


def _shown(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.0f}"
