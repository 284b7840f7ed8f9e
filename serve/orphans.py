"""A worker's watch over its supervisor: when that is gone, killed or crashed, the worker ends as well.

An orphan would hold the port, so that no new server starts there, and nobody would restart it. Who is
adopted (by init, mostly) finds another parent than it began with; a worker that begins as an orphan, because its
supervisor ended in that instant, knows from the environment who should have been its parent.
"""

from __future__ import annotations

import os

VARIABLE = "VSSL_SUPERVISOR_PID"


def announce() -> None:
    """Tell the workers to come that this process watches over them."""
    os.environ[VARIABLE] = str(os.getpid())


class Parent:
    """The supervisor of this process, as it was when this was made."""

    def __init__(self) -> None:
        self._pid = os.getppid()
        announced = os.environ.get(VARIABLE, "")
        # Believed of an orphan only: another server's may be left in the environment that this one runs in.
        if self._pid == 1 and announced.isdecimal() and int(announced) != os.getpid():
            self._pid = int(announced)

    @property
    def gone(self) -> bool:
        """Whether this process has another parent by now."""
        return os.getppid() != self._pid
