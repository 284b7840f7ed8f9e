"""Kill a writing process at random moments and check that the gallery kept its word each time.

    python -m benchmarks.crash [--kills 200] [--seed 0]

A child opens the gallery, adds, replaces, removes, compacts, saves and fits another distance without end, and
prints a line before each change (what it is about to do) and after it (acknowledged). It is killed with
SIGKILL after a random time. The checker then replays the acknowledged lines in a dictionary and
opens the gallery: every acknowledged change must be there; the one change that was announced and
not acknowledged may be there wholly or not at all; search must return exactly the items of the
store; the distance and the constants fitted for it must be of one fit; a saved index that is used must be
whole. A kill leaves the page cache alive, so this shows atomicity and order; what survives a power loss rests
on SQLite's synchronous=FULL.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from index.gallery.folder.gallery import FolderGallery
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.embeddings.store import Rows
from vssl.images.preprocess import Preprocess
from vssl.model.card import ModelCard

DIM = 16
IDS = 400
MODEL = "c" * 64
DISTANCES = ("cosine", "expected", "posterior")


@dataclass(frozen=True)
class State:
    """What the gallery should hold: id -> the seed its vector was drawn from, and the distance it was fitted for."""

    items: dict[str, int]
    distance: str


def gaussians(seeds: list[int]) -> GaussianEmbedding:
    """Draw one Gaussian from each seed."""
    drawn = [np.random.default_rng(seed).normal(size=(2, DIM)).astype(np.float32) for seed in seeds]
    return GaussianEmbedding(np.stack([d[0] for d in drawn]), np.exp(np.stack([d[1] for d in drawn]) - 4))


def changed(state: State, change: dict) -> State:
    """Return the state after a change."""
    items = dict(state.items)
    if change["do"] in ("add", "replace"):
        items.update(zip(change["ids"], change["seeds"], strict=True))
    elif change["do"] == "remove":
        for id_ in change["ids"]:
            items.pop(id_, None)
    return State(items, change["distance"] if change["do"] == "fit" else state.distance)


def child(path: Path, seed: int) -> None:
    """Change the gallery until killed."""
    draws = random.Random(seed)
    with FolderGallery.open(path) as gallery:
        present = {n.id for n in gallery.search(PROBE, 10 * IDS)[0].neighbours}
        print(json.dumps({"do": "open"}), flush=True)
        while True:
            do = draws.choices(["add", "replace", "remove", "save", "compact", "fit"], [6, 4, 5, 1, 1, 1])[0]
            absent = [i for i in (f"i{n}" for n in range(IDS)) if i not in present]
            pool = absent if do == "add" else sorted(present)
            ids = draws.sample(pool, min(len(pool), draws.randint(1, 60)))
            if do == "fit" and len(present) < 2:
                continue
            change = {"do": do, "ids": ids, "seeds": [draws.randrange(2**31) for _ in ids]}
            change["distance"] = draws.choice(DISTANCES)
            print(json.dumps(change), flush=True)
            if do in ("add", "replace"):
                names = [f"{i}.png" for i in ids]
                rows = Rows(ids, names, [None] * len(ids), gaussians(change["seeds"])) if ids else None
                if rows:
                    gallery.add(rows, replace=do == "replace")
                present.update(ids)
            elif do == "remove":
                gallery.remove(ids)
                present.difference_update(ids)
            elif do == "fit":
                gallery.fit(change["distance"])
            else:
                getattr(gallery, do)()
            print("done", flush=True)


PROBE = gaussians([1])


def check(path: Path, possible: list[State]) -> tuple[int, str | None]:
    """Return which of the possible states the gallery holds, and what was said about its index."""
    with FolderGallery.open(path) as gallery:
        damage = gallery.damage
        found = {n.id for n in gallery.search(PROBE, 10 * IDS)[0].neighbours}
        if len(gallery) != len(found):
            raise AssertionError(f"the store holds {len(gallery)} items, the index {len(found)}")
        fitted = gallery.fitting.distance if gallery.fitting else "cosine"
        if fitted != gallery.distance:
            raise AssertionError(
                f"the distance is {gallery.distance}, the constants are of a fit for {fitted}"
            )
        for number, state in enumerate(possible):
            if (
                found == state.items.keys()
                and gallery.distance == state.distance
                and _same(gallery, state.items)
            ):
                return number, damage
        expected = [(len(s.items), s.distance) for s in possible]
        raise AssertionError(f"found {len(found)} items by {gallery.distance}, expected one of {expected}")


def _same(gallery: FolderGallery, items: dict[str, int]) -> bool:
    ids = sorted(items)
    expected = gaussians([items[i] for i in ids]) if ids else None
    for row, id_ in enumerate(ids):
        item = gallery.get(id_)
        assert expected is not None
        if not np.array_equal(item.mean, expected.mean[row]) or not np.array_equal(
            item.variance, expected.variance[row]
        ):
            return False
        if row % 50 == 0:
            nearest = gallery.search(expected[row : row + 1], 1, distance="cosine")[0].neighbours[0]
            if nearest.id != id_ or nearest.distance > 1e-6:
                return False
    return True


def main() -> None:
    """Run the kills and print what was interrupted."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draws = random.Random(options.seed)
    interrupted: Counter[str] = Counter()
    survived: Counter[str] = Counter()
    acknowledged, indexes_rebuilt = 0, 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "gallery"
        card = ModelCard("crash", "vssl", "none", "features", DIM, DIM, Preprocess(size=16, resize=16))
        FolderGallery.create(path, card=card, model_id=MODEL).close()
        state = State({}, "cosine")
        for kill in range(options.kills):
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.crash", "--child", str(path), str(draws.randrange(2**31))],
                stdout=subprocess.PIPE,
                text=True,
            )
            assert process.stdout is not None
            first = process.stdout.readline()
            assert json.loads(first)["do"] == "open"
            time.sleep(draws.expovariate(1 / 0.12))
            process.send_signal(signal.SIGKILL)
            lines = process.stdout.read().splitlines()
            process.wait()
            announced = None
            for line in lines:
                if line == "done":
                    assert announced is not None
                    state, announced = changed(state, announced), None
                    acknowledged += 1
                elif line.endswith("}"):
                    announced = json.loads(line)
            possible = [state] if announced is None else [state, changed(state, announced)]
            which, damage = check(path, possible)
            if announced is not None:
                interrupted[announced["do"]] += 1
                survived[announced["do"]] += which
            indexes_rebuilt += damage is not None
            state = possible[which]
            if (kill + 1) % 20 == 0:
                print(
                    f"{kill + 1} kills, {acknowledged} acknowledged changes, {len(state.items)} items",
                    flush=True,
                )
    print(f"{options.kills} kills: every acknowledged change was there, none was half there")
    for do, count in sorted(interrupted.items()):
        print(f"  interrupted {do:<8} {count:4d}, of which {survived[do]} had reached the disk")
    print(f"  damaged indexes met and passed over: {indexes_rebuilt}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
