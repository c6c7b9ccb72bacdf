"""Times as other tools write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from ratchet.collect.values import moment as moment_of
from ratchet.errors import InvalidInputError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SHORTEST = len("2026-01-05T07:00")


def utc(value: object) -> Any:
    """Return a time as a record takes it; one without a zone is in UTC, as exports write them.

    What is no time stays as it is, and the record says what is wrong with it.

    Example:
        >>> utc("2026-01-05 07:00:00.125"), utc("2026-01-05T07:00:00Z")
        ('2026-01-05 07:00:00.125Z', '2026-01-05T07:00:00Z')
    """
    found = value
    if not (type(value) is str and value[4:5] == "-"):  # ISO 8601 stays, as nearly all times are
        found = moment_of(value)
        if isinstance(found, datetime):
            return found if found.tzinfo else found.replace(tzinfo=UTC)
    if not isinstance(found, str) or len(found) < _SHORTEST or found[4:5] != "-":
        return found
    zone = found[_SHORTEST:]
    return found if found[-1] in "Zz" or "+" in zone or "-" in zone else f"{found}Z"


def instant(value: object) -> datetime | None:
    """Return the time that a record would hold; None where it is none."""
    found = utc(value)
    if isinstance(found, datetime):
        return found if found.tzinfo is UTC else found.astimezone(UTC)
    try:
        read = datetime.fromisoformat(str(found))
        return read if read.tzinfo is UTC else read.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def moment(nanoseconds: int) -> datetime | None:
    """Return the time that a span names, in nanoseconds since 1970; None where it names none.

    Raises:
        InvalidInputError: It is too far away to be a time.
    """
    try:
        return _EPOCH + timedelta(microseconds=nanoseconds // 1_000) if nanoseconds else None
    except OverflowError as error:
        raise InvalidInputError(
            f"a time must be in nanoseconds since 1970, got {nanoseconds}; correct the sender's"
        ) from error


def seconds_between(start: object, end: object) -> float | None:
    """Return how long something took; None where a time is missing or the end comes first."""
    if not (start and end):
        return None
    began, ended = instant(start), instant(end)
    if began is None or ended is None:
        return None
    took = (ended - began).total_seconds()
    return took if took >= 0 else None
