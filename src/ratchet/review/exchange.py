"""Items of the queue taken out to be labelled elsewhere, and brought back.

    rows, gone = exported(store, open_items(store), policy)
    write_rows(Path("items.jsonl"), rows)
    kept = import_labels(store, Path("items.jsonl"), reviewer="ana", policy=policy, now=now)

JSON Lines hold each turn as it was sent, with calls and parts; CSV holds the conversation as people
read it. `label`, `note`, `right_answer` and `skip` (a reason) are for the reviewer to fill in; a
row in which nothing is filled in waits on. What is exported names no model, no judge and, until it
is decided, no other reviewer.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ratchet.errors import InvalidInputError
from ratchet.files.rows import Row, SetAsideRow, read_rows
from ratchet.files.text import SPREADSHEET_MARK, harmless_cell, printable, restored_cell
from ratchet.files.whole import write_whole
from ratchet.records import WIN_RATE, ReviewDecision, ReviewItem
from ratchet.review.corrections import interactions_about
from ratchet.review.deciding import add_known, decide, find_item, said_before, skip
from ratchet.review.pairs import pair_of
from ratchet.review.policy import ReviewPolicy
from ratchet.review.showing import Shown, show_item
from ratchet.store import EventStore
from ratchet.store.review_items import decisions_about
from ratchet.store.review_rows import DISPUTED, OPEN, SETTLED
from ratchet.store.review_seats import states_of

TO_FILL = ("label", "note", "right_answer", "skip")
CSV_COLUMNS = (
    "item",
    "dimension",
    "question",
    "labels",
    "why",
    "prompt",
    "answer",
    "users",
    *TO_FILL,
)
NAMES = (*CSV_COLUMNS, "reviewer", "interaction_id")


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of a file of labels.

    Attributes:
        new: Decisions stored.
        repeated: Decisions that the same person had made before.
        skipped: Items passed on to others.
        open: Rows in which nothing is filled in.
        set_aside: Rows that broke a rule.
    """

    new: int
    repeated: int
    skipped: int
    open: int
    set_aside: tuple[SetAsideRow, ...]


def exported(
    store: EventStore, items: Iterable[ReviewItem], policy: ReviewPolicy
) -> tuple[list[dict[str, Any]], int]:
    """Return items with their whole conversations; and how many lack one, since it was erased."""
    found, gone = [], 0
    for item in items:
        shown = show_item(store, item, policy)
        if shown is None:
            gone += 1
            continue
        found.append(_row(store, item, shown))
    return found, gone


def _row(store: EventStore, item: ReviewItem, shown: Shown) -> dict[str, Any]:
    row: dict[str, Any] = {
        "item": item.id,
        "dimension": item.dimension,
        "question": shown.question,
        "labels": [choice.name for choice in shown.choices],
        "why": shown.why,
        "prompt": "\n".join(f"{who}: {text}" for who, text in shown.turns),
        "answer": _answers_in_words(shown),
        "users": list(shown.users),
        **_as_sent(store, item),
    }
    state = states_of(store, [item.id]).get(item.id)
    if state == SETTLED:
        row["decisions"] = _decisions(store, item)
    return row | dict.fromkeys(TO_FILL, "")


def _answers_in_words(shown: Shown) -> str:
    if len(shown.answers) == 1:
        return shown.answers[0][1]
    return "\n\n".join(f"{heading}: {text}" for heading, text in shown.answers)


def _as_sent(store: EventStore, item: ReviewItem) -> dict[str, Any]:
    """Return the turns as they were sent, with calls and parts; of a pair those of its example."""
    if item.dimension == WIN_RATE:
        pair = pair_of(store, item)
        turns = pair.conversation if pair is not None else ()
        return {"messages": [turn.model_dump(mode="json", exclude_none=True) for turn in turns]}
    known = interactions_about(store, [item])
    first, second = known[item.interaction_id], known.get(item.other_id or "")
    turns = (*first.messages, first.answer)
    sent: dict[str, Any] = {
        "interaction_id": item.interaction_id,
        "messages": [turn.model_dump(mode="json", exclude_none=True) for turn in turns],
    }
    if second is not None:
        then = (*second.messages, second.answer)
        sent["then"] = [turn.model_dump(mode="json", exclude_none=True) for turn in then]
    return sent


def _decisions(store: EventStore, item: ReviewItem) -> list[dict[str, Any]]:
    given = decisions_about(store, [item.interaction_id], item.dimension)
    found = (store.get(ReviewDecision, one.id) for one in given.get(item.interaction_id, ()))
    return [
        {
            "label": one.label,
            "reviewer": one.reviewer,
            "at": one.created_at.isoformat(),
            "note": one.note,
            "adjudicates": one.adjudicates,
        }
        for one in found
        if one is not None
    ]


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV where the file is called so, else as JSON Lines.

    Raises:
        InvalidInputError: The file is there: people may have filled it in.
    """
    if path.exists():
        raise InvalidInputError(
            f"a file is written once, got {printable(path.name)!r}, which is there; name another "
            "one, or fill it in and bring it back"
        )
    text = csv_text(rows) if path.suffix.lower() == ".csv" else json_text(rows)
    write_whole(path, text.encode("utf-8"))


def json_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as JSON Lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as CSV for a spreadsheet."""
    text = io.StringIO()
    text.write(SPREADSHEET_MARK)
    writer = csv.writer(text)
    writer.writerow(CSV_COLUMNS)
    for row in rows:
        cells = [row[name] for name in CSV_COLUMNS]
        writer.writerow(
            harmless_cell("; ".join(cell) if isinstance(cell, list) else str(cell))
            for cell in cells
        )
    return text.getvalue()


