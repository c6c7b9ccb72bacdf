"""Notice that a client has left, and stop what is done for it."""

from __future__ import annotations

import asyncio
from types import TracebackType

from starlette.types import Receive

UNWATCHED_SECONDS = 0.05
"""Answers faster than this are not worth a task that watches."""


class ClientLeftError(Exception):
    """The client closed its connection before it was answered."""


class ClientWatch:
    """Cancels what is done in its block when the client leaves, and raises `ClientLeftError`.

    with ClientWatch(request.receive):
        answer = await backend.complete(...)
    """

    def __init__(self, receive: Receive) -> None:
        self._receive, self._left = receive, False
        self._watching: asyncio.Task[None] | None = None

    def __enter__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task(self._loop)
        self._timer = self._loop.call_later(UNWATCHED_SECONDS, self._begin)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        if self._watching is not None:
            self._watching.cancel()
        if self._left and self._task is not None:
            self._task.uncancel()
            if kind is not None and issubclass(kind, asyncio.CancelledError):
                raise ClientLeftError from error

    def _begin(self) -> None:
        self._watching = self._loop.create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._left = True
        if self._task is not None:
            self._task.cancel()
