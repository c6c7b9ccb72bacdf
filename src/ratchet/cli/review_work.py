"""`ratchet review next`, `label`, `skip`, ...: one person's work on the queue, and its figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ratchet.cli.saying import say, say_json, say_text
from ratchet.cli.shared import (
    AsJson,
    By,
    Note,
    current_settings,
    existing_store,
    one_line_name,
    person,
    readable_text,
    required_store,
)
from ratchet.errors import InvalidInputError
from ratchet.files.rows import set_aside_lines
from ratchet.files.text import counted, printable_path

if TYPE_CHECKING:
    from ratchet.review.agreement import AgreementReport
    from ratchet.review.policy import ReviewPolicy
    from ratchet.review.working import Work
    from ratchet.stats.agreement import Agreement
    from ratchet.stats.intervals import Interval

MOST = 200
QUEUE = "the queue of reviews"
Queue = Annotated[
    str,
    typer.Option(
        help="Only what this rule chose: safety, correction, pairs, gate_borderline, disagreement, "
        "low_confidence, emerging_cluster or sample.",
        callback=one_line_name,
    ),
]
OfDimension = Annotated[
    str, typer.Option("--dimension", help="Only what is asked so.", callback=one_line_name)
]
Item = Annotated[str, typer.Argument(help="The item: its id, or the first characters of the id.")]
Adjudicate = Annotated[
    bool, typer.Option("--adjudicate", help="Decide between people who disagreed.")
]


def policy() -> ReviewPolicy:
    """Return the review policy of the settings, or the default one."""
    from ratchet.review.policy import policy_at

    return policy_at(current_settings().review)


def next_item(
    queue: Queue = "",
    dimension: OfDimension = "",
    adjudicate: Adjudicate = False,
    by: By = "",
    as_json: AsJson = False,
) -> None:
    """Show the next item whole, and hold it for you; `label` decides it, `skip` passes it on."""
    from ratchet.review.working import next_work

    store, work = existing_store(), None
    if store is not None:
        work = next_work(
            store,
            policy(),
            reviewer=person(by),
            now=datetime.now(UTC),
            queue=queue or None,
            dimension=dimension or None,
            adjudicates=adjudicate,
        )
    if work is None:
        say("null" if as_json else "nothing waits for you")
        return
    if as_json:
        shown = None if work.shown is None else asdict_of(work)
        say_json(shown or {"item": work.item.id, "gone": True}, indent=2)
        return
    _show(work)


def asdict_of(work: Work) -> dict[str, Any]:
    """Return what a reviewer is shown of an item as JSON-able values."""
    assert work.shown is not None
    shown = work.shown
    return {
        "item": work.item.id,
        "dimension": work.item.dimension,
        "question": shown.question,
        "labels": [choice.model_dump() for choice in shown.choices],
        "why": shown.why,
        "turns": [{"role": who, "text": text} for who, text in shown.turns],
        "answers": [{"heading": heading, "text": text} for heading, text in shown.answers],
        "changes": [list(change) for change in shown.changes],
        "users": list(shown.users),
        "proposed": shown.proposed,
        "given": list(shown.given),
        "guidelines": shown.guidelines,
    }


def _show(work: Work) -> None:
    shown, key = work.shown, work.item.id[:8]
    if shown is None:
        say(f"{key} is stored no more; pass it on: ratchet review skip {key} gone")
        return
    say(f"{key}  {work.item.dimension}  {shown.why}")
    for who, text in (*shown.turns, *shown.answers):
        _say_turn(who, text)
    for done in shown.users:
        say(f"users: {done}")
    if shown.proposed is not None:
        _say_turn("proposed", shown.proposed)
    if shown.given:
        say(f"people said: {', '.join(shown.given)}")
    if shown.guidelines:
        _say_turn("guidelines", shown.guidelines)
    say(shown.question)
    for choice in shown.choices:
        say(f"  {choice.name}{': ' if choice.means else ''}{choice.means}")
    say(f"ratchet review label {key} LABEL, or: ratchet review skip {key} REASON")


def _say_turn(who: str, text: str) -> None:
    """Print a turn, its further lines indented, so that none reads as another's turn."""
    say_text(f"{who}: " + text.replace("\n", "\n  "))


