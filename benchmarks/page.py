"""The page with 100,000 pictures, and its map with 1,000,000 points -> times in real Chromium.

    python -m benchmarks.page [--items 100000] [--points 1000000] [--out page.json]

Gallery: synthetic Gaussians of 128 dimensions in 100 groups, labelled, with metadata; items show one of 4,000 JPEG
files of 640 x 480, so that no page of pictures was seen before. First paint: the first contentful paint, and from
navigation until the first tile shows its picture. Scroll: how long each tile in sight stood without its picture, by
pages with half a second between them, every fifth over a seventh of the whole; and as a wheel does, by 60 pixels a
frame. Search: from a click on a neighbour until its own neighbours stand on the page, and until their pictures do.
Map: bytes of x, y and colour, time from navigation to the first frame, time from frame to frame while it moves, and
until all points are drawn, without a graphics card; places are random, since drawing is measured.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from index.curation.projection import GalleryMap, write_map
from index.gallery.folder.gallery import FolderGallery
from serve.inference.engine import Engine
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.embeddings.store import Rows
from vssl.model.shipped import shipped_model

DIM, GROUPS, FILES = 128, 100, 4000
BATCH = 50_000
STEPS = 20  # pages
WHEEL = 300, 60  # frames, and pixels of each: some 3,600 a second
FRAMES = 60
FIRST_TILE = "() => document.querySelector('.tile-in-grid img')?.complete"
SCROLL = """async ([steps, pixels]) => {
  // Milliseconds that each tile in sight stood without its picture, from the scrolling that brought it there.
  const grid = document.querySelector('.grid');
  const since = new Map();  // tile -> when it came, null once it has its picture
  const waits = [];
  const frames = [];
  let scrolled = performance.now();
  let last = scrolled;
  const frame = async () => {
    await new Promise(requestAnimationFrame);
    const now = performance.now();
    frames.push(now - last);
    last = now;
    const box = grid.getBoundingClientRect();
    const seen = new Set();
    for (const tile of grid.querySelectorAll('.tile-in-grid')) {
      const own = tile.getBoundingClientRect();
      if (own.bottom <= box.top || own.top >= box.bottom) continue;
      seen.add(tile.id);
      if (!since.has(tile.id)) since.set(tile.id, scrolled);
      if (since.get(tile.id) === null || !tile.querySelector('img')?.complete) continue;
      waits.push(now - since.get(tile.id));
      since.set(tile.id, null);
    }
    for (const [id, came] of since) {
      if (seen.has(id)) continue;
      if (came !== null) waits.push(now - came);
      since.delete(id);
    }
    return seen.size > 0 && [...since.values()].every((came) => came === null);
  };
  const settled = async () => {
    for (let frames = 0; frames < 2; frames += 1) await frame();
    while (!(await frame()) && performance.now() - scrolled < 20000);
  };
  const scroll = (by) => {
    grid.scrollTop += by;
    scrolled = performance.now();
  };
  await settled();
  waits.length = frames.length = 0;
  for (let step = 1; step <= steps; step += 1) {
    if (pixels) {
      scroll(pixels);
      await frame();
      continue;
    }
    scroll(step % 5 ? grid.clientHeight : grid.scrollHeight / 7);
    await settled();
    await new Promise((done) => setTimeout(done, 500));
    last = performance.now();
  }
  await settled();
  return {waits, frames};
}"""
FRAME = """async (frames) => {
  const stage = document.querySelector('.map-canvas');
  const times = [];
  let last = performance.now();
  for (let frame = 0; frame < frames; frame += 1) {
    stage.dispatchEvent(new KeyboardEvent('keydown', {key: frame % 2 ? 'ArrowLeft' : 'ArrowRight'}));
    await new Promise(requestAnimationFrame);
    times.push(performance.now() - last);
    last = performance.now();
  }
  return times;
}"""
STILL = """async () => {
  const times = [];
  for (let look = 0; look < 5; look += 1) {
    const stage = document.querySelector('.map-canvas');
    stage.dispatchEvent(new KeyboardEvent('keydown', {key: '0'}));  // shows all, every point of it
    const begun = performance.now();
    await new Promise(requestAnimationFrame);
    await new Promise(requestAnimationFrame);
    times.push(performance.now() - begun);
  }
  return times;
}"""


def main() -> None:
    """Measure both and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    found: dict[str, object] = {
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
    }
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium")
        for count, measure in ((given.items, browse), (given.points, look_at_map)):
            if count:
                folder = Path(name) / str(count)
                folder.mkdir()
                with served(synthetic(folder, count), folder) as url:
                    found |= measure(browser, url)
                print(json.dumps(found, indent=1), flush=True)
        browser.close()
    if given.out:
        given.out.write_text(json.dumps(found, indent=1) + "\n")


