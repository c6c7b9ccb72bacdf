"""`ratchet review`: what waits for a person, and their decisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ratchet.cli import review_work
from ratchet.cli.saying import say, say_json
from ratchet.cli.shared import AsJson, By, Note, existing_store, person, required_store
from ratchet.errors import InvalidInputError
from ratchet.files.rows import read_rows, set_aside_lines
from ratchet.files.text import clipped, counted

if TYPE_CHECKING:
    from ratchet.files.rows import SetAsideRow
    from ratchet.records import Interaction, ReviewItem
    from ratchet.store import EventStore

SHOWN = 20
SAID = ("application", "prompt_version", "tags", "trace_id", "request_id")
"""What is shown of what a client said with a request."""


app = typer.Typer(
    help="What waits for a person: list it, label it, take it out, bring it back.",
    invoke_without_command=True,
)
for name, command, example in (
    ("next", review_work.next_item, "ratchet review next --by ada"),
    ("label", review_work.label, "ratchet review label 3f9a fine --by ada"),
    ("skip", review_work.skip_item, "ratchet review skip 3f9a 'in Finnish' --by ada"),
    ("undo", review_work.undo_last, "ratchet review undo --by ada"),
    ("agreement", review_work.agreement, "ratchet review agreement helpfulness"),
    ("progress", review_work.show_progress, "ratchet review progress --by ada"),
    ("fill", review_work.fill, "ratchet review fill"),
    ("export", review_work.export_items, "ratchet review export items.jsonl --queue safety"),
    ("import", review_work.import_items, "ratchet review import items.jsonl --by ada"),
):
    app.command(name, epilog=f"Example: {example}")(command)


@app.callback(epilog="Example: ratchet review --decide 3f9a --label fine --by ada")
def review(
    context: typer.Context,
    as_json: AsJson = False,
    decide: Annotated[
        str | None,
        typer.Option(help="Item to decide: its id, or the first characters of the id."),
    ] = None,
    label: Annotated[
        str,
        typer.Option(
            help="Your decision: violation or fine; of a correction in words confirmed or "
            "rejected; or one of the labels of the item's dimension."
        ),
    ] = "",
    answer: Annotated[
        str | None,
        typer.Option(
            help="Of a correction that you confirm the right answer, where it is not the one shown."
        ),
    ] = None,
    sheet: Annotated[
        Path | None,
        typer.Option(
            help="A sheet of `ratchet export label-sheet` that you filled in: its decisions, or "
            "the winners of its pairs, are stored."
        ),
    ] = None,
    by: By = "",
    note: Note = "",
) -> None:
    """List what waits for review, safety first; decide one item, or bring back a filled-in sheet.

    Pairs of answers that the gate waits for are told too; people compare them on a sheet.
    """
    if context.invoked_subcommand is not None:
        return
    if sheet is not None:
        if decide is not None or label or answer is not None:
            raise InvalidInputError(
                "a sheet holds its own labels, got --decide, --label or --answer beside --sheet; "
                "give one"
            )
        _bring_back(sheet, person(by), as_json=as_json)
        return
    from ratchet.review.deciding import decide as keep
    from ratchet.review.queue import open_items

    store, now = existing_store(), datetime.now(UTC)
    if store is None:
        if decide is not None:
            raise InvalidInputError(f"nothing waits for review, got --decide {decide!r}")
        say("[]" if as_json else "nothing waits for review")
        return
    if decide is not None:
        if not label:
            raise InvalidInputError("a decision needs --label, got none; pass violation or fine")
        made = keep(
            store,
            decide,
            label,
            reviewer=person(by),
            now=now,
            note=note or None,
            answer=answer,
            policy=review_work.policy(),
        )
        say(f"{made.item_id[:8]} is decided as {made.label} by {made.reviewer}")
        return
    if as_json:
        items = open_items(store, reviewer=by or None)
        say_json([item.canonical() for item in items], indent=2)
        return
    if answer is not None:
        raise InvalidInputError("a right answer needs --decide, got --answer alone; name the item")
    _list(store)


def _list(store: EventStore) -> None:
    from ratchet.review.corrections import RAISED_BY, interactions_about
    from ratchet.review.queue import first_page
    from ratchet.store.review_items import sources_waiting

    pairs, page = _pairs_waiting(store), first_page(store, most=SHOWN)
    for line in pairs:
        say(line)
    if page.waiting or not pairs:
        say(f"{page.waiting:,} waiting" if page.waiting else "nothing waits for review")
    sources = sources_waiting(store)
    if corrections := sum(one.waiting for one in sources if one.raised_by == RAISED_BY):
        say(
            f"of these {counted(corrections, 'correction')} in words: --label confirmed or "
            "rejected, and --answer for a better one; nothing is trained on before"
        )
    known = interactions_about(store, page.items)
    for item in page.items:
        say(f"{item.id[:8]}  {item.priority}  {item.dimension}  {clipped(item.why, 80)}")
        _show(item, known)
        if item.id in page.more:
            say(f"          and {page.more[item.id]:,} more like it")


def _show(item: ReviewItem, known: Mapping[str, Interaction]) -> None:
    from ratchet.review.corrections import shown

    interaction = known.get(item.interaction_id)
    if interaction is None:
        return
    for who, text in shown(item, known) or ():
        say(f"          {who + ':':<7} {clipped(text, 80)}")
    said = [f"{name} {interaction.metadata[name]}" for name in SAID if name in interaction.metadata]
    if said:
        say(f"          said:   {clipped(', '.join(said), 80)}")


def _pairs_waiting(store: EventStore) -> list[str]:
    from ratchet.judges.pair_labels import waiting_sheets, way_to_label

    return [
        f"{counted(record.wanted, 'pair')} of answers to be compared, {compared} compared so far: "
        f"{way_to_label(record)}"
        for record, compared in waiting_sheets(store)
    ]


def _bring_back(path: Path, reviewer: str, *, as_json: bool) -> None:
    """Store what a person wrote on a sheet of pairs, or on one of the queue."""
    from ratchet.judges.label_sheet import COLUMNS, NEEDED
    from ratchet.judges.pair_labels import compared_in_words, keep_labels
    from ratchet.review.sheet import keep_decisions

    store, now = required_store("a filled-in sheet"), datetime.now(UTC)
    with read_rows(path, names=COLUMNS, may_be_empty=True) as rows:
        named = rows.columns or ()
    if set(NEEDED) <= set(named):
        kept = keep_labels(store, path, reviewer=reviewer, now=now)
        more = {"compared": kept.compared, "wanted": kept.sheet.wanted}
        told = f"compared: {compared_in_words(kept.compared, kept.sheet.wanted)}" + (
            "; the gate can decide" if kept.compared >= kept.sheet.wanted else ""
        )
        _report(_counts(kept), kept.set_aside, more, told, as_json=as_json)
        return
    decided = keep_decisions(store, path, reviewer=reviewer, now=now)
    _report(_counts(decided), decided.set_aside, {}, "", as_json=as_json)


def _counts(kept: Any) -> dict[str, int]:
    return {name: getattr(kept, name) for name in ("new", "repeated", "open")}


def _report(
    counts: dict[str, int],
    aside: tuple[SetAsideRow, ...],
    more: dict[str, int],
    told: str,
    *,
    as_json: bool,
) -> None:
    if as_json:
        rows = [asdict(row) for row in aside]
        say_json({**counts, **more, "set_aside": rows}, indent=2)
        return
    say(
        f"{counted(counts['new'], 'label')} stored, {counts['repeated']} were there before, "
        f"{counted(counts['open'], 'row')} open, {len(aside)} set aside"
    )
    for line in set_aside_lines(aside):
        say(line)
    if told:
        say(told)
    if not any(counts.values()):
        raise InvalidInputError(
            "a sheet must hold at least one row that can be used, got "
            f"{counted(len(aside), 'row')} and none "
            "can; write a new one with `ratchet export label-sheet`"
        )
