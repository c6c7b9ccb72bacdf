"""Rows of the store's tables: so many at a time, with times in microseconds since 1970."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
_CHUNK = 500
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def chunks(items: Iterable[T]) -> Iterator[list[T]]:
    """Yield items 500 at a time: databases limit the parameters of a statement."""
    iterator = iter(items)
    while chunk := list(islice(iterator, _CHUNK)):
        yield chunk


def microseconds(moment: datetime) -> int:
    """Return a time as it is stored."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def moment_of(stored: int) -> datetime:
    """Return a stored time."""
    return _EPOCH + timedelta(microseconds=stored)
