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

from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby

from ratchet.collect.conversation_turns import Said, said_in, turns_of_user
from ratchet.collect.next_turn import read_next_turn, similarity
from ratchet.collect.plain_events import feedback_row_of
from ratchet.collect.second_process import in_second_process
from ratchet.errors import InvalidInputError
from ratchet.files.text import counted
from ratchet.records import TRAFFIC_KINDS, derive_id
from ratchet.store import EventStore
from ratchet.store.event_rows import FeedbackRow, feedback_row
from ratchet.store.following import (
    ArrivedRow,
    Place,
    StoredExchange,
    arrivals,
    begin,
    keep,
    note_kinds,
    rows_of_sessions,
    switched_off,
)
from ratchet.store.reporting import SETTLED
from ratchet.store.rows import microseconds, moment_of
from ratchet.store.tables import INTERACTIONS

STEP = 1_000
"""Interactions that are taken in at a time."""
MANY = 20_000
"""Waiting interactions from which on a second process to read them pays."""
LEAST_ALIKE = 0.5
"""The least similarity (Dice, of words) of two opening questions for one to edit the other."""
_FOLLOWING, _LEFT = ("asked_again", "edited", "continued"), "left"
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


def kinds_off(store: EventStore, names: Collection[str]) -> frozenset[str]:
    """Return which kinds are switched off by a setting or by a person.

    Raises:
        InvalidInputError: A name of the setting is no kind.
    """
    return check_kinds(names) | switched_off(store).keys()


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
        off: Kinds that a setting leaves out, or `all`; what people switched off is left out too.
        most: Interactions that one pass takes in; the next one goes on. None for all; 0 keeps where
            to begin, so that whatever arrives from now on is taken in.

    Raises:
        InvalidInputError: `off` names no kind.
    """
    without = kinds_off(store, off)
    end = store.settled_position(INTERACTIONS)
    place, taken, events = begin(store), 0, 0
    first = arrivals(store, after=place.arrived, until=end, most=1)
    since = 0 if place.arrived == 0 else first[0].at if first else microseconds(now)
    note_kinds(store, TRAFFIC_KINDS, without, since=since, now=now)
    if most == 0:
        return DerivedReport(0, 0, finished=False)
    with closing(_read_steps(store, place, end, microseconds(now), most)) as steps:
        for found in steps:
            told = [*found.events, *_taken_back(store, found)]
            chosen = [event for event in told if event.kind not in without]
            new = keep(
                store, chosen, before=found.before, after=found.after, followed=found.followed
            )
            if new is None:  # another process was faster and goes on
                break
            taken, events = taken + found.arrived, events + new
            if most is not None and taken >= most:
                return DerivedReport(taken, events, finished=False)
    return DerivedReport(taken, events)


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
        before: How far it was.
        after: How far it goes.
        arrived: How many interactions it takes in.
        events: Derived events.
        absent: Of each answer the kinds of events that hold only if they are among these.
        followed: The first answer of each application that a conversation followed.
    """

    before: Place
    after: Place
    arrived: int
    events: list[FeedbackRow] = field(default_factory=list)
    absent: dict[str, tuple[str, ...]] = field(default_factory=dict)
    followed: dict[str, int] = field(default_factory=dict)


def _read_steps(
    store: EventStore, place: Place, end: int, now: int, most: int | None
) -> Generator[_Found]:
    """Return what reads step after step, in another process where many wait and it can."""
    waiting = end - place.arrived
    if min(waiting, waiting if most is None else most) <= MANY or store.url is None:
        return _steps(store, place, end, now)
    return in_second_process(_steps_of, store.url, place, end, now)


def _steps_of(url: str, place: Place, end: int, now: int) -> Generator[_Found]:
    store = EventStore.open(url, connections=1)
    try:
        yield from _steps(store, place, end, now)
    finally:
        store.close()


def _steps(store: EventStore, place: Place, end: int, now: int) -> Generator[_Found]:
    """Yield what each step derives, up to a position."""
    while (step := _next_step(store, place, end, now)).after != place:
        yield _derive(store, step)
        place = step.after


