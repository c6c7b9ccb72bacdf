"""Shards in several processes of this machine."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, TypeVar

from ratchet.executors.executor import INLINE, Losses
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
        self, work: Callable[[Shard], Result], shards: Sequence[Shard]
    ) -> Iterator[tuple[int, Result]]:
        """Yield places and results as they come. See `Executor.run`."""
        if len(shards) < 2:
            yield from INLINE.run(work, shards)
            return
        waiting, losses = deque(range(len(shards))), Losses(len(shards))
        workers: list[_Worker] = []
        try:
            while waiting or any(worker.place is not None for worker in workers):
                while waiting and self._gives(workers, work, shards, waiting[0]):
                    waiting.popleft()
                busy = {w.connection: w for w in workers if w.place is not None}
                for ready in wait(list(busy)):
                    worker = busy[ready]  # type: ignore[index]
                    place, worker.place = worker.place, None
                    assert place is not None
                    try:
                        result, error = worker.connection.recv()
                    except (EOFError, OSError):
                        workers.remove(worker)
                        ended = _end(worker)
                        logger.warning("a worker was lost at shard %d (%s)", place + 1, ended)
                        losses.add(place, ended)
                        waiting.appendleft(place)
                        continue
                    if error is not None:
                        raise error
                    yield place, result
        finally:
            for worker in workers:
                _end(worker)

    def _gives(self, workers: list[_Worker], work: Any, shards: Sequence[Any], place: int) -> bool:
        """Hand a shard to a worker that is idle, or to a new one; tell whether there was one."""
        idle = next((worker for worker in workers if worker.place is None), None)
        if idle is None:
            if len(workers) >= self.workers:
                return False
            idle = _started(work, max(1, (os.cpu_count() or 1) // self.workers))
            workers.append(idle)
        idle.place = place
        try:
            idle.connection.send(shards[place])
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
