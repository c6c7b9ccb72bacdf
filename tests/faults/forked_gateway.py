"""`ratchet serve` whose workers are forked: they start in a tenth of the time, so hundreds can die.

    python -m tests.faults.forked_gateway --port 8000 --workers 6 --backend URL --rate 0

The supervisor and the worker are the product's; only who starts a worker is another: a process that
has imported everything. `RATCHET_TEST_SEGMENT_BYTES` makes the segments of the log smaller; while
the file that `RATCHET_TEST_FAILING_SYNC` names is there, the disk fails in workers.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import multiprocessing
import os
import signal
import socket
import subprocess
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

from ratchet.gateway.options import GatewayOptions
from ratchet.gateway.serve import Supervisor
from ratchet.settings import load_settings

_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)
PRELOADED = ["ratchet.gateway.worker", "ratchet.gateway.app", "tests.faults.forked_gateway"]


def _work(options: GatewayOptions, listening: Any) -> None:
    from ratchet.gateway.log import WriteAheadLog
    from ratchet.gateway.worker import main

    ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGTERM)
    smaller = os.environ.get("RATCHET_TEST_SEGMENT_BYTES")
    if smaller is not None:
        WriteAheadLog.__init__.__kwdefaults__["segment_bytes"] = int(smaller)
    if (sign := os.environ.get("RATCHET_TEST_FAILING_SYNC")) is not None:
        _fail_while_there(Path(sign))
    main(options, listening.detach())


def _fail_while_there(sign: Path) -> None:
    """Let this process's disk fail while a file is there."""
    for name in ("fdatasync", "fsync"):
        real = getattr(os, name)

        def sync(file: int, real: Any = real) -> None:
            if sign.exists():
                raise OSError(errno.EIO, "Input/output error")
            real(file)

        setattr(os, name, sync)


class Forked:
    """A forked worker that is waited for like a `subprocess.Popen`."""

    def __init__(self, process: BaseProcess) -> None:
        self._process = process
        self.pid = process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int | None:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("worker", timeout or 0.0)
        return self._process.exitcode

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()


class ForkingSupervisor(Supervisor):
    """Starts workers by fork, and at once: those that are killed young are no sign of trouble."""

    def _start(self, listening: socket.socket, *told: Any) -> Any:
        for child in self._children:
            if hasattr(child, "_pause"):
                child._pause = 0.0
        options = self.options
        if told:
            options = options.model_copy(update={"store_file": told[0].identity})
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        process = context.Process(target=_work, args=(options, DupFd(listening.fileno())))
        process.start()
        return Forked(process)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--backend")
    parser.add_argument("--rate", type=float)
    parser.add_argument("--sync", action="store_true")
    given = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    settings = load_settings(os.environ, Path.cwd())
    settings.make_home()
    options = GatewayOptions(
        settings=settings,
        port=given.port,
        workers=given.workers,
        backend=given.backend,
        rate_per_second=given.rate,
        sync=given.sync,
    )
    return ForkingSupervisor(options, say=lambda line: print(line, flush=True)).run()


if __name__ == "__main__":
    raise SystemExit(main())
