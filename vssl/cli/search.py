"""The verb search: images + a gallery -> neighbours, with how sure each answer is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vssl.cli.glossary import SIGNED_NOTE
from vssl.cli.options import DISTANCES, JsonLines, MaxRisk
from vssl.cli.output import Column, note, say_json, show_table

if TYPE_CHECKING:
    from index.answers.results import SearchResult
    from index.gallery.protocol import Gallery
    from vssl.embeddings.batch import Embedded, Failed

COLUMNS: tuple[Column, ...] = (
    ("", "right"),
    ("id", "left"),
    ("label", "left"),
    ("distance", "right"),
    ("variance score", "right"),
    ("match", "right"),
    ("uncertainty", "right"),
)


GalleryPlace = Annotated[str, typer.Argument(help="Gallery folder, or milvus:URI#NAME.")]
Images = Annotated[
    list[str] | None,
    typer.Argument(
        help="Images, folders of images, or embeddings: FILE.npy or FILE.npz.", show_default=False
    ),
]
Ids = Annotated[
    list[str] | None,
    typer.Option("--id", help="Search with an image of the gallery, itself left out; repeatable."),
]
Model = Annotated[
    Path | None,
    typer.Option(help="The model.onnx that the gallery was built with; the one of vssl by default."),
]
Distance = Annotated[str | None, typer.Option(help=f"{DISTANCES}; the gallery's own by default.")]
Where = Annotated[
    str | None, typer.Option(help='Only neighbours that fit: JSON such as {"label": "cat"}, or label=cat.')
]


def search(
    gallery: GalleryPlace,
    images: Images = None,
    *,
    ids: Ids = None,
    model: Model = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Neighbours per image.")] = 10,
    distance: Distance = None,
    max_uncertainty: Annotated[
        float | None, typer.Option(help="Only neighbours at most this uncertain.")
    ] = None,
    where: Where = None,
    max_risk: MaxRisk = None,
    as_json: JsonLines = False,
) -> None:
    """Find the nearest images of a gallery, with how sure each answer is."""
    from index.answers.filters import parse_where
    from index.distances import SIGNED
    from index.gallery.open import open_gallery

    if not images and not ids:
        raise typer.BadParameter("give images, FILE.npy, or --id ID")
    condition = parse_where(where) if where is not None else None
    failed = 0
    with open_gallery(gallery, read_only=True) as opened:
        if opened.stale:
            note(f"vssl: constants of the distances: {opened.stale}")
        if max_risk is not None:
            rule = opened.abstention(max_risk, distance)
            note(f"vssl: {rule.describe()}")
        said = as_json or (distance or opened.distance) not in SIGNED
        for batch, exclude in _queries(opened, images or [], ids or [], model):
            found = opened.search(
                batch.gaussians,
                k,
                distance=distance,
                max_uncertainty=max_uncertainty,
                where=condition,
                exclude=exclude,
                max_risk=max_risk,
            )
            answers = zip(batch.positions.tolist(), batch.paths or batch.names, found, strict=True)
            failed += len(batch.failures)
            if not said:
                note(f"vssl: {SIGNED_NOTE.format(name=distance or opened.distance)}")
                said = True
            _say_batch(list(answers), batch.failures, as_json=as_json)
    if failed:
        raise typer.Exit(1)


def _queries(
    opened: Gallery, specs: Sequence[str], ids: Sequence[str], model: Path | None
) -> Iterator[tuple[Embedded, list[str] | None]]:
    """Yield what is searched with, and the ids that it leaves out: own items, files of embeddings, images."""
    import numpy as np

    from vssl.embeddings.arrays import iter_embeddings
    from vssl.embeddings.batch import Embedded

    for id_ in ids:
        yield Embedded([id_], np.arange(1), opened.get(id_).gaussian, [], opened.model_id), [id_]
    vectors = [spec for spec in specs if Path(spec).suffix in (".npy", ".npz")]
    for spec in vectors:
        for rows, _, model_id in iter_embeddings(Path(spec)):
            opened.check_model(model_id, f"the embeddings of {spec}")
            names = [f"{spec}:{id_}" for id_ in rows.ids]
            yield Embedded(names, np.arange(len(rows)), rows.gaussians, [], model_id), None
    if images := [spec for spec in specs if spec not in vectors]:
        from vssl import api

        encoder = api.load(model)
        opened.check_model(encoder.model_id, f"images embedded by {encoder.engine.source}")
        for spec in images:
            yield from ((batch, None) for batch in encoder.batches(spec))


def _say_batch(
    answers: Sequence[tuple[int, str, SearchResult]], failures: Sequence[Failed], *, as_json: bool
) -> None:
    """Print what was found and what could not be read, in the order asked."""
    found = {position: (path, result) for position, path, result in answers}
    failed = {failure.position: failure for failure in failures}
    for position in sorted({*found, *failed}):
        if position in failed:
            _say_failure(failed[position], as_json=as_json)
        else:
            _say_result(*found[position], as_json=as_json)


def _say_failure(failed: Failed, *, as_json: bool) -> None:
    if as_json:
        say_json({"query": failed.name, "error": {"code": failed.code, "message": failed.message}})
    else:
        note(f"{failed.name}: {failed.message} ({failed.code})")


def _say_result(path: str, result: SearchResult, *, as_json: bool) -> None:
    if as_json:
        say_json({"query": path, **result.to_dict()})
        return
    surer = result.uncertainty_percentile
    title = (path if result.uncertainty is None else f"{path}: uncertainty {result.uncertainty:.4f}") + (
        f", more than {surer:.0f} % of the gallery" if surer is not None else ""
    )
    if result.risk is not None:
        title += f"; riskier than {result.risk:.0%} of its own answers"
    if result.abstain:
        title += "; too uncertain to answer"
    rows = [
        (
            str(rank),
            n.id,
            n.label or "",
            f"{n.distance:.4g}",
            "" if n.variance_score is None else f"{n.variance_score:.3f}",
            "" if n.match_probability is None else f"{n.match_probability:.0%}",
            "" if n.uncertainty is None else f"{n.uncertainty:.4f}",
        )
        for rank, n in enumerate(result.neighbours, start=1)
    ]
    show_table(title, COLUMNS, rows)
