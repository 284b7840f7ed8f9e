"""The verbs of `vssl gallery`: look at a gallery and change it."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vssl.cli import curation
from vssl.cli.options import Json, Metadata, Verbose
from vssl.cli.output import note, say, say_json, show_fitting
from vssl.errors import InputError, shown

if TYPE_CHECKING:
    from index.gallery.protocol import Gallery

app = typer.Typer(help="Look at a gallery and change it.", no_args_is_help=True)
for verb in (curation.duplicates, curation.uncertain, curation.outliers, curation.suspects, curation.select):
    app.command()(verb)
GALLERY = Annotated[str, typer.Argument(help="Gallery folder, or milvus:URI#NAME.")]
FOLDER = Annotated[Path, typer.Argument(help="Gallery folder.")]


@app.command()
def info(
    gallery: GALLERY,
    verbose: Verbose = False,
    as_json: Json = False,
) -> None:
    """Say what a gallery holds."""
    from index.gallery.open import open_gallery

    with open_gallery(gallery, read_only=True) as opened:
        facts = opened.info()
    if as_json:
        say_json(facts)
        return
    fitting = facts.pop("fitting", None)
    columns = facts.pop("metadata", {})
    for name, value in facts.items():
        if isinstance(value, dict):
            value = ", ".join(f"{k} {v:.4g}" for k, v in value.items() if isinstance(v, (int, float)))
        say(f"{name.replace('_', ' '):<18} {'none' if value is None else value}")
    for name, kinds in columns.items():
        held = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        say(f"{'metadata ' + name:<18} {held}")
    if fitting is None:
        refit_it = shlex.join(["vssl", "gallery", "refit", gallery])
        say(f"fitting            none: default constants; fit them with: {refit_it}")
    else:
        show_fitting(gallery, facts["distance"], fitting, verbose=verbose)


@app.command()
def add(
    gallery: GALLERY,
    embeddings: Annotated[Path, typer.Argument(help="Embeddings folder, or file, of the same model.")],
    replace: Annotated[bool, typer.Option("--replace", help="Replace images of the same id.")] = False,
    metadata: Metadata = None,
) -> None:
    """Add the images of an embeddings folder, all or none of each part."""
    from index.gallery.adding import add_embeddings
    from index.gallery.open import open_gallery

    with open_gallery(gallery) as opened:
        added = add_embeddings(opened, embeddings, replace=replace, metadata=metadata)
        total, stale = len(opened), opened.stale
    say(f"{gallery}: added {added.images}, now {total} images")
    if added.unmatched:
        note(added.unmatched)
    if stale:
        note(f"vssl: constants of the distances: {stale}")


@app.command()
def remove(
    gallery: GALLERY,
    ids: Annotated[list[str] | None, typer.Argument(help="Ids of images.")] = None,
    where: Annotated[
        str | None, typer.Option(help='Remove what fits: JSON such as {"label": "cat"}, or label=cat.')
    ] = None,
) -> None:
    """Remove images by id, or by a filter; ids that are not there are named, with exit 1."""
    if (ids is None or not ids) == (where is None):
        raise typer.BadParameter("give ids or --where, one of the two")
    from index.answers.filters import parse_where
    from index.gallery.open import open_gallery

    with open_gallery(gallery) as opened:
        absent = [id_ for id_ in ids or [] if not _holds(opened, id_)]
        gone = opened.remove_where(parse_where(where)) if where is not None else opened.remove(ids or [])
        total = len(opened)
    say(f"{gallery}: removed {gone}, now {total} images")
    if absent:
        note(f"vssl: not in the gallery: {', '.join(map(shown, absent[:10]))}{' ...' if absent[10:] else ''}")
        raise typer.Exit(1)


def _holds(opened: Gallery, id_: str) -> bool:
    try:
        opened.get(id_)
    except InputError:
        return False
    return True


@app.command()
def compact(gallery: FOLDER) -> None:
    """Give back the space of removed images and build the index again; refit stale constants."""
    from index.gallery.folder.gallery import FolderGallery

    with FolderGallery.open(gallery) as opened:
        before = opened.info()["bytes"]
        opened.compact()
        refitted = opened.fit() if opened.stale else None
        after = opened.info()["bytes"]
    say(f"{gallery}: {before} bytes before, {after} after")
    if refitted is not None:
        show_fitting(gallery, refitted.distance, refitted.facts(), verbose=False)


@app.command()
def refit(
    gallery: FOLDER,
    distance: Annotated[
        str | None,
        typer.Option(
            help="The gallery's own distance from here on, or best: the one that ranks held-out labelled images "
            "best. By default one that was named before stays, and otherwise the best is taken."
        ),
    ] = None,
    verbose: Verbose = False,
    as_json: Json = False,
) -> None:
    """Fit the constants of all distances to what the gallery holds now, and choose its distance."""
    from index.gallery.folder.gallery import FolderGallery

    with FolderGallery.open(gallery) as opened:
        fitting = opened.fit(distance)
    if as_json:
        say_json({"gallery": str(gallery), "distance": fitting.distance, "fitting": fitting.facts()})
        return
    say(f"{gallery}: distance {fitting.distance}")
    show_fitting(gallery, fitting.distance, fitting.facts(), verbose=verbose)


@app.command()
def snapshot(
    gallery: FOLDER,
    out: Annotated[Path, typer.Argument(help="Folder to write the copy to.")],
) -> None:
    """Copy a gallery as it is now, while others use and change it."""
    from index.gallery.folder.gallery import FolderGallery

    with FolderGallery.open(gallery, read_only=True) as opened:
        opened.snapshot(out)
    with FolderGallery.open(out, read_only=True) as copy:
        say(f"{out}: {len(copy)} images of generation {copy.generation}")


@app.command("map")
def make_map(
    gallery: FOLDER,
    as_json: Json = False,
) -> None:
    """Place every image on a map, near what it is near to; the page shows it."""
    import openTSNE  # noqa: F401  (a map needs it: say so before the work)

    from index.curation.projection import project, write_map
    from index.gallery.folder.gallery import FolderGallery

    begun = time.monotonic()
    with FolderGallery.open(gallery, read_only=True) as opened:
        found = project(opened)
    file, seconds = write_map(gallery, found), time.monotonic() - begun
    if as_json:
        say_json({"map": str(file), "images": len(found.ids), "seconds": seconds})
    else:
        look = shlex.join(["vssl", "serve", "--gallery", str(gallery)])
        say(f"{file}: {len(found.ids)} images, {seconds:.0f} s; look at it with: {look}")


@app.command()
def move(
    gallery: GALLERY,
    target: Annotated[str, typer.Argument(help="A new folder, or milvus:URI#NAME.")],
    distance: Annotated[
        str | None, typer.Option(help="The copy's own distance; the gallery's by default.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what Milvus holds there.")] = False,
) -> None:
    """Copy a gallery to Milvus or back, without loss; the source stays."""
    from index.gallery.open import move_gallery

    count = move_gallery(gallery, target, distance=distance, overwrite=overwrite)
    say(f"{target}: {count} images")
