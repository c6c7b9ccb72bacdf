"""Feedback that nobody has to send: what the requests after an answer say about it.

    report = derive_signals(store, now=now)

A chat sends all its turns every time, so the next request of a conversation holds the answer and
what the user wrote after it. Of each answer this tells whether the same was asked again
(`asked_again`), the question was edited (`edited`), the user went on (`continued`) or left (`left`,
`visit_seconds`), and how the next turn reads (`next_turn`). docs/derived.md has the rules.

A pass reads what arrived since the last one, with the rest of its sessions, a thousand rows at a
time; each step is stored in one transaction with the place up to which it goes. The events' ids are
those of what they are about, so that deriving again, in whatever order rows arrived, stores
nothing new.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby

from ratchet.collect.conversation_turns import Said, said_in
from ratchet.collect.next_turn import read_next_turn, similarity
from ratchet.errors import InvalidInputError
from ratchet.files.text import counted
from ratchet.records import TRAFFIC_KINDS, Feedback, derive_id
from ratchet.records.events import AskedAgain, Continued, Edited, Left, NextTurn, VisitSeconds
from ratchet.store import EventStore
from ratchet.store.following import (
    ArrivedRow,
    Place,
    StoredExchange,
    arrivals,
    begin,
    keep,
    note_kinds,
    rows_of_sessions,
)
from ratchet.store.reporting import SETTLED
from ratchet.store.rows import microseconds, moment_of
from ratchet.store.tables import INTERACTIONS

STEP = 1_000
"""Interactions that are taken in at a time."""
LEAST_ALIKE = 0.5
"""The least similarity (Dice, of words) of two opening questions for one to edit the other."""
_MOMENT = timedelta(microseconds=1)
_GAP = SETTLED // _MOMENT
_DAY = 86_400_000_000


@dataclass(frozen=True, slots=True)
class DerivedReport:
    """What a pass did.

    Attributes:
        interactions: Interactions taken in.
        events: Feedback events that are new.
        finished: Whether everything that arrived was taken in.
    """

    interactions: int
    events: int
    finished: bool = True

    @property
    def in_words(self) -> str:
        """One line that says what the pass did."""
        more = "" if self.finished else "; the next pass goes on with what is left"
        new = counted(self.interactions, "new interaction")
        return f"{counted(self.events, 'signal')} derived from {new}{more}"


def check_kinds(names: Collection[str]) -> frozenset[str]:
    """Return which kinds are switched off; `all` names every one.

    Raises:
        InvalidInputError: A name is none of them.
    """
    if "all" in names:
        return frozenset(TRAFFIC_KINDS)
    if unknown := sorted(set(names) - set(TRAFFIC_KINDS)):
        raise InvalidInputError(
            f"signals that are not derived must be some of {', '.join(TRAFFIC_KINDS)} or all, got "
            f"{', '.join(unknown)}; correct RATCHET_NOT_DERIVED"
        )
    return frozenset(names)


def derive_signals(
    store: EventStore,
    *,
    now: datetime,
    off: Collection[str] = (),
    most: int | None = None,
) -> DerivedReport:
    """Derive what arrived since the last pass says, and what nothing followed.

    Args:
        store: The store.
        now: The time.
        off: Kinds that are not derived, or `all`.
        most: Interactions that one pass takes in; the next one goes on. None for all; 0 keeps where
            to begin, so that whatever arrives from now on is taken in.

    Raises:
        InvalidInputError: `off` names no kind.
    """
    without = check_kinds(off)
    end = store.settled_position(INTERACTIONS)
    place, taken, events = begin(store), 0, 0
    first = arrivals(store, after=place.arrived, until=end, most=1)
    since = 0 if place.arrived == 0 else first[0].at if first else microseconds(now)
    note_kinds(store, TRAFFIC_KINDS, without, since=since, now=now)
    while most is None or taken < most:
        step = _next_step(store, place, end, microseconds(now))
        if step.after == place:
            return DerivedReport(taken, events)
        found = _derive(store, step)
        chosen = [event for event in found.events if event.kind not in without]
        new = keep(store, chosen, before=place, after=step.after, followed=found.followed)
        if new is None:  # another process was faster and goes on
            return DerivedReport(taken, events)
        taken, events, place = taken + len(step.arrived), events + new, step.after
    return DerivedReport(taken, events, finished=False)


# Steps --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Step:
    """What one transaction takes in.

    Attributes:
        arrived: What is new.
        ripe: What is old enough by now that nothing will follow it.
        before: How far it was.
        after: How far it goes.
    """

    arrived: list[ArrivedRow]
    ripe: list[ArrivedRow]
    before: Place
    after: Place


@dataclass(slots=True)
class _Found:
    """What a step derives.

    Attributes:
        events: Derived events.
        absent: Ids of events that hold only if they are among these.
        followed: The first answer of each application that a conversation followed.
    """

    events: list[Feedback] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    followed: dict[str, int] = field(default_factory=dict)


def _next_step(store: EventStore, place: Place, end: int, now: int) -> _Step:
    arrived = arrivals(store, after=place.arrived, until=end, most=STEP)
    reached = arrived[-1].position if len(arrived) == STEP else max(end, place.arrived)
    waiting = arrivals(store, after=place.settled, until=reached, most=STEP)
    ripe = []
    settled = waiting[-1].position if len(waiting) == STEP else reached
    for row in waiting:
        if row.at + _GAP > now:
            settled = max(place.settled, row.position - 1)
            break
        ripe.append(row)
    return _Step(arrived, ripe, place, Place(reached, settled))


def _derive(store: EventStore, step: _Step) -> _Found:
    """Derive what a step's interactions say, and what is said of them."""
    found = _Found()
    rows = [*step.arrived, *step.ripe]
    if not rows:
        return found
    times = [row.at for row in rows]
    first, last = min(times) - _GAP, max(times) + _DAY
    names = {row.session_id for row in rows}
    read = rows_of_sessions(store, names, first - _DAY, last + _GAP, since=first)
    new = {row.position for row in step.arrived}
    ripe = {row.position for row in step.ripe}
    for _, group in groupby(read, key=lambda row: row.session_id):
        for session in _by_user(group):
            has_new = any(row.position in new for row in session)
            old_enough = {
                row.position
                for row in session
                if row.position in ripe or (has_new and row.position <= step.before.settled)
            }
            _follow(session, old_enough, last, found)
    found.events += _taken_back(store, found)
    return found


