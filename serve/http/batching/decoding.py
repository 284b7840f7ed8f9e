"""Encoded image -> what is made of it: here, or for large images in a process of its own, one at a time.

Decoders copy whole pictures while they hold Python's lock: 0.18 s for a WebP of 63 million pixels, in which no
thread of this process answers anything, and a gigabyte of memory. So the bytes of a large image go to another
process, and its small result comes back. JPEG files are decoded here at any size: their decoder reduces them.
"""

from __future__ import annotations

import functools
import io
import logging
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

from serve.inference.memory import hand_back
from vssl.errors import ImageError
from vssl.images.decode import DecodeLimits, decode
from vssl.images.formats import claimed_format

T = TypeVar("T")
LARGE_PIXELS = 16_000_000
"""Pixels beyond which an image is large: copying so many takes at most some 15 ms."""

LARGE_WEBP_PIXELS = 4_000_000
"""The same for WebP, whose pixels are copied several times."""

START = "import sys; sys.path.insert(0, sys.argv[1]); from serve.http.batching import decoding; decoding.answer({})"
"""What the process runs; this very package is what it imports."""

log = logging.getLogger("vssl.serve")


class LargeImageError(Exception):
    """An image that is not decoded here, for its size: `Decoder.aside` takes it."""


class Decoder:
    """Runs `work(data, *arguments, limits)` on encoded images; every method may be called from any thread.

    `work` is a function of a module: `load_image`, `thumbnail_jpeg`. The process begins with the first large image,
    and ends with this one.
    """

    def __init__(self, limits: DecodeLimits) -> None:
        self._limits = limits
        self._most = {
            kind: replace(limits, max_pixels=min(most, limits.max_pixels))
            for kind, most in ((None, LARGE_PIXELS), ("WEBP", LARGE_WEBP_PIXELS))
        } | {"JPEG": limits}
        self._turn = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    def here(self, work: Callable[..., T], data: bytes, *arguments: Any) -> T:
        """Return the result of the work in this thread; raises LargeImageError where it is too large for that."""
        limits = self._most.get(claimed_format(data)) or self._most[None]
        try:
            return work(data, *arguments, limits)
        except ImageError as error:
            if error.code == "too_many_pixels" and limits.max_pixels < self._limits.max_pixels:
                raise LargeImageError from None
            raise

    def aside(self, work: Callable[..., T], data: bytes, *arguments: Any, seconds: float) -> T:
        """Return the result of the work in the other process, once it is this image's turn.

        Raises TimeoutError after `seconds`, MemoryError where the process has none or is killed for it, and
        ImageError `undecodable` where the decoder crashes, besides what the work raises.
        """
        end = time.monotonic() + seconds
        if not self._turn.acquire(timeout=max(0, seconds)):
            raise TimeoutError
        try:
            connection = self._connection or self._start()
            connection.send((work, (*arguments, self._limits)))
            connection.send_bytes(data)
            if not connection.poll(max(0, end - time.monotonic())):
                self._end()
                raise TimeoutError
            error, result = connection.recv()
        except (EOFError, ConnectionError):
            raise self._death() from None
        finally:
            self._turn.release()
        if error is not None:
            raise error
        found: T = result
        return found

    def anywhere(self, work: Callable[..., T], data: bytes, *arguments: Any, seconds: float) -> T:
        """Return the result of the work, wherever it belongs; raises what `here` and `aside` do."""
        try:
            return self.here(work, data, *arguments)
        except LargeImageError:
            return self.aside(work, data, *arguments, seconds=seconds)

    def close(self) -> None:
        """End the process."""
        with self._turn:
            self._end()

    def _start(self) -> Connection:
        ours, its = socket.socketpair()
        root = str(Path(__file__).resolve().parents[3])
        with its:
            command = [sys.executable, "-P", "-c", START.format(its.fileno()), root]
            self._process = subprocess.Popen(command, pass_fds=[its.fileno()], stdin=subprocess.DEVNULL)
        self._connection = Connection(ours.detach())
        return self._connection

    def _end(self, patience: float = 0.05) -> int:
        """End the process, if there is one, after so many seconds; return its status, 0 if it had to be killed."""
        process, connection, self._process, self._connection = self._process, self._connection, None, None
        if process is None or connection is None:
            return 0
        connection.close()
        try:
            return process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return 0

    def _death(self) -> Exception:
        """Return the error of the image whose process has ended."""
        status = self._end(patience=5)  # its connection is closed: it is ending by itself
        log.warning(
            "the process that decodes large images ended with status %d; the next one begins another", status
        )
        if status == -signal.SIGKILL:  # by the system, for its memory
            return MemoryError("the process that decoded this image was killed")
        return ImageError("undecodable", f"its decoder ended with status {status}")


def thumbnail_jpeg(data: bytes, side: int, limits: DecodeLimits) -> bytes:
    """Encoded image -> a JPEG of at most so many pixels a side; raises ImageError."""
    picture = decode(data, limits, min_side=side)
    picture.thumbnail((side, side))
    sink = io.BytesIO()
    picture.save(sink, "JPEG", quality=85)
    return sink.getvalue()


def answer(number: int) -> None:
    """Do the work that comes through a socket, given as its file's number, until its other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the server ends this process
    with Connection(number) as connection:
        while True:
            try:
                work, arguments = connection.recv()
                run = functools.partial(work, connection.recv_bytes(), *arguments)
                connection.send(_outcome(run))
            except (EOFError, ConnectionError):
                return
            del run
            hand_back(0)


def _outcome(run: Callable[[], object]) -> tuple[Exception | None, object]:
    try:
        return None, run()
    except ImageError as error:
        return ImageError(error.code, str(error)), None  # a new one: the frames of this one hold the image
    except MemoryError:
        return MemoryError(), None
    except Exception:
        traceback.print_exc()
        return RuntimeError("an image was not decoded; the traceback stands above in the log"), None