def synthetic(folder: Path, count: int) -> Path:
    """Return a gallery of so many items that the shipped model might have made."""
    random = np.random.default_rng(0)
    pictures = folder / "pictures"
    pictures.mkdir()
    for number in range(FILES):
        small = random.integers(0, 255, (12, 16, 3), np.uint8)
        Image.fromarray(small).resize((640, 480), Image.Resampling.BICUBIC).save(pictures / f"{number}.jpg")
    engine = Engine.open(shipped_model(), threads=1)
    centres = random.normal(size=(GROUPS, DIM))
    ids = [f"photos/{number:07d}.jpg" for number in range(count)]
    places = random.normal(size=(count, 2)).astype(np.float32)
    with FolderGallery.create(folder / "gallery", card=engine.card, model_id=engine.model_id) as gallery:
        for start in range(0, count, BATCH):
            size = min(BATCH, count - start)
            groups = random.integers(0, GROUPS, size)
            mean = (centres[groups] + random.normal(0, 1, (size, DIM))).astype(np.float32)
            variance = np.exp(random.normal(-3, 1, (size, 1)) + np.zeros((1, DIM))).astype(np.float32)
            spread = random.uniform(0, 1, size).astype(np.float32)
            labels: list[str | None] = [f"group {group:02d}" for group in groups]
            paths = [str(pictures / f"{number % FILES}.jpg") for number in range(start, start + size)]
            rows = Rows(ids[start : start + size], paths, labels, GaussianEmbedding(mean, variance, spread))
            gallery.add(rows, metadata=[{"year": int(2000 + group % 25)} for group in groups])
        risk = random.uniform(0, 1, count).astype(np.float32)
        write_map(folder / "gallery", GalleryMap(ids, places, risk))
    return folder / "gallery"


@contextlib.contextmanager
def served(gallery: Path, folder: Path) -> Iterator[str]:
    """Serve a gallery on a free port until the block ends; yields its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "vssl",
        "serve",
        "--gallery",
        str(gallery),
        "--show-images",
        "--port",
        str(port),
    ]
    with (folder / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "VSSL_DRAIN_S": "0"}
        )
    url = f"http://127.0.0.1:{port}"
    try:
        limit = time.monotonic() + 300
        while True:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{url}/readyz").status_code == 200:
                    break
            if process.poll() is not None or time.monotonic() > limit:
                raise RuntimeError((folder / "serve.log").read_text())
            time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=60)


def browse(browser: Browser, url: str) -> dict[str, float]:
    """Return the times of the gallery and the search."""
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.goto(f"{url}/ui#gallery")  # the server's first answer reads the whole listing
    page.wait_for_function(FIRST_TILE, timeout=120_000)
    page.close()
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    begun = time.perf_counter()
    page.goto(f"{url}/ui#gallery")
    page.wait_for_function(FIRST_TILE)
    first = time.perf_counter() - begun
    paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0]?.startTime")
    pages = page.evaluate(SCROLL, [STEPS, 0])
    page.goto(f"{url}/ui#gallery?sort=-uncertainty")  # other pictures
    page.reload()
    page.wait_for_function(FIRST_TILE)
    wheel = page.evaluate(SCROLL, WHEEL)
    found = {"first_contentful_paint_ms": paint, "first_tile_ms": 1000 * first}
    for name, scrolled in (("pages", pages), ("wheel", wheel)):
        found |= {
            f"{name}_tiles": len(scrolled["waits"]),
            f"{name}_blank_median_ms": float(np.median(scrolled["waits"])),
            f"{name}_blank_p99_ms": float(np.quantile(scrolled["waits"], 0.99)),
            f"{name}_blank_longest_ms": max(scrolled["waits"]),
            f"{name}_frame_longest_ms": max(scrolled["frames"]),
        }
    page.goto(f"{url}/ui#search?like=photos/0000001.jpg")
    page.locator(".hit").first.wait_for()
    times = [searched(page) for _ in range(9)][1:]
    page.close()
    return found | {
        "search_to_answer_ms": float(np.median([one["answer"] for one in times])),
        "search_to_pictures_ms": float(np.median([one["pictures"] for one in times])),
        "search_to_pictures_longest_ms": max(one["pictures"] for one in times),
    }


def searched(page: Page) -> dict[str, float]:
    """Return the milliseconds from a click on the second neighbour to its own neighbours, and to their pictures."""
    found: dict[str, float] = page.evaluate(
        """async () => {
  const old = document.querySelector('.pictures');
  const begun = performance.now();
  old.querySelectorAll('button.picture')[1].click();
  while (document.querySelector('.pictures') === old) await new Promise(requestAnimationFrame);
  const answer = performance.now() - begun;
  const shots = [...document.querySelectorAll('.pictures .shot')];
  while (!shots.every((shot) => shot.querySelector('img')?.complete)) await new Promise(requestAnimationFrame);
  return {answer, pictures: performance.now() - begun};
}"""
    )
    return found


def look_at_map(browser: Browser, url: str) -> dict[str, float]:
    """Return the bytes, the time to the first frame and the time of a frame of the map."""
    names = [field["name"] for field in httpx.get(f"{url}/columns", timeout=300).json()["fields"]]
    sent = {name: len(httpx.get(f"{url}/columns/{name}", timeout=300).content) for name in names}
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    begun = time.perf_counter()
    page.goto(f"{url}/ui#map?colour=uncertainty")
    page.wait_for_function(
        "() => document.querySelector('.toolbar p')?.textContent.includes('on the map')", timeout=120_000
    )
    page.evaluate("() => new Promise(requestAnimationFrame)")
    first = time.perf_counter() - begun
    times = page.evaluate(FRAME, FRAMES)
    still = page.evaluate(STILL)
    page.close()
    return {
        "map_bytes": sent["map.x"] + sent["map.y"] + sent["uncertainty"],
        "all_columns_bytes": sum(sent.values()),
        "map_first_frame_ms": 1000 * first,
        "map_frame_ms": float(np.median(times)),
        "map_frame_longest_ms": max(times),
        "map_all_points_ms": float(np.median(still)),
    }


if __name__ == "__main__":
    main()
