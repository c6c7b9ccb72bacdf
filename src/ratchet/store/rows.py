"""Rows of the store's tables: so many at a time, with times in microseconds since 1970."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

T = TypeVar("T")
_CHUNK = 500
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def chunks(items: Iterable[T]) -> Iterator[list[T]]:
    """Yield items 500 at a time: databases limit the parameters of a statement."""
    iterator = iter(items)
    while chunk := list(islice(iterator, _CHUNK)):
        yield chunk


def one_of(
    connection: sa.Connection, column: sa.ColumnElement[Any], values: Sequence[str]
) -> sa.ColumnElement[bool]:
    """Return the condition that a column of text is one of many values, bound as one parameter.

    A parameter for each value, as of `in_`, takes SQLAlchemy longer than the database needs.
    """
    if connection.dialect.name == "sqlite":
        sent = sa.func.json_each(json.dumps(values)).table_valued("value", name="sent")
        return column.in_(sa.select(sent.c.value))
    return column == sa.any_(sa.literal(values, postgresql.ARRAY(sa.Text)))


def microseconds(moment: datetime) -> int:
    """Return a time as it is stored."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def moment_of(stored: int) -> datetime:
    """Return a stored time."""
    return _EPOCH + timedelta(microseconds=stored)
