"""What waits in the batcher: a request's ticket, its images, and what one run of the model made of them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from serve.inference.engine import EmbeddedImage
from vssl.errors import VsslError
from vssl.images.preprocess import Pixels

Answer = EmbeddedImage | VsslError


@dataclass(eq=False, slots=True)
class Ticket:
    """One request's images on their way: answers fill up in place, then `done` is set."""

    answers: list[Answer | None]
    missing: int
    deadline: float
    done: asyncio.Future[None]
    timings: dict[str, float] = field(default_factory=dict)


@dataclass(eq=False, slots=True)
class Item:
    """One image: encoded bytes, then pixels."""

    ticket: Ticket
    position: int
    data: bytes | Pixels
    pixels: Pixels | None = None
    ready_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Embedded:
    """One request's answers in the order of its images, with seconds spent by stage."""

    answers: list[Answer]
    timings: dict[str, float]


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the model, or of the decoder alone: finished items, images, seconds by stage."""

    finished: list[tuple[Item, Answer]]
    images: int = 0
    inference_s: float = 0.0
    queue_s: float = 0.0
