"""`vssl demo`: the whole pipeline on real images, by the same commands a person would type.

Every step is a `vssl` command in a process of its own, printed before it runs, so the demo is
also the tutorial; only the comparison table and the contact sheet are made here.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from vssl.cli.output import extras, note, refuse_existing, say
from vssl.errors import InputError, VsslError

SYSTEMS = ("vssl", "untrained", "raw pixels")


class StepFailedError(VsslError):
    """A command of the demo failed; its own message stands above."""


def register(app: typer.Typer) -> None:
    """Add `demo` to the application."""
    app.command()(demo)


def demo(
    images: Annotated[
        Path | None,
        typer.Option(help="Folder of your own images; scikit-learn's handwritten digits otherwise."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Where everything is written.")] = Path("demo"),
    minutes: Annotated[
        float | None,
        typer.Option(help="About how long to train: 2.75 on your images, the digits' recipe.", min=0.05),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to serve on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to serve on.")] = 3000,
    serve: Annotated[bool, typer.Option(help="End in a serving server.")] = True,
    overwrite: Annotated[bool, typer.Option(help="Replace an earlier demo in --out.")] = False,
) -> None:
    """Train, export, extract, index, evaluate and serve a real image folder, end to end."""
    refuse_existing(out, overwrite=overwrite)
    if out.exists():
        if not (out / "demo.json").exists():
            raise InputError(f"{out} is not the folder of an earlier demo; choose another --out")
        shutil.rmtree(out)
    out.mkdir(parents=True)
    (out / "demo.json").write_text(json.dumps({"images": str(images) if images else "digits"}) + "\n")
    started = time.monotonic()
    with extras():
        _prepare(images, out)
        recipe = "folder" if images else "digits"
        # The digits' recipe is short and known to be enough; any other folder gets a fixed time.
        _train_and_export(out, recipe, minutes or (2.75 if images else None))
        _extract_and_index(out)
        metrics = _evaluate(out)
    _report(out, metrics, images is None)
    note(f"\n{time.monotonic() - started:.0f} s from images to gallery")
    if serve:
        _serve(out, host, port)


def _vssl(*words: str | Path | float, quiet: bool = False) -> None:
    """Print a `vssl` command and run it; a quiet one speaks only when it fails."""
    shown = shlex.join(["vssl", *map(str, words)])
    note(f"\n\033[1m$ {shown}\033[0m" if sys.stderr.isatty() else f"\n$ {shown}")
    command = [sys.executable, "-m", "vssl", *map(str, words)]
    done = subprocess.run(command, capture_output=quiet, text=True, check=False)
    if done.returncode:
        if quiet:
            note(done.stderr)
        raise StepFailedError(
            f"the demo stopped: `{shown}` exited with {done.returncode}; its message stands above"
        )


def _prepare(images: Path | None, out: Path) -> None:
    from vssl.cli import demo_images
    from vssl.images.sources import open_source

    if images is None:
        folder = out / "images"
        count = demo_images.write_digits(folder)
        note(f"{count} handwritten digits (scikit-learn's own copy, no download) written to {folder}")
    else:
        folder = images
    source = open_source(folder)
    held_out = [demo_images.is_held_out(item.id) for item in source.items]
    gallery = [row for row, held in enumerate(held_out) if not held]
    queries = [row for row, held in enumerate(held_out) if held]
    if not gallery or not queries:
        raise InputError(
            f"{folder}: found {len(source.items)} files, too few to hold one in five out; expected 20 or more"
        )
    demo_images.write_list(source, gallery, out / "gallery.jsonl")
    demo_images.write_list(source, queries, out / "queries.jsonl")
    disturbed = demo_images.write_disturbed(source, queries, out / "disturbed", out / "disturbed.jsonl")
    note(
        f"{len(gallery)} images to train on and search, {len(queries)} held out as queries, and {disturbed} copies of "
        "those turned, shifted, scaled and made noisy"
    )


def _train_and_export(out: Path, recipe: str, minutes: float | None) -> None:
    source = f"list:{out / 'gallery.jsonl'}"
    limit = () if minutes is None else ("--minutes", minutes)
    _vssl("train", source, "--out", out / "run", "--recipe", recipe, *limit)
    _vssl("export", out / "run", out / "model.onnx")
    note("\nThe same network before training, to compare with:")
    _vssl("train", source, "--out", out / "run-untrained", "--recipe", recipe, "--epochs", 0, quiet=True)
    _vssl("export", out / "run-untrained", out / "untrained.onnx", quiet=True)


def _extract_and_index(out: Path) -> None:
    for system, model in (("vssl", "model.onnx"), ("untrained", "untrained.onnx")):
        for name in ("gallery", "queries", "disturbed"):
            target = out / "embeddings" / system / name
            _vssl(
                "extract", f"list:{out / name}.jsonl", target, "--model", out / model, quiet=system != "vssl"
            )
    note("\nRaw pixels, to compare with:")
    _raw_pixels(out)
    for system in SYSTEMS:
        folder, gallery = out / "embeddings" / system, _gallery(out, system)
        _vssl("index", folder / "gallery", gallery, "--distance", "cosine", quiet=system != "vssl")


def _gallery(out: Path, system: str) -> Path:
    return out / ("gallery" if system == "vssl" else f"gallery-{system.replace(' ', '-')}")


def _raw_pixels(out: Path) -> None:
    """Write the pictures' pixels as embeddings of a model that only resizes."""
    import numpy as np

    from vssl.embeddings import store
    from vssl.embeddings.gaussian import GaussianEmbedding
    from vssl.embeddings.manifest import write_manifest
    from vssl.errors import ImageError
    from vssl.images.preprocess import load_image
    from vssl.images.sources import open_source
    from vssl.model.card import ModelCard
    from vssl.model.identity import sha256_bytes

    _, model_card, _ = next(store.iter_parts(out / "embeddings" / "vssl" / "gallery"))
    preprocess = model_card.preprocess
    dim = preprocess.size**2 * 3
    card = ModelCard("raw pixels", "none", "none", "features", dim, dim, preprocess)
    model_id = sha256_bytes(card.to_json().encode())
    for name in ("gallery", "queries", "disturbed"):
        source = open_source(f"list:{out / name}.jsonl")
        items, pixels = [], []
        for row, item in enumerate(source.items):
            try:
                pixels.append(load_image(source.read(row), preprocess).reshape(-1))
            except ImageError:
                continue  # the extraction reported it
            items.append(item)
        mean = np.stack(pixels).astype(np.float32) / 255 + np.float32(1e-6)
        rows = store.Rows(
            [i.id for i in items],
            [i.path for i in items],
            [i.label for i in items],
            GaussianEmbedding.from_lists(mean, np.full_like(mean, 1e-6)),
        )
        folder = out / "embeddings" / "raw pixels" / name
        folder.mkdir(parents=True)
        store.write_table(store.to_table(rows, card, model_id), folder / store.part_name(0))
        store.write_failures([], folder)
        write_manifest(folder, model_id=model_id, parts=[store.part_name(0)], rows=len(rows), failures=0)


