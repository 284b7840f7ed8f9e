"""The verb bench: what this machine could do at most, and how near vssl comes to it."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vssl.cli.options import Json
from vssl.cli.output import check_choice, note, say, say_json
from vssl.errors import InputError

if TYPE_CHECKING:
    from vssl.cli.ceilings.planning import Costs

PARTS = ("extract", "search", "train")
SMALLER = 5
"""Times as many items the other size of a plan's costs has."""
PICTURES, SIDES = 384, (400, 534)
"""Made when no folder is named, as large as a phone's small photos."""


def bench(
    images: Annotated[
        Path | None, typer.Argument(help="Folder of images like yours; made-up pictures otherwise.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="model.onnx; the one that comes with vssl otherwise.")
    ] = None,
    part: Annotated[list[str] | None, typer.Option(help="extract, search or train; all otherwise.")] = None,
    recipe: Annotated[str, typer.Option(help="Whose training step is measured.")] = "small",
    items: Annotated[int, typer.Option(help="Gaussians to search.", min=100)] = 50_000,
    dim: Annotated[int, typer.Option(help="Their dimension.", min=1)] = 128,
    distance: Annotated[list[str] | None, typer.Option(help="Distances to search by.")] = None,
    plan: Annotated[
        float | None, typer.Option("--plan", help="Say what so many images would take, as 1e9.", min=1)
    ] = None,
    hours: Annotated[float, typer.Option(help="In which a planned extraction should end.", min=0.01)] = 24.0,
    as_json: Json = False,
) -> None:
    """Measure this machine's ceilings and how near vssl comes: extraction, search, training.

    With --plan, what a job of that size takes, from what extraction and search cost here.
    Nothing else should run at the same time.
    """
    parts = tuple(part or (PARTS if plan is None else ("extract", "search")))
    for name in parts:
        check_choice("--part", name, PARTS)
    if plan is not None and not {"extract", "search"} <= set(parts):
        raise typer.BadParameter("needs both parts, extract and search", param_hint="--plan")
    found: dict[str, Any] = {"cores": len(os.sched_getaffinity(0)), "load": round(os.getloadavg()[0], 2)}
    if found["load"] > 0.5 * found["cores"]:
        note(f"the machine is busy (load {found['load']}); what is measured now is too low")
    with tempfile.TemporaryDirectory(prefix="vssl-bench-") as scratch:
        if "extract" in parts or "train" in parts:
            folder = images or made_pictures(Path(scratch) / "pictures")
        if "extract" in parts:
            note("extraction: decoding, the model, and both")
            found["extract"] = _extract(folder, model, Path(scratch))
        if "search" in parts:
            note(f"search: {items} Gaussians of {dim} dimensions")
            found["search"] = _search(items, dim, tuple(distance or ("cosine", "expected", "posterior")))
        if "train" in parts:
            note(f"training: a step of the recipe {recipe}")
            found["train"] = _train(folder, recipe)
        if plan is not None:
            note("plan: a smaller search, two galleries, and the extraction of three times as many")
            cost = next(cost for cost in found["search"] if cost["batch"] > 1)
            costs = measure_costs(cost, items, dim, _files(folder), model, Path(scratch))
            found["plan"] = _plan(round(plan), costs, cost["width"], dim, hours)
    say_json(found) if as_json else _say(found)


def made_pictures(folder: Path) -> Path:
    """Write JPEG files of coloured patches under some grain: about the bytes of photographs."""
    import numpy as np
    from PIL import Image

    folder.mkdir()
    random = np.random.default_rng(0)
    height, width = SIDES
    for number in range(PICTURES):
        patches = Image.fromarray(random.integers(0, 256, (9, 12, 3), dtype=np.uint8))
        picture = np.asarray(patches.resize((width, height), Image.Resampling.BICUBIC), np.float32)
        grain = random.normal(0.0, 6.0, (height, width, 1))
        grained = np.clip(picture + grain, 0, 255).astype(np.uint8)
        Image.fromarray(grained).save(folder / f"{number:03d}.jpg", quality=85)
    return folder


def _extract(folder: Path, model: Path | None, scratch: Path) -> dict[str, Any]:
    from vssl.cli.ceilings.extraction import measure
    from vssl.model.shipped import shipped_model

    rates = measure(_files(folder), model or shipped_model(), scratch)
    return {**dataclasses.asdict(rates), "reached": rates.reached}


def _files(folder: Path) -> list[Path]:
    from vssl.images.readers.folders import FileSource
    from vssl.images.sources import open_source

    source = open_source(folder)
    if not isinstance(source, FileSource):
        raise InputError(
            f"bench: found {str(folder)!r}, expected a folder of image files or list:FILE, to read them as "
            "extraction does; or measure the rest of it with --part train"
        )
    return [Path(item.path) for item in source.items]


def _search(items: int, dim: int, distances: tuple[str, ...]) -> list[dict[str, Any]]:
    from vssl.cli.ceilings.searching import measure

    costs = measure(items, dim, distances)
    return [{**dataclasses.asdict(cost), "times_flat": cost.milliseconds / cost.flat} for cost in costs]


def measure_costs(
    cost: dict[str, Any], items: int, dim: int, files: list[Path], model: Path | None, scratch: Path
) -> Costs:
    """Measure at a second size what was measured at one, and build two galleries. cost: of a batch's search."""
    from vssl.cli.ceilings import building, extraction, searching
    from vssl.cli.ceilings.planning import Costs, Line
    from vssl.model.shipped import shipped_model

    name, fewer = cost["distance"], max(items // SMALLER, 20)
    (again,) = (c for c in searching.measure(fewer, dim, (name,)) if c.batch > 1)
    few, many = (building.measure(count, dim, name, scratch / f"{count} items") for count in (fewer, items))
    once, thrice = (extraction.seconds(files, model or shipped_model(), scratch, times) for times in (1, 3))
    return Costs(
        extraction=Line.through(once, thrice),
        building=Line.through((few.items, few.seconds), (many.items, many.seconds)),
        search=Line.through((fewer, again.milliseconds), (items, cost["milliseconds"])),
        speedup=searching.speedup(items, dim, name),
        part=many.part / items,
        gallery=many.gallery / items,
    )


def _plan(images: int, costs: Costs, width: float, dim: int, hours: float) -> dict[str, Any]:
    from vssl.cli.ceilings.planning import make_plan, memory_bytes

    plan = make_plan(images, costs, dim=dim, width=width, memory=memory_bytes(), within_hours=hours)
    return {**dataclasses.asdict(plan), "costs": dataclasses.asdict(costs)}


def _train(folder: Path, recipe: str) -> dict[str, Any]:
    from train.loop.run import choose_device
    from train.settings.recipe import plan
    from vssl.cli.ceilings.training import measure
    from vssl.images.sources import open_source

    rate = measure(plan(open_source(folder), recipe, None, {}), choose_device("auto"))
    return {"recipe": recipe, **dataclasses.asdict(rate), "reached": rate.step / rate.networks}


def _say(found: dict[str, Any]) -> None:
    say(f"{found['cores']} cores, load {found['load']}")
    if "extract" in found:
        e = found["extract"]
        say(f"\nextract, images/s ({e['images']} files)")
        say(f"  decoding alone        {e['decode']:10.0f}")
        say(f"  the model alone       {e['inference']:10.0f}")
        say(f"  both on shared cores  {e['shared_bound']:10.0f}")
        say(f"  vssl extract          {e['extract']:10.0f}   {e['reached']:.2f} of that")
    if "search" in found:
        say("\nsearch, exact, ms a query on one thread (FAISS flat on the means alone)")
        for cost in found["search"]:
            say(
                f"  {cost['distance']:<14} batch {cost['batch']:>3}  {cost['milliseconds']:8.3f} ({cost['flat']:.3f})"
                f"   {cost['times_flat']:.2f} x, of which {cost['width']:.2f} x is the longer encoding"
            )
    if "train" in found:
        t = found["train"]
        say(f"\ntrain, images/s (recipe {t['recipe']})")
        say(f"  the networks alone    {t['networks']:10.0f}")
        say(f"  the whole step        {t['step']:10.0f}   {t['reached']:.2f} of that")
    from vssl.cli.ceilings.planning import Plan, limits

    for line in limits(found):
        say(f"\n{line}")
    if "plan" in found:
        planned = {name: value for name, value in found["plan"].items() if name != "costs"}
        say("\n" + "\n".join(Plan(**planned).lines()))
