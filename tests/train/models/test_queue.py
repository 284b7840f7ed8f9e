"""A queue keeps the newest rows and finds the nearest."""

from __future__ import annotations

import torch

from train.models.queue import Queue


def test_oldest_rows_go_first_around_the_end() -> None:
    queue, axes = Queue(5, 3), torch.eye(3)
    queue.push(2 * axes)
    queue.push(-axes)
    # Six rows into five places: the sixth replaced the first.
    assert torch.equal(queue.rows[0], -axes[2])
    assert torch.equal(queue.rows[1:3], axes[1:])
    assert torch.equal(queue.rows[3:], -axes[:2])


def test_a_batch_larger_than_the_queue_leaves_its_end() -> None:
    queue = Queue(2, 3)
    queue.push(torch.eye(3))
    assert {tuple(row) for row in queue.rows.tolist()} == {(0.0, 1.0, 0.0), (0.0, 0.0, 1.0)}


def test_nearest_by_direction() -> None:
    queue = Queue(3, 3)
    queue.push(torch.eye(3))
    found = queue.nearest(torch.tensor([[0.1, 5.0, 0.2], [9.0, 1.0, 8.0]]))
    assert torch.equal(found, torch.eye(3)[[1, 0]])
