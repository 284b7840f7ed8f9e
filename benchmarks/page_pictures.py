"""The page before the demo's photos -> the pictures of it in the documents: PNG files in docs/pictures.

    python -m benchmarks.page_pictures [docs/pictures] [--photos DIR]

Makes a gallery of the 300 photos that come with vssl (or of DIR, by class folders) with the encoder that comes with it,
and a map of it, serves it, and looks at it with Debian's chromium. Needs the extras cpu, map and dev.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import httpx
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from benchmarks.page import served

PHOTOS = Path(__file__).parents[1] / "vssl" / "cli" / "demo_photos.tar"
DESKTOP, PHONE = (1280, 800), (390, 760)
COLOURS = 200
SETTLE_MS = 700


def main() -> None:
    """Make the gallery and its pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", nargs="?", type=Path, default=Path("docs/pictures"))
    parser.add_argument("--photos", type=Path)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos = given.photos or unpacked(folder / "photos")
        gallery = made(folder, photos)
        with served(gallery, folder) as url, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path="/usr/bin/chromium")
            for name, (address, size, scheme) in shots(url).items():
                take(browser, f"{url}/ui{address}", given.out / f"{name}.png", size, scheme)
            browser.close()
    total = sum(file.stat().st_size for file in given.out.glob("*.png"))
    print(f"{given.out}: {total / 1e6:.2f} MB")


def unpacked(folder: Path) -> Path:
    """Return the folder of the demo's photos."""
    with tarfile.open(PHOTOS) as archive:
        archive.extractall(folder, filter="data")
    return folder


def made(folder: Path, photos: Path) -> Path:
    """Return a gallery of the photos, with a map."""
    embeddings, gallery = folder / "embeddings", folder / "gallery"
    for words in (
        ["extract", photos, embeddings],
        ["index", embeddings, gallery, "--distance", "cosine"],
        ["gallery", "map", gallery],
    ):
        subprocess.run(
            [sys.executable, "-m", "vssl", *map(str, words)], check=True, stdout=subprocess.DEVNULL
        )
    return gallery


def shots(url: str) -> dict[str, tuple[str, tuple[int, int], str]]:
    """Return what is shown: address, size and colour scheme by name."""
    items = httpx.get(f"{url}/items", params={"rows": "0-299"}).json()["items"]
    surest = min(items, key=lambda item: item["uncertainty"])["id"]
    mixed = next(item["id"] for item in items if item["label"] == "longsleeve")
    return {
        "search": (f"#search?like={surest}", DESKTOP, "light"),
        "search-unsure": (f"#search?like={mixed}", DESKTOP, "dark"),
        "gallery": ("#gallery?sort=-uncertainty", DESKTOP, "light"),
        "map": (f"#map?colour=label&like={surest}", DESKTOP, "light"),
        "curate": ("#curate?list=suspects", DESKTOP, "dark"),
        "phone": (f"#search?like={surest}", PHONE, "light"),
    }


def take(browser: Browser, url: str, file: Path, size: tuple[int, int], scheme: str) -> None:
    """Write one picture of the page, in few colours."""
    page = browser.new_page(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)  # type: ignore[arg-type]
    page.goto(url)
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(SETTLE_MS)
    page.screenshot(path=file)
    page.close()
    with Image.open(file) as shot:
        shot.convert("RGB").quantize(COLOURS).save(file, optimize=True)
    print(f"{file}: {file.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
