"""`ratchet review`: what waits for a person, and their decisions."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated

import typer

from ratchet.cli.shared import AsJson, By, Note, existing_store, person
from ratchet.errors import InvalidInputError
from ratchet.files.text import clipped

SHOWN = 20
SAID = ("application", "prompt_version", "tags", "trace_id", "request_id")
"""What is shown of what a client said with a request."""


def review(
    as_json: AsJson = False,
    decide: Annotated[
        str | None,
        typer.Option(help="Item to decide: its id, or the first characters of the id."),
    ] = None,
    label: Annotated[
        str,
        typer.Option(
            help="Your decision: violation or fine, or one of the labels of the item's dimension."
        ),
    ] = "",
    by: By = "",
    note: Note = "",
) -> None:
    """List what waits for review, safety first; or decide one item."""
    from ratchet.review.queue import decide as keep
    from ratchet.review.queue import first_page, open_items

    store, now = existing_store(), datetime.now(UTC)
    if store is None:
        if decide is not None:
            raise InvalidInputError(f"nothing waits for review, got --decide {decide!r}")
        print("[]" if as_json else "nothing waits for review")
        return
    if decide is not None:
        if not label:
            raise InvalidInputError("a decision needs --label, got none; pass violation or fine")
        made = keep(store, decide, label, reviewer=person(by), now=now, note=note or None)
        print(f"{made.item_id[:8]} is decided as {made.label} by {made.reviewer}")
        return
    if as_json:
        items = open_items(store, reviewer=by or None)
        print(json.dumps([item.canonical() for item in items], indent=2))
        return
    page = first_page(store, most=SHOWN)
    print(f"{page.waiting:,} waiting" if page.waiting else "nothing waits for review")
    known = store.stored_interactions([item.interaction_id for item in page.items])
    for item in page.items:
        print(f"{item.id[:8]}  {item.priority}  {item.dimension}  {clipped(item.why, 80)}")
        interaction = known.get(item.interaction_id)
        if interaction is not None:
            print(f"          user:   {clipped(interaction.prompt, 80)}")
            print(f"          answer: {clipped(interaction.response, 80)}")
            said = [
                f"{name} {interaction.metadata[name]}"
                for name in SAID
                if name in interaction.metadata
            ]
            if said:
                print(f"          said:   {clipped(', '.join(said), 80)}")
        if item.id in page.more:
            print(f"          and {page.more[item.id]:,} more like it")
