"""The journal: records of low volume (decisions, alerts, training sets, cycles), never changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any, TypeVar

import sqlalchemy as sa

from ratchet.errors import ConflictError
from ratchet.records import KnownAnswer, Record, ReviewUndo
from ratchet.store.review_rows import note_review
from ratchet.store.rows import chunks, microseconds
from ratchet.store.tables import JOURNAL, REVIEW_DECISIONS, REVIEW_ITEMS
from ratchet.store.transactions import Transactions, pairs

R = TypeVar("R", bound=Record)
_OF_REVIEWERS = (KnownAnswer.__name__, ReviewUndo.__name__)


class Journal(Transactions):
    """Records by kind and id, in the order in which they were written."""

    def append(self, record: Record) -> bool:
        """Write a record to the journal; False where the same one is there already.

        Raises:
            ConflictError: A record of this kind and id with other content is there.
        """
        body = record.canonical()
        kind, key = _kind(type(record)), str(body["id"])
        moment = datetime.fromisoformat(body["created_at"])
        row = {
            "kind": kind,
            "id": key,
            "body": body,
            "created_at": microseconds(moment),
            "subject": _subject(kind, body),
        }
        with self.atomic() as connection:
            stored = connection.execute(
                sa.select(JOURNAL.c.body).where(JOURNAL.c.kind == kind, JOURNAL.c.id == key)
            ).scalar_one_or_none()
            if stored is None:
                connection.execute(sa.insert(JOURNAL), row)
                note_review(connection, REVIEW_ITEMS, REVIEW_DECISIONS, row)
                return True
        if stored != body:
            raise ConflictError(
                f"a record never changes once stored, got another {kind} with id {key!r}; "
                "give the new one its own id"
            )
        return False

    def get(self, kind: type[R], key: str) -> R | None:
        """Return the record of this kind and id, or None."""
        query = sa.select(JOURNAL.c.body).where(JOURNAL.c.kind == _kind(kind), JOURNAL.c.id == key)
        with self.reading() as connection:
            body = connection.execute(query).scalar_one_or_none()
        return None if body is None else kind.model_validate(body)

    def present(self, kind: type[Record], keys: Sequence[str]) -> set[str]:
        """Return those of the ids that a record of this kind has."""
        query = sa.select(JOURNAL.c.id).where(JOURNAL.c.kind == _kind(kind))
        with self.reading() as connection:
            found = (query.where(JOURNAL.c.id.in_(chunk)) for chunk in chunks(keys))
            return {key for part in found for key in connection.execute(part).scalars()}

    def records(
        self,
        kind: type[R],
        *,
        latest: int | None = None,
        subject: str | None = None,
        since: datetime | None = None,
        after: Record | None = None,
    ) -> tuple[R, ...]:
        """Return records of one kind in the order they were written.

        Args:
            kind: Their class.
            latest: Only so many, the last ones.
            subject: Only those about this version of a model or judge; of answers to known items
                and of what was taken back those of this reviewer.
            since: Only those created then or later.
            after: Only those written after this record was, whatever the clock said; all of them
                where it is not written yet.
        """
        query = sa.select(JOURNAL.c.position, JOURNAL.c.body)
        query = query.where(JOURNAL.c.kind == _kind(kind))
        if subject is not None:
            query = query.where(JOURNAL.c.subject == subject)
        if after is not None:
            query = query.where(JOURNAL.c.position > _place_of(after))
        if since is not None:
            query = query.where(JOURNAL.c.created_at >= microseconds(since))
            # without an order, so that the index by time is taken and not one in that order
            with self.reading() as connection:
                rows = connection.execute(query).all()
            bodies = [body for _, body in sorted(rows, key=itemgetter(0), reverse=True)[:latest]]
        else:
            query = query.order_by(JOURNAL.c.position.desc()).limit(latest)
            with self.reading() as connection:
                bodies = [body for _, body in connection.execute(query)]
        return tuple(kind.model_validate(body) for body in reversed(bodies))

    def last_positions(self, kinds: Sequence[type[Record]]) -> dict[str, int]:
        """Return where the last record of each kind stands: cheap to ask whether there is more."""
        last = sa.select(sa.func.max(JOURNAL.c.position))
        parts = [
            sa.select(sa.literal(name), last.where(JOURNAL.c.kind == name).scalar_subquery())
            for name in map(_kind, kinds)
        ]
        with self.reading() as connection:
            found = pairs(connection, sa.union_all(*parts))
        return {name: position for name, position in found.items() if position is not None}

    def latest(self, kind: type[R]) -> R | None:
        """Return the record of this kind written last, or None."""
        return next(iter(self.records(kind, latest=1)), None)

    def latest_by_subject(self, kind: type[R]) -> dict[str, R]:
        """Return the record written last about each version, in the order of their first ones."""
        journal = JOURNAL.c
        places = sa.select(
            sa.func.min(journal.position).label("first"),
            sa.func.max(journal.position).label("last"),
        )
        of_kind = places.where(journal.kind == _kind(kind), journal.subject.is_not(None))
        found = of_kind.group_by(journal.subject).subquery()
        query = sa.select(journal.subject, journal.body).join(
            found, journal.position == found.c.last
        )
        with self.reading() as connection:
            bodies = pairs(connection, query.order_by(found.c.first))
        return {subject: kind.model_validate(body) for subject, body in bodies.items()}


def _place_of(record: Record) -> sa.ColumnElement[int]:
    """Return where a record stands, 0 where it does not, as a part of a question."""
    key = str(record.canonical()["id"])
    stands = sa.select(JOURNAL.c.position).where(JOURNAL.c.kind == _kind(type(record)))
    return sa.func.coalesce(stands.where(JOURNAL.c.id == key).scalar_subquery(), 0)


def _subject(kind: str, body: Mapping[str, Any]) -> str | None:
    if kind in _OF_REVIEWERS:
        return str(body["reviewer"])
    return body.get("model_version") or body.get("judge_version")


def _kind(record: type[Record]) -> str:
    return record.__name__
