"""Times as other tools write them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ratchet.collect.values import moment

_SHORTEST = len("2026-01-05T07:00")


def utc(value: object) -> Any:
    """Return a time as a record takes it; one without a zone is in UTC, as exports write them.

    What is no time stays as it is, and the record says what is wrong with it.

    Example:
        >>> utc("2026-01-05 07:00:00.125"), utc("2026-01-05T07:00:00Z")
        ('2026-01-05 07:00:00.125Z', '2026-01-05T07:00:00Z')
    """
    found = moment(value)
    if isinstance(found, datetime):
        return found if found.tzinfo else found.replace(tzinfo=UTC)
    if not isinstance(found, str) or len(found) < _SHORTEST or found[4:5] != "-":
        return found
    if found[-1] in "Zz" or "+" in found[_SHORTEST:] or "-" in found[_SHORTEST:]:
        return found
    return f"{found}Z"


def instant(value: object) -> datetime | None:
    """Return the time that a record would hold; None where it is none."""
    found = utc(value)
    if isinstance(found, datetime):
        return found.astimezone(UTC)
    try:
        return datetime.fromisoformat(str(found)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def seconds_between(start: object, end: object) -> float | None:
    """Return how long something took; None where a time is missing or the end comes first."""
    began, ended = (instant(value) if value else None for value in (start, end))
    if began is None or ended is None or ended < began:
        return None
    return (ended - began).total_seconds()
