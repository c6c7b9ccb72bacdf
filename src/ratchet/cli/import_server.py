"""`ratchet import mlflow:EXPERIMENT` and `langfuse:ADDRESS`: sources that are servers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ratchet.cli.progress import Progress
from ratchet.cli.saying import say
from ratchet.cli.shared import created_store, current_settings, open_history

if TYPE_CHECKING:
    from ratchet.collect.report import IngestReport
    from ratchet.doors.mapping import ImportMap
    from ratchet.doors.pages import Server
    from ratchet.doors.servers import Access


def access() -> Access:
    """Return what it takes to reach servers from here."""
    from ratchet.doors.servers import Access

    return Access(current_settings().tracking_uri, os.environ)


def import_server(
    server: Server,
    mapping: ImportMap | None,
    since: datetime | None,
    looks: Iterator[None],
    tell: Callable[[IngestReport, datetime], None],
) -> None:
    """Store what a server has that is new, and go on where the last call ended.

    Args:
        server: The server.
        mapping: What scores mean.
        since: From when on.
        looks: Once for each look.
        tell: Says what became of a look's rows.

    Raises:
        InvalidInputError: The server refuses what it is asked for.
        SourceError: It does not answer. What came before is stored and told.
    """
    from ratchet.collect.recognising import Recogniser
    from ratchet.collect.report import combined
    from ratchet.doors.pages import look
    from ratchet.doors.servers import given_of

    store = created_store()
    known = Recogniser(store, open_history(store))
    found: list[IngestReport] = []
    try:
        for _ in looks:
            now, found, progress = datetime.now(UTC), [], Progress()
            given = given_of(server, mapping, now)
            for report in look(server, given, store, since=since, known=known, now=now):
                found.append(report)
                progress(sum(map(rows_of, found)))
            tell(combined(found), now)
            found = []
    except KeyboardInterrupt:
        say("stopped; the same command goes on from here")
    finally:
        if found:
            tell(combined(found), datetime.now(UTC))


def rows_of(report: IngestReport) -> int:
    """Return how many rows a report is about."""
    passed = sum(count for _, count in report.passed)
    stored = report.interactions + report.feedback + report.repeated + report.recognised
    return stored + report.set_aside + passed
