"""Times as people type them into options, and as servers say them in headers."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from email.utils import parsedate_to_datetime

from ratchet.errors import InvalidInputError
from ratchet.files.text import printable

_AGO = re.compile(r"(?P<number>\d{1,6})(?P<unit>[mhdw])", re.ASCII)
_UNITS = {
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


def read_moment(text: str, now: datetime) -> datetime:
    """Return the time that a text stands for, aware and in UTC.

    A day is its beginning in UTC. A time needs its zone. A number with m, h, d or w is so many
    minutes, hours, days or weeks before `now`.

    Example:
        >>> read_moment("90d", datetime(2026, 12, 1, tzinfo=UTC)).isoformat()
        '2026-09-02T00:00:00+00:00'
        >>> read_moment("2026-11-01T10:00+02:00", datetime.now(UTC)).isoformat()
        '2026-11-01T08:00:00+00:00'

    Raises:
        InvalidInputError: It is none of these.
    """
    if ago := _AGO.fullmatch(text):
        try:
            return now - int(ago["number"]) * _UNITS[ago["unit"]]
        except OverflowError as error:
            raise _no_moment(text) from error
    try:
        if _DAY.fullmatch(text):
            return datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC)
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise InvalidInputError(
                f"a time of day needs its zone, got {printable(text)!r}; add Z for UTC"
            )
        return moment.astimezone(UTC)
    except InvalidInputError:
        raise
    except (ValueError, OverflowError) as error:
        raise _no_moment(text) from error


def _no_moment(text: str) -> InvalidInputError:
    return InvalidInputError(
        "a time is a day (2026-11-01, from its beginning in UTC), a time with its zone "
        f"(2026-11-01T10:00Z) or how long ago (90d, 36h), got {printable(text)!r}; correct it"
    )


def retry_after_seconds(header: str | None, now: datetime) -> float | None:
    """Return what a Retry-After header asks for, in seconds; None where it says nothing.

    Args:
        header: Seconds or an HTTP date.
        now: The time, for dates.
    """
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return float(text[:12])
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())
