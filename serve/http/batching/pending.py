"""What waits in the batcher: a request's ticket, its images, and what one run of the model made of them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import NamedTuple

from serve.inference.embedded import EmbeddedImages
from vssl.errors import VsslError
from vssl.images.preprocess import Pixels


@dataclass(eq=False, slots=True)
class Ticket:
    """One request's images on their way: answers and errors come in, then `done` is set.

    answers: with the positions in the request of what each is about. errors: by position.
    missing: images without either.
    """

    missing: int
    deadline: float
    done: asyncio.Future[None]
    errors: dict[int, VsslError]
    answers: list[tuple[list[int], EmbeddedImages]] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)

    def settle(self, count: int) -> None:
        """Note that so many more images have their answer or error."""
        self.missing -= count
        if not self.missing:
            self.end()

    def end(self) -> None:
        """Wait for no more of them."""
        if not self.done.done():
            self.done.set_result(None)


@dataclass(eq=False, slots=True)
class Part:
    """Images of one request that one thread decodes, with their positions."""

    ticket: Ticket
    images: list[tuple[int, bytes | Pixels]]


class Decoded(NamedTuple):
    """One image that waits for the model, from `ready_at` on."""

    ticket: Ticket
    position: int
    pixels: Pixels
    ready_at: float


class Failed(NamedTuple):
    """One image that has no answer."""

    ticket: Ticket
    position: int
    error: VsslError


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the model, or of the decoder alone: what failed, and the answers about a batch.

    begun: when the model began, on the clock of `ready_at`. inference_s: seconds that it took.
    """

    failed: list[Failed]
    batch: list[Decoded] = field(default_factory=list)
    answers: EmbeddedImages | None = None
    begun: float = 0.0
    inference_s: float = 0.0
