"""Traffic with known truth: who sends which message when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from ratchet.errors import InvalidInputError
from ratchet.records import LabelledMessage, derive_id

_SESSION_SIZES = np.array([0.55, 0.25, 0.13, 0.07])  # chance of 1, 2, 3, 4 messages
_SECONDS_BETWEEN_TURNS = 75.0  # mean
_ACTIVITY_SPREAD = 1.0  # standard deviation of the logarithm of a user's activity
_DAILY_SWING = 0.8  # intensity is 1 + swing * cos(...), so the night has a ninth of the peak
_PEAK_HOUR = 15.0  # UTC
_DAY_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class Visit:
    """One message that a user is going to send.

    Attributes:
        interaction_id: Id that the interaction will have.
        at: When the message is sent, in UTC.
        truth: The label that a right answer names.
        ends_session: Whether it is the last message of its session.
        session_turn: Place in the session, from 1 to 4.
    """

    interaction_id: str
    session_id: str
    user_id: str
    at: datetime
    message: str
    truth: str
    ends_session: bool
    session_turn: int


def plan_traffic(
    messages: Sequence[LabelledMessage],
    *,
    traffic_id: str,
    users: int,
    start: datetime,
    end: datetime,
    rng: np.random.Generator,
) -> tuple[Visit, ...]:
    """Plan who sends which message when.

    Sessions have 1 to 4 messages and start along a daily cycle that peaks at 15:00 UTC. They belong
    to users whose activity is log-normal, so that few users bring much of the traffic. The messages
    are used once each and in the order given: traffic drifts where the sequence does.

    Args:
        messages: What is sent, with its truth; may be empty.
        traffic_id: Name of this traffic; interaction `i` has the id `derive_id(traffic_id, i)`.
        users: Number of users that there are; not all need to come.
        start: Start of the window, aware.
        end: End of the window, aware; no visit is at or after it.
        rng: Source of all choices; the same state gives the same plan.

    Returns:
        One visit per message, in ascending order of time.

    Raises:
        InvalidInputError: If there is no user, a time is naive, or the window is empty.
    """
    start, window = _window(start, end)
    if users < 1:
        raise InvalidInputError(f"users must be at least 1, got {users}; pass 1 or more")
    sizes = _session_sizes(len(messages), rng)
    owners = _session_owners(len(sizes), users, rng)
    session = np.repeat(np.arange(len(sizes)), sizes)
    turn = np.concatenate([np.arange(1, size + 1) for size in sizes] or [np.empty(0, np.int64)])
    offsets = _offsets(start, window, sizes, rng)
    order = np.lexsort((turn, session, offsets))
    return tuple(
        Visit(
            interaction_id=derive_id(traffic_id, index),
            session_id=derive_id(traffic_id, "session", int(session[visit_index])),
            user_id=f"user-{int(owners[session[visit_index]]):04d}",
            at=start + timedelta(microseconds=int(offsets[visit_index])),
            message=message.text,
            truth=message.label,
            ends_session=bool(turn[visit_index] == sizes[session[visit_index]]),
            session_turn=int(turn[visit_index]),
        )
        for index, (visit_index, message) in enumerate(zip(order, messages, strict=True))
    )


def _window(start: datetime, end: datetime) -> tuple[datetime, float]:
    """Return the start in UTC and the length of the window in seconds."""
    for moment in (start, end):
        if moment.utcoffset() is None:
            raise InvalidInputError(
                f"time must carry a time zone, got {moment.isoformat()}; pass tzinfo=UTC"
            )
    start, end = start.astimezone(UTC), end.astimezone(UTC)
    if end <= start:
        raise InvalidInputError(
            f"end must be after start, got start {start.isoformat()} and end {end.isoformat()}; "
            "swap them or widen the window"
        )
    return start, (end - start).total_seconds()


def _session_sizes(messages: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return session sizes from 1 to 4 that sum to the number of messages."""
    sizes: list[int] = []
    left = messages
    while left:
        size = min(left, int(rng.choice(len(_SESSION_SIZES), p=_SESSION_SIZES)) + 1)
        sizes.append(size)
        left -= size
    return np.array(sizes, dtype=np.int64)


def _session_owners(sessions: int, users: int, rng: np.random.Generator) -> NDArray[np.int64]:
    activity = rng.lognormal(sigma=_ACTIVITY_SPREAD, size=users)
    return rng.choice(users, size=sessions, p=activity / activity.sum())


def _offsets(
    start: datetime, window: float, sizes: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return microseconds from the start for each message, session by session.

    Turns ascend within a session; a session that would run over the end is compressed.
    """
    firsts = _first_offsets(start, window, len(sizes), rng)
    offsets: list[float] = []
    for first, size in zip(firsts, sizes, strict=True):
        gaps = rng.exponential(_SECONDS_BETWEEN_TURNS, size=size)
        gaps[0] = 0.0
        room = 0.999 * (window - first)
        offsets.extend(first + np.cumsum(gaps) * min(1.0, room / max(gaps.sum(), 1e-9)))
    last = round(window * 1e6) - 1
    return np.minimum((np.array(offsets) * 1e6).astype(np.int64), last)


def _first_offsets(
    start: datetime, window: float, sessions: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draw session starts, in seconds from the start, by inverting the cumulative intensity."""
    midnight = start.replace(hour=0, minute=0, second=0, microsecond=0)
    phase = (start - midnight).total_seconds() - _PEAK_HOUR * 3_600
    grid = np.linspace(0.0, window, 1_025 + int(96 * window / _DAY_SECONDS))
    turn = 2 * np.pi / _DAY_SECONDS
    cumulative = grid + _DAILY_SWING / turn * (np.sin(turn * (grid + phase)) - np.sin(turn * phase))
    starts: NDArray[np.float64] = np.interp(rng.random(sessions) * cumulative[-1], cumulative, grid)
    return starts