def label(
    item: Item,
    said: Annotated[str, typer.Argument(metavar="LABEL", help="Your label.")],
    answer: Annotated[
        str | None,
        typer.Option(help="Of a correction that you confirm the right answer."),
    ] = None,
    adjudicate: Adjudicate = False,
    by: By = "",
    note: Note = "",
) -> None:
    """Decide an item."""
    from ratchet.review.deciding import decide

    made = decide(
        required_store(QUEUE),
        item,
        said,
        reviewer=person(by),
        now=datetime.now(UTC),
        note=note or None,
        answer=answer,
        adjudicates=adjudicate,
        policy=policy(),
    )
    say(f"{made.item_id[:8]} is labelled by {made.reviewer}; `ratchet review undo` takes it back")


def skip_item(
    item: Item,
    reason: Annotated[
        str, typer.Argument(help="Why you do not decide it.", callback=readable_text)
    ],
    by: By = "",
) -> None:
    """Pass an item on to others, with the reason."""
    from ratchet.review.deciding import skip

    made = skip(
        required_store(QUEUE), item, reviewer=person(by), reason=reason, now=datetime.now(UTC)
    )
    say(f"{made.item_id[:8]} is passed on to others")


def undo_last(by: By = "") -> None:
    """Take your latest decision back; the item is yours again."""
    from ratchet.review.deciding import undo

    now = datetime.now(UTC)
    made = undo(
        required_store(QUEUE), reviewer=person(by), now=now, held_until=now + policy().held_for
    )
    say(f"{made.item_id[:8]} is undecided again, and comes next for {made.reviewer}")


def agreement(
    dimension: Annotated[
        str, typer.Argument(help="What people were asked.", callback=one_line_name)
    ] = "helpfulness",
    most: Annotated[int, typer.Option(min=1, help="So many of the latest labels.")] = 20_000,
    as_json: AsJson = False,
) -> None:
    """Show how far reviewers agree: alpha, kappa, by label, and the human ceiling."""
    from ratchet.review.agreement import agreement_on

    store, known = existing_store(), policy().dimensions.get(dimension)
    if store is None:
        say("null" if as_json else "nobody labelled anything yet")
        return
    report = agreement_on(
        store,
        dimension,
        categories=known.names if known is not None else (),
        ordered=known is not None and known.ordered,
        most=most,
    )
    if as_json:
        say_json(report_values(report), indent=2)
        return
    say(f"{dimension}: {counted(report.labels, 'label')}, {report.items:,} by two people or more")
    ceiling = report.ceiling
    say(f"  human ceiling  {_share(ceiling.value, ceiling.interval)}")
    say(f"  alpha          {_coefficient(report.alpha)}")
    say(f"  Fleiss' kappa  {_coefficient(report.fleiss)}")
    for name, found in report.by_label.items():
        say(f"  alpha of {name!r}: {_coefficient(found)}")
    for pair in report.pairs:
        say(
            f"  {pair.first} and {pair.second}: kappa {_coefficient(pair.kappa)} on "
            f"{counted(pair.items, 'item')}"
        )


def report_values(report: AgreementReport) -> dict[str, Any]:
    """Return a report as JSON-able values."""
    return {
        "dimension": report.dimension,
        "labels": report.labels,
        "items": report.items,
        "human_ceiling": _values(report.ceiling.value, report.ceiling.interval),
        "alpha": _values(report.alpha.value, report.alpha.interval, report.alpha.reason),
        "fleiss_kappa": _values(report.fleiss.value, report.fleiss.interval, report.fleiss.reason),
        "by_label": {
            name: _values(found.value, found.interval, found.reason)
            for name, found in report.by_label.items()
        },
        "pairs": [
            {
                "first": pair.first,
                "second": pair.second,
                "items": pair.items,
                "agreement": _values(pair.percent.value, pair.percent.interval),
                "kappa": _values(pair.kappa.value, pair.kappa.interval, pair.kappa.reason),
            }
            for pair in report.pairs
        ],
    }


def _values(
    value: float | None, interval: Interval | None, reason: str | None = None
) -> dict[str, Any]:
    return {
        "value": value,
        "lower": interval and interval.lower,
        "upper": interval and interval.upper,
        "reason": reason,
    }


def _coefficient(found: Agreement) -> str:
    if found.value is None:
        return f"undefined: {found.reason}"
    if found.interval is None:
        return f"{found.value:.3f}"
    return f"{found.value:.3f} ({found.interval.lower:.3f} to {found.interval.upper:.3f})"


def _share(value: float | None, interval: Interval | None) -> str:
    if value is None:
        return "undefined: no item was labelled by two people"
    between = f" ({interval.lower:.1%} to {interval.upper:.1%})" if interval is not None else ""
    return f"{value:.1%}{between}"


