"""The verb search: images + a gallery -> neighbours, with how sure each answer is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vssl.cli.glossary import SIGNED_NOTE
from vssl.cli.index import DISTANCE
from vssl.cli.output import Column, extras, note, say_json, show_table

if TYPE_CHECKING:
    from index.answers.results import SearchResult
    from serve.inference.engine import EmbeddedImage, Engine
    from vssl.errors import ImageError

IMAGES_AT_ONCE = 64
COLUMNS: tuple[Column, ...] = (
    ("", "right"),
    ("id", "left"),
    ("label", "left"),
    ("distance", "right"),
    ("variance score", "right"),
    ("match", "right"),
    ("uncertainty", "right"),
)


def register(app: typer.Typer) -> None:
    """Add this verb to the application."""
    app.command()(search)


def search(
    gallery: Annotated[str, typer.Argument(help="Gallery folder, or milvus:URI#NAME.")],
    images: Annotated[list[str], typer.Argument(help="Images, or folders of images.")],
    *,
    model: Annotated[
        Path | None,
        typer.Option(help="The model.onnx that the gallery was built with; the one of vssl by default."),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Neighbours per image.")] = 10,
    distance: Annotated[str | None, typer.Option(help=f"{DISTANCE}; the gallery's own by default.")] = None,
    max_uncertainty: Annotated[
        float | None, typer.Option(help="Only neighbours at most this uncertain.")
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(help='Only neighbours that fit: JSON such as {"label": "cat"}, or label=cat.'),
    ] = None,
    max_risk: Annotated[
        float | None,
        typer.Option(
            help="Say which answers to abstain from, so that at most this share of the others has a wrong nearest "
            "image; calibrated on the gallery's labelled images."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per image.")] = False,
) -> None:
    """Find the nearest images of a gallery, with how sure each answer is."""
    with extras():
        from index.answers.filters import parse_where
        from index.distances import SIGNED
        from index.gallery.open import open_gallery
        from serve.inference.engine import Engine, stacked
    from vssl.errors import ImageError
    from vssl.model.shipped import shipped_model

    condition = parse_where(where) if where is not None else None
    failed = 0
    with open_gallery(gallery, read_only=True) as opened:
        engine = Engine.open(model or shipped_model())
        opened.check_model(engine.model_id, f"images embedded by {model or shipped_model()}")
        if opened.stale:
            note(f"vssl: constants of the distances: {opened.stale}")
        if max_risk is not None:
            rule = opened.abstention(max_risk, distance)
            note(f"vssl: {rule.describe()}")
        if (distance or opened.distance) in SIGNED and not as_json:
            note(f"vssl: {SIGNED_NOTE.format(name=distance or opened.distance)}")
        for paths, answers in _embedded(images, engine):
            good = [(p, a) for p, a in zip(paths, answers, strict=True) if not isinstance(a, ImageError)]
            found: list[SearchResult] = []
            if good:
                queries = stacked([a for _, a in good])
                found = opened.search(
                    queries,
                    k,
                    distance=distance,
                    max_uncertainty=max_uncertainty,
                    where=condition,
                    max_risk=max_risk,
                )
            results = iter(found)
            for path, answer in zip(paths, answers, strict=True):
                if isinstance(answer, ImageError):
                    failed += 1
                    _say_failure(path, answer, as_json=as_json)
                else:
                    _say_result(path, next(results), as_json=as_json)
    if failed:
        raise typer.Exit(1)


def _embedded(
    specs: Sequence[str], engine: Engine
) -> Iterator[tuple[list[str], list[EmbeddedImage | ImageError]]]:
    """Yield (paths, embedded images or why not), a batch at a time, in the order asked."""
    from vssl.errors import ImageError
    from vssl.images.preprocess import load_image
    from vssl.images.sources import open_source

    sources = [open_source(spec) for spec in specs]
    entries = [(source, row) for source in sources for row in range(len(source.items))]
    for start in range(0, len(entries), IMAGES_AT_ONCE):
        batch = entries[start : start + IMAGES_AT_ONCE]
        pixels: list[Any] = []
        for source, row in batch:
            try:
                pixels.append(load_image(source.read(row), engine.card.preprocess))
            except ImageError as error:
                pixels.append(error)
        yield [source.items[row].path for source, row in batch], engine.embed_pixels(pixels)


def _say_failure(path: str, error: ImageError, *, as_json: bool) -> None:
    if as_json:
        say_json({"query": path, "error": {"code": error.code, "message": str(error)}})
    else:
        note(f"{path}: {error} ({error.code})")


def _say_result(path: str, result: SearchResult, *, as_json: bool) -> None:
    if as_json:
        neighbours = [
            {
                "id": n.id,
                "label": n.label,
                "distance": n.distance,
                "variance_score": n.variance_score,
                "match_probability": n.match_probability,
                "metadata": n.metadata,
            }
            for n in result.neighbours
        ]
        answer: dict[str, Any] = {"query": path, "uncertainty": result.uncertainty}
        if result.abstain is not None:
            answer["abstain"] = result.abstain
        say_json(answer | {"neighbours": neighbours})
        return
    surer = result.uncertainty_percentile
    title = f"{path}: uncertainty {result.uncertainty:.4f}" + (
        f", more than {surer:.0f} % of the gallery" if surer is not None else ""
    )
    if result.abstain:
        title += "; too uncertain to answer"
    rows = [
        (
            str(rank),
            n.id,
            n.label or "",
            f"{n.distance:.4g}",
            f"{n.variance_score:.3f}",
            "" if n.match_probability is None else f"{n.match_probability:.0%}",
            f"{n.uncertainty:.4f}",
        )
        for rank, n in enumerate(result.neighbours, start=1)
    ]
    show_table(title, COLUMNS, rows)
