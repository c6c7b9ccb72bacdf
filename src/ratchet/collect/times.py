"""Which times of events are believed: one rule for files, dialogues and the gateway's log.

| time | what becomes of the event |
|---|---|
| before 2015 | it is set aside |
| an answer of the future (more than five minutes) | it is set aside |
| feedback of the future | it gets the time at which it arrived first, and is counted |
| feedback dated before its answer | it is taken and counted: a user's clock may be wrong |
| feedback more than a year after its answer | it is taken and counted: late feedback always is |
| feedback on an answer that is not stored | it is taken and counted: the answer may still come |

What is counted is in the report of `ingest` and printed by `ratchet ingest`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from ratchet.errors import InvalidInputError
from ratchet.records import Feedback, Interaction
from ratchet.store.event_rows import FeedbackRow
from ratchet.store.rows import microseconds

EARLIEST = datetime(2015, 1, 1, tzinfo=UTC)
CLOCK_ERROR = timedelta(minutes=5)
LATE = timedelta(days=365)
FUTURE = "feedback dated in the future, stored with the time of its arrival"
EARLY = "feedback dated before its answer"
YEARS_LATE = "feedback dated more than a year after its answer"
UNKNOWN = "feedback on answers that are not in the store (yet)"
_MOST_WAITING = 100_000
_LATE = LATE // timedelta(microseconds=1)


def check_time(event: Interaction | Feedback, now: datetime) -> None:
    """Refuse an event whose time cannot be right, and cannot be put right.

    Args:
        event: What came in.
        now: The time of its arrival.

    Raises:
        InvalidInputError: It is dated before 2015, or an answer is dated in the future.
    """
    for name in ("created_at", "updated_at"):
        moment = getattr(event, name, None)
        if moment is not None and moment < EARLIEST:
            raise InvalidInputError(
                f"{name}: must be {EARLIEST:%Y-%m-%d} or later, got {moment.isoformat()}; correct "
                "the time, or the unit in which it is counted"
            )
    if isinstance(event, Interaction) and event.created_at > now + CLOCK_ERROR:
        raise InvalidInputError(
            f"created_at: must not be in the future, got {event.created_at.isoformat()} at "
            f"{now:%Y-%m-%d %H:%M} UTC; correct the time or its time zone"
        )


def arrived(feedback: Feedback, now: datetime, stored: Mapping[str, Feedback]) -> Feedback:
    """Return feedback that has a time of the future without it.

    Args:
        feedback: What came in.
        now: When.
        stored: What is stored of events with such times, by id: their first arrival stands.
    """
    first = stored.get(feedback.id)
    changes = {}
    if feedback.created_at > now:
        changes["created_at"] = now if first is None else first.created_at
    if feedback.updated_at is not None and feedback.updated_at > now:
        changes["updated_at"] = now
    return feedback.model_copy(update=changes)


@dataclass(slots=True)
class TimeNotes:
    """Counts feedback with odd times, and on answers that are not stored.

    Feedback may come before its answer, so what is unknown is asked for again at the end.

    Attributes:
        answered_at: Returns when stored interactions were answered, by id.
    """

    answered_at: Callable[[Sequence[str]], Mapping[str, datetime]]
    counts: Counter[str] = field(default_factory=Counter)
    _waiting: dict[str, list[int]] = field(default_factory=dict)

    def take(self, events: Sequence[FeedbackRow], answered: Mapping[str, int]) -> None:
        """Count what is odd about feedback that was just stored.

        Args:
            events: The feedback.
            answered: When some of the stored interactions were answered, in microseconds since
                1970; for the others the store is asked.
        """
        about: dict[str, list[int]] = {}
        for event in events:
            about.setdefault(event.interaction_id, []).append(event.created_at)
        for key, moments in self._compare(about, answered).items():
            if key in self._waiting or len(self._waiting) < _MOST_WAITING:
                self._waiting.setdefault(key, []).extend(moments)
            else:
                self.counts[UNKNOWN] += len(moments)

    def finish(self) -> tuple[tuple[str, int], ...]:
        """Return what was counted, most frequent first."""
        self.counts[UNKNOWN] += sum(map(len, self._compare(self._waiting, {}).values()))
        return tuple((+self.counts).most_common())

    def _compare(
        self, about: Mapping[str, list[int]], answered: Mapping[str, int]
    ) -> dict[str, list[int]]:
        """Count times that do not fit their answer's; return those of unknown answers."""
        asked = self.answered_at([key for key in about if key not in answered])
        stored = {key: microseconds(moment) for key, moment in asked.items()}
        unknown = {}
        for key, moments in about.items():
            answer = answered.get(key, stored.get(key))
            if answer is None:
                unknown[key] = moments
                continue
            for moment in moments:
                self.counts[EARLY] += moment < answer
                self.counts[YEARS_LATE] += moment > answer + _LATE
        return unknown