def _next_step(store: EventStore, place: Place, end: int, now: int) -> _Step:
    arrived = arrivals(store, after=place.arrived, until=end, most=STEP)
    reached = arrived[-1].position if len(arrived) == STEP else max(end, place.arrived)
    is_level = place.settled == place.arrived  # as of rows that are all old enough
    waiting = (
        arrived if is_level else arrivals(store, after=place.settled, until=reached, most=STEP)
    )
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
    found = _Found(step.before, step.after, len(step.arrived))
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
    return found


def _taken_back(store: EventStore, found: _Found) -> list[FeedbackRow]:
    """Return new versions of what was derived before and does not hold, since rows arrived late."""
    derived = {event.id for event in found.events}
    there = [
        (_id(event.kind, event.interaction_id), event)
        for event in store.feedback_about(found.absent)
        if event.kind in found.absent[event.interaction_id]
    ]
    # an application may have sent events of these kinds, under other ids
    ids = {key for key, event in there if key == (event.version_of or event.id)}
    gone = []
    for event in store.stored_feedback(sorted(ids - derived)).values():
        if event.value:
            since = event.updated_at or event.created_at
            no = {"value": type(event.value)(0), "updated_at": since + _MOMENT}
            gone.append(feedback_row(event.model_copy(update=no)))
    return gone


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
    is_one = len(session) == 1  # which has nothing to be compared with
    said = {} if is_one else {row.id: said_in(row) for row in session if row.messages is not None}
    for place, answer in enumerate(session):
        if answer.messages is None or not answer.shown or answer.at > last:
            continue
        later = [row for row in session[place + 1 :] if row.at <= answer.at + _GAP]
        seen = list(_reactions(answer, later, said)) if later else []
        found.events += seen
        found.absent[answer.id] = _FOLLOWING
        if seen:
            earliest = found.followed.get(answer.application, answer.at)
            found.followed[answer.application] = min(earliest, answer.at)
        if later:
            found.absent[answer.id] = (*_FOLLOWING, _LEFT)
        elif answer.position in old_enough:
            found.events += [_left(answer, turns_of_user(answer))]
            found.events += _visit(answer, session[: place + 1])


def _reactions(
    answer: StoredExchange, later: Sequence[StoredExchange], said: Mapping[str, Said]
) -> Iterator[FeedbackRow]:
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
        yield _event("continued", answer, row.at, True)
        yield from _next_turn(answer, own, row, reached.words)
    asked = [row for row in seen if said[row.id].ends_with_user]
    again = next((row for row in asked if said[row.id].asked == own.asked), None)
    if again is not None:
        yield _event("asked_again", answer, again.at, True)
    edited = next((row for row in asked if _is_edit(own, said[row.id])), None)
    if edited is not None:
        yield _event("edited", answer, edited.at, True)


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
) -> Iterator[FeedbackRow]:
    reading = read_next_turn(own.question, words)
    if reading is not None:
        beside = {"judge_version": reading.version}
        key = derive_id("derived", "next_turn", reading.version, answer.id)
        yield _event("next_turn", answer, row.at, reading.place, id=key, **beside)


def _event(
    kind: str, answer: StoredExchange, at: int, value: bool | int | float, **more: object
) -> FeedbackRow:
    fields = {
        "id": _id(kind, answer.id),
        "interaction_id": answer.id,
        "created_at": moment_of(at),
        "user_id": answer.user_id,
        "kind": kind,
        "value": value,
    }
    return feedback_row_of(fields | more)


def _id(kind: str, answer: str) -> str:
    return derive_id("derived", kind, answer)


def _left(answer: StoredExchange, turns: int) -> FeedbackRow:
    return _event(_LEFT, answer, answer.at + _GAP, max(1, turns))


def _visit(answer: StoredExchange, session: Sequence[StoredExchange]) -> Iterator[FeedbackRow]:
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
        updated = {"updated_at": moment_of(answer.at + _GAP + length)}
        yield _event("visit_seconds", answer, answer.at + _GAP, length / 1e6, **updated)
