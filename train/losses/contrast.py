"""Embeddings of two views and of other images -> scalars that fall as the pairs stand out.

All arithmetic is in float32. Shape letters: B batch, D dimension, M negatives.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """SimCLR's loss: each of the 2B views must find its partner among the other 2B - 1."""
    with torch.autocast(first.device.type, enabled=False):
        codes = functional.normalize(torch.cat([first, second]).float(), dim=1)
        logits = codes @ codes.T / temperature
        logits = logits.masked_fill(torch.eye(len(codes), dtype=torch.bool, device=codes.device), -torch.inf)
        count = len(first)
        partner = torch.arange(2 * count, device=codes.device).roll(count)
        return functional.cross_entropy(logits, partner)


def in_batch(queries: Tensor, keys: Tensor, temperature: float) -> Tensor:
    """Each query must find its key among the batch's keys: (B, D), (B, D) -> scalar."""
    with torch.autocast(queries.device.type, enabled=False):
        q, k = (functional.normalize(x.float(), dim=1) for x in (queries, keys))
        return functional.cross_entropy(q @ k.T / temperature, torch.arange(len(q), device=q.device))


def against_queue(queries: Tensor, keys: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """Each query must find its own key before the queue's: (B, D), (B, D), (M, D) -> scalar."""
    with torch.autocast(queries.device.type, enabled=False):
        q, k, others = (functional.normalize(x.float(), dim=1) for x in (queries, keys, queue))
        logits = torch.cat([(q * k).sum(dim=1, keepdim=True), q @ others.T], dim=1) / temperature
        return functional.cross_entropy(logits, torch.zeros(len(q), dtype=torch.int64, device=q.device))


def relation(
    student: Tensor, teacher: Tensor, queue: Tensor, student_temperature: float, teacher_temperature: float
) -> Tensor:
    """ReSSL: the student's similarities to the queue must be distributed as the teacher's."""
    with torch.autocast(student.device.type, enabled=False):
        s, t, others = (functional.normalize(x.float(), dim=1) for x in (student, teacher, queue))
        wanted = functional.softmax(t @ others.T / teacher_temperature, dim=1)
        found = functional.log_softmax(s @ others.T / student_temperature, dim=1)
        return -(wanted * found).sum(dim=1).mean()
