"""Which process holds a lease, and whether it is known to be gone.

A process is known by its machine, its number and the time at which it started, so that a number
that was given anew is another process. Whether one of another machine lives, nobody here knows.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Holder:
    """A process.

    Attributes:
        machine: On Linux the kernel's run and the space of process numbers, so that two containers
            are two machines; elsewhere the host's name.
        host: The name of the machine, for people.
        pid: Its number.
        started: When it started, in the kernel's own ticks; empty where nobody can tell.
    """

    machine: str
    host: str
    pid: int
    started: str

    @classmethod
    def this(cls) -> Holder:
        """Return the process that calls."""
        pid = os.getpid()
        return cls(_machine(), socket.gethostname(), pid, _started(pid) or "")

    @classmethod
    def of(cls, written: str) -> Holder | None:
        """Return the process that `written` names; None where it cannot be read."""
        try:
            return cls(**json.loads(written))
        except (ValueError, TypeError):
            return None

    @property
    def written(self) -> str:
        """The process as a lease keeps it."""
        return json.dumps(asdict(self))

    @property
    def in_words(self) -> str:
        """The process for people, as this machine sees it."""
        elsewhere = "" if self.is_here else f" on {self.host}"
        return f"process {self.pid}{elsewhere}"

    @property
    def is_here(self) -> bool:
        """Whether it is of this machine, where it is known at once when it ends."""
        return self.machine == _machine()

    @property
    def is_gone(self) -> bool:
        """Whether it ran on this machine and does no longer; False where nobody here can tell."""
        if not self.is_here:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except (PermissionError, OverflowError):
            return False
        started = _started(self.pid)
        return started is not None and bool(self.started) and started != self.started


def _machine() -> str:
    if sys.platform != "linux":
        return socket.gethostname()
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot}:{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:  # a box without /proc
        return socket.gethostname()


def _started(pid: int) -> str | None:
    """Return when a process started; a word for one that has ended and waits to be fetched."""
    try:
        said = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return None
    state, *fields = said.rpartition(")")[2].split()
    return "ended" if state in "ZX" else fields[18]  # field 22 of proc(5), counted from the third
