"""DeepCluster V2: labels come from codes, hold for an epoch, and survive a checkpoint."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from tests.train.methods.test_every_method import config, views
from train.methods import new_method
from train.methods.deepcluster_v2 import DeepClusterV2

OPTIONS = {"prototypes": 3, "heads": 2, "rounds": 5}


def started() -> DeepClusterV2:
    torch.manual_seed(0)
    method = new_method(config("deepcluster-v2", OPTIONS))
    assert isinstance(method, DeepClusterV2)
    parts = torch.arange(12).split(8)
    pictures = torch.cat([views(1), views(2)])[:12]
    method.begin_epoch(lambda: [(rows, pictures[rows]) for rows in parts])
    return method


def slow_loss(method: DeepClusterV2, codes: list[torch.Tensor], rows: torch.Tensor) -> float:
    """Equation by hand: one image, view and clustering at a time."""
    memory, total, count = method.heads["memory"], 0.0, 0
    for code in codes:
        for head in range(2):
            for place, row in enumerate(rows):
                unit = code[place] / code[place].norm()
                scores = [float(unit @ centroid) / 0.1 for centroid in memory.centroids[head]]
                label = int(memory.labels[head, row])
                total += float(torch.tensor(scores).logsumexp(0)) - scores[label]
                count += 1
    return total / count


def test_the_loss_is_the_mean_cross_entropy_of_the_clusters() -> None:
    method = started()
    rows = torch.tensor([3, 11, 0, 7, 1, 9, 10, 2])
    first, second = views(5), views(6)
    with torch.no_grad():
        codes = [method.student(view).mean for view in (first, second)]
        expected = slow_loss(method, codes, rows)
        found = method(first, second, torch.Generator(), rows).loss
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_codes_of_the_batch_are_kept_and_labels_change_with_the_epoch_only() -> None:
    method = started()
    memory = method.heads["memory"]
    labels, untouched = memory.labels.clone(), memory.codes[:, 8:].clone()
    with torch.no_grad():
        code = method.student(views(5)).mean
        method(views(5), views(6), torch.Generator(), torch.arange(8))
    torch.testing.assert_close(memory.codes[0, :8], functional.normalize(code, dim=1))
    torch.testing.assert_close(memory.codes[:, 8:], untouched)
    torch.testing.assert_close(memory.labels, labels)
    method.begin_epoch(lambda: pytest.fail("the second epoch needs no pass over the images"))
    for head in range(2):
        nearest = (memory.codes[head] @ memory.centroids[head].T).argmax(dim=1)
        torch.testing.assert_close(memory.labels[head], nearest)


def test_a_fresh_method_takes_the_memory_of_a_checkpoint() -> None:
    method = started()
    fresh = new_method(method.config)
    fresh.load_state_dict(method.state_dict())
    for name, value in method.heads.state_dict().items():
        torch.testing.assert_close(fresh.heads.state_dict()[name], value)


def test_the_batch_s_rows_are_required() -> None:
    with pytest.raises(RuntimeError, match="rows of its batch"):
        new_method(config("deepcluster-v2", OPTIONS))(views(0), views(1), torch.Generator())
