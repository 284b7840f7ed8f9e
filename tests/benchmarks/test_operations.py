"""A step launches few operations: what the host of a GPU does between two kernels is bounded for every method."""

from __future__ import annotations

import pytest
import torch

from benchmarks.operations import GRAPH, Operations, config, operations
from train.methods import METHODS

AT_MOST = 1600
"""Operations of a VSSL step that is not compiled; it was 2,708 when LARS and the views went image by image."""


def test_views_and_empty_memory_are_not_counted_and_work_is() -> None:
    counter, numbers = Operations(), torch.ones(4, 3)
    with counter:
        torch.empty(3)
        numbers.t().reshape(3, 4)[0].detach()
        assert counter.counts.total() <= 1  # a copy, because of the transposition
        counter.counts.clear()
        (numbers + 1).mul_(2).sum()
    assert counter.counts == {"aten.add.Tensor": 1, "aten.mul_.Tensor": 1, "aten.sum.default": 1}


def test_a_step_of_vssl_that_is_not_compiled() -> None:
    assert operations(config("vssl")).total() <= AT_MOST


@pytest.mark.parametrize("method", ["vssl", "swav", "deepcluster-v2"])
def test_a_compiled_step_is_four_graphs_and_little_else(method: str) -> None:
    """Two views, the loss and its gradients; LARS, the classifier, the teacher and what is logged are the rest."""
    torch.compiler.reset()
    counts = operations(config(method, compiled=True))
    assert counts.pop(GRAPH) == 4
    assert counts.total() <= 100


@pytest.mark.parametrize("method", list(METHODS))
def test_nothing_in_a_step_asks_a_gpu_for_a_number(method: str) -> None:
    counts = operations(config(method))
    asked = {
        "aten._local_scalar_dense.default",
        "aten.item.default",
        "aten.nonzero.default",
        "aten.is_nonzero.default",
    }
    assert not asked & set(counts)
