"""`ratchet alerts`: what is worse than it should be, and who looks after it."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from typing import Annotated

import typer

from ratchet.cli.shared import current_settings, nothing_stored
from ratchet.errors import InvalidInputError


def alerts(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Resolved ones too.")] = False,
    acknowledge: Annotated[
        str | None, typer.Option(help="Id of an alert that you look after, or its start.")
    ] = None,
    resolve: Annotated[
        str | None, typer.Option(help="Id of an alert that is settled, or its start.")
    ] = None,
    by: Annotated[str, typer.Option(help="Who you are.")] = "",
    note: Annotated[str, typer.Option(help="Why.")] = "",
) -> None:
    """List the open alerts; acknowledge or resolve one."""
    from ratchet.analyze.alert_steps import by_hand, known_alerts, standing
    from ratchet.store import EventStore
    from ratchet.views.text.cycle import alerts_text

    if acknowledge is not None and resolve is not None:
        raise InvalidInputError(
            "one of --acknowledge and --resolve goes with a call, got both; call twice"
        )
    settings = current_settings()
    store = None if nothing_stored(settings) else EventStore.open(settings.store_url)
    known = known_alerts(store) if store else ()
    key = resolve if acknowledge is None else acknowledge
    if key is not None:
        event = by_hand(
            known if key else (),  # an empty id would be the start of any
            key,
            "acknowledged" if resolve is None else "resolved",
            by=by or os.environ.get("USER", "somebody"),
            note=note or None,
            now=datetime.now(UTC),
        )
        if store:
            store.append(event)
        known = (*known, event)
    shown = [e for e in standing(known).values() if everything or e.change != "resolved"]
    if as_json:
        print(json.dumps([event.canonical() for event in shown], indent=2))
    else:
        print(alerts_text(shown))
