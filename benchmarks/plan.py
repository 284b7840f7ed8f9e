"""What `vssl bench --plan` predicts for 1e4, 1e5 and 1e6 images, beside what is measured there.

    python -m benchmarks.plan [--sizes 10000,100000,1000000] [--extracted 10000,100000] [--dim 64] [--model MODEL]

The plan is made as the command makes it, of 10,000 and 50,000 Gaussians and of 384 pictures (once and thrice).
Measured are the CPU time of an exact query in batches, the CPU seconds and bytes of a gallery that is built, and the
seconds of an extraction, whose sizes are apart because they take longest.
Shape letters: N items, D embedding dimension.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import tempfile
from pathlib import Path

from vssl.cli import bench
from vssl.cli.ceilings import building, extraction, searching
from vssl.cli.ceilings.planning import Plan, make_plan, memory_bytes

DISTANCE = "expected"
ITEMS = 50_000
SMALL = Path(__file__).resolve().parents[1] / "vssl" / "model" / "small-cifar10.onnx"


def search_cost(items: int, dim: int) -> searching.SearchCost:
    """Measure a query in batches."""
    return next(found for found in searching.measure(items, dim, (DISTANCE,), rounds=2) if found.batch > 1)


def row(what: str, images: int, predicted: float, measured: float) -> None:
    """Print one line of the table."""
    print(
        f"| {what} | {images:,} | {predicted:.4g} | {measured:.4g} | {measured / predicted:.2f} |", flush=True
    )


def main() -> None:
    """Print predicted and measured, and their ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", default="10000,100000,1000000")
    parser.add_argument("--extracted", default="10000,100000")
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--model", type=Path, default=SMALL)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vssl-plan-") as name:
        folder = Path(name)
        files = sorted(bench.made_pictures(folder / "pictures").iterdir())
        cost = search_cost(ITEMS, given.dim)
        (folder / "costs").mkdir()
        costs = bench.measure_costs(
            dataclasses.asdict(cost), ITEMS, given.dim, files, given.model, folder / "costs"
        )
        print(f"load {os.getloadavg()[0]:.1f}, all cores search {costs.speedup:.2f} times as fast as one\n")

        def plan(images: int) -> Plan:
            return make_plan(images, costs, dim=given.dim, width=cost.width, memory=memory_bytes())

        print("| what | images | predicted | measured | measured / predicted |\n|---|---|---|---|---|")
        for images in map(int, given.sizes.split(",")):
            planned = plan(images)
            row(
                "query, ms of a core",
                images,
                planned.milliseconds,
                search_cost(images, given.dim).milliseconds,
            )
            built = building.measure(images, given.dim, DISTANCE, folder / str(images))
            row("gallery, s of a core", images, planned.building * 3600, built.seconds)
            row("gallery, MB", images, planned.gallery / 1e6, built.gallery / 1e6)
            row("embeddings, MB", images, planned.embeddings / 1e6, built.part / 1e6)
        for images in map(int, given.extracted.split(",")):
            scratch = folder / f"extracted {images}"
            scratch.mkdir()
            done, seconds = extraction.seconds(files, given.model, scratch, round(images / len(files)))
            row("extraction, s", done, plan(done).hours * 3600, seconds)


if __name__ == "__main__":
    main()
