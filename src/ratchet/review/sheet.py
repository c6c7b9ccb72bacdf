"""What waits for review on a sheet for a spreadsheet, and the decisions that come back on it.

    text, unknown = review_sheet(items, interactions)
    kept = keep_decisions(store, Path("sheet.csv"), reviewer="ana", now=now)

CSV with `item, dimension, why, prompt, answer, label, note, right_answer`. No version is named:
whose answer it is says nothing about it. Who fills in `label` decides; a row left open waits on. Of
a correction in words `prompt` ends with the corrected answer and what the user wrote then, `answer`
is the one that the user accepted; `right_answer` is for another one, in the reviewer's words.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ratchet.errors import InvalidInputError
from ratchet.files.rows import SetAsideRow, read_rows
from ratchet.files.text import SPREADSHEET_MARK, harmless_cell, printable, restored_cell
from ratchet.records import (
    Interaction,
    ReviewItem,
    spoken,
    transcript,
)
from ratchet.review.deciding import decide, said_before
from ratchet.store import EventStore

COLUMNS = ("item", "dimension", "why", "prompt", "answer", "label", "note", "right_answer")
NEEDED = ("item", "label")


@dataclass(frozen=True, slots=True)
class KeptDecisions:
    """What became of a filled-in sheet.

    Attributes:
        new: Decisions stored.
        repeated: Decisions that the same person had made before.
        open: Rows that nobody has filled in.
        set_aside: Rows that broke a rule.
    """

    new: int
    repeated: int
    open: int
    set_aside: tuple[SetAsideRow, ...]


def review_sheet(
    items: Sequence[ReviewItem], interactions: Mapping[str, Interaction]
) -> tuple[str, int]:
    """Return items as a sheet, and how many are not on it since their answer is stored no more."""
    text = io.StringIO()
    text.write(SPREADSHEET_MARK)
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    gone = 0
    for item in items:
        said = _said(item, interactions)
        if said is None:
            gone += 1
            continue
        cells = (item.id, item.dimension, item.why, *said)
        writer.writerow([*map(harmless_cell, cells), "", "", ""])
    return text.getvalue(), gone


def _said(item: ReviewItem, interactions: Mapping[str, Interaction]) -> tuple[str, str] | None:
    """Return conversation and answer as people read them; None where they are stored no more."""
    about = interactions.get(item.interaction_id)
    if about is None:
        return None
    if item.other_id is None:
        return transcript(about.messages), spoken(about.answer)
    then = interactions.get(item.other_id)
    if then is None:
        return None
    words = next(turn for turn in reversed(then.messages) if turn.role == "user")
    return transcript((*about.messages, about.answer, words)), spoken(then.answer)


def keep_decisions(store: EventStore, path: Path, *, reviewer: str, now: datetime) -> KeptDecisions:
    """Store what a person decided on a sheet; the same sheet again changes nothing.

    Raises:
        InvalidInputError: The file cannot be read, or lacks a column.
    """
    seen: set[str] = set()
    aside: list[SetAsideRow] = []
    new = repeated = still_open = 0
    with read_rows(path, needs=[(name,) for name in NEEDED], names=COLUMNS) as rows:
        for row in rows:
            try:
                cells = row.read()
                key, label, note, right = (
                    _cell(cells, name) for name in ("item", "label", "note", "right_answer")
                )
                if not label:
                    still_open += 1
                    continue
                item = _item(store, key, seen)
                if said_before(store, item, reviewer, label):
                    repeated += 1
                    continue
                decide(
                    store,
                    item.id,
                    label.casefold(),
                    reviewer=reviewer,
                    now=now,
                    note=note or None,
                    answer=right or None,
                )
                new += 1
            except ValidationError as error:
                aside.append(row.set_aside(error.errors()[0]["msg"]))
            except InvalidInputError as error:
                aside.append(row.set_aside(str(error)))
    return KeptDecisions(new, repeated, still_open, tuple(aside))


def _item(store: EventStore, key: str, seen: set[str]) -> ReviewItem:
    item = store.get(ReviewItem, key) if key else None
    if item is None:
        raise InvalidInputError(
            f"item must be one that waits for review in this store, got {printable(key, 40)!r}; "
            "leave the column item as it was written"
        )
    if key in seen:
        raise InvalidInputError(
            f"item {printable(key, 40)!r} is there before; each is decided once on a sheet"
        )
    seen.add(key)
    return item


def _cell(cells: Mapping[str, Any], name: str) -> str:
    return restored_cell(str(cells.get(name) or "").strip())
