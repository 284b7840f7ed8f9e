"""Two precisions of one model on real pictures -> what the lower one loses, in terms a user cares about.

Shape letters: N images, D embedding dimension.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray

from export.calibration.head import rank_correlation
from export.evaluation.accuracy import accuracy
from export.sources.encoder_graph import cpu_session
from train.evaluation.knn import nearest_others
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.errors import FormatError

MOST_KNN_LOST = 0.01
MOST_R_AUROC_LOST = 0.02
LEAST_RANK_CORRELATION = 0.95
BATCH = 32


@dataclass(frozen=True)
class Fidelity:
    """The lower precision compared with fp32 on the same pictures.

    images: N; cosine: smallest cosine between the two means of one picture; same_neighbour:
    share of pictures whose nearest other picture is the same; rank_correlation: Spearman of the
    two uncertainties; knn_fp32, knn: leave-one-out 20-NN accuracy (None without labels);
    r_auroc_fp32, r_auroc: AUROC of -uncertainty for "the nearest picture has my label" (None
    without labels, or when all or none have); speed: images/s over fp32's, one thread pool.
    """

    images: int
    cosine: float
    same_neighbour: float
    rank_correlation: float
    speed: float
    knn_fp32: float | None = None
    knn: float | None = None
    r_auroc_fp32: float | None = None
    r_auroc: float | None = None

    def require(self, precision: str) -> None:
        """Raise FormatError when more is lost than a user should lose without saying so."""
        losses = []
        if self.knn_fp32 is not None and self.knn is not None and self.knn_fp32 - self.knn > MOST_KNN_LOST:
            losses.append(f"k-NN accuracy fell from {self.knn_fp32:.3f} to {self.knn:.3f}")
        if self.r_auroc_fp32 and self.r_auroc and self.r_auroc_fp32 - self.r_auroc > MOST_R_AUROC_LOST:
            losses.append(f"R-AUROC fell from {self.r_auroc_fp32:.3f} to {self.r_auroc:.3f}")
        if self.rank_correlation < LEAST_RANK_CORRELATION:
            losses.append(
                f"uncertainties are ordered otherwise (rank correlation {self.rank_correlation:.3f}, "
                f"expected at least {LEAST_RANK_CORRELATION})"
            )
        if losses:
            raise FormatError(
                f"{precision} loses too much on {self.images} images: {'; '.join(losses)}. Nothing was written; "
                "add --accept-loss to write it all the same, or name more --calibration images"
            )


def compare(
    fp32: bytes, lower: bytes, images: NDArray[np.uint8], labels: list[str | None], rounds: int = 5
) -> Fidelity:
    """Run both models on images (N, S, S, 3) and compare their answers and their speed."""
    sessions = [cpu_session(data) for data in (fp32, lower)]
    outputs = [embed(session, images) for session in sessions]
    nearest = [nearest_others(torch.from_numpy(gaussians.mean), 1)[1][:, 0] for gaussians in outputs]
    unit = [g.mean / np.linalg.norm(g.mean, axis=1, keepdims=True) for g in outputs]
    spreads = [g.uncertainty.astype(np.float64) for g in outputs]
    found = [accuracy(gaussians, labels) for gaussians in outputs]
    return Fidelity(
        images=len(images),
        cosine=float((unit[0] * unit[1]).sum(axis=1).min()),
        same_neighbour=float((nearest[0] == nearest[1]).double().mean()),
        rank_correlation=rank_correlation(spreads[0], spreads[1]),
        speed=_speed_ratio(sessions, images[:BATCH], rounds),
        knn_fp32=found[0].knn_top1 if found[0] else None,
        knn=found[1].knn_top1 if found[1] else None,
        r_auroc_fp32=found[0].r_auroc if found[0] else None,
        r_auroc=found[1].r_auroc if found[1] else None,
    )


def embed(session: ort.InferenceSession, images: NDArray[np.uint8]) -> GaussianEmbedding:
    """Run a session over images (N, S, S, 3) in batches."""
    known = {output.name for output in session.get_outputs()}
    names = ["mean", "variance", *(["uncertainty"] if "uncertainty" in known else [])]
    batches = [
        GaussianEmbedding(*session.run(names, {"images": images[start : start + BATCH]}))
        for start in range(0, len(images), BATCH)
    ]
    return GaussianEmbedding.concatenate(batches)


def _speed_ratio(sessions: list[ort.InferenceSession], images: NDArray[np.uint8], rounds: int) -> float:
    """Time both in turn; the median of the pairwise ratios holds when the machine's speed drifts."""
    ratios = []
    for _ in range(rounds):
        seconds = []
        for session in sessions:
            start = time.perf_counter()
            session.run(["mean"], {"images": images})
            seconds.append(time.perf_counter() - start)
        ratios.append(seconds[0] / seconds[1])
    return float(np.median(ratios))
