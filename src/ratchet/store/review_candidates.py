"""What may need a person, found by what arrived: verdicts of judges beside what users did.

    place = begin_step(store, "disagreement/helpfulness")
    step = next_step(store, place, "helpfulness")     # answers with a new verdict or a new rating
    keep_step(store, "disagreement/helpfulness", before=place, after=step.reached)

Cost: it follows the verdicts and ratings that arrived, each looked up by index.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from ratchet.store.counts import put_numbers, read_numbers
from ratchet.store.events import EventStore
from ratchet.store.following import FIRST_ROWS
from ratchet.store.rows import chunks
from ratchet.store.tables import COUNTS, FEEDBACK_EVENTS, INTERACTIONS, REVIEW_ITEMS, VERDICTS

RATINGS = ("thumbs", "stars")
_NAME, _STEP = "review", 1_000
_PLACES = {"verdicts": VERDICTS, "ratings": FEEDBACK_EVENTS}


@dataclass(frozen=True, slots=True)
class Said:
    """What a judge said last of an answer.

    Attributes:
        score: In [0, 1]; None where it gave no verdict.
    """

    judge_version: str
    score: float | None


@dataclass(frozen=True, slots=True)
class Step:
    """The next answers to look at.

    Attributes:
        reached: How far it goes, in verdicts and in ratings.
        ids: The answers.
    """

    reached: Mapping[str, int]
    ids: tuple[str, ...]


def begin_step(store: EventStore, rule: str) -> dict[str, int]:
    """Return how far a rule looked at verdicts and ratings; a new one begins near their end."""
    ends = {part: store.settled_position(table) for part, table in _PLACES.items()}
    keys = _keys(rule)
    with store.reading() as connection:
        kept = read_numbers(connection, COUNTS, (_NAME,), list(keys.values()))[_NAME]
    return {part: kept.get(key, max(0, ends[part] - FIRST_ROWS)) for part, key in keys.items()}


def _keys(rule: str) -> dict[str, str]:
    return {part: f"{rule}/{part}" for part in _PLACES}


def keep_step(
    store: EventStore, rule: str, *, before: Mapping[str, int], after: Mapping[str, int]
) -> bool:
    """Keep how far a rule is; False where another process was faster."""
    keys = _keys(rule)
    with store.atomic() as connection:
        kept = read_numbers(connection, COUNTS, (_NAME,), list(keys.values()))[_NAME]
        if any(kept.get(key, before[part]) != before[part] for part, key in keys.items()):
            return False
        put_numbers(connection, COUNTS, _NAME, {key: after[part] for part, key in keys.items()})
    return True


def next_step(store: EventStore, after: Mapping[str, int], dimension: str) -> Step:
    """Return the answers of which a judge said something on a dimension, or which users rated."""
    verdict, event = VERDICTS.c, FEEDBACK_EVENTS.c
    queries: dict[str, tuple[Any, Any, Any]] = {
        "verdicts": (verdict.position, verdict.item_id, verdict.dimension == dimension),
        "ratings": (event.position, event.interaction_id, event.kind.in_(RATINGS)),
    }
    reached: dict[str, int] = {}
    ids: dict[str, None] = {}
    for part, (position, about, which) in queries.items():
        end = max(after[part], store.settled_position(_PLACES[part]))
        query = sa.select(position, about).where(position > after[part], position <= end, which)
        with store.reading() as connection:
            rows = connection.execute(query.order_by(position).limit(_STEP)).all()
        reached[part] = rows[-1][0] if len(rows) == _STEP else end
        ids |= dict.fromkeys(row[1] for row in rows if row[1] is not None)
    return Step(reached, tuple(ids))


def verdicts_on(
    store: EventStore, interaction_ids: Iterable[str], dimension: str
) -> dict[str, tuple[Said, ...]]:
    """Return what each judge said last of answers on a dimension; pairs are none."""
    verdict = VERDICTS.c
    query = (
        sa.select(verdict.item_id, verdict.judge_version, verdict.body)
        .where(verdict.dimension == dimension)
        .order_by(verdict.position)
    )
    latest: dict[str, dict[str, Said]] = {}
    with store.reading() as connection:
        for chunk in chunks(interaction_ids):
            for key, version, body in connection.execute(query.where(verdict.item_id.in_(chunk))):
                if body["mode"] in ("pointwise", "guard"):
                    latest.setdefault(key, {})[version] = Said(version, body["score"])
    return {key: tuple(said.values()) for key, said in latest.items()}


def undecided_pairs(store: EventStore, pairs: Mapping[str, tuple[str, str]]) -> set[str]:
    """Return the pairs on which a judge called a tie, or named the same place in both orders.

    Args:
        store: The store.
        pairs: Both answers of each pair, by its id.
    """
    verdict = VERDICTS.c
    query = sa.select(verdict.item_id, verdict.judge_version, verdict.body)
    said: dict[tuple[str, str], list[str | None]] = {}
    with store.reading() as connection:
        for chunk in chunks(pairs):
            for key, version, body in connection.execute(query.where(verdict.item_id.in_(chunk))):
                if body["mode"] == "pairwise" and _shows(body, pairs[key]):
                    said.setdefault((key, version), []).append(body["outcome"])
    return {key for (key, _), outcomes in said.items() if _is_undecided(outcomes)}


def _shows(body: Mapping[str, Any], answers: tuple[str, str]) -> bool:
    """Tell whether a verdict is about exactly these answers, not about those of other models."""
    shown = " ".join(str(turn["content"]) for turn in body["prompt"])
    return all(answer.strip() in shown for answer in answers)


def _is_undecided(outcomes: list[str | None]) -> bool:
    return "tie" in outcomes or (len(outcomes) > 1 and len(set(outcomes)) == 1)


def chosen_since(store: EventStore, queue: str, dimension: str, since: int) -> int:
    """Count the items that a rule chose since a time."""
    item = REVIEW_ITEMS.c
    query = (
        sa.select(sa.func.count())
        .select_from(REVIEW_ITEMS)
        .where(item.dimension == dimension, item.created_at >= since, item.queue == queue)
    )
    with store.reading() as connection:
        return int(connection.execute(query).scalar_one())


def in_queue(store: EventStore, interaction_ids: Iterable[str], dimension: str) -> set[str]:
    """Return those of the interactions that have an item on a dimension, or are stored no more."""
    item, row = REVIEW_ITEMS.c, INTERACTIONS.c
    found: set[str] = set()
    with store.reading() as connection:
        for chunk in chunks(interaction_ids):
            there = sa.select(item.interaction_id).where(
                item.interaction_id.in_(chunk), item.dimension == dimension
            )
            found |= set(connection.execute(there).scalars())
            stored = connection.execute(sa.select(row.id).where(row.id.in_(chunk))).scalars()
            found |= set(chunk) - set(stored)
    return found


def judges_of(store: EventStore, interaction_id: str) -> set[str]:
    """Return the versions of judges that said something of an interaction."""
    query = sa.select(VERDICTS.c.judge_version).where(VERDICTS.c.item_id == interaction_id)
    with store.reading() as connection:
        return set(connection.execute(query).scalars())
