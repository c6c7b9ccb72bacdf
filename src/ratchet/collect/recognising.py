"""Know an answer again that comes in under another id: logs that overlap, or of two tools.

    known = Recogniser(store, history)
    found = known.interactions(rows)        # which of the rows are stored already
    known.about_stored(feedback)            # feedback on their other ids, on the stored ones

Two rows are the same answer where conversation and answer are the same, the times are the same as
far as the coarser one is written, and the same person asked:

| the coarser time has | the same person is |
|---|---|
| microseconds | the same named user or session, or nobody is named |
| milliseconds | the same named user or session |
| seconds | the same named session |
| minutes or a day | nobody: both are kept |

With whole seconds and other session ids both are kept: one log names a chat by its thread, the
other by its request, and nothing in the rows tells these from two chats of one user that got the
same answer within a second, as batch jobs and retries of one account do. Leaving one out would lose
an answer that was given, which cannot be taken back; keeping both counts it twice in rates.

How precisely times are written is seen of each time, and where both are equal of most rows that
came together: a log with milliseconds has a few whole seconds. Two named users are never the same
person. A name such as `anonymous`, `unknown` or `-` names nobody. What is kept though it may be the
same counts once in curation (one row a prompt).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta

from ratchet.errors import ConflictError, SettingsError
from ratchet.records import derive_id
from ratchet.store import EventStore
from ratchet.store.aliases import MICROSECOND, MILLISECOND, SECOND, Alias, Said, Stored
from ratchet.store.event_rows import FeedbackRow, InteractionRow, has_content_of
from ratchet.store.history import History, HistoryFile

_MINUTE, _DAY = 60 * SECOND, 86_400 * SECOND
_EPOCH = date(1970, 1, 1)
_NOBODY = frozenset(
    {
        "", "-", "_", "?", "0", "anon", "anonymous", "app", "client", "default", "guest", "n/a",
        "na", "nan", "nil", "nobody", "none", "null", "session", "test", "undefined", "unknown",
        "user", "visitor",
    }
)  # fmt: skip
"""Names that stand for nobody, in lower case."""

Timed = InteractionRow | Stored


@dataclass(slots=True)
class Recognised:
    """What is known of rows, by their places.

    Attributes:
        same: Stored already under another id: that id.
        repeated: Let go by the store, and in history under the same id with the same content.
        conflicting: There under the same id with other content.
    """

    same: dict[int, str] = field(default_factory=dict)
    repeated: set[int] = field(default_factory=set)
    conflicting: set[int] = field(default_factory=set)

    def knows(self, place: int) -> bool:
        """Tell whether a row must not be stored."""
        return place in self.same or place in self.repeated or place in self.conflicting


class Recogniser:
    """See the module's text. One for a run: it remembers which days of history are gone."""

    def __init__(self, store: EventStore, history: History | None = None) -> None:
        self._store = store
        self._any = store.has_aliases()
        self._history = history if history is not None and _belongs(history, store) else None
        self._left: dict[date, bool] = {}
        self._finest = MICROSECOND
        self._files: dict[date, list[HistoryFile]] | None = None

    def interactions(self, rows: Sequence[InteractionRow]) -> Recognised:
        """Tell which rows are there already, and keep their other ids.

        Args:
            rows: Each id once.
        """
        found, own = Recognised(), set[int]()
        if rows:
            self._finest = _unit_of_most(rows)
            self._by_alias(rows, found)
            known = set(found.same)
            self._in_store(rows, found, own)
            if self._history is not None:
                self._in_history(rows, found, own)
            _among_each_other(rows, found, own, self._finest)
            self._keep(rows, found, known)
        return found

    def about_stored(self, events: Sequence[FeedbackRow]) -> dict[int, FeedbackRow]:
        """Return feedback that names another id of a stored answer, on that answer, by place."""
        if not self._any:
            return {}
        aliases = self._store.aliases(dict.fromkeys(event.interaction_id for event in events))
        return {
            place: event._replace(interaction_id=aliases[event.interaction_id].interaction_id)
            for place, event in enumerate(events)
            if event.interaction_id in aliases
        }

    def name(self, names: Mapping[str, str]) -> None:
        """Keep other names of stored answers; what was said about a name is about the answer.

        Args:
            names: Of each name the id of the answer. A name that is known keeps its answer.
        """
        there = self._store.aliases(names) if self._any else {}
        self._point([Alias(name, key, "") for name, key in names.items() if name not in there])

    def not_stored(self, ids: Iterable[str]) -> set[str]:
        """Return those of the ids under which no answer is stored, nor known again."""
        asked = list(ids)
        there = self._store.answered_at(asked).keys()
        left = [key for key in asked if key not in there]
        return set(left) - (self._store.aliases(left).keys() if self._any else set())

    def without_stored(self, events: Sequence[FeedbackRow]) -> list[FeedbackRow]:
        """Return those that say what no stored feedback on the same answer says."""
        there = self._store.feedback_about({event.interaction_id for event in events})
        ids = {event.version_of or event.id for event in there}
        said = {_said(event) for event in there}
        return [event for event in events if event.id in ids or _said(event) not in said]

    def _by_alias(self, rows: Sequence[InteractionRow], found: Recognised) -> None:
        if not self._any:
            return
        aliases = self._store.aliases(row.id for row in rows)
        for place, row in enumerate(rows if aliases else ()):
            if (alias := aliases.get(row.id)) is None:
                continue
            if has_content_of(row, alias.digest):
                found.same[place] = alias.interaction_id
            else:
                found.conflicting.add(place)

    def _in_store(self, rows: Sequence[InteractionRow], found: Recognised, own: set[int]) -> None:
        # a log without times has one for all its rows, which are never the same answer
        times = [row.created_at for row in rows if self._may_be_same(row)]
        if not times:
            return
        first, last = min(times) // SECOND * SECOND, max(times)
        ends = self._store.ends_between(first, last + SECOND)
        if ends is None:
            return
        # a log in order of time meets what it brought in before at its edge alone
        earliest, latest = ends[0] // SECOND * SECOND, ends[1] + SECOND
        times = [moment for moment in times if earliest <= moment < latest]
        near = _Near(self._store.stored_at(_spans(times)))
        own.update(place for place, row in enumerate(rows) if row.id in near.ids)
        self._compare(rows, near, found, own, in_history=False)

    def _may_be_same(self, row: InteractionRow) -> bool:
        """Tell whether a row's time is written so precisely that it may be known again by it."""
        return min(_unit(row.created_at), self._finest) <= SECOND

    def _compare(
        self,
        rows: Sequence[InteractionRow],
        near: _Near,
        found: Recognised,
        own: set[int],
        *,
        in_history: bool,
    ) -> None:
        """Compare the texts of those that may be the same."""
        maybe = {
            place: others
            for place, row in enumerate(rows)
            if place not in own
            and not found.knows(place)
            and self._may_be_same(row)
            and (others := near.like(row, self._finest))
        }
        if not maybe:
            return
        ids = list(dict.fromkeys(other.id for others in maybe.values() for other in others))
        texts = (self._history if in_history and self._history else self._store).said_in(ids)
        for place, others in maybe.items():
            row = rows[place]
            calls = row.tool_calls and json.loads(row.tool_calls)
            said = Said(json.loads(row.messages), row.response, calls or None, row.refusal)
            same = next((other.id for other in others if texts.get(other.id) == said), None)
            if same is not None:
                found.same[place] = same

    def _in_history(self, rows: Sequence[InteractionRow], found: Recognised, own: set[int]) -> None:
        """Look for rows in those days of history of which the store let rows go."""
        assert self._history is not None
        waiting = [p for p in range(len(rows)) if p not in own and not found.knows(p)]
        days = {_day_of(rows[place].created_at) for place in waiting}
        gone = sorted(day for day in days if self._is_gone(day))
        if not gone:
            return
        asked = [rows[place] for place in waiting if _day_of(rows[place].created_at) in gone]
        there = self._history.stored_at(
            gone, {row.created_at // SECOND for row in asked}, {row.id for row in asked}
        )
        by_id = {stored.id: stored for stored in there}
        for place in waiting:
            stored = by_id.get(rows[place].id)
            if stored is not None:
                same = has_content_of(rows[place], stored.digest)
                known = found.repeated if same else found.conflicting
                known.add(place)
        self._compare(rows, _Near(there), found, own, in_history=True)

    def _is_gone(self, day: date) -> bool:
        """Tell whether history has rows of a day that the store let go."""
        assert self._history is not None
        if self._files is None:
            self._files = defaultdict(list)
            for item in self._history.readable():
                if item.table == "interactions":
                    self._files[item.day].append(item)
        if day not in self._left:
            ends = {end for item in self._files.get(day, ()) for end in (item.first, item.last)}
            self._left[day] = self._store.any_stored(sorted(ends)) != ends
        return self._left[day]

    def _keep(self, rows: Sequence[InteractionRow], found: Recognised, known: set[int]) -> None:
        """Keep ids that are not stored, and say what was said about them of the stored ones."""
        new = [
            Alias(rows[place].id, stored, rows[place].digest)
            for place, stored in found.same.items()
            if place not in known
        ]
        self._point(new)

    def _point(self, new: Sequence[Alias]) -> None:
        """Keep other ids, and take what was said about them so far as about the stored answers."""
        if not new:
            return
        self._store.add_aliases(new)
        self._any = True
        stored_of = {alias.other_id: alias.interaction_id for alias in new}
        early = [
            event._replace(
                id=derive_id("feedback on another id", event.id),
                interaction_id=stored_of[event.interaction_id],
                version_of=None,
            )
            for event in self._store.feedback_about(stored_of)
        ]
        self._store.add_feedback_rows(self.without_stored(early))


class _Near:
    """Interactions by the second in which they were answered."""

    def __init__(self, there: Iterable[Stored]) -> None:
        self.ids: set[str] = set()
        self._by_second: dict[int, list[Stored]] = defaultdict(list)
        for stored in there:
            self.ids.add(stored.id)
            self._by_second[stored.created_at // SECOND].append(stored)

    def like(self, row: InteractionRow, finest: int) -> list[Stored]:
        """Return those that may be the same answer, but for the texts."""
        others = self._by_second.get(row.created_at // SECOND, ())
        return [other for other in others if other.id != row.id and same_asked(row, other, finest)]


def same_asked(one: Timed, other: Timed, finest: int = _DAY) -> bool:
    """Tell whether the same person asked at the same time. See the module's text.

    Args:
        one: An interaction.
        other: Another one.
        finest: How precisely most times are written with which the one came, in microseconds.
    """
    unit = max(_unit(one.created_at), _unit(other.created_at))
    if one.created_at == other.created_at:
        unit = min(unit, finest)
    if unit > SECOND or one.created_at // unit != other.created_at // unit:
        return False
    users = _named(one.user_id), _named(other.user_id)
    if all(users) and one.user_id != other.user_id:
        return False
    session = _named(one.session_id) and one.session_id == other.session_id
    if unit == SECOND:
        return session
    return session or all(users) or unit == MICROSECOND


def _unit(moment: int) -> int:
    """Return how precisely a time is written, in microseconds."""
    for unit in (_DAY, _MINUTE, SECOND, MILLISECOND):
        if moment % unit == 0:
            return unit
    return MICROSECOND


def _unit_of_most(rows: Sequence[InteractionRow]) -> int:
    """Return how precisely at least half of the times are written."""
    units = sorted(_unit(row.created_at) for row in rows)
    return units[(len(units) - 1) // 2]


def _named(name: str) -> bool:
    return name.strip().casefold() not in _NOBODY


def _spans(times: Sequence[int]) -> dict[int, list[int]]:
    """Return where stored times may lie that are the same as one of these, by length of span."""
    spans: dict[int, list[int]] = {MICROSECOND: [], MILLISECOND: [], SECOND: []}
    for moment in set(times):
        unit = _unit(moment)
        if unit > SECOND:
            spans[MICROSECOND].append(moment)
            continue
        spans[unit].append(moment)
        for coarser in (MILLISECOND, SECOND):
            if coarser > unit:
                spans[MICROSECOND].append(moment // coarser * coarser)
    return spans


def _among_each_other(
    rows: Sequence[InteractionRow], found: Recognised, own: set[int], finest: int
) -> None:
    """Find rows that are the same as an earlier row of theirs."""
    first: dict[tuple[int, str], list[int]] = {}
    for place, row in enumerate(rows):
        if place in found.conflicting or min(_unit(row.created_at), finest) > SECOND:
            continue
        others = first.setdefault((row.created_at // SECOND, row.response), [])
        if place not in own and not found.knows(place):
            for other in others:
                earlier = rows[other]
                if earlier.id == row.id:  # the same row again
                    break
                same = earlier.messages == row.messages and _answer(earlier) == _answer(row)
                if same and same_asked(row, earlier, finest):
                    found.same[place] = found.same.get(other, rows[other].id)
                    break
        others.append(place)


def _answer(row: InteractionRow) -> tuple[str, str | None, str | None]:
    return row.response, row.tool_calls, row.refusal


def _said(event: FeedbackRow) -> tuple[object, ...]:
    """Return the key by which two feedback events are the same, whatever their ids."""
    moment = event.created_at // min(_unit(event.created_at), SECOND)
    return event.interaction_id, event.kind, event.number, event.text, moment


def _day_of(moment: int) -> date:
    return _EPOCH + timedelta(days=moment // _DAY)


def _belongs(history: History, store: EventStore) -> bool:
    """Tell whether a history is there and this store's: another one's ids say nothing.

    Raises:
        SettingsError: It is not known whether one is there. Answers that are stored twice cannot
            be taken out again, so nothing is brought in without it.
    """
    try:
        return history.cursor_of(store) is not None
    except ConflictError:
        return False
    except OSError as error:
        raise SettingsError(
            "history must be reachable before a log is brought in, so that answers of days that "
            f"the store has let go are known again, got {history.address}: "
            f"{error.strerror or error}; nothing was stored: try again when it can be reached, or "
            "set RATCHET_HISTORY to where it lies"
        ) from error
