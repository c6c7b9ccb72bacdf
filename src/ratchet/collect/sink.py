"""What bringing in events needs of the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from ratchet.records import Definition, Feedback, SetAside
from ratchet.store.event_rows import FeedbackRow, InteractionRow

if TYPE_CHECKING:
    from ratchet.store import Added


class EventSink(Protocol):
    """What `ingest` needs of the store."""

    def add_interaction_rows(self, rows: Sequence[InteractionRow], /) -> Added:
        """Store interactions; one that is there already changes nothing."""
        ...

    def add_feedback_rows(self, rows: Sequence[FeedbackRow], /) -> Added:
        """Store feedback; one that is there already changes nothing."""
        ...

    def add_definitions(self, definitions: Sequence[Definition], /) -> None:
        """Store what interactions refer to by digest."""
        ...

    def set_aside(self, rows: Sequence[SetAside], /) -> None:
        """Keep bad rows with their reasons."""
        ...

    def answered_at(self, ids: Sequence[str], /) -> Mapping[str, datetime]:
        """Return the times of those interactions that are stored, by id."""
        ...

    def stored_feedback(self, ids: Sequence[str], /) -> Mapping[str, Feedback]:
        """Return those feedback events that are stored, by id."""
        ...
