"""VSSL's cosine forms: mean and variance vectors of two views -> (B,) terms.

Yavuz and Yanikoglu, "Variational Self-Supervised Learning", arXiv 2504.04318, equations 8 to
10. A raw variance is unconstrained and enters through its direction only. All arithmetic is in
float32: in bfloat16 all cosines above about 0.998 are one number.
Shape letters: B batch, D embedding dimension.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

TINY = 1e-6
"""Smallest norm that is divided by; 1e-8 would be 0 in half precision."""

KL_SHARPNESS = 3.0
LIKELIHOOD_SHARPNESS = 1.0


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine similarity of rows: (B, D), (B, D) -> (B,) float32; a zero vector gives 0."""
    a, b = a.float(), b.float()  # autocast leaves every operation below in it
    a = a / a.norm(dim=1, keepdim=True).clamp(min=TINY)
    b = b / b.norm(dim=1, keepdim=True).clamp(min=TINY)
    return (a * b).sum(dim=1)


def softplus_distance(a: Tensor, b: Tensor, sharpness: float) -> Tensor:
    """S_k(a, b) = ln(1 + exp(-k cos(a, b))) / k: (B,) positive, small when aligned.

    The softplus of the negative cosine with `beta` = k, which is how the paper's "scaled by
    beta" is read here.
    """
    return functional.softplus(-cosine(a, b), beta=sharpness)


def cosine_kl(mean: Tensor, variance: Tensor, teacher_mean: Tensor, teacher_variance: Tensor) -> Tensor:
    """K, equation 9: 1/2 [ln S_3(var) + S_3(mean)^2 + S_3(var) - 1] -> (B,).

    The student's predicted code against the teacher's code of the other view; all (B, D).
    """
    by_variance = softplus_distance(variance, teacher_variance, KL_SHARPNESS)
    by_mean = softplus_distance(mean, teacher_mean, KL_SHARPNESS)
    return 0.5 * (by_variance.log() + by_mean.square() + by_variance - 1.0)


def cosine_likelihood(
    mean: Tensor, variance: Tensor, teacher_mean: Tensor, teacher_variance: Tensor
) -> Tensor:
    """N, equation 10: ln S_1(var) + 4 S_1(var) + S_1(mean)^2 S_1(var) -> (B,).

    The denoised sample of the student against the teacher's code; all (B, D). It falls as
    alignment grows: it is a cost, a negative log-likelihood in form, and is added.
    """
    by_variance = softplus_distance(variance, teacher_variance, LIKELIHOOD_SHARPNESS)
    by_mean = softplus_distance(mean, teacher_mean, LIKELIHOOD_SHARPNESS)
    return by_variance.log() + 4.0 * by_variance + by_mean.square() * by_variance


def one_sided_sample(mean: Tensor, variance: Tensor, noise: Tensor, *, signed: bool = False) -> Tensor:
    """Section III-G: mean + variance * |noise|, elementwise, (B, D).

    The raw variance multiplies, not its root. With standard normal noise the sample's mean is
    mean + 0.798 variance and its deviation 0.603 |variance|. `signed` drops the absolute value.
    """
    return mean + variance * (noise if signed else noise.abs())
