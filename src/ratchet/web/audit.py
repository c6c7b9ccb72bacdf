"""The page of the audit trail: what was done, by whom and why, chosen by kind, person and time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated
from urllib.parse import quote, urlencode

from fastapi import FastAPI, Request, Response

from ratchet.errors import InvalidInputError
from ratchet.views.audit import KINDS, Entry, trail, trail_csv
from ratchet.web.people import Person, needs
from ratchet.web.rendering import Place, environment, page

MOST_ENTRIES = 200
"""Entries on one page; the file has all."""
DAYS = 30
_FIRST, _LAST = datetime(1971, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which entries somebody asked for.

    Attributes:
        kind: Of one kind; all where empty.
        who: By a person whose name holds this.
        since: From this day on, in UTC.
        until: Up to this day, all of it.
    """

    kind: str
    who: str
    since: datetime
    until: datetime

    @property
    def query(self) -> str:
        """The same as an address says it."""
        days = {"since": f"{self.since:%F}", "until": f"{self.until:%F}"}
        return urlencode({"kind": self.kind, "who": self.who} | days)


def add_audit(app: FastAPI) -> tuple[Place, ...]:
    """Add the page of the audit trail, and the same as a file."""
    environment().filters["place_of"] = place_of

    @app.get("/audit")
    def show(
        request: Request,
        person: Annotated[Person, needs("engineer")],
        kind: str = "",
        who: str = "",
        since: str = "",
        until: str = "",
    ) -> Response:
        chosen = _chosen(request, kind, who, since, until)
        found = _entries(request, chosen)
        return page(
            request,
            person,
            "audit.html",
            entries=found[:MOST_ENTRIES],
            total=len(found),
            chosen=chosen,
            kinds=KINDS,
        )

    @app.get("/audit.csv", dependencies=[needs("engineer")])
    def download(
        request: Request, kind: str = "", who: str = "", since: str = "", until: str = ""
    ) -> Response:
        chosen = _chosen(request, kind, who, since, until)
        name = f"audit-{chosen.since:%F}-{chosen.until:%F}.csv"
        headers = {"content-disposition": f'attachment; filename="{name}"'}
        text = trail_csv(_entries(request, chosen))
        return Response(text, media_type="text/csv; charset=utf-8", headers=headers)

    return (Place("/audit", "Audit", "u", "engineer"),)


def place_of(entry: Entry) -> str | None:
    """Return the page of what an entry is about, where there is one."""
    pages = {"decision": "decisions", "approval": "decisions", "rollout": "rollouts"}
    folder = (pages | {"alert": "alerts"}).get(entry.kind)
    return f"/{folder}/{quote(entry.subject, safe='')}" if folder and entry.subject else None


def _entries(request: Request, chosen: Chosen) -> tuple[Entry, ...]:
    end = chosen.until + timedelta(days=1)
    store = request.app.state.pages.store
    return trail(store, since=chosen.since, until=end, kind=chosen.kind, who=chosen.who)


def _chosen(request: Request, kind: str, who: str, since: str, until: str) -> Chosen:
    """Return what an address asks for.

    Raises:
        InvalidInputError: There is no such kind, or a day is none.
    """
    if kind and kind not in KINDS:
        raise InvalidInputError(f"kind must be one of {', '.join(KINDS)}, got {kind[:40]!r}")
    now: datetime = request.app.state.pages.clock()
    today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    last = _day(until) if until else today
    first = _day(since) if since else last - timedelta(days=DAYS)
    return Chosen(kind, who.strip()[:200], first, last)


def _day(text: str) -> datetime:
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        day = _FIRST
    if not _FIRST < day < _LAST:
        raise InvalidInputError(
            f"a day must be written as 2026-12-01, got {text[:40]!r}; correct it"
        )
    return day