def _taken_back(store: EventStore, found: _Found) -> Iterator[Feedback]:
    """Yield new versions of what was derived before and does not hold, since rows arrived late."""
    derived = {event.id for event in found.events}
    stored = store.stored_feedback([key for key in found.absent if key not in derived])
    for event in stored.values():
        if event.value:
            since = event.updated_at or event.created_at
            gone = {"value": type(event.value)(0), "updated_at": since + _MOMENT}
            yield event.model_copy(update=gone)


def _by_user(rows: Iterable[StoredExchange]) -> Iterator[list[StoredExchange]]:
    users: dict[str, list[StoredExchange]] = {}
    for row in rows:
        users.setdefault(row.user_id, []).append(row)
    yield from users.values()


# One session --------------------------------------------------------------------------------------


def _follow(
    session: Sequence[StoredExchange], old_enough: Collection[int], last: int, found: _Found
) -> None:
    """Add what the interactions of a session, in order of time, say about each other.

    Args:
        session: The interactions of one user in it.
        old_enough: Positions of those of which it is told that nothing followed.
        last: Up to when interactions are complete with what follows them.
        found: What is added to.
    """
    said = {row.id: said_in(row) for row in session if row.messages is not None}
    for place, answer in enumerate(session):
        if answer.id not in said or not answer.shown or answer.at > last:
            continue
        later = [row for row in session[place + 1 :] if row.at <= answer.at + _GAP]
        seen = list(_reactions(answer, later, said))
        found.events += seen
        found.absent += [_id(kind, answer) for kind in ("asked_again", "edited", "continued")]
        if seen:
            earliest = found.followed.get(answer.application, answer.at)
            found.followed[answer.application] = min(earliest, answer.at)
        if later:
            found.absent.append(_id("left", answer))
        elif answer.position in old_enough:
            found.events += [_left(answer, said[answer.id].turns)]
            found.events += _visit(answer, session[: place + 1])