def _evaluate(out: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Return metrics by system and query set; the galleries end up holding every image."""
    metrics: dict[str, dict[str, dict[str, Any]]] = {}
    for system in SYSTEMS:
        folder, gallery = out / "embeddings" / system, _gallery(out, system)
        reports = out / "reports" / system
        reports.mkdir(parents=True)
        metrics[system] = {}
        for queries in ("queries", "disturbed"):
            path = reports / f"{queries}.json"
            _vssl("evaluate", gallery, folder / queries, "--report", path, quiet=True)
            metrics[system][queries] = json.loads(path.read_text())["metrics"]
        _vssl("gallery", "add", gallery, folder / "queries", quiet=True)
        path = reports / "copies.json"
        _vssl("evaluate", gallery, folder / "disturbed", "--report", path, quiet=True)
        metrics[system]["copies"] = json.loads(path.read_text())["metrics"]
    return metrics


def _report(out: Path, metrics: dict[str, dict[str, dict[str, Any]]], digits: bool) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from vssl.cli import demo_sheet

    table = Table(title="Held-out queries", title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    table.add_column("")
    columns = {
        "k-NN\nclean": ("queries", "knn_top1"),
        "k-NN\ndisturbed": ("disturbed", "knn_top1"),
        "copy finds\noriginal": ("copies", "instance_recall_at_1"),
        "R-AUROC\nclean": ("queries", "r_auroc"),
        "R-AUROC\ndisturbed": ("disturbed", "r_auroc"),
    }
    for title in columns:
        table.add_column(title, justify="right")
    for system in SYSTEMS:
        values = [metrics[system][queries].get(name) for queries, name in columns.values()]
        if system == "raw pixels":
            values[3:] = [None, None]  # pixels have no variance to order by
        table.add_row(system, *("-" if v is None else f"{v:.3f}" for v in values))
    console = Console()
    console.print()
    console.print(table)
    say(
        "k-NN: share of queries whose label a vote of 20 neighbours gets right. copy finds original: share of\n"
        "disturbed copies whose nearest image of all is their original. R-AUROC: how well the uncertainty alone\n"
        "tells wrong nearest neighbours from right ones (0.5 is chance).\n"
    )
    share, clean, disturbed, pairs = demo_sheet.disturbed_is_less_sure(out)
    say(
        f"The variance puts the disturbed copy above the clean original for {share:.0%} of {pairs} images "
        f"(mean uncertainty {clean:.4f} clean, {disturbed:.4f} disturbed)."
    )
    summary = {"metrics": metrics, "disturbed_above_clean": share, "pairs": pairs}
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    _say_failures(out)
    say(f"Contact sheet: {demo_sheet.write_sheet(out, digits=digits)}")


def _say_failures(out: Path) -> None:
    from vssl.embeddings import store

    failures = [
        failure
        for name in ("gallery", "queries")
        for failure in store.read_failures(out / "embeddings" / "vssl" / name)
    ]
    if not failures:
        return
    say(f"\n{len(failures)} files could not be read:")
    for failure in failures[:12]:
        say(f"  {failure.path}: {failure.reason}")
    if len(failures) > 12:
        counts = ", ".join(f"{n} {code}" for code, n in Counter(f.error for f in failures).most_common())
        say(f"  ... in all {counts}; every one is in {out}/embeddings/vssl/*/failures.parquet")


def _serve(out: Path, host: str, port: int) -> None:
    address = f"http://{host}:{port}"
    example = json.loads((out / "queries.jsonl").read_text().splitlines()[0])["path"]
    say(f"\nOpen {address}/ui in a browser, or try in another terminal:\n")
    say(f"  curl --data-binary @{shlex.quote(example)} {address}/embed")
    say(f"  curl --data-binary @{shlex.quote(example)} '{address}/search?k=5'\n")
    say("Ctrl-C stops the server.")
    sys.stdout.flush()
    _vssl(
        "serve",
        "--model",
        out / "model.onnx",
        "--gallery",
        out / "gallery",
        "--show-images",
        "--host",
        host,
        "--port",
        port,
    )
