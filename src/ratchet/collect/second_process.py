"""Let a second process make what this one uses, so that both cores work."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Generator, Iterator
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from ratchet.errors import InvalidInputError
from ratchet.processes import starting_safely

T = TypeVar("T")


def in_second_process(make: Callable[..., Iterator[T]], *given: Any) -> Generator[T]:
    """Yield what `make(*given)` yields in a process of its own, which is one item ahead.

    It is started anew and not forked, so the main module has to be one that can be imported.

    Args:
        make: A function of a module. What it raises is raised here.
        given: What it is called with; this and what it yields is sent by pickle.

    Raises:
        InvalidInputError: The process was killed.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, make, given), daemon=True)
    with starting_safely():
        process.start()
    sender.close()
    try:
        while True:
            item, error = _received(receiver)
            if error is not None:
                raise error
            if item is None:
                return
            yield item
    finally:
        receiver.close()
        process.terminate()
        process.join()


def _received(receiver: Connection) -> Any:
    try:
        return receiver.recv()
    except (EOFError, OSError) as ended:  # between two items, or within one
        raise InvalidInputError(
            "what is there must be read to its end, got a process that reads and was killed; run "
            "the same command again: what was stored is not stored twice"
        ) from ended


def _send(sender: Connection, make: Callable[..., Iterator[Any]], given: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the other process ends this one
    try:
        for item in make(*given):
            sender.send((item, None))
        sender.send((None, None))
    except BrokenPipeError:
        return  # nobody reads on
    except Exception as error:
        sender.send((None, error))
