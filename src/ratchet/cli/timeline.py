"""`ratchet timeline`: what happened in front of users, and how fast it took effect."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from ratchet.cli.shared import current_settings, nothing_stored

if TYPE_CHECKING:
    from ratchet.views.text.timeline import Moment


def timeline(
    hours: Annotated[float, typer.Option(min=0.01, max=87_600.0, help="How far back.")] = 24.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tell releases, first bad feedback, alerts, decisions, rollbacks and their effect in order."""
    from ratchet.store import EventStore
    from ratchet.views.text.timeline import moments_between, timeline_text

    settings, now = current_settings(), datetime.now(UTC)
    found: tuple[Moment, ...] = ()
    if not nothing_stored(settings):
        store = EventStore.open(settings.store_url)
        found = moments_between(store, since=now - timedelta(hours=hours), until=now)
    if as_json:
        rows = [
            {"at": moment.at.isoformat(), "what": moment.what, "text": moment.text,
             "more": list(moment.more)}
            for moment in found
        ]  # fmt: skip
        print(json.dumps(rows, indent=2))
    else:
        print(timeline_text(found))
