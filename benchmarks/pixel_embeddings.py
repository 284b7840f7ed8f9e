"""CIFAR-10 images -> Gaussian embeddings without any training, to measure on real variances.

    python benchmarks/pixel_embeddings.py CIFAR_FOLDER OUT [--dim 128] [--views 8]

The mean is the image's principal components (fitted on the training images); the variance is
what it is under random views: shifts of up to four pixels, mirroring, brightness and contrast.
A weak encoder, but real images, real classes, and variances measured as a trained model's are
fitted. Writes OUT/gallery (20,000 training images), OUT/queries (10,000 test images) and
OUT/blur-1 .. blur-3 (test images averaged over 2 to 4 pixels each way), as embeddings folders.
"""

from __future__ import annotations

import argparse
import hashlib
import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.embeddings.manifest import write_manifest
from vssl.embeddings.store import Rows, part_name, to_table, write_failures, write_table
from vssl.images.preprocess import Preprocess
from vssl.model.card import Calibration, ModelCard

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def read(file: Path, count: int) -> tuple[np.ndarray, list[str | None]]:
    """Return images (N, 32, 32, 3) float32 in 0..1 and label names."""
    table = pq.read_table(file).slice(0, count)
    images = [
        np.asarray(Image.open(io.BytesIO(row["bytes"])).convert("RGB")) for row in table["image"].to_pylist()
    ]
    return np.stack(images).astype(np.float32) / 255, [CLASSES[c] for c in table["label"].to_pylist()]


def view(images: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return one random view of each image."""
    padded = np.pad(images, ((0, 0), (4, 4), (4, 4), (0, 0)), mode="reflect")
    rows, columns = random.integers(0, 9, (2, len(images)))
    moved = np.stack([p[r : r + 32, c : c + 32] for p, r, c in zip(padded, rows, columns, strict=True)])
    mirrored = np.where(random.random((len(images), 1, 1, 1)) < 0.5, moved[:, :, ::-1], moved)
    gain, lift = (
        random.uniform(0.8, 1.2, (len(images), 1, 1, 1)),
        random.uniform(-0.1, 0.1, (len(images), 1, 1, 1)),
    )
    return ((mirrored - 0.5) * gain + 0.5 + lift).astype(np.float32)


def blurred(images: np.ndarray, width: int) -> np.ndarray:
    """Return images averaged over `width` + 1 pixels each way."""
    shifted = [np.roll(images, (dy, dx), (1, 2)) for dy in range(width + 1) for dx in range(width + 1)]
    return np.mean(shifted, axis=0, dtype=np.float32)


def main() -> None:
    """Write the five folders."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cifar", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--views", type=int, default=8)
    options = parser.parse_args()
    random = np.random.default_rng(0)
    train, train_labels = read(options.cifar / "train-0.parquet", 20_000)
    test, test_labels = read(options.cifar / "test.parquet", 10_000)
    flat = train.reshape(len(train), -1)
    centre = flat.mean(axis=0)
    _, vectors = np.linalg.eigh(np.cov((flat - centre)[:10_000].T))
    axes = vectors[:, ::-1][:, : options.dim].astype(np.float32)
    card = ModelCard(
        "pixel-pca",
        "none",
        "pca",
        "features",
        options.dim,
        options.dim,
        Preprocess(size=32, resize=32),
        calibration=Calibration("monte-carlo", len(train), options.views),
    )
    model_id = hashlib.sha256(axes.tobytes()).hexdigest()

    def embed(images: np.ndarray) -> np.ndarray:
        return (images.reshape(len(images), -1) - centre) @ axes

    def write(name: str, images: np.ndarray, labels: list[str | None]) -> None:
        mean = embed(images)
        spread = np.mean([(embed(view(images, random)) - mean) ** 2 for _ in range(options.views)], axis=0)
        folder = options.out / name
        folder.mkdir(parents=True)
        # The id is the same for every form of an image, and ends in its row number.
        ids = [f"{'train' if name == 'gallery' else 'test'}/{row:05d}" for row in range(len(images))]
        gaussians = GaussianEmbedding(mean, np.maximum(spread, 1e-8).astype(np.float32))
        write_table(to_table(Rows(ids, ids, labels, gaussians), card, model_id), folder / part_name(0))
        write_failures([], folder)
        write_manifest(folder, model_id=model_id, parts=[part_name(0)], rows=len(ids), failures=0)
        share = spread.sum(axis=1).mean() / (mean**2).sum(axis=1).mean()
        print(f"{folder}: {len(ids)} images, mean trace / squared norm {share:.3f}")

    write("gallery", train, train_labels)
    write("queries", test, test_labels)
    for level in (1, 2, 3):
        write(f"blur-{level}", blurred(test, level), test_labels)


if __name__ == "__main__":
    main()
