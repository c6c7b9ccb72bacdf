"""What users allow to be done with an interaction, from its metadata.

| key | value |
|---|---|
| `training_consent` | `yes` or `no` (also `true`); anything else counts as `no` |
| `retain_until` | a time with its zone, ISO 8601; then it is neither trained on nor kept |
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TypeAlias

import sqlalchemy as sa

from ratchet.store.batches import ROWS, read_lists
from ratchet.store.months import with_ids
from ratchet.store.rows import chunks, moment_of
from ratchet.store.tables import INTERACTIONS, RETAIN_SAID

CONSENT, RETAIN = "training_consent", "retain_until"
_CONSENT = INTERACTIONS.c.metadata[CONSENT].as_string()
_RETAIN = INTERACTIONS.c.metadata[RETAIN].as_string()
AGREEING = frozenset({"yes", "true"})
"""What consent says, in lower case."""


def agrees(said: str) -> bool:
    """Tell whether a word about training is consent; what cannot be read is none."""
    return said.strip().casefold() in AGREEING


def end_of_keeping(said: str) -> datetime | None:
    """Return the time until which something may be kept, in UTC; None where it cannot be read."""
    try:
        end = datetime.fromisoformat(said.strip())
        return None if end.tzinfo is None else end.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def is_over(said: str | None, now: datetime) -> bool:
    """Tell whether the time to keep something is over; one that cannot be read never is."""
    end = None if said is None else end_of_keeping(said)
    return end is not None and now >= end


def not_before(now: datetime) -> str:
    """Return a date: no time that is over is written as a later one, in whatever zone."""
    return (now.astimezone(UTC) + timedelta(days=2)).date().isoformat()


def read_past_keeping(connection: sa.Connection, now: datetime) -> dict[str, date]:
    """Return the interactions that may be kept no longer, with their days, found by index."""
    said: sa.ColumnElement[str] = sa.literal_column(
        f"({RETAIN_SAID[connection.dialect.name]})", sa.Text
    )
    # what is not written as usual is compared below alone
    near = sa.or_(said < not_before(now), said.not_like("____-__-__%"))
    query = sa.select(INTERACTIONS.c.id, INTERACTIONS.c.created_at, said)
    found: dict[str, date] = {}
    # a range of the index, which holds nothing but what may be kept for a time only
    for rows in read_lists(connection, query.where(said > "", near), ROWS):
        found |= {key: moment_of(at).date() for key, at, text in rows if is_over(text, now)}
    return found


@dataclass(frozen=True, slots=True)
class Permission:
    """What an interaction's metadata says, as it was sent.

    Attributes:
        consent: `yes`, `no`, something else, or None where nothing is said.
        retain_until: A time, something that is none, or None.
    """

    interaction_id: str
    consent: str | None
    retain_until: str | None

    def refuses(self, now: datetime, *, only_if_given: bool) -> bool:
        """Tell whether the interaction must not be trained on; what cannot be read refuses."""
        if self.consent is None:
            if only_if_given:
                return True
        elif not agrees(self.consent):
            return True
        if self.retain_until is None:
            return False
        end = end_of_keeping(self.retain_until)
        return end is None or now >= end


def read_not_for_good(
    connection: sa.Connection, ids: Iterable[str]
) -> tuple[set[str], dict[str, list[str]]]:
    """Return those of the interactions that themselves say that they must not stay for good.

    They refuse training or may be kept for a time only. What their users say elsewhere is for
    `ratchet.store.history.refusals` to ask.

    Returns:
        The ids, and the ids of all of them that the store has, by user.
    """
    found: set[str] = set()
    of_user: dict[str, list[str]] = {}
    for chunk in chunks(ids):
        query = sa.select(INTERACTIONS.c.id, INTERACTIONS.c.user_id, _CONSENT, _RETAIN)
        rows = connection.execute(query.where(with_ids(connection, INTERACTIONS, chunk)))
        for key, user, consent, retain in rows:
            of_user.setdefault(user, []).append(key)
            if retain is not None or not (consent is None or agrees(consent)):
                found.add(key)
    return found, of_user


Word: TypeAlias = tuple[str, datetime, str]
"""A user, when that user said something about training, and what."""


def read_words(connection: sa.Connection, users: Iterable[str]) -> Iterator[Word]:
    """Yield what users said about training, as far as the store holds it."""
    query = sa.select(INTERACTIONS.c.user_id, INTERACTIONS.c.created_at, _CONSENT)
    for chunk in chunks(users):
        theirs = query.where(INTERACTIONS.c.user_id.in_(chunk), _CONSENT.is_not(None))
        for user, at, said in connection.execute(theirs):
            yield user, moment_of(at), said


def refusing(words: Iterable[Word]) -> set[str]:
    """Return the users whose latest word is a refusal; of two words at one time it counts."""
    latest: dict[str, tuple[datetime, bool]] = {}
    for user, moment, said in words:
        word = moment, not agrees(said)
        latest[user] = max(word, latest.get(user, word))
    return {user for user, (_, refuses) in latest.items() if refuses}


def read_permissions(
    connection: sa.Connection, within: sa.ColumnElement[bool]
) -> Iterator[Permission]:
    """Yield what a window's interactions say, those that say something."""
    query = sa.select(INTERACTIONS.c.id, _CONSENT, _RETAIN).where(
        within, sa.or_(_CONSENT.is_not(None), _RETAIN.is_not(None))
    )
    for rows in read_lists(connection, query, ROWS):
        yield from (Permission(*row) for row in rows)
