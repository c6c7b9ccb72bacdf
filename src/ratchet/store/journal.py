"""The journal: records of low volume (decisions, alerts, training sets, cycles), never changed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TypeVar

import sqlalchemy as sa

from ratchet.errors import ConflictError
from ratchet.records import Record
from ratchet.store.review_rows import note_review
from ratchet.store.rows import chunks, microseconds
from ratchet.store.tables import JOURNAL, REVIEW_DECISIONS, REVIEW_ITEMS
from ratchet.store.transactions import Transactions, pairs

R = TypeVar("R", bound=Record)


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
            "subject": body.get("model_version") or body.get("judge_version"),
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
    ) -> tuple[R, ...]:
        """Return records of one kind in the order they were written.

        Args:
            kind: Their class.
            latest: Only so many, the last ones.
            subject: Only those about this version of a model or judge.
            since: Only those created then or later.
        """
        query = sa.select(JOURNAL.c.body).where(JOURNAL.c.kind == _kind(kind))
        if subject is not None:
            query = query.where(JOURNAL.c.subject == subject)
        if since is not None:
            query = query.where(JOURNAL.c.created_at >= microseconds(since))
        query = query.order_by(JOURNAL.c.position.desc()).limit(latest)
        with self.reading() as connection:
            bodies = connection.execute(query).scalars().all()
        return tuple(kind.model_validate(body) for body in reversed(bodies))

    def last_positions(self, kinds: Sequence[type[Record]]) -> dict[str, int]:
        """Return where the last record of each kind stands: cheap to ask whether there is more."""
        query = (
            sa.select(JOURNAL.c.kind, sa.func.max(JOURNAL.c.position))
            .where(JOURNAL.c.kind.in_([_kind(kind) for kind in kinds]))
            .group_by(JOURNAL.c.kind)
        )
        with self.reading() as connection:
            return pairs(connection, query)

    def latest(self, kind: type[R]) -> R | None:
        """Return the record of this kind written last, or None."""
        return next(iter(self.records(kind, latest=1)), None)


def _kind(record: type[Record]) -> str:
    return record.__name__