def import_labels(
    store: EventStore,
    path: Path,
    *,
    reviewer: str,
    policy: ReviewPolicy,
    now: datetime,
    adjudicates: bool = False,
) -> Imported:
    """Store what people filled in; the same file again changes nothing.

    Args:
        store: The store.
        path: JSON Lines or CSV with `item` and `label`; a column `reviewer` names who labelled a
            row.
        reviewer: Who labelled the rows that name nobody.
        policy: The labels of dimensions.
        now: The time.
        adjudicates: Whether they decide between people who disagreed.

    Raises:
        InvalidInputError: The file cannot be read, or lacks a column.
    """
    aside: list[SetAsideRow] = []
    seen: set[tuple[str, str]] = set()
    counts = {"new": 0, "repeated": 0, "skipped": 0, "open": 0}
    with read_rows(path, needs=[("item",), ("label",)], names=NAMES) as rows:
        for row in rows:
            try:
                cells = _cells(row)
                who = cells["reviewer"] or reviewer
                became = _keep(store, cells, who, policy, now, seen, adjudicates)
            except ValidationError as error:
                aside.append(row.set_aside(error.errors()[0]["msg"]))
            except InvalidInputError as error:
                aside.append(row.set_aside(str(error)))
            else:
                counts[became] += 1
    return Imported(**counts, set_aside=tuple(aside))


def _cells(row: Row) -> dict[str, str]:
    content = row.read()
    names = ("item", "reviewer", *TO_FILL)
    return {name: restored_cell(str(content.get(name) or "").strip()) for name in names}


def _keep(
    store: EventStore,
    cells: Mapping[str, str],
    reviewer: str,
    policy: ReviewPolicy,
    now: datetime,
    seen: set[tuple[str, str]],
    adjudicates: bool,
) -> str:
    """Store one row; return which count it adds to."""
    if not cells["label"] and not cells["skip"]:
        return "open"
    item = find_item(store, cells["item"])
    if (item.id, reviewer) in seen:
        raise InvalidInputError(
            f"item {printable(item.id, 40)!r} is there before; each is decided once in a file"
        )
    seen.add((item.id, reviewer))
    if cells["label"] and cells["skip"]:
        raise InvalidInputError("a row must hold a label or a reason to skip it, got both")
    if cells["skip"]:
        skip(store, item.id, reviewer=reviewer, reason=cells["skip"], now=now)
        return "skipped"
    if said_before(store, item, reviewer, cells["label"]):
        return "repeated"
    decide(
        store,
        item.id,
        cells["label"].casefold(),
        reviewer=reviewer,
        now=now,
        note=cells["note"] or None,
        answer=cells["right_answer"] or None,
        adjudicates=adjudicates,
        policy=policy,
    )
    return "new"


def import_known(store: EventStore, path: Path, *, policy: ReviewPolicy, now: datetime) -> Imported:
    """Keep items whose label is known, to check reviewers with.

    Args:
        store: The store.
        path: JSON Lines or CSV with `interaction_id`, `dimension` and `label`.
        policy: The labels of dimensions.
        now: The time.

    Raises:
        InvalidInputError: The file cannot be read, or lacks a column.
    """
    aside: list[SetAsideRow] = []
    new = repeated = 0
    needs = [("interaction_id",), ("dimension",), ("label",)]
    with read_rows(path, needs=needs, names=NAMES) as rows:
        for row in rows:
            try:
                content = row.read()
                about, dimension, label = (
                    restored_cell(str(content.get(name[0]) or "").strip()) for name in needs
                )
                right = _label(policy, dimension, label)
                added = add_known(store, _known(store, about, dimension, now), right, now)
            except ValidationError as error:
                aside.append(row.set_aside(error.errors()[0]["msg"]))
            except InvalidInputError as error:
                aside.append(row.set_aside(str(error)))
            else:
                new, repeated = new + added, repeated + (not added)
    return Imported(new, repeated, 0, 0, tuple(aside))


def _known(store: EventStore, about: str, dimension: str, now: datetime) -> ReviewItem:
    if not about or about not in store.stored_interactions([about]):
        raise InvalidInputError(
            f"interaction_id must be that of a stored interaction, got {printable(about, 40)!r}; "
            "bring it in first with `ratchet import`"
        )
    return ReviewItem(
        id="known",
        created_at=now,
        interaction_id=about,
        dimension=dimension,
        priority="normal",
        raised_by="known",
        why="its label is known",
    )


def _label(policy: ReviewPolicy, dimension: str, label: str) -> str:
    known = policy.dimensions.get(dimension)
    names = {name.casefold(): name for name in known.names} if known is not None else {}
    if label.casefold() not in names:
        raise InvalidInputError(
            f"a known label must be one of a dimension of the review policy, got "
            f"{printable(label, 40)!r} on {printable(dimension, 40)!r}; name the dimension under "
            "`dimensions` of review.yaml"
        )
    return names[label.casefold()]


STATES: Mapping[str, int] = {"open": OPEN, "disputed": DISPUTED, "decided": SETTLED}
"""What items may be exported."""
