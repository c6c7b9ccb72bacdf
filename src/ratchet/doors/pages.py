"""Sources that are servers: what they hand out page by page, stored with where to go on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

from ratchet.collect.ingest import batches_to_store, ingest_placed
from ratchet.collect.recognising import Recogniser
from ratchet.collect.rejecting import RAW_CHARACTERS
from ratchet.collect.report import IngestReport
from ratchet.doors.door import Door, Given
from ratchet.doors.importing import Preview
from ratchet.doors.rows import events_of
from ratchet.files.rows import Row
from ratchet.records import digest
from ratchet.store import EventStore
from ratchet.store.cursors import keep_cursors, read_cursors

PREVIEWED = 3
"""Pages of each listing that a dry run reads: a server is not emptied for a look at it."""


class Page(NamedTuple):
    """Some rows of a listing.

    Attributes:
        rows: As the server writes them.
        after: The text that is kept once they are stored, by which the next call goes on.
    """

    rows: Sequence[Mapping[str, Any]]
    after: str


Pages = Callable[[str | None, datetime | None, datetime], Iterator[Page]]
"""Yields pages, given the text that was kept last, from when on it was asked for, and the time."""


@dataclass(frozen=True, slots=True)
class Listing:
    """A list of a server that is read page by page.

    Attributes:
        name: The server and what of it, by which is known where to go on.
        pages: Its pages.
        place: How people are told which row it is.
    """

    name: str
    pages: Pages
    place: Callable[[Mapping[str, Any]], str]


@dataclass(frozen=True, slots=True)
class Server:
    """A server that rows are read from.

    Attributes:
        source: What was asked for, as set-aside rows name it.
        door: The rows' format.
        listings: What is read, in this order: answers before what was said about them.
        says: What it is, for people.
    """

    source: str
    door: Door
    listings: tuple[Listing, ...]
    says: str


@dataclass(frozen=True, slots=True)
class Reached:
    """Up to when a listing was read.

    Attributes:
        until: The end of what was read to its end; None while that never happened.
        since: From when on it was ever read; None for all of it.
    """

    until: datetime | None = None
    since: datetime | None = None

    @classmethod
    def of(cls, kept: str | None) -> Reached:
        """Read what `text` wrote."""
        told = json.loads(kept) if kept else {}
        until, since = (told.get(name) for name in ("until", "since"))
        return cls(
            datetime.fromisoformat(until) if until else None,
            datetime.fromisoformat(since) if since else None,
        )

    def text(self, **more: object) -> str:
        """Return it as the store keeps it, with more beside it."""
        times = {"until": self.until, "since": self.since}
        told = {name: moment.isoformat() for name, moment in times.items() if moment}
        return json.dumps(told | more)

    def next_begin(self, asked: datetime | None, back: timedelta) -> datetime | None:
        """Return from when on to read next.

        Args:
            asked: From when on it is asked for. What was read to its end is not read again, but
                what is older than ever read is.
            back: So far before the end something may have changed since.
        """
        if self.until is None or (asked and self.since and asked < self.since):
            return asked
        return max(self.until - back, asked) if asked else self.until - back

    def ever_since(self, begin: datetime | None) -> datetime | None:
        """Return from when on a listing was ever read, once it was read from a time on."""
        if self.until is None:
            return begin
        return min(self.since, begin) if self.since and begin else None


def look(
    server: Server,
    given: Given,
    store: EventStore,
    *,
    since: datetime | None,
    known: Recogniser,
    now: datetime,
) -> Iterator[IngestReport]:
    """Store what a server has since the last look; yield what each page brought.

    Args:
        server: The server.
        given: What the translator is told.
        store: Where the events go. It keeps up to where each listing was read.
        since: What is older is not asked for.
        known: Knows answers again.
        now: The time.

    Raises:
        InvalidInputError: The server does not have what is asked for, or refuses it.
        SourceError: It does not answer; so does MLflow, by TrackingError.
    """
    for listing in server.listings:
        key = digest([server.door.name, listing.name])
        kept = read_cursors(store, [key]).get(key)
        for page in listing.pages(kept, since, now):
            placed = events_of(_rows_of(page, listing), server.door, given, None, now)
            report = ingest_placed(placed, store, source=given.source, now=now, known=known)
            keep_cursors(store, {key: page.after})
            yield report


def preview_server(
    server: Server, given: Given, *, since: datetime | None, now: datetime
) -> Preview:
    """Return what the first pages of each listing would bring, and store nothing.

    Raises:
        InvalidInputError: See `look`.
        SourceError: See there.
    """
    shown = Preview()
    for listing in server.listings:
        for page in islice(listing.pages(None, since, now), PREVIEWED):
            read = partial(events_of, list(_rows_of(page, listing)), server.door, given, None, now)
            for batch in batches_to_store(read, source=given.source, now=now):
                shown.take(batch)
    return shown


def _rows_of(page: Page, listing: Listing) -> Iterator[Row]:
    for fields in page.rows:
        raw = json.dumps(fields, default=str)[: RAW_CHARACTERS + 1]
        yield Row(0, 0, listing.place(fields), 1, fields, raw, None, "json")
