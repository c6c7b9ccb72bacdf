"""Notice that a client has left, and stop what is done for it."""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager
from types import TracebackType

from starlette.types import Receive

UNWATCHED_SECONDS = 0.05
"""Answers faster than this are not worth a task that watches; it begins within twice the time."""


class ClientLeftError(Exception):
    """The client closed its connection before it was answered."""


class ClientWatcher:
    """Cancels what is done for a client that leaves.

    with watcher.watching(request.receive):  # raises ClientLeftError
        answer = await backend.complete(...)

    One timer serves all requests of an event loop, since one for each would slow every answer.
    """

    def __init__(self) -> None:
        self._new: set[_ClientWatch] = set()
        self._older: set[_ClientWatch] = set()
        self._ticking = False

    def watching(self, receive: Receive) -> AbstractContextManager[None]:
        """Return the block in which a client is watched."""
        return _ClientWatch(self, receive)

    def add(self, watch: _ClientWatch) -> None:
        """Begin to watch at the second tick from now."""
        self._new.add(watch)
        if not self._ticking:
            self._ticking = True
            asyncio.get_running_loop().call_later(UNWATCHED_SECONDS, self._tick)

    def discard(self, watch: _ClientWatch) -> None:
        """Leave a watch that has not begun alone."""
        self._new.discard(watch)
        self._older.discard(watch)

    def _tick(self) -> None:
        for watch in self._older:
            watch.begin()
        self._new, self._older = set(), self._new
        self._ticking = bool(self._older)
        if self._ticking:
            asyncio.get_running_loop().call_later(UNWATCHED_SECONDS, self._tick)


class _ClientWatch:
    """See `ClientWatcher`."""

    def __init__(self, watcher: ClientWatcher, receive: Receive) -> None:
        self._watcher, self._receive, self._left = watcher, receive, False
        self._watching: asyncio.Task[None] | None = None

    def __enter__(self) -> None:
        self._task = asyncio.current_task()
        self._watcher.add(self)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._watcher.discard(self)
        if self._watching is not None:
            self._watching.cancel()
        if self._left and self._task is not None:
            self._task.uncancel()
            if kind is not None and issubclass(kind, asyncio.CancelledError):
                raise ClientLeftError from error

    def begin(self) -> None:
        """Watch from now on."""
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._left = True
        if self._task is not None:
            self._task.cancel()
