"""How a run ends that lacks what people or users have yet to give: waiting, not failed.

    return or_waiting(partial(_deploy, options))

The run is Completed under the name `WaitingForLabels` or `WaitingForTraffic`, with a message that
says what is missing and where to give it. The next run goes on by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from prefect import State
from prefect.states import Completed

from ratchet.errors import WaitingError
from ratchet.files.text import cell
from ratchet.flows._runtime import logger, publish_text

T = TypeVar("T")
_PREFIX = "WaitingFor"


def or_waiting(run: Callable[[], T]) -> T | State[Any]:
    """Return what a run gives, or the state in which it ends waiting."""
    try:
        return run()
    except WaitingError as error:
        return waiting(error)


def waiting(error: WaitingError) -> State[Any]:
    """Return the state in which the run ends, and tell people what it waits for."""
    logger.info("waiting: %s", error)
    publish_text("waiting", f"Waiting: {cell(str(error))}", f"What it waits for: {error.what}")
    return Completed(name=f"{_PREFIX}{error.what.capitalize()}", message=str(error))


def result_of(state: State[Any]) -> Any:
    """Return what a run within this one gave.

    Raises:
        WaitingError: It ended waiting.
        Exception: What it raised.
    """
    raise_if_waiting(state)
    return state.result()


def raise_if_waiting(state: State[Any]) -> None:
    """See that a run did not end waiting.

    Raises:
        WaitingError: It did.
    """
    name = state.name or ""
    if name.startswith(_PREFIX):
        raise WaitingError(state.message or "", name.removeprefix(_PREFIX).casefold())
