"""Every kind of file with one bit flipped -> what reading it gave; `python -m benchmarks.fuzz flips` runs it."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from vssl.errors import VsslError
from vssl.model.shipped import CIFAR10, shipped_model


def picture(seed: int, side: int = 48) -> bytes:
    """Return a small JPEG."""
    random = np.random.default_rng(seed)
    sink = io.BytesIO()
    Image.fromarray(random.integers(0, 255, (side // 8, side // 8, 3), np.uint8)).resize((side, side)).save(
        sink, "JPEG"
    )
    return sink.getvalue()


def _pictures(folder: Path) -> Path:
    for number in range(24):
        path = folder / "in" / f"class{number % 3}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))
    return folder / "in"


def picture_gallery(folder: Path) -> Path:
    """Make a gallery of 24 pictures in a folder."""
    from index.gallery.folder.build import build_gallery
    from serve.extraction.extract import extract

    extract(_pictures(folder), folder / "embeddings", model=shipped_model(CIFAR10))
    build_gallery(folder / "embeddings", folder / "gallery", distance="cosine")
    return folder / "gallery"


def _seen(*values: object) -> str:
    """Return one text for what was read."""
    digest = hashlib.sha256()
    for value in values:
        digest.update(np.asarray(value).tobytes() if isinstance(value, np.ndarray) else repr(value).encode())
    return digest.hexdigest()


def _readers(folder: Path) -> dict[str, tuple[Path, Callable[[], str]]]:
    """Return by kind of file: one file of it, and how it is read."""
    from index.answers.metadata import read_metadata
    from index.gallery.folder.gallery import FolderGallery
    from train.loop.run import train_images
    from train.state.checkpoint import load_checkpoint
    from vssl.embeddings.store import read_embeddings
    from vssl.images.sources import open_source
    from vssl.model.seal import read_metadata as entries
    from vssl.model.seal import read_sealed

    gallery, out, images = picture_gallery(folder), folder / "embeddings", folder / "in"
    model = Path(shutil.copy(shipped_model(CIFAR10), folder / "model.onnx"))
    train_images(str(images), folder / "run", options={"epochs": 0, "size": 16}, device="cpu", threads=1)
    (folder / "list.jsonl").write_text(
        "\n".join(json.dumps({"path": f"{n}.jpg", "id": n, "label": n}) for n in "abc")
    )
    (folder / "meta.csv").write_text("id,year,country\n" + "".join(f"{n},{2000 + n},NA\n" for n in range(50)))

    def embeddings() -> str:
        found = read_embeddings(out)
        return _seen(
            found.rows.ids, found.rows.labels, found.rows.gaussians.mean, found.failures, found.model_id
        )

    def searched() -> str:
        with FolderGallery.open(gallery, read_only=True) as opened:
            query = read_embeddings(out).rows.gaussians[:2]
            found = opened.search(query, 5)
            return _seen(
                [[(n.id, n.label, round(n.distance, 5)) for n in r.neighbours] for r in found], opened.card
            )

    def checkpoint() -> str:
        found = load_checkpoint(folder / "run")
        return _seen(*(v.numpy() for v in found.student.values()), found.summary, found.config)

    derived = next(path for path in (gallery / "derived").rglob("rows.npy"))
    return {
        "part": (out / "part-00000.parquet", embeddings),
        "failures": (out / "failures.parquet", embeddings),
        "manifest": (out / "manifest.json", embeddings),
        "model": (model, lambda: _seen(entries(read_sealed(model)))),
        "checkpoint": (folder / "run" / "checkpoint.pt", checkpoint),
        "store": (gallery / "store.db", searched),
        "derived rows": (derived, searched),
        "derived manifest": (derived.with_name("manifest.json"), searched),
        "list": (folder / "list.jsonl", lambda: _seen(open_source(f"list:{folder / 'list.jsonl'}").items)),
        "metadata": (folder / "meta.csv", lambda: _seen(read_metadata(folder / "meta.csv"))),
    }


SELF_EVIDENT = ("list", "metadata")
"""Files that a person writes: they carry no checksum, and another text is another meaning."""


def fuzz_flips(count: int, seed: int) -> None:
    """Flip bits in every kind of file, and print what reading each gave."""
    random = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as name:
        for kind, (path, read) in _readers(Path(name)).items():
            whole, sound, results = path.read_bytes(), read(), Counter[str]()
            for _ in range(count):
                data = bytearray(whole)
                data[int(random.integers(len(data)))] ^= 1 << int(random.integers(8))
                path.write_bytes(data)
                try:
                    same = read() == sound
                    results["harmless" if same else "another text" if kind in SELF_EVIDENT else "silent"] += 1
                except VsslError:
                    results["refused"] += 1
                except Exception as error:  # what a person would see as a traceback
                    results["traceback"] += 1
                    print("traceback", kind, type(error).__name__, str(error)[:200])
            path.write_bytes(whole)
            print(
                f"{kind:<18} {len(whole):>9} bytes, {count} flips, seed {seed}: {dict(sorted(results.items()))}"
            )
