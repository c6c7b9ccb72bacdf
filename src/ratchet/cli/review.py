"""`ratchet review`: what waits for a person, and their decisions."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from typing import Annotated

import typer

from ratchet.cli.shared import current_settings, nothing_stored
from ratchet.errors import InvalidInputError

SHOWN = 20


def review(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    decide: Annotated[str | None, typer.Option(help="Id of an item, or its start.")] = None,
    label: Annotated[
        str, typer.Option(help="For safety violation or fine, else an option of the dimension.")
    ] = "",
    by: Annotated[str, typer.Option(help="Who you are.")] = "",
    note: Annotated[str, typer.Option(help="Why.")] = "",
) -> None:
    """List what waits for review, safety first; or decide one item."""
    from ratchet.review.queue import decide as keep
    from ratchet.review.queue import open_items
    from ratchet.store import EventStore

    settings = current_settings()
    if nothing_stored(settings):
        if decide is not None:
            raise InvalidInputError(f"nothing waits for review, got --decide {decide!r}")
        print("[]" if as_json else "nothing waits for review")
        return
    store, now = EventStore.open(settings.store_url), datetime.now(UTC)
    reviewer = by or os.environ.get("USER", "somebody")
    if decide is not None:
        if not label:
            raise InvalidInputError("a decision needs --label, got none; pass violation or fine")
        made = keep(store, decide, label, reviewer=reviewer, now=now, note=note or None)
        print(f"{made.item_id[:8]} is decided as {made.label} by {made.reviewer}")
        return
    items = open_items(store, reviewer=by or None)
    if as_json:
        print(json.dumps([item.canonical() for item in items], indent=2))
        return
    print(f"{len(items)} waiting" if items else "nothing waits for review")
    known = store.stored_interactions([item.interaction_id for item in items[:SHOWN]])
    for item in items[:SHOWN]:
        print(
            f"{item.id[:8]}  {item.priority}  {item.dimension}  {' '.join(item.why.split())[:80]}"
        )
        interaction = known.get(item.interaction_id)
        if interaction is not None:
            print(f"          user:   {' '.join(interaction.prompt.split())[:80]}")
            print(f"          answer: {' '.join(interaction.response.split())[:80]}")
