"""Scores of two views against prototypes -> assignments, and how well one predicts the other.

All arithmetic is in float32. Shape letters: B batch, P prototypes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


@torch.no_grad()
def sinkhorn(
    scores: Tensor, smoothness: float = 0.05, rounds: int = 3, counted: Tensor | None = None
) -> Tensor:
    """Assign the batch evenly to the prototypes: scores (B, P) -> shares (B, P), rows sum to 1.

    SwAV's code: exp(scores / smoothness) with columns and rows normalised in turn
    (Caron et al. 2020, section 3.1). counted: (B,) bool, rows that take part, the others' shares
    are 0; None for all.
    """
    scores = scores.float() / smoothness
    shares = (scores - scores.max()).exp()  # a common factor, so that nothing overflows
    if counted is not None:
        shares = shares * counted[:, None]
    for _ in range(rounds):
        shares = shares / shares.sum(dim=0, keepdim=True).clamp(min=1e-12) / shares.shape[1]
        shares = shares / shares.sum(dim=1, keepdim=True).clamp(min=1e-12)
    return shares


def swapped_prediction(scores: Tensor, shares: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of one view's softmax (B, P) from the other view's assignment (B, P)."""
    return -(shares * functional.log_softmax(scores.float() / temperature, dim=1)).sum(dim=1).mean()


def self_distillation(
    student: Tensor,
    teacher: Tensor,
    centre: Tensor,
    student_temperature: float,
    teacher_temperature: float | Tensor,
) -> Tensor:
    """DINO: cross-entropy of the student's softmax from the teacher's, centred and sharpened.

    student, teacher: (B, P) scores of different views; centre: (P,) running mean of the
    teacher's scores.
    """
    wanted = functional.softmax((teacher.detach().float() - centre) / teacher_temperature, dim=1)
    return swapped_prediction(student, wanted, student_temperature)
