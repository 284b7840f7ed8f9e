"""Pictures for the demo: handwritten digits as PNG files, a held-out split, corrupted copies."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
from PIL import Image

from vssl.errors import ImageError
from vssl.images.decode import decode
from vssl.images.items import ImageItem, ImageSource

HELD_OUT = 5
"""One image in five is a query."""

WORK_SIDE = 256
"""Corrupted copies are at most this large, and at least a quarter of it."""


def write_digits(folder: Path) -> int:
    """Write scikit-learn's 1,797 handwritten digits (8 x 8, 16 grey levels) as PNG class folders."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = folder / str(int(label)) / f"digit_{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.rint(image * (255 / 16)).astype(np.uint8)).save(path)
    return len(digits.images)


def is_held_out(image_id: str) -> bool:
    """Tell whether an image is a query, from its id alone, so that splits never move."""
    return _seed(image_id) % HELD_OUT == 0


def write_list(source: ImageSource, rows: list[int], path: Path) -> None:
    """Write a `list:FILE.jsonl` of some images of a folder."""
    lines = []
    for row in rows:
        item = source.items[row]
        lines.append(json.dumps({"path": os.path.abspath(item.path), "id": item.id, "label": item.label}))  # noqa: PTH100
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_corrupted(source: ImageSource, rows: list[int], folder: Path, out: Path) -> int:
    """Write a corrupted PNG of each readable image and the list that names them by the same ids."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for row in rows:
        item = source.items[row]
        try:
            picture = decode(source.read(row), min_side=WORK_SIDE)
        except ImageError:
            continue  # the extraction reports it
        path = folder / f"{_seed(item.id):016x}.png"
        corrupt(picture, item).save(path)
        lines.append(json.dumps({"path": os.path.abspath(path), "id": item.id, "label": item.label}))  # noqa: PTH100
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(lines)


def corrupt(picture: Image.Image, item: ImageItem) -> Image.Image:
    """Turn by up to 40 degrees, scale by 0.7 to 1.1, shift by up to a tenth, add noise; random by the id alone."""
    random = np.random.default_rng(_seed(item.id))
    side = max(picture.size)
    scale = min(WORK_SIDE / side, 1.0) if side > WORK_SIDE // 4 else (WORK_SIDE // 4) / side
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    picture = picture.resize(size, Image.Resampling.BICUBIC)
    angle, zoom = np.deg2rad(random.uniform(-40, 40)), random.uniform(0.7, 1.1)
    shift = random.uniform(-0.1, 0.1, 2) * size
    cos, sin = np.cos(angle) / zoom, np.sin(angle) / zoom
    centre = np.array(size) / 2
    # Pillow maps output pixels to input pixels: the inverse of the corruption.
    offset = centre - np.array([[cos, sin], [-sin, cos]]) @ (centre + shift)
    matrix = (cos, sin, offset[0], -sin, cos, offset[1])
    border = np.concatenate(
        [np.asarray(picture)[[0, -1]].reshape(-1, 3), np.asarray(picture)[:, [0, -1]].reshape(-1, 3)]
    )
    fill = tuple(int(c) for c in np.median(border, axis=0))
    turned = picture.transform(size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC, fillcolor=fill)
    noisy = np.asarray(turned, dtype=np.float64) + random.normal(0, random.uniform(10, 40), (*size[::-1], 1))
    return Image.fromarray(np.clip(np.rint(noisy), 0, 255).astype(np.uint8))


def write_raw_pixels(out: Path, like: Path) -> None:
    """Write the pictures' pixels as embeddings of a model that only resizes, as that of other embeddings does."""
    from vssl.embeddings import store
    from vssl.embeddings.gaussian import GaussianEmbedding
    from vssl.embeddings.manifest import write_manifest
    from vssl.images.preprocess import load_image
    from vssl.images.sources import open_source
    from vssl.model.card import ModelCard
    from vssl.model.identity import sha256_bytes

    _, model_card, _ = next(store.iter_parts(like))
    preprocess = model_card.preprocess
    dim = preprocess.size**2 * 3
    card = ModelCard("raw pixels", "none", "none", "features", dim, dim, preprocess)
    model_id = sha256_bytes(card.to_json().encode())
    for name in ("gallery", "queries", "corrupted"):
        source = open_source(f"list:{out / name}.jsonl")
        items, pixels = [], []
        for row, item in enumerate(source.items):
            try:
                pixels.append(load_image(source.read(row), preprocess).reshape(-1))
            except ImageError:
                continue  # the extraction reported it
            items.append(item)
        mean = np.stack(pixels).astype(np.float32) / 255 + np.float32(1e-6)
        rows = store.Rows(
            [i.id for i in items],
            [i.path for i in items],
            [i.label for i in items],
            GaussianEmbedding.from_lists(mean, np.full_like(mean, 1e-6)),
        )
        folder = out / "embeddings" / "raw pixels" / name
        folder.mkdir(parents=True)
        store.write_table(store.to_table(rows, card, model_id), folder / store.part_name(0))
        store.write_failures([], folder)
        write_manifest(folder, model_id=model_id, parts=[store.part_name(0)], rows=len(rows), failures=0)


def _seed(image_id: str) -> int:
    return int.from_bytes(hashlib.sha256(image_id.encode("utf-8", "backslashreplace")).digest()[:8], "big")
