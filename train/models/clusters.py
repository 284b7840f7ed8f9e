"""Unit vectors -> the directions they gather around: k-means on the sphere.

Shape letters: N rows, P clusters, D dimension.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

CHUNK = 8192
"""Rows compared with all centroids at once, which bounds the memory to CHUNK x P."""


@torch.no_grad()
def spherical_kmeans(
    rows: Tensor, count: int, rounds: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Cluster unit rows (N, D) by cosine: centroids (P, D), unit length, and each row's cluster (N,).

    count: P; starts from random rows, each used twice only when P > N. A cluster that loses all
    its rows keeps its centroid (Caron et al. 2018). generator: on the CPU, so that every device
    draws the same.
    """
    order = torch.randperm(len(rows), generator=generator)[torch.arange(count) % len(rows)]
    centroids = rows[order.to(rows.device)]
    for _ in range(rounds):
        nearest = nearest_centroid(rows, centroids)
        sums = torch.zeros_like(centroids).index_add_(0, nearest, rows)
        filled = torch.bincount(nearest, minlength=count) > 0
        centroids = torch.where(filled[:, None], functional.normalize(sums, dim=1), centroids)
    return centroids, nearest_centroid(rows, centroids)


@torch.no_grad()
def nearest_centroid(rows: Tensor, centroids: Tensor) -> Tensor:
    """Return the place of the centroid with the largest inner product: (N, D), (P, D) -> (N,)."""
    return torch.cat([(part @ centroids.T).argmax(dim=1) for part in torch.split(rows, CHUNK)])