def show_progress(by: By = "", as_json: AsJson = False) -> None:
    """Show how far each queue is, and how often you gave the label that is known."""
    from ratchet.review.working import mine, progress

    store = existing_store()
    if store is None:
        say("[]" if as_json else "nothing waits for review")
        return
    queues, own = progress(store), mine(store, person(by))
    if as_json:
        about = {
            "reviewer": person(by),
            "decided": own.decided,
            "checked": own.checked,
            "agreement_with_known": _values(own.share, own.interval),
            "kappa_with_known": _values(own.kappa.value, own.kappa.interval, own.kappa.reason),
        }
        say_json({"queues": [asdict(one) for one in queues], "you": about}, indent=2)
        return
    for one in queues:
        say(
            f"{one.queue or 'earlier':<16} {one.waiting:>9,} waiting {one.disputed:>7,} disputed "
            f"{one.settled:>9,} decided"
        )
    say(f"{person(by)}: {counted(own.decided, 'decision')}")
    if own.checked:
        share = _share(own.share, own.interval)
        say(f"{counted(own.checked, 'item')} had a known label, which you gave to {share}")


def fill(as_json: AsJson = False) -> None:
    """Choose items by the rules of the review policy now, as each pass of `analyze` does."""
    from ratchet.review.choosing import choose_items
    from ratchet.store.leases import PASS, hold

    store = required_store("choosing items")
    with hold(store, PASS, wait=None):
        chosen = choose_items(store, policy(), sampled_from=(), now=datetime.now(UTC))
    if as_json:
        say_json({"new": dict(chosen.new), "left_out": chosen.left_out}, indent=2)
    else:
        say(chosen.in_words)


def export_items(
    out: Annotated[Path, typer.Argument(help="FILE.jsonl, or FILE.csv for a spreadsheet.")],
    queue: Queue = "",
    dimension: OfDimension = "",
    state: Annotated[
        Literal["open", "disputed", "decided"], typer.Option(help="What to take out.")
    ] = "open",
    most: Annotated[int, typer.Option(min=1, help="So many items at most.")] = MOST,
) -> None:
    """Take items out with their whole conversations, to be labelled elsewhere."""
    from ratchet.review.exchange import STATES, exported, write_rows
    from ratchet.store.review_items import open_reviews

    store = required_store("taking items out")
    items = open_reviews(
        store,
        limit=most,
        state=STATES[state],
        queue=queue or None,
        dimension=dimension or None,
    )
    rows, gone = exported(store, items, policy())
    if not rows:
        raise InvalidInputError(
            f"a file needs items, got none that are {state}; `ratchet review progress` counts them"
        )
    write_rows(out, rows)
    say(f"{counted(len(rows), 'item')} written to {printable_path(out)}")
    if gone:
        say(f"{counted(gone, 'item')} left out: what it is about is stored no more")
    if state != "decided":
        say("fill in label, or skip with a reason, then `ratchet review import FILE`")


def import_items(
    file: Annotated[Path, typer.Argument(help="A file of `ratchet review export`, filled in.")],
    known: Annotated[
        bool,
        typer.Option(
            "--known",
            help="The labels are known to be right: check reviewers with them. The file holds "
            "interaction_id, dimension and label.",
        ),
    ] = False,
    adjudicate: Adjudicate = False,
    by: By = "",
    as_json: AsJson = False,
) -> None:
    """Bring labels back; a row that breaks a rule is set aside with its reason."""
    from ratchet.review.exchange import import_known, import_labels

    store, now = required_store("labels"), datetime.now(UTC)
    if known:
        done = import_known(store, file, policy=policy(), now=now)
    else:
        done = import_labels(
            store, file, reviewer=person(by), policy=policy(), now=now, adjudicates=adjudicate
        )
    counts: Mapping[str, int] = {
        name: getattr(done, name) for name in ("new", "repeated", "skipped", "open")
    }
    if as_json:
        say_json({**counts, "set_aside": [asdict(row) for row in done.set_aside]}, indent=2)
    else:
        say(
            f"{counted(done.new, 'label')} stored, {done.repeated} were there before, "
            f"{done.skipped} passed on, {done.open} open, {len(done.set_aside)} set aside"
        )
        for line in set_aside_lines(done.set_aside):
            say(line)
    if not any(counts.values()):
        raise InvalidInputError(
            "a file must hold at least one row that can be used, got "
            f"{counted(len(done.set_aside), 'row')} and none can; write a new one with "
            "`ratchet review export`"
        )
