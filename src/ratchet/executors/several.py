"""Shards in several processes of this machine."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, TypeVar

from ratchet.executors.executor import INLINE, Open
from ratchet.processes import starting_safely

logger = logging.getLogger(__name__)

Shard = TypeVar("Shard")
Result = TypeVar("Result")


@dataclass(slots=True)
class _Worker:
    process: SpawnProcess
    connection: Connection
    place: int | None = None  # of the shard that it works on


class Processes:
    """Runs shards in processes of their own, one at a time in each.

    They are started anew and not forked, so the main module has to be one that can be imported, and
    end with the run. A single shard is run in this process.

    Args:
        workers: How many there are; the processor's cores are shared out among their threads.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def run(
        self, work: Callable[[Shard], Result], shards: Iterable[Shard]
    ) -> Iterator[tuple[int, Result]]:
        """Yield places and results as they come. See `Executor.run`."""
        open_ = Open(shards)
        first, second = open_.take(), open_.take()
        if first is None:
            return
        if second is None:
            yield from INLINE.run(work, [first[1]])
            return
        open_.put_back(first[0])
        open_.put_back(second[0])
        yield from self._several(work, open_)

    def _several(self, work: Any, open_: Open[Any]) -> Iterator[tuple[int, Any]]:
        workers: list[_Worker] = []
        try:
            while True:
                while self._gives(workers, work, open_):
                    pass
                busy = {w.connection: w for w in workers if w.place is not None}
                if not busy:
                    return
                for ready in wait(list(busy)):
                    worker = busy[ready]  # type: ignore[index]
                    place, worker.place = worker.place, None
                    assert place is not None
                    try:
                        result, error = worker.connection.recv()
                    except (EOFError, OSError):
                        workers.remove(worker)
                        open_.lost(place, _end(worker))
                        continue
                    if error is not None:
                        raise error
                    open_.done(place)
                    yield place, result
        finally:
            for worker in workers:
                _end(worker)

    def _gives(self, workers: list[_Worker], work: Any, open_: Open[Any]) -> bool:
        """Hand a shard to a worker that is idle, or to a new one; tell whether it could."""
        idle = next((worker for worker in workers if worker.place is None), None)
        if idle is None and len(workers) >= self.workers:
            return False
        taken = open_.take()
        if taken is None:
            return False
        if idle is None:
            idle = _started(work, max(1, (os.cpu_count() or 1) // self.workers))
            workers.append(idle)
        idle.place = taken[0]
        try:
            idle.connection.send(taken[1])
        except OSError:
            logger.debug("the worker is gone, which reading from it tells next")
        return True


def _started(work: Any, threads: int) -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, threads), daemon=True)
    with starting_safely():
        process.start()
    theirs.close()
    try:
        ours.send(work)
    except OSError:
        logger.debug("the worker is gone, which reading from it tells next")
    return _Worker(process, ours)


def _end(worker: _Worker) -> str:
    """End a worker, and say how it ended."""
    worker.connection.close()
    worker.process.join(timeout=0.5)
    if worker.process.is_alive():
        worker.process.kill()
        worker.process.join()
    code = worker.process.exitcode
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"


def _serve(connection: Connection, threads: int) -> None:
    """Work on what comes until nothing does, or nobody is there to read the results."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the other process ends this one
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    work: Any = None
    problem: Exception | None = None
    try:
        work = connection.recv()  # what it carries, such as a model, is loaded by this
    except EOFError:
        return
    except Exception as error:
        problem = error
    try:
        while True:
            shard = connection.recv()
            try:
                answer = (None, problem) if problem is not None else (work(shard), None)
            except Exception as error:
                answer = (None, error)
            try:
                connection.send(answer)
            except (pickle.PicklingError, TypeError, AttributeError):
                text = f"what a shard gives must be possible to pickle, got {answer!r:.300}"
                connection.send((None, TypeError(text)))
    except (EOFError, OSError):
        return
