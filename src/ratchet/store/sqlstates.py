"""What PostgreSQL calls its errors.

Source: https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

from __future__ import annotations

DEADLOCK, NO_LOCK, NOT_UNIQUE, CHECK_FAILED = "40P01", "55P03", "23505", "23514"


def sqlstate(error: BaseException) -> str | None:
    """Return the code of an error, of SQLAlchemy or of the driver; None where it has none."""
    state: str | None = getattr(getattr(error, "orig", error), "sqlstate", None)
    return state
