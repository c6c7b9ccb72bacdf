"""`ratchet signals`: what each application reports, and what it means that nothing came."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ratchet.cli.saying import say, say_json
from ratchet.cli.shared import (
    AsJson,
    By,
    Note,
    created_store,
    current_settings,
    existing_store,
    finite,
    one_line_name,
    person,
)
from ratchet.errors import InvalidInputError
from ratchet.files.text import counted

if TYPE_CHECKING:
    from ratchet.records import SignalDeclaration
    from ratchet.store import EventStore

Reporting = Literal["both", "when-it-happens", "never"]
FORMATS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]
SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])")
SECONDS = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
app = typer.Typer(help="Show which signals come in, and declare how an application reports them.")


@app.command("list", epilog="Example: ratchet signals list --days 1")
def listed(
    days: Annotated[
        float, typer.Option(min=0.01, max=366.0, help="Days to look back.", callback=finite)
    ] = 7.0,
    as_json: AsJson = False,
) -> None:
    """Show what each application sent: yes, no, of how many answers, and what is declared."""
    store, now = existing_store(), datetime.now(UTC)
    rows = _rows(store, now, days) if store else []
    if as_json:
        say_json(rows, indent=2)
        return
    if not rows:
        say(f"no answer in the last {days:g} days")
    application = None
    for row in rows:
        if row["application"] != application:
            application = row["application"]
            say(f"{application}: {counted(row['answers'], 'answer')} in the last {days:g} days")
        say(f"  {row['kind']:16} {row['yes']:>9,} yes {row['no']:>9,} no  {row['reported']}")
    for row in rows:
        if row["question"]:
            say(f"asks  {row['question']}")
    if store:
        say(_derived_words(store))


@app.command(
    epilog="Example: ratchet signals declare copy regenerate --application shop "
    "--reported when-it-happens --after 10m"
)
def declare(
    kinds: Annotated[
        list[str], typer.Argument(help="Kinds of feedback, such as copy or regenerate.")
    ],
    application: Annotated[
        str,
        typer.Option(
            help="The application; '*' is each that has no declaration of its own.",
            callback=one_line_name,
        ),
    ],
    reported: Annotated[
        Reporting,
        typer.Option(
            help="both: yes and no are sent. when-it-happens: yes alone, an answer without one is "
            "a no. never: what is sent says nothing."
        ),
    ],
    after: Annotated[
        str, typer.Option(help="Age of an answer at which no event means no: 90s, 10m, 2h, 1d.")
    ] = "10m",
    since: Annotated[
        datetime | None,
        typer.Option(formats=FORMATS, help="From which answer on, in UTC; default: now."),
    ] = None,
    by: By = "",
    note: Note = "",
) -> None:
    """Say how an application reports a yes or no. The latest one written counts."""
    now = datetime.now(UTC)
    begin = now if since is None else since.replace(tzinfo=UTC)
    if begin > now:
        raise InvalidInputError(
            f"--since must not lie ahead, got {begin:%F %H:%M} at {now:%F %H:%M} UTC; declare it "
            "when the application reports so"
        )
    seconds = _seconds(after)
    declarations = [
        _declaration(kind, application, reported, begin, seconds, by=by, note=note, now=now)
        for kind in dict.fromkeys(kinds)
    ]
    store = created_store()
    with store.atomic():
        for declaration in declarations:
            store.append(declaration)
    for declaration in declarations:
        say(f"{application} reports `{declaration.kind}` {_words(declaration)}")


@app.command(epilog="Example: ratchet signals switch left visit_seconds --off --note 'robots'")
def switch(
    kinds: Annotated[list[str], typer.Argument(help="Derived signals, such as left.")],
    off: Annotated[bool, typer.Option("--off/--on", help="Derive it no longer, or again.")],
    by: By = "",
    note: Note = "",
) -> None:
    """Switch signals that are derived from the traffic off or on again, from the next pass on."""
    from ratchet.store.accounts import note_action
    from ratchet.store.following import switch as switch_kind
    from ratchet.views.words import in_quality

    store, now, who = created_store(), datetime.now(UTC), person(by)
    with store.atomic():
        for kind in dict.fromkeys(one.replace("-", "_") for one in kinds):
            made = switch_kind(
                store, kind, off=off, by=who, note=note, now=now,
                by_setting=current_settings().not_derived,
            )  # fmt: skip
            if made is not None:
                action = f"switch signal {'off' if off else 'on'}"
                note_action(store, who, action, now=now, about=kind, reason=note)
            state = "is off" if off else "is derived"
            say(f"{kind} {state}{'' if made else ' already'}. {in_quality(kind)}")


def _declaration(
    kind: str,
    application: str,
    reported: Reporting,
    since: datetime,
    seconds: float,
    *,
    by: str,
    note: str,
    now: datetime,
) -> SignalDeclaration:
    from ratchet.records import SignalDeclaration, derive_id

    return SignalDeclaration.model_validate(
        {
            "id": derive_id("signal declaration", application, kind, now.isoformat()),
            "created_at": now,
            "application": application,
            "kind": kind.replace("-", "_"),
            "reported": reported.replace("-", " "),
            "since": since,
            "after_seconds": seconds,
            "by": person(by),
            "note": note or None,
        }
    )


def _derived_words(store: EventStore) -> str:
    """Say how many signals were derived from the traffic, what is off and what counts."""
    from ratchet.judges.next_turn import DISSATISFIED, in_words
    from ratchet.judges.usable import latest_validations
    from ratchet.records import TRAFFIC_KINDS
    from ratchet.review.corrections import counts_in_words
    from ratchet.store.following import switched_off

    counts = store.counts()
    off = (*current_settings().not_derived, *switched_off(store))
    found = ", ".join(f"{counts[kind]:,} {kind}" for kind in TRAFFIC_KINDS)
    switched = f"; switched off: {', '.join(off)}" if off else ""
    known = latest_validations(store).values()
    readers = [one for one in known if one.dimension == DISSATISFIED.name]
    told = f"{in_words(readers)}; {counts_in_words(store)}"
    return f"derived from the traffic: {found}{switched}; {told}"


def _seconds(span: str) -> float:
    """Return a span of time in seconds.

    Raises:
        InvalidInputError: It is none.
    """
    found = SPAN.fullmatch(span.strip().lower())
    if found is None:
        raise InvalidInputError(
            f"--after must be a number with s, m, h or d, got {span!r}; 10m is ten minutes"
        )
    return float(found[1]) * SECONDS[found[2]]


def _words(declaration: SignalDeclaration) -> str:
    minutes = declaration.after_seconds / 60.0
    words = {
        "both": "either way",
        "when it happens": f"when it happens: none within {minutes:g} minutes is a no",
        "never": "never: what is sent is not counted",
    }
    return f"{words[declaration.reported]}, from {declaration.since:%F %H:%M} UTC on"


def _rows(store: EventStore, now: datetime, days: float) -> list[dict[str, Any]]:
    """Return what was heard of each application, with what is declared and asked."""
    from ratchet.store import Window
    from ratchet.store.heard import hear, heard, questions

    hear(store, now=now)
    asked = {(item.application, item.kind): item.in_words for item in questions(store, now=now)}
    reporting = store.reporting()
    rows = []
    for item in heard(store, Window(now - timedelta(days=days), now)):
        declared = reporting.declared(item.kind, item.application)
        question = asked.pop((item.application, item.kind), None)
        says = f"declared: {_words(declared)}" if declared else "not declared"
        rows.append(
            {
                "application": item.application,
                "kind": item.kind,
                "answers": item.answers,
                "yes": item.yes,
                "no": item.no,
                "reported": "only when it happens, it seems" if question else says,
                "declared": declared.canonical() if declared else None,
                "question": question,
            }
        )
    return rows
