"""The verb index: an embeddings folder or file -> a gallery, its distances fitted to it."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from vssl.cli.extract import stoppable
from vssl.cli.options import DISTANCES, Json, Metadata, Verbose
from vssl.cli.output import note, say, say_json, show_fitting

OwnDistance = Annotated[
    str,
    typer.Option(
        help=f"The gallery's own distance: {DISTANCES}; or best, the one that ranks held-out labelled images best."
    ),
]
BudgetText = Annotated[
    str | None,
    typer.Option(help="Choose the index by measuring: memory=2GB,latency=5ms,recall=0.95, any of the three."),
]


def index(
    embeddings: Annotated[
        Path,
        typer.Argument(help="Folder written by vssl extract, or FILE.npy, .npz or .parquet of another tool."),
    ],
    gallery: Annotated[Path, typer.Argument(help="Gallery folder to write.")],
    distance: OwnDistance = "best",
    normalise: Annotated[
        bool, typer.Option("--normalise/--no-normalise", help="Compare means of length one.")
    ] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the gallery there.")] = False,
    budget: BudgetText = None,
    metadata: Metadata = None,
    verbose: Verbose = False,
    as_json: Json = False,
) -> None:
    """Build a gallery from an embeddings folder or file, and fit its distances to it.

    With labels the distances are compared on held-out images, cosine always among them.
    """
    from index.gallery.folder.build import build_gallery
    from index.search.autotune import Budget, describe

    limits = Budget.parse(budget) if budget is not None else None
    with stoppable("what was there before stays"):
        built = build_gallery(
            embeddings, gallery, distance=distance, normalise=normalise, overwrite=overwrite, budget=limits,
            metadata=metadata,
        )  # fmt: skip
    if built.unmatched:
        note(built.unmatched)
    selection = built.selection
    for tried in selection.tried if selection is not None else ():
        note(f"tried {describe(tried)}")
    if as_json:
        found = {"gallery": str(gallery), "images": built.count, "distance": built.fitting.distance}
        measured = None if selection is None else asdict(selection.measured)
        say_json({**found, "fitting": built.fitting.facts(), "index": measured})
        return
    say(f"{gallery}: {built.count} images, distance {built.fitting.distance}")
    show_fitting(gallery, built.fitting.distance, built.fitting.facts(), verbose=verbose)
    if selection is not None:
        say(f"index: {describe(selection.measured)}")
    if embeddings.is_dir():
        note(f"search it with: {search_command(embeddings, gallery)}")


def search_command(embeddings: Path, gallery: Path) -> str:
    """Return a search that runs as it is printed, where the model and the first image are found."""
    from vssl.embeddings.manifest import read_file, read_manifest
    from vssl.model.shipped import find_model, shipped_model

    manifest = read_manifest(embeddings)
    paths = read_file(embeddings, manifest, manifest["parts"][0], ["path"]).column("path")
    image = str(paths[0]) if len(paths) and Path(str(paths[0])).is_file() else "IMAGE"
    model = find_model(manifest["model_id"], (Path(), embeddings.parent, gallery.parent))
    words = ["vssl", "search", str(gallery), image]
    if model != shipped_model():
        words += ["--model", str(model or f"MODEL-{manifest['model_id'][:12]}.onnx")]
    return shlex.join(words)
