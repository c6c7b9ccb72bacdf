"""Which bytes of pictures, sound and files records refer to, by digest.

Cost: it reads what holds a reference, of all interactions, records and rows set aside: a scan, for
`ratchet prune` and `ratchet forget` alone, and only where bytes are kept.
"""

from __future__ import annotations

import re

import sqlalchemy as sa

from ratchet.store.batches import ROWS, read_lists
from ratchet.store.events import EventStore
from ratchet.store.tables import INTERACTIONS, JOURNAL, SET_ASIDE

START = "blob:sha256-"
REFERENCE = re.compile(rb"blob:sha256-([0-9a-f]{64})")
_IN_TEXT = re.compile(r"blob:sha256-([0-9a-f]{64})")


def blobs_in_text(text: str | None) -> set[str]:
    """Return the digests of what a text refers to."""
    return set(_IN_TEXT.findall(text or ""))


def referred_blobs(store: EventStore) -> set[str]:
    """Return the digests of all bytes that the store refers to."""
    columns = (
        INTERACTIONS.c.messages, INTERACTIONS.c.metadata, JOURNAL.c.body, SET_ASIDE.c.raw,
    )  # fmt: skip
    found: set[str] = set()
    with store.reading() as connection:
        for column in columns:
            text = sa.cast(column, sa.Text)
            query = sa.select(text).where(text.contains(START))
            for rows in read_lists(connection, query, ROWS):
                for (said,) in rows:
                    found |= blobs_in_text(said)
    return found
