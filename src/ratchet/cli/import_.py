"""`ratchet import`: bring in what users did, as other tools write it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ratchet.cli.import_server import access, import_server
from ratchet.cli.progress import Progress
from ratchet.cli.saying import say, say_json
from ratchet.cli.shared import created_store, current_settings, finite, open_history
from ratchet.errors import InvalidInputError
from ratchet.files.moments import read_moment
from ratchet.files.text import counted, printable

if TYPE_CHECKING:
    from ratchet.collect.report import IngestReport
    from ratchet.doors.door import Door
    from ratchet.doors.importing import Import, Preview
    from ratchet.doors.mapping import ImportMap
    from ratchet.doors.pages import Server

_SHOWN_CHARACTERS = 200
_SECONDS_AT_FILES, _SECONDS_AT_SERVERS = 5.0, 60.0


_Every = Annotated[
    float | None,
    typer.Option(
        min=0.1,
        help="With --follow, seconds between two looks; default: 5, at a server 60.",
        callback=finite,
    ),
]


def import_source(
    source: Annotated[
        str,
        typer.Argument(
            help="File, folder, pattern, an address such as s3://bucket/folder, "
            "mlflow:EXPERIMENT of the MLflow server, or langfuse:ADDRESS of Langfuse's."
        ),
    ],
    as_format: Annotated[
        str | None,
        typer.Option("--as", help="The format, where its rows do not show it; see docs/import.md."),
    ] = None,
    mapping: Annotated[
        Path | None,
        typer.Option("--map", help="YAML: what scores mean, and which column holds what."),
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="From when on: 2026-11-01, a time with its zone, or 90d.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be stored, and store nothing.")
    ] = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on with what is added, until Ctrl-C.")
    ] = False,
    every: _Every = None,
) -> None:
    """Store the interactions and the feedback that another tool's export holds.

    The format is told by the first rows, or by --as. A second import adds nothing. Every row that
    is not stored has a reason.

    Exit codes: 0 where something was stored or was there before, 2 where nothing can be used.
    """
    from ratchet.doors.following import follow_source
    from ratchet.doors.importing import prepare
    from ratchet.doors.mapping import read_map
    from ratchet.doors.servers import is_server, server_of

    now = datetime.now(UTC)
    begin = read_moment(since, now) if since else None
    told_by = read_map(mapping) if mapping else None
    if is_server(source):
        server = server_of(source, access(), as_format=as_format)
        say(f"{server.door.name}: {server.says} (a server)")
        if dry_run:
            _preview_server(server, told_by, begin, now)
            return
        looks = _forever(every or _SECONDS_AT_SERVERS) if follow else iter((None,))
        derive(now, most=0)  # all of this source is new to it
        import_server(server, told_by, begin, looks, tell_report)
        return
    what = prepare(source, now=now, as_format=as_format, mapping=told_by, since=begin)
    told = "recognised" if what.is_recognised else "as given"
    say(f"{what.door.name}: {what.door.holds} ({told}), {counted(len(what.files), 'file')}")
    if dry_run:
        _preview(what)
        return
    if not follow:
        run_import(what)
        return
    store = created_store()
    derive(now, most=0)  # all of this source is new to it

    def wait() -> bool:
        time.sleep(every or _SECONDS_AT_FILES)
        return True

    try:
        for report in follow_source(what, store, open_history(store), wait=wait):
            _tell_counts(report)
    except KeyboardInterrupt:
        say("stopped; the same command goes on from here")
    derive(datetime.now(UTC))


def run_import(what: Import) -> None:
    """Store a source and tell what became of it.

    Raises:
        InvalidInputError: None of its rows can be used.
    """
    from ratchet.collect.recognising import Recogniser
    from ratchet.doors.importing import store_import

    store, progress = created_store(), Progress()
    derive(what.now, most=0)  # all of this source is new to it
    known = Recogniser(store, open_history(store))
    report = store_import(what, store, progress=progress, known=known)
    tell_report(report, what.now)
    if not is_any_usable(report):
        raise InvalidInputError(
            f"a file must hold at least one usable row, got {counted(report.set_aside, 'row')} in "
            f"{printable(what.name)!r} and none can be used; a row needs `messages` (an answer) or "
            "`kind` (feedback), see docs/files.md; other formats need --as, see docs/import.md, "
            "and a log of whole dialogues needs `ratchet ingest --dialogues`"
        )


def tell_report(report: IngestReport, now: datetime) -> None:
    """Print what became of the rows, and derive what they say."""
    _tell_counts(report)
    derive(now)
    if report.set_aside:
        say("`ratchet set-aside` lists every row that was set aside")


def is_any_usable(report: IngestReport) -> bool:
    """Tell whether any row was stored, or had nothing to store."""
    stored = report.interactions + report.feedback + report.repeated + report.recognised
    return bool(stored or (report.passed and not report.set_aside))


def _tell_counts(report: IngestReport) -> None:
    say(
        f"{counted(report.interactions, 'interaction')} and "
        f"{counted(report.feedback, 'piece')} of feedback stored"
    )
    say(f"{report.repeated} were there before, {counted(report.set_aside, 'row')} set aside")
    if report.recognised:
        say(f"{counted(report.recognised, 'row')} stored already under other ids")
    for line in report.lines():
        say(line)


def derive(now: datetime, most: int | None = None) -> None:
    """Derive what came in says, and tell it; `most` 0 notes where to begin."""
    from ratchet.collect.taking_in import take_in

    off = current_settings().not_derived
    from ratchet.review.corrections import CORRECTION
    from ratchet.review.policy import policy_at

    people, unanimous = policy_at(current_settings().review).people_for(CORRECTION)
    taken = take_in(
        created_store(), now=now, off=off, most=most, people=people, unanimous=unanimous
    )
    for line in taken.lines():
        say(line)


def _forever(seconds: float) -> Iterator[None]:
    """Yield again and again, with a pause between."""
    while True:
        yield None
        time.sleep(seconds)


def _preview_server(
    server: Server, mapping: ImportMap | None, since: datetime | None, now: datetime
) -> None:
    from ratchet.doors.pages import PREVIEWED, preview_server
    from ratchet.doors.servers import given_of

    shown = preview_server(server, given_of(server, mapping, now), since=since, now=now)
    say(f"of the first {PREVIEWED} pages of each list:")
    _tell_preview(server.door, shown)


def _preview(what: Import) -> None:
    from ratchet.doors.importing import preview

    _tell_preview(what.door, preview(what))


def _tell_preview(door: Door, shown: Preview) -> None:
    width = max(map(len, door.mapping))
    for ours, theirs in door.mapping.items():
        say(f"    {ours:<{width}}  {theirs}")
    for fields in shown.first:
        say_json({name: _short(value) for name, value in fields.items()}, default=str)
    rows = sum(shown.reasons.values())
    say(
        f"{counted(shown.interactions, 'interaction')} and {counted(shown.feedback, 'piece')} of "
        f"feedback would be stored, {counted(rows, 'row')} set aside; nothing was stored"
    )
    for rule, count in shown.reasons.most_common():
        example = shown.examples[rule]
        say(f"{count:>8,} × {example.position}: {example.reason}")
    for reason, count in shown.passed.most_common():
        say(f"{count:>8,} × passed over: {reason}")


def _short(value: object) -> object:
    """Return a value with its texts shortened, as a dry run shows it."""
    if isinstance(value, str):
        return value if len(value) <= _SHOWN_CHARACTERS else f"{value[:_SHOWN_CHARACTERS]}…"
    if isinstance(value, dict):
        return {name: _short(inner) for name, inner in value.items()}
    return [_short(inner) for inner in value] if isinstance(value, list | tuple) else value
