"""A feature bank with labels, and queries -> weighted k-nearest-neighbour accuracy.

Shape letters: N bank rows, Q queries, D dimension, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

BLOCK = 1024  # queries scored at a time


@torch.no_grad()
def knn_predict(
    bank: Tensor, labels: Tensor, queries: Tensor, classes: int, k: int = 20, temperature: float = 0.07
) -> Tensor:
    """Return the class of each query, (Q,): cosine neighbours vote with weight exp(cos / T).

    bank (N, D), labels (N,) in 0..C-1, queries (Q, D). Wu et al. (2018); ties of equal weight go
    to the smaller class.
    """
    bank, k = functional.normalize(bank.float(), dim=1), min(k, len(bank))
    predictions = []
    for block in torch.split(functional.normalize(queries.float(), dim=1), BLOCK):
        similarity, rows = (block @ bank.T).topk(k, dim=1)
        predictions.append(vote(similarity, labels[rows], classes, temperature))
    return torch.cat(predictions)


@torch.no_grad()
def vote(similarity: Tensor, labels: Tensor, classes: int, temperature: float = 0.07) -> Tensor:
    """Return the class with the largest sum of exp(cos / T): similarity, labels (Q, K) -> (Q,)."""
    weight = ((similarity - 1.0) / temperature).exp()  # a common factor, so that nothing overflows
    votes = torch.zeros(len(labels), classes, device=similarity.device)
    return votes.scatter_add_(1, labels, weight).argmax(dim=1)


@torch.no_grad()
def nearest_others(codes: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return cosines and rows, (N, K) each, of every code's nearest others, the nearest first.

    codes (N, D); no row is its own neighbour, so there are at most N - 1.
    """
    unit = functional.normalize(codes.float(), dim=1)
    cosines, rows = [], []
    for start in range(0, len(unit), BLOCK):
        similarity = unit[start : start + BLOCK] @ unit.T
        own = torch.arange(len(similarity), device=unit.device)
        similarity[own, start + own] = -torch.inf
        best = similarity.topk(min(k, len(unit) - 1), dim=1)
        cosines.append(best.values)
        rows.append(best.indices)
    return torch.cat(cosines), torch.cat(rows)


def knn_accuracy(
    bank: Tensor,
    labels: Tensor,
    queries: Tensor,
    truth: Tensor,
    classes: int,
    k: int = 20,
    temperature: float = 0.07,
) -> float:
    """Return the share of queries, truth (Q,), whose predicted class is right."""
    predicted = knn_predict(bank, labels, queries, classes, k, temperature)
    return float((predicted == truth).float().mean())
