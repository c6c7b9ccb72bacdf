"""What users allow to be done with an interaction, from its metadata.

| key | value |
|---|---|
| `training_consent` | `yes` or `no`; anything else counts as `no` |
| `retain_until` | a time with its zone, ISO 8601; from then on it is not trained on |
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from ratchet.store.batches import ROWS, read_lists
from ratchet.store.tables import INTERACTIONS

CONSENT, RETAIN = "training_consent", "retain_until"


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
        elif self.consent.strip().casefold() != "yes":
            return True
        if self.retain_until is None:
            return False
        try:
            end = datetime.fromisoformat(self.retain_until)
        except ValueError:
            return True
        return end.tzinfo is None or now >= end


def read_permissions(
    connection: sa.Connection, within: sa.ColumnElement[bool]
) -> Iterator[Permission]:
    """Yield what a window's interactions say, those that say something."""
    consent = INTERACTIONS.c.metadata[CONSENT].as_string()
    retain = INTERACTIONS.c.metadata[RETAIN].as_string()
    query = sa.select(INTERACTIONS.c.id, consent, retain).where(
        within, sa.or_(consent.is_not(None), retain.is_not(None))
    )
    for rows in read_lists(connection, query, ROWS):
        yield from (Permission(*row) for row in rows)
