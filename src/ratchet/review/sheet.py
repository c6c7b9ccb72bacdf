"""What waits for review on a sheet for a spreadsheet, and the decisions that come back on it.

    text, unknown = review_sheet(items, interactions)
    kept = keep_decisions(store, Path("sheet.csv"), reviewer="ana", now=now)

CSV with `item, dimension, why, prompt, answer, label, note`. No version is named: whose answer it
is says nothing about it. Who fills in `label` decides; a row left open waits on.
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
    ReviewDecision,
    ReviewItem,
    derive_id,
    spoken,
    transcript,
)
from ratchet.review.queue import decide
from ratchet.store import EventStore

COLUMNS = ("item", "dimension", "why", "prompt", "answer", "label", "note")
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
    shown = [item for item in items if item.interaction_id in interactions]
    for item in shown:
        about = interactions[item.interaction_id]
        said = (transcript(about.messages), spoken(about.answer))
        cells = (item.id, item.dimension, item.why, *said)
        writer.writerow([*map(harmless_cell, cells), "", ""])
    return text.getvalue(), len(items) - len(shown)


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
                key, label, note = (_cell(cells, name) for name in ("item", "label", "note"))
                if not label:
                    still_open += 1
                    continue
                item = _item(store, key, seen)
                before = store.get(ReviewDecision, derive_id("decision", item.id, reviewer))
                if before is not None and before.label == label.casefold():
                    repeated += 1
                    continue
                decide(
                    store, item.id, label.casefold(), reviewer=reviewer, now=now, note=note or None
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
