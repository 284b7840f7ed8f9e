"""The supervisor's part of a clean end: whoever comes after SIGTERM is refused, nobody is left waiting.

BentoML's supervisor (circus) holds the listening socket open until the last worker is gone. Who connects
while the workers end is taken in by the kernel, and reset when the socket closes. So the supervisor lets go
of the socket at once, and stops new handshakes: those under way are completed and answered by the workers,
a later one gets no answer to its SYN, asks again a second later as TCP does, and is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import signal
import socket
import struct
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

SO_ATTACH_FILTER = 26  # asm-generic/socket.h; Python's socket module does not name it
DROP_SYN = (  # classic BPF over a TCP segment: (code, jump if true, jump if false, operand)
    (0x30, 0, 0, 13),  # load the byte of flags
    (0x54, 0, 0, 0x12),  # keep SYN and ACK
    (0x15, 0, 1, 0x02),  # SYN alone?
    (0x06, 0, 0, 0),  # drop it
    (0x06, 0, 0, 0xFFFFFFFF),  # let it pass
)


def shut_the_door_on_signals() -> None:
    """Let the supervisor shut the door when it stops; to be called before circus hears signals."""
    from tornado.ioloop import IOLoop

    IOLoop.current().add_callback(_listen_in)


def _listen_in() -> None:
    """Hear the signals that circus hears: it is running by now."""
    loop = asyncio.get_running_loop()
    for kind in (signal.SIGTERM, signal.SIGINT):
        before: Any = signal.getsignal(kind)
        controller = getattr(getattr(before, "__self__", None), "controller", None)
        if controller is not None:
            signal.signal(kind, functools.partial(_heard, loop, before, controller.arbiter))


def _heard(
    loop: asyncio.AbstractEventLoop,
    before: Callable[[int, FrameType | None], Any],
    arbiter: Any,
    kind: int,
    frame: FrameType | None,
) -> None:
    """Let circus plan its stop, and shut the door right after it."""
    before(kind, frame)
    loop.call_soon_threadsafe(_shut, arbiter)


def _shut(arbiter: Any) -> None:
    if arbiter._stopping:  # not where circus was busy and takes no notice of the signal
        for listening in arbiter.sockets.values():
            stop_handshakes(listening)
            listening.close()


def stop_handshakes(listening: socket.socket) -> None:
    """Drop every new SYN to a listening TCP socket, in all processes that share it.

    Handshakes under way are completed. Where the system has no such filter, nothing happens.
    """
    if sys.platform != "linux" or listening.family not in (socket.AF_INET, socket.AF_INET6):
        return
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in DROP_SYN))
    with contextlib.suppress(OSError):
        listening.setsockopt(
            socket.SOL_SOCKET,
            SO_ATTACH_FILTER,
            struct.pack("HP", len(DROP_SYN), ctypes.addressof(program)),
        )
