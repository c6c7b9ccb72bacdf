"""`ratchet import mlflow:EXPERIMENT`: traces and assessments of an MLflow server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ratchet.cli.saying import say
from ratchet.cli.shared import created_store, current_settings, open_history

if TYPE_CHECKING:
    from ratchet.collect.report import IngestReport
    from ratchet.doors.mapping import ImportMap

_PREFIX = "mlflow:"


def is_experiment(source: str) -> bool:
    """Tell whether a source is an experiment of MLflow."""
    return source.startswith(_PREFIX)


def forever(seconds: float) -> Iterator[None]:
    """Yield again and again, with a pause between."""
    while True:
        yield None
        time.sleep(seconds)


def import_experiment(
    source: str,
    mapping: ImportMap | None,
    since: datetime | None,
    looks: Iterator[None],
    tell: Callable[[IngestReport, datetime], None],
) -> None:
    """Store the traces of an experiment, and go on where the last call ended.

    Traces of the week before that are read again, for what was said about them since.

    Args:
        source: `mlflow:` and the experiment's name.
        mapping: What scores mean.
        since: From when on, whatever was read before.
        looks: Once for each look.
        tell: Says what became of a page.

    Raises:
        InvalidInputError: There is no such experiment.
        TrackingError: The server does not answer.
    """
    from ratchet.collect.recognising import Recogniser
    from ratchet.doors.door import Given
    from ratchet.doors.known import door_named
    from ratchet.doors.pages import reached, store_pages
    from ratchet.tracking.traces import trace_pages

    store, settings, door = created_store(), current_settings(), door_named("mlflow")
    uri, name = settings.tracking_uri, source.removeprefix(_PREFIX)
    known = Recogniser(store, open_history(store))
    try:
        for _ in looks:
            now, empty = datetime.now(UTC), True
            scores = mapping.scores if mapping else {}
            given = Given(at=now, source=source, scores=scores)
            begin = since or reached(store, door, f"{uri} {name}")
            pages = trace_pages(uri, name, begin)
            for report in store_pages(
                pages, door, f"{uri} {name}", given, store, known=known, now=now
            ):
                empty = False
                tell(report, now)
            if empty:
                say(f"no trace in {name}" + (f" since {begin:%Y-%m-%d %H:%M} UTC" if begin else ""))
    except KeyboardInterrupt:
        say("stopped; the same command goes on from here")
