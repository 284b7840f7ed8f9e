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
import tarfile
import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from vssl.cli.output import Column, note, refuse_existing, say, show_table
from vssl.errors import InputError, VsslError
from vssl.model.shipped import shipped_model

DIGITS_SYSTEMS = ("vssl", "untrained", "raw pixels")
PHOTO_SYSTEMS = ("photo encoder", "vssl from scratch", "raw pixels")
"""What is compared, the one that is served first."""

PHOTOS = Path(__file__).with_name("demo_photos.tar")
"""Photos of clothing, CC0 (NOTICE)."""


class StepFailedError(VsslError):
    """A command of the demo failed; its own message stands above."""


def demo(
    images: Annotated[
        Path | None,
        typer.Option(help="Folder of your own images; scikit-learn's handwritten digits otherwise."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Where everything is written.")] = Path("demo"),
    minutes: Annotated[
        float | None,
        typer.Option(help="About how long to train: 2 on your images, the digits' recipe.", min=0.05),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to serve on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to serve on.")] = 3000,
    serve: Annotated[bool, typer.Option(help="End in a serving server.")] = True,
    overwrite: Annotated[bool, typer.Option(help="Replace an earlier demo in --out.")] = False,
) -> None:
    """Train, export, extract, index, evaluate and serve real images, end to end.

    Your own images are searched through the photo encoder that comes with vssl, and training from scratch is
    compared with it. Without images, training is shown on handwritten digits, and the server that it ends in
    searches photos.
    """
    refuse_existing(out, overwrite=overwrite)
    if out.exists():
        if not (out / "demo.json").exists():
            raise InputError(f"{out} is not the folder of an earlier demo; choose another --out")
        shutil.rmtree(out)
    out.mkdir(parents=True)
    (out / "demo.json").write_text(json.dumps({"images": str(images) if images else "digits"}) + "\n")
    started = time.monotonic()
    systems = PHOTO_SYSTEMS if images else DIGITS_SYSTEMS
    _prepare(images, out)
    recipe = "folder" if images else "digits"
    # The digits' recipe is short and known to be enough; any other folder gets a fixed time.
    models = _models(out, systems, recipe, minutes or (2.0 if images else None))
    _extract_and_index(out, models)
    metrics = _evaluate(out, systems)
    _report(out, metrics, images is None)
    note(f"\n{time.monotonic() - started:.0f} s from images to gallery")
    model, gallery, query = models[systems[0]], out / "gallery", out / "queries.jsonl"
    if images is None:
        model, gallery, query = _photos(out)
    if serve:
        _serve(model, gallery, query, host, port)


def _vssl(*words: str | Path | float, quiet: bool = False) -> None:
    """Print a `vssl` command and run it; a quiet one prints only when it fails."""
    shown = shlex.join(["vssl", *map(str, words)])
    sys.stdout.flush()  # in a file or a pipe, what was said before stands before what the command prints
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
    corrupted = demo_images.write_corrupted(source, queries, out / "corrupted", out / "corrupted.jsonl")
    note(
        f"{len(gallery)} images to train on and search, {len(queries)} held out as queries, and {corrupted} copies of "
        "those turned, shifted, scaled and made noisy"
    )


def _models(out: Path, systems: tuple[str, ...], recipe: str, minutes: float | None) -> dict[str, Path]:
    """Make the models that are compared; returns their files by system, raw pixels having none."""
    source = f"list:{out / 'gallery.jsonl'}"
    limit = () if minutes is None else ("--minutes", minutes)
    trained, untrained = out / "model.onnx", out / "untrained.onnx"
    if systems == PHOTO_SYSTEMS:
        note("\nVSSL trained from scratch, to compare the photo encoder with:")
    _vssl("train", source, "--out", out / "run", "--recipe", recipe, *limit)
    _vssl("export", out / "run", trained)
    if systems == PHOTO_SYSTEMS:
        return {systems[0]: shipped_model(), systems[1]: trained}
    note("\nThe same network before training, to compare with:")
    _vssl("train", source, "--out", out / "run-untrained", "--recipe", recipe, "--epochs", 0, quiet=True)
    _vssl("export", out / "run-untrained", untrained, quiet=True)
    return {systems[0]: trained, systems[1]: untrained}


def _extract_and_index(out: Path, models: dict[str, Path]) -> None:
    from vssl.cli import demo_images

    first = next(iter(models))
    for system, model in models.items():
        for name in ("gallery", "queries", "corrupted"):
            target = out / "embeddings" / system / name
            _vssl("extract", f"list:{out / name}.jsonl", target, "--model", model, quiet=system != first)
    note("\nRaw pixels, to compare with:")
    demo_images.write_raw_pixels(out, out / "embeddings" / list(models)[-1] / "gallery")
    for system in (*models, "raw pixels"):
        folder = out / "embeddings" / system
        _vssl(
            "index", folder / "gallery", _gallery(out, system), "--distance", "cosine", quiet=system != first
        )


def _gallery(out: Path, system: str) -> Path:
    is_first = system in (DIGITS_SYSTEMS[0], PHOTO_SYSTEMS[0])
    return out / ("gallery" if is_first else f"gallery-{system.replace(' ', '-')}")


def _evaluate(out: Path, systems: tuple[str, ...]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return metrics by system and query set; the galleries end up holding every image."""
    metrics: dict[str, dict[str, dict[str, Any]]] = {}
    for system in systems:
        folder, gallery = out / "embeddings" / system, _gallery(out, system)
        reports = out / "reports" / system
        reports.mkdir(parents=True)
        metrics[system] = {}
        for queries in ("queries", "corrupted"):
            path = reports / f"{queries}.json"
            _vssl("evaluate", gallery, folder / queries, "--report", path, quiet=True)
            metrics[system][queries] = json.loads(path.read_text())["metrics"]
        _vssl("gallery", "add", gallery, folder / "queries", quiet=True)
        for name, asked in (("copies", folder / "corrupted"), ("all", gallery)):
            path = reports / f"{name}.json"
            _vssl("evaluate", gallery, asked, "--report", path, quiet=True)
            metrics[system][name] = json.loads(path.read_text())["metrics"]
    return metrics


def _report(out: Path, metrics: dict[str, dict[str, dict[str, Any]]], digits: bool) -> None:
    from vssl.cli import demo_sheet

    rows = []
    columns = {
        "k-NN\nclean": ("queries", "knn_top1"),
        "k-NN\ncorrupted": ("corrupted", "knn_top1"),
        "k-NN\nall": ("all", "knn_top1"),
        "copy finds\noriginal": ("copies", "instance_recall_at_1"),
        "R-AUROC\nclean": ("queries", "r_auroc"),
        "R-AUROC\ncorrupted": ("corrupted", "r_auroc"),
    }
    for system in metrics:
        values = [metrics[system][queries].get(name) for queries, name in columns.values()]
        if system == "raw pixels":
            values[4:] = [None, None]  # pixels have no variance to order by
        rows.append((system, *("-" if v is None else f"{v:.3f}" for v in values)))
    titles: list[Column] = [("", "left"), *((title, "right") for title in columns)]
    say()
    show_table("Held-out queries, and all images", titles, rows)
    say(
        "k-NN: share of queries whose label a vote of 20 neighbours gets right; all: each image among all the others,\n"
        "which an encoder trained here has seen most of, without labels. copy finds original: share of corrupted\n"
        "copies whose nearest image of all is their original. R-AUROC: how well the uncertainty alone tells wrong\n"
        "nearest neighbours from right ones (0.5 is chance).\n"
    )
    embeddings = out / "embeddings" / next(iter(metrics))
    share, clean, corrupted, pairs = demo_sheet.corrupted_is_less_sure(embeddings)
    say(
        f"The uncertainty puts the corrupted copy above the clean original for {share:.0%} of {pairs} images "
        f"(mean uncertainty {clean:.4f} clean, {corrupted:.4f} corrupted)."
    )
    summary = {"metrics": metrics, "corrupted_above_clean": share, "pairs": pairs}
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    _say_failures(embeddings)
    say(f"Contact sheet: {demo_sheet.write_sheet(out, embeddings, digits=digits)}")


def _say_failures(embeddings: Path, names: tuple[str, ...] = ("gallery", "queries")) -> None:
    from vssl.embeddings import store

    failures = [failure for name in names for failure in store.read_failures(embeddings / name)]
    if not failures:
        return
    say(f"\n{len(failures)} files could not be read:")
    for failure in failures[:12]:
        say(f"  {failure.path}: {failure.reason}")
    if len(failures) > 12:
        counts = ", ".join(f"{n} {code}" for code, n in Counter(f.error for f in failures).most_common())
        say(f"  ... in all {counts}; every one is in {embeddings}/*/failures.parquet")


def _photos(out: Path) -> tuple[Path, Path, Path]:
    """Index the photos that come with vssl; returns the photo encoder, the gallery and a list of its photos."""
    folder, gallery, model = out / "photos" / "images", out / "photos" / "gallery", shipped_model()
    note("\nPhotos, through the photo encoder that comes with vssl:")
    with tarfile.open(PHOTOS) as archive:
        archive.extractall(folder, filter="data")
    (folder / "not-a-photo.jpg").write_bytes(b"what a camera did not finish writing")
    embeddings = out / "photos" / "embeddings"
    _vssl("extract", folder, embeddings, "--model", model)
    _vssl("index", embeddings, gallery, "--distance", "cosine")
    _say_failures(out / "photos", ("embeddings",))
    _vssl("gallery", "uncertain", gallery, "-n", 5)
    listed = out / "photos" / "photos.jsonl"
    first = min(path for path in folder.rglob("*.jpg") if path.name != "not-a-photo.jpg")
    listed.write_text(json.dumps({"path": str(first)}) + "\n")
    return model, gallery, listed


def _serve(model: Path, gallery: Path, queries: Path, host: str, port: int) -> None:
    _vssl("gallery", "map", gallery)
    address = f"http://{host}:{port}"
    example = json.loads(queries.read_text().splitlines()[0])["path"]
    say(f"\nOpen {address}/ui in a browser, or try in another terminal:\n")
    say(f"  curl --data-binary @{shlex.quote(example)} {address}/embed")
    say(f"  curl --data-binary @{shlex.quote(example)} '{address}/search?k=5'\n")
    say("Ctrl-C stops the server.")
    listen = ("--host", host, "--port", port)
    _vssl("serve", "--model", model, "--gallery", gallery, "--show-images", *listen)