def _reactions(
    answer: StoredExchange, later: Sequence[StoredExchange], said: Mapping[str, Said]
) -> Iterator[Feedback]:
    """Yield what the later interactions of a session say about an answer: each kind once.

    A request that began before the answer was there is no reaction to it.
    """
    own = said[answer.id]
    seen = [row for row in later if row.at >= answer.ended and row.id in said]
    went_on = [
        (row, reached)
        for row in seen
        for reached in said[row.id].reached
        if reached.digest == own.answered
    ]
    if went_on and not went_on[0][1].by_user:
        return  # a step of the application's own, such as the call of a tool
    if went_on:
        row, reached = went_on[0]
        yield _event(Continued, answer, row)
        yield from _next_turn(answer, own, row, reached.words)
    asked = [row for row in seen if said[row.id].ends_with_user]
    again = next((row for row in asked if said[row.id].asked == own.asked), None)
    if again is not None:
        yield _event(AskedAgain, answer, again)
    edited = next((row for row in asked if _is_edit(own, said[row.id])), None)
    if edited is not None:
        yield _event(Edited, answer, edited)


def _is_edit(own: Said, other: Said) -> bool:
    """Tell whether a request asks in other words what another one asked.

    Within a conversation it is one wherever what was said before is the same. Of two openings it is
    one where the questions are alike: a session may hold several conversations.
    """
    if own.before != other.before or own.asked == other.asked or not own.question:
        return False
    return own.has_history or similarity(own.question, other.question) >= LEAST_ALIKE


def _next_turn(
    answer: StoredExchange, own: Said, row: StoredExchange, words: str
) -> Iterator[Feedback]:
    reading = read_next_turn(own.question, words)
    if reading is not None:
        yield NextTurn(
            id=derive_id("derived", "next_turn", reading.version, answer.id),
            interaction_id=answer.id,
            created_at=moment_of(row.at),
            user_id=answer.user_id,
            value=reading.place,
            judge_version=reading.version,
        )


def _event(
    kind: type[AskedAgain] | type[Edited] | type[Continued],
    answer: StoredExchange,
    row: StoredExchange,
) -> Feedback:
    name = str(kind.model_fields["kind"].default)
    return kind(
        id=_id(name, answer),
        interaction_id=answer.id,
        created_at=moment_of(row.at),
        user_id=answer.user_id,
        value=True,
    )


def _id(kind: str, answer: StoredExchange) -> str:
    return derive_id("derived", kind, answer.id)


def _left(answer: StoredExchange, turns: int) -> Left:
    return Left(
        id=_id("left", answer),
        interaction_id=answer.id,
        created_at=moment_of(answer.at + _GAP),
        user_id=answer.user_id,
        value=max(1, turns),
    )


def _visit(answer: StoredExchange, session: Sequence[StoredExchange]) -> Iterator[VisitSeconds]:
    """Yield the length of the visit that ends with an answer, where it has more than one.

    Of a visit that turns out longer, since rows arrived late, the longer length counts: it has the
    later `updated_at`.
    """
    start = answer.at
    for row in reversed(session[:-1]):
        if start - row.at > _GAP or answer.at - row.at > _DAY:
            break
        start = row.at
    length = answer.ended - start
    if start < answer.at:
        yield VisitSeconds(
            id=_id("visit_seconds", answer),
            interaction_id=answer.id,
            created_at=moment_of(answer.at + _GAP),
            updated_at=moment_of(answer.at + _GAP + length),
            user_id=answer.user_id,
            value=length / 1e6,
        )
