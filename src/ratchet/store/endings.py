"""How answers ended, from their interactions' metadata: the finish reason that a server named."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import sqlalchemy as sa

from ratchet.store.batches import ROWS, read_lists
from ratchet.store.tables import INTERACTIONS

KEYS = ("finish_reason", "finishReason", "stop_reason", "done_reason")
"""OpenAI's name first, which the gateway writes; then those of Gemini, Anthropic and Ollama."""


def read_endings(
    connection: sa.Connection, within: sa.ColumnElement[bool], *, besides: Collection[str]
) -> Iterator[tuple[str, str]]:
    """Yield the ids and finish reasons of a window's interactions, but for those in `besides`.

    Args:
        connection: To the store.
        within: The window.
        besides: Reasons that are left out, in lower case.
    """
    reason = sa.func.coalesce(*(INTERACTIONS.c.metadata[key].as_string() for key in KEYS))
    query = sa.select(INTERACTIONS.c.id, reason).where(
        within,
        reason.is_not(None),
        sa.func.lower(sa.func.trim(reason)).not_in(["", *sorted(besides)]),
    )
    for rows in read_lists(connection, query, ROWS):
        yield from ((key, str(named)) for key, named in rows)
