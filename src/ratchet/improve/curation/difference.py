"""What changed since the last training set, row by row, with the reason as far as it is known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from ratchet.improve.curation.dataset import read_any_rows
from ratchet.improve.curation.derived import Derived
from ratchet.improve.curation.funnel import IN_TIME
from ratchet.improve.curation.rows import Row
from ratchet.improve.curation.selection import Selection
from ratchet.improve.curation.traffic import Traffic
from ratchet.improve.curation.traits import hashes
from ratchet.records import TrainingSet

_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
NEWER = "of interactions since that set"
OLDER = "of earlier interactions: new feedback, late rows or other settings"
EXPERT = "experts' demonstrations"
GONE = "not in history any more"
ANOTHER = "not taken from this interaction any more"
TEXTS, SOURCE, WEIGHT = "texts or label", "where it comes from", "weight alone"


@dataclass(frozen=True, slots=True)
class Difference:
    """What became of the rows of an earlier set.

    Attributes:
        before: That set.
        same: Whether both have the same rows, and so the same digest.
        added: Rows that it lacks, by reason.
        removed: Rows that it had, by what they are not any more.
        changed: Rows of one interaction that differ, by what differs.
        unchanged: Rows that are the same.
        added_ids: Interactions of the rows that were added.
        removed_ids: Interactions of those that were removed.
    """

    before: TrainingSet
    same: bool
    added: tuple[tuple[str, int], ...]
    removed: tuple[tuple[str, int], ...]
    changed: tuple[tuple[str, int], ...]
    unchanged: int
    added_ids: tuple[str, ...]
    removed_ids: tuple[str, ...]


def compare(
    rows: Sequence[Row],
    before: TrainingSet,
    folder: Path,
    derived: Derived,
    traffic: Traffic,
    selection: Selection,
    period: tuple[datetime | None, datetime],
) -> Difference:
    """Hold rows against those of an earlier set of their kind; a row is known by its interaction.

    Args:
        rows: All rows of the set.
        before: The earlier set.
        folder: Where it lies.
        derived: What is derived from history.
        traffic: What the rows were selected from.
        selection: How.
        period: From when on and until when interactions counted.

    Raises:
        InvalidInputError: The earlier set is not on disk any more.
    """
    had = {
        row.interaction_id: row
        for split in ("train", "validation")
        for row in read_any_rows(folder, split)
    }
    have = {row.interaction_id: row for row in rows}
    added = [row for key, row in have.items() if key not in had]
    removed = [key for key in had if key not in have]
    what = [_difference(had[key], row) for key, row in have.items() if key in had]
    changed = Counter(name for name in what if name)
    since = (before.created_at - _EPOCH) // _MICROSECOND
    return Difference(
        before=before,
        same=not added and not removed and not changed,
        added=_counts(_new(row, since) for row in added),
        removed=_counts(_reasons(removed, derived, traffic, selection, period).values()),
        changed=_counts(changed.elements()),
        unchanged=len(what) - changed.total(),
        added_ids=tuple(row.interaction_id for row in added),
        removed_ids=tuple(removed),
    )


def _counts(names: Iterable[str]) -> tuple[tuple[str, int], ...]:
    counted = Counter(names)
    return tuple(sorted(counted.items(), key=lambda item: (-item[1], item[0])))


def _new(row: Row, since: int) -> str:
    if row.source == "demonstration":
        return EXPERT
    return NEWER if row.moment >= since else OLDER


def _difference(before: Row, now: Row) -> str:
    """Return what differs of two rows of one interaction, "" where nothing does."""
    one, other = before.canonical(), now.canonical()
    differing = {name for name in one | other if one.get(name) != other.get(name)}
    if not differing:
        return ""
    if differing <= {"weight"}:
        return WEIGHT
    return SOURCE if differing <= {"weight", "source"} else TEXTS


def _reasons(
    ids: Sequence[str],
    derived: Derived,
    traffic: Traffic,
    selection: Selection,
    period: tuple[datetime | None, datetime],
) -> dict[str, str]:
    """Return for each interaction what it is not any more."""
    if not ids:
        return {}
    found = _places(ids, derived)
    start, end = ((t - _EPOCH) // _MICROSECOND if t is not None else 0 for t in period)
    size = len(traffic) - traffic.demonstrated
    wanted = np.array([place for place, _ in found.values()], dtype=np.int64)
    rows = np.flatnonzero(np.isin(traffic.place[:size], wanted))
    row_of = dict(zip(traffic.place[rows].tolist(), rows.tolist(), strict=True))
    left_at = {
        row: f"not {step}"
        for step, dropped in selection.dropped
        for row in dropped[np.isin(dropped, rows)].tolist()
    }
    pool = f"not {selection.funnel[-len(selection.dropped) - 1][0]}"
    kept = {row.position for row in selection.rows}
    reasons = {}
    for key in ids:
        place, moment = found.get(key, (-1, 0))
        row = row_of.get(place, -1)
        if place < 0:
            reasons[key] = GONE
        elif not start <= moment < end:
            reasons[key] = f"not {IN_TIME}"
        elif row in kept:
            reasons[key] = ANOTHER
        else:
            reasons[key] = left_at.get(row, pool)
    return reasons


def _places(ids: Sequence[str], derived: Derived) -> dict[str, tuple[int, int]]:
    """Return position and time of those of the interactions that history has."""
    query = (
        "SELECT id, min(position), arg_min(moment, position) FROM told "
        "WHERE key IN (SELECT unnest(?::UBIGINT[])) GROUP BY id"
    )
    with derived.connect() as connection:
        rows = connection.execute(query, [hashes(ids).tolist()]).fetchall()
    return {key: (int(place), int(moment)) for key, place, moment in rows}
