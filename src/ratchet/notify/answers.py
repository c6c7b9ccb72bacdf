"""What a web server answers to a message: taken, wait, or never."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

import httpx

from ratchet.files.text import printable
from ratchet.notify.results import Result

SECONDS: Final = 10.0
LONGEST_WAIT = timedelta(hours=6)
"""A server that asks to wait for longer is asked again after this."""


def posted(url: str, content: bytes, headers: dict[str, str], *, now: datetime) -> Result:
    """Post a body, follow no redirect, and return what came of it.

    Args:
        url: Where to; it may be a secret, and is in nothing that is returned.
        content: The body.
        headers: Its headers.
        now: When.
    """
    try:
        answer = httpx.post(url, content=content, headers=headers, timeout=SECONDS)
    except httpx.TimeoutException:
        return Result(False, f"no answer within {SECONDS:g} s")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return Result(False, f"no connection ({type(error).__name__})")
    if answer.is_success:
        return Result(True)
    said = printable(f"{answer.status_code} {answer.text.strip()}".strip(), 120)
    wait = _wait(answer.headers.get("retry-after", ""), now)
    return Result(False, said, wait, hopeless=answer.status_code in (400, 413, 422))


def _wait(said: str, now: datetime) -> timedelta | None:
    """Return how long a server asks to wait: in seconds or until a date, and not for ever."""
    try:
        if said.strip().isdigit():
            wait = timedelta(seconds=min(int(said), int(LONGEST_WAIT.total_seconds())))
        else:
            until = parsedate_to_datetime(said)
            wait = (until if until.tzinfo else until.replace(tzinfo=UTC)) - now
    except (TypeError, ValueError, OverflowError):
        return None
    return min(max(wait, timedelta(0)), LONGEST_WAIT)
