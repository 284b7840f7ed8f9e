"""`vssl bench --plan` -> its predictions for 1e5 and 1e6 items beside what is measured there.

    python -m benchmarks.plan [--sizes 10000,100000,1000000] [--dim 64]

The plan is made of what the smallest size costs: CPU time of an exact query in batches, and the bytes of the
index; those of an embeddings folder and of a gallery are measured at the smallest size, too. Pictures are decoded one
by one at every size, so that extraction is not repeated here. Shape letters: N items, D embedding dimension.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np

from index.gallery.folder.gallery import FolderGallery
from vssl.cli.ceilings.planning import make_plan, memory_bytes
from vssl.cli.ceilings.searching import SearchCost, measure
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.embeddings.store import Rows, to_table, write_table
from vssl.images.preprocess import Preprocess
from vssl.model.card import ModelCard


def cost(items: int, dim: int) -> SearchCost:
    """Measure a query in batches by `expected`."""
    return next(found for found in measure(items, dim, ("expected",), rounds=2) if found.batch > 1)


def stored(items: int, dim: int, folder: Path) -> tuple[int, int]:
    """Write N random Gaussians as a Parquet part and as a gallery; return the bytes of either."""
    random = np.random.default_rng(0)
    mean = random.normal(size=(items, dim)).astype(np.float32)
    gaussians = GaussianEmbedding(mean, random.gamma(4.0, 0.25, mean.shape).astype(np.float32))
    names = [f"class {row % 10}/picture {row:08d}.jpg" for row in range(items)]
    rows = Rows(
        names, [f"/home/person/photos/{name}" for name in names], [name[:7] for name in names], gaussians
    )
    card = ModelCard("random", "none", "none", "features", dim, dim, Preprocess(8, 8))
    write_table(to_table(rows, card, "0" * 64), folder / "part.parquet")
    with FolderGallery.create(folder / "gallery", card=card, model_id="0" * 64) as gallery:
        gallery.add(rows)
    return (folder / "part.parquet").stat().st_size, (folder / "gallery" / "store.db").stat().st_size


def main() -> None:
    """Print predicted and measured, and their ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", default="10000,100000,1000000")
    parser.add_argument("--dim", type=int, default=64)
    given = parser.parse_args()
    first, *others = [int(size) for size in given.sizes.split(",")]
    base = cost(first, given.dim)
    print(f"load {os.getloadavg()[0]:.1f}; from {first:,} items of {given.dim} dimensions")
    print("items        ms a query: predicted  measured  ratio")
    for items in others:
        plan = make_plan(
            items, dim=given.dim, extract_rate=1.0, search_ms=base.milliseconds, searched=first, width=base.width,
            cores=1, memory=memory_bytes(),
        )  # fmt: skip
        found = cost(items, given.dim)
        ratio = found.milliseconds / plan.milliseconds
        print(f"{items:<12,} {plan.milliseconds:21.3f} {found.milliseconds:9.3f} {ratio:6.2f}")
    plan = make_plan(
        first, dim=given.dim, extract_rate=1.0, search_ms=base.milliseconds, searched=first, width=base.width,
        cores=1, memory=memory_bytes(),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        parquet, store = stored(first, given.dim, Path(folder))
    print(f"bytes over predicted: Parquet {parquet / plan.embeddings:.2f}, store {store / plan.gallery:.2f}")


if __name__ == "__main__":
    main()
