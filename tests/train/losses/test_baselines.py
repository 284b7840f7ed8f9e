"""The baselines' losses agree with slow float64 loops, and with lightly's where it has the same."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from train.losses.agreement import barlow_twins, negative_cosine, regression, vicreg
from train.losses.assignment import self_distillation, sinkhorn, swapped_prediction
from train.losses.contrast import against_queue, in_batch, nt_xent, relation


def rows(seed: int, count: int = 6, dim: int = 5) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def unit(x: Tensor) -> np.ndarray:
    values = x.double().numpy()
    return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True))


def cross_entropy(logits: list[float], right: int) -> float:
    return math.log(sum(math.exp(v) for v in logits)) - logits[right]


def test_nt_xent() -> None:
    a, b, t = rows(0), rows(1), 0.2
    codes = np.concatenate([unit(a), unit(b)])
    losses = []
    for i in range(12):
        others = [j for j in range(12) if j != i]
        logits = [float(codes[i] @ codes[j]) / t for j in others]
        losses.append(cross_entropy(logits, others.index((i + 6) % 12)))
    assert nt_xent(a, b, t).item() == pytest.approx(np.mean(losses), rel=1e-5)


def test_in_batch_and_against_a_queue() -> None:
    q, k, queue, t = rows(0), rows(1), rows(2, 9), 0.2
    a, b, c = unit(q), unit(k), unit(queue)
    batch = [cross_entropy([float(a[i] @ b[j]) / t for j in range(6)], i) for i in range(6)]
    assert in_batch(q, k, t).item() == pytest.approx(np.mean(batch), rel=1e-5)
    queued = [
        cross_entropy([float(a[i] @ b[i]) / t] + [float(a[i] @ row) / t for row in c], 0) for i in range(6)
    ]
    assert against_queue(q, k, queue, t).item() == pytest.approx(np.mean(queued), rel=1e-5)


def test_relation() -> None:
    s, t, queue = rows(0), rows(1), rows(2, 9)
    a, b, c = unit(s), unit(t), unit(queue)
    total = 0.0
    for i in range(6):
        wanted = np.exp(b[i] @ c.T / 0.04)
        wanted /= wanted.sum()
        found = a[i] @ c.T / 0.1
        total -= float((wanted * (found - math.log(np.exp(found).sum()))).sum())
    assert relation(s, t, queue, 0.1, 0.04).item() == pytest.approx(total / 6, rel=1e-5)


def test_barlow_twins() -> None:
    a, b = rows(0, 40), rows(1, 40)
    x, y = (v.double().numpy() for v in (a, b))
    total = 0.0
    for i in range(5):
        for j in range(5):
            p = (x[:, i] - x[:, i].mean()) / math.sqrt(x[:, i].var() + 1e-5)
            q = (y[:, j] - y[:, j].mean()) / math.sqrt(y[:, j].var() + 1e-5)
            c = float((p * q).mean())
            total += (1 - c) ** 2 if i == j else 0.0051 * c**2
    assert barlow_twins(a, b).item() == pytest.approx(0.1 * total, rel=1e-4)


def test_barlow_twins_of_views_that_agree_asks_only_that_dimensions_differ() -> None:
    """Two dimensions of correlation 1/2, by hand: only the two entries beside the diagonal cost."""
    a = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    a = torch.stack([a[:, 0], 0.5 * a[:, 0] + 0.75**0.5 * a[:, 1]], dim=1)
    assert barlow_twins(a, a, redundancy=0.1, scale=2.0).item() == pytest.approx(2 * 0.1 * 2 * 0.25, rel=1e-4)


def test_barlow_twins_of_a_constant_dimension_is_the_cost_of_no_correlation() -> None:
    a = torch.cat([rows(0, 40, 1), torch.ones(40, 1)], dim=1)
    assert barlow_twins(a, a, scale=1.0).item() == pytest.approx(1.0, rel=1e-4)


def test_vicreg() -> None:
    a, b = rows(0, 30), 0.5 * rows(1, 30)
    x, y = (v.double().numpy() for v in (a, b))
    total = 25 * float(((x - y) ** 2).mean())
    for z in (x, y):
        total += 25 * np.mean([max(0.0, 1 - math.sqrt(z[:, i].var(ddof=1) + 1e-4)) for i in range(5)])
        matrix = np.cov(z.T)
        total += sum(matrix[i, j] ** 2 for i in range(5) for j in range(5) if i != j) / 5
    assert vicreg(a, b).item() == pytest.approx(total, rel=1e-5)


def test_regression_and_negative_cosine_by_hand() -> None:
    a, b = torch.tensor([[3.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 1.0], [0.0, -2.0]])
    assert regression(a, b).item() == pytest.approx(((2 - 2 * 2**-0.5) + 4) / 2, rel=1e-6)
    assert negative_cosine(a, b).item() == pytest.approx((-(2**-0.5) + 1) / 2, rel=1e-6)


def test_sinkhorn_fills_every_prototype_evenly() -> None:
    scores = torch.tanh(rows(0, 12, 4))
    shares = sinkhorn(scores, 0.3, 200)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(12))
    torch.testing.assert_close(shares.sum(dim=0), torch.full((4,), 3.0), rtol=1e-3, atol=1e-3)
    # Rows and columns are only rescaled: cross ratios stay those of exp(scores / smoothness).
    logs, given = shares.log(), scores / 0.3
    ratio = logs[0, 0] + logs[1, 1] - logs[0, 1] - logs[1, 0]
    assert ratio.item() == pytest.approx(
        (given[0, 0] + given[1, 1] - given[0, 1] - given[1, 0]).item(), abs=1e-3
    )


def test_assignment_losses() -> None:
    scores, shares = rows(0, 3, 4), torch.eye(4)[:3]
    wanted = [cross_entropy((scores[i].double() / 0.1).tolist(), i) for i in range(3)]
    assert swapped_prediction(scores, shares, 0.1).item() == pytest.approx(np.mean(wanted), rel=1e-5)
    teacher, centre = rows(1, 3, 4), torch.tensor([0.1, -0.2, 0.3, 0.0])
    total = 0.0
    for i in range(3):
        w = np.exp((teacher[i] - centre).double().numpy() / 0.07)
        w /= w.sum()
        f = scores[i].double().numpy() / 0.1
        total -= float((w * (f - math.log(np.exp(f - f.max()).sum()) - f.max())).sum())
    found = self_distillation(scores, teacher, centre, 0.1, 0.07).item()
    assert found == pytest.approx(total / 3, rel=1e-5)


def test_agree_with_lightly() -> None:
    lightly = pytest.importorskip("lightly.loss", reason="needs lightly")
    a, b = rows(3, 16, 8), rows(4, 16, 8)
    theirs = lightly.NTXentLoss(temperature=0.2)(a, b)
    torch.testing.assert_close(nt_xent(a, b, 0.2), theirs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(negative_cosine(a, b), lightly.NegativeCosineSimilarity()(a, b))
    # Its VICReg halves the variance term; its Barlow Twins leaves the scale to the caller.
    theirs = lightly.VICRegLoss(mu_param=50.0)(a, b)
    torch.testing.assert_close(vicreg(a, b), theirs, rtol=1e-5, atol=1e-5)
    theirs = 0.1 * lightly.BarlowTwinsLoss(lambda_param=0.0051)(a, b)
    torch.testing.assert_close(barlow_twins(a, b), theirs, rtol=1e-3, atol=1e-3)


def test_contrasts_work_where_their_inputs_are_and_not_on_the_default_device() -> None:
    q, k, queue = rows(0), rows(1), rows(2, 9)
    expected = [nt_xent(q, k, 0.2), in_batch(q, k, 0.2), against_queue(q, k, queue, 0.2)]
    with torch.device("meta"):
        found = [nt_xent(q, k, 0.2), in_batch(q, k, 0.2), against_queue(q, k, queue, 0.2)]
    torch.testing.assert_close(found, expected)


def test_rows_that_do_not_count_change_no_assignment() -> None:
    scores = torch.rand(12, 5, generator=torch.Generator().manual_seed(4))
    counted = torch.arange(12) < 7
    found = sinkhorn(scores, 0.05, 3, counted)
    torch.testing.assert_close(found[:7], sinkhorn(scores[:7], 0.05, 3))
    assert not found[7:].any()
    torch.testing.assert_close(found[:7].sum(dim=1), torch.ones(7))
