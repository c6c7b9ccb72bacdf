"""`ratchet golden`: the examples with right answers that the gate asks, grown from traffic."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ratchet.cli.saying import say, say_json, say_text
from ratchet.cli.shared import (
    AsJson,
    current_settings,
    existing_store,
    open_history,
    required_store,
    show_progress,
)
from ratchet.deployments import read_deployments
from ratchet.files.text import counted
from ratchet.files.whole import write_whole

if TYPE_CHECKING:
    from ratchet.golden.rules import GoldenRules
    from ratchet.records import GoldenVersion
    from ratchet.store import EventStore

_Number = Annotated[
    int | None, typer.Argument(metavar="[VERSION]", help="Its number; default: the latest.")
]
_WHAT = "a golden set"
app = typer.Typer(help="Build, list and show versions of the examples that the gate asks.")


@app.command(epilog="Example: ratchet golden build --dry-run")
def build(
    given: Annotated[
        Path | None,
        typer.Option("--from", help="File of examples that is the version, as of `ratchet gate`."),
    ] = None,
    corrections: Annotated[
        Literal["confirmed", "given"] | None,
        typer.Option(
            help="Which corrections are right: those that a person confirmed, or all that users "
            "gave; default: that of the options of collect, or confirmed."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be added, and freeze nothing.")
    ] = False,
) -> None:
    """Freeze a version now: of what people confirmed, approved and labelled, or of a file.

    `collect` does the same by itself when a version is due. Exit codes: 0 also where there is too
    little yet, 2 for bad input.
    """
    from ratchet.errors import WaitingError
    from ratchet.golden.building import from_file

    store, settings, now = required_store(_WHAT), current_settings(), datetime.now(UTC)
    rules = _rules(corrections)
    show_progress()
    if dry_run:
        _show_draft(store, rules, given)
        return
    if given is not None:
        made = from_file(store, given, now=now, open_tokens=_answer_length(store, now))
        _show(store, made, rows=0)
        return
    try:
        _show(store, _built(store, settings.home, rules, now), rows=3)
    except WaitingError as error:
        say(f"nothing to do yet: {error}")


@app.command("list", epilog="Example: ratchet golden list --json")
def listed(as_json: AsJson = False) -> None:
    """List the versions, and which one the gate asks."""
    from ratchet.golden.versions import golden_versions
    from ratchet.views.text.golden import versions_text

    store = existing_store()
    versions = () if store is None else golden_versions(store)
    if as_json:
        say_json([version.canonical() for version in versions], indent=2)
        return
    if not versions:
        say("no version yet: `ratchet golden build` makes one")
        return
    say_text(versions_text(versions))
    pinned = _rules(None).version
    say(f"the gate asks version {pinned or versions[-1].number}, where no file is given")


@app.command(epilog="Example: ratchet golden show 2 --out golden.jsonl")
def show(
    version: _Number = None,
    against: Annotated[
        int | None, typer.Option(help="An earlier version: what changed since.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write its examples, for `ratchet gate --examples`.")
    ] = None,
    rows: Annotated[int, typer.Option(min=0, max=1_000, help="Examples to show.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Show a version: why it was made, out of what, and some of its examples."""
    from ratchet.golden.versions import changes, frozen_examples, golden_version, lines_of

    store = required_store(_WHAT)
    found = golden_version(store, version)
    examples = frozen_examples(store, found)
    if as_json:
        say_json(found.canonical(), indent=2)
    else:
        _show(store, found, rows=rows)
    if against is not None:
        earlier = golden_version(store, against)
        differs = changes(frozen_examples(store, earlier), examples)
        say(
            f"against version {earlier.number}: {counted(differs.shared, 'example')} shared, "
            f"{differs.answered_anew:,} answered anew, {differs.added:,} added, "
            f"{differs.retired:,} retired; models compare across the two on those shared alone",
            err=as_json,
        )
    if out is not None:
        write_whole(out, "".join(f"{line}\n" for line in lines_of(examples)).encode())
        say(f"wrote {counted(len(examples.examples), 'example')} to {out}", err=as_json)


def _rules(corrections: Literal["confirmed", "given"] | None) -> GoldenRules:
    """Return the rules of the home's deployment of `collect`, with what the command changes."""
    from ratchet.golden.rules import GoldenRules

    of_collect = read_deployments(current_settings().deployments).options_of("collect")
    said = dict(of_collect.get("golden") or {})
    if corrections is not None:
        said["corrections"] = corrections
    return GoldenRules.model_validate(said)


def _built(store: EventStore, home: Path, rules: GoldenRules, now: datetime) -> GoldenVersion:
    from ratchet.golden.building import refresh
    from ratchet.store.leases import GOLDEN, hold

    with hold(store, GOLDEN, wait=None):
        made = refresh(
            store, home, open_history(store), rules, now=now,
            open_tokens=_answer_length(store, now), asked=True,
        )  # fmt: skip
    assert made is not None  # where a person asks, it is made or waits
    return made


def _answer_length(store: EventStore, now: datetime) -> int:
    from ratchet.deploy.gate.decoding import answer_length
    from ratchet.store import EVER, Window

    return answer_length(store, Window(EVER, now))


def _show(store: EventStore, version: GoldenVersion, *, rows: int) -> None:
    from ratchet.golden.versions import frozen_examples
    from ratchet.views.text.golden import version_text

    say_text(version_text(version, frozen_examples(store, version).examples, rows))


def _show_draft(store: EventStore, rules: GoldenRules, given: Path | None) -> None:
    from ratchet.evaluation.example_files import read_examples
    from ratchet.golden.building import draw
    from ratchet.golden.versions import latest_version
    from ratchet.views.text.golden import draft_text

    if given is not None:
        rows = [("file", one.prompt, one.target or "") for one in read_examples(given)]
        say_text(draft_text(rows, {}))
        return
    latest = latest_version(store)
    drawn = draw(store, current_settings().home, open_history(store), rules, latest=latest)
    right = [(one.source, one.interaction.prompt, one.target) for one in drawn.right]
    say_text(draft_text(right, drawn.set_aside))
