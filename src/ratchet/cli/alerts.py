"""`ratchet alerts`: what is worse than it should be, and who looks after it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from ratchet.cli import alerts_told
from ratchet.cli.saying import say, say_json, say_text
from ratchet.cli.shared import AsJson, By, Note, existing_store, person
from ratchet.errors import InvalidInputError

app = typer.Typer(
    help="What is worse than it should be: list it, look after it, mute it, try who is told.",
    invoke_without_command=True,
)
for name, command, example in (
    ("mute", alerts_told.mute, "ratchet alerts mute 3f9a --hours 4 --reason 'vendor is on it'"),
    ("unmute", alerts_told.unmute, "ratchet alerts unmute 3f9a --reason 'it is mended'"),
    ("routes", alerts_told.routes, "ratchet alerts routes --json"),
    ("test", alerts_told.try_routes, "ratchet alerts test --route urgent"),
):
    app.command(name, epilog=f"Example: {example}")(command)


@app.callback(epilog="Example: ratchet alerts --acknowledge 3f9a --by ada")
def alerts(
    context: typer.Context,
    as_json: AsJson = False,
    everything: Annotated[bool, typer.Option("--all", help="Show resolved alerts too.")] = False,
    acknowledge: Annotated[
        str | None,
        typer.Option(help="Alert that you look after: its id, or the first characters of the id."),
    ] = None,
    resolve: Annotated[
        str | None,
        typer.Option(help="Alert that is over: its id, or the first characters of the id."),
    ] = None,
    by: By = "",
    note: Note = "",
) -> None:
    """List the open alerts; acknowledge or resolve one."""
    if context.invoked_subcommand is not None:
        return
    from ratchet.analyze.alert_steps import by_hand, known_alerts, standing
    from ratchet.store.heard import questions
    from ratchet.views.text.cycle import alerts_text

    if acknowledge is not None and resolve is not None:
        raise InvalidInputError(
            "--acknowledge and --resolve are two steps, got both; run the command once for each"
        )
    store = existing_store()
    known = known_alerts(store) if store else ()
    key = resolve if acknowledge is None else acknowledge
    if key is not None:
        event = by_hand(
            known if key else (),  # an empty id would be the start of any
            key,
            "acknowledged" if resolve is None else "resolved",
            by=person(by),
            note=note or None,
            now=datetime.now(UTC),
        )
        if store:
            store.append(event)
        known = (*known, event)
    shown = [
        event for event in standing(known).values() if everything or event.change != "resolved"
    ]
    if as_json:
        say_json([event.canonical() for event in shown], indent=2)
    else:
        say_text(alerts_text(shown))
        for question in questions(store, now=datetime.now(UTC)) if store else ():
            say(f"not watched: {question.in_words}")
