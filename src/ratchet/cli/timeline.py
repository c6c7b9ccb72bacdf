"""`ratchet timeline`: what happened in front of users, and how fast it took effect."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from ratchet.cli.saying import say_json, say_text
from ratchet.cli.shared import AsJson, existing_store, finite

if TYPE_CHECKING:
    from ratchet.views.text.timeline import Moment


def timeline(
    hours: Annotated[
        float, typer.Option(min=0.01, max=87_600.0, help="Hours to look back.", callback=finite)
    ] = 24.0,
    as_json: AsJson = False,
) -> None:
    """List releases, first bad feedback, alerts, decisions and rollbacks in order of time."""
    from ratchet.views.text.timeline import moments_between, timeline_text

    store, now = existing_store(), datetime.now(UTC)
    moments: tuple[Moment, ...] = ()
    if store is not None:
        moments = moments_between(store, since=now - timedelta(hours=hours), until=now)
    if as_json:
        rows = [
            {"at": moment.at.isoformat(), "what": moment.what, "text": moment.text,
             "more": list(moment.more)}
            for moment in moments
        ]  # fmt: skip
        say_json(rows, indent=2)
    else:
        say_text(timeline_text(moments))
