"""How applications report, and what follows for the values of a signal.

    reporting = store.reporting()           # declarations, and who sends the yes alone
    values = reporting.read("copy", values, answers, lag)

Every reading of signals goes through `Reporting.read`, so that a declared absence means no in
rates, boards, charts, failures and rollouts alike, and presence alone means nothing in any of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from ratchet.records.reporting import DECLARABLE_KINDS, EVERY_APPLICATION, SignalDeclaration
from ratchet.records.signals import BY_NAME, STANDS_FOR, TRAFFIC_KINDS
from ratchet.store.batches import read_table
from ratchet.store.counts import read_numbers
from ratchet.store.rows import microseconds, moment_of
from ratchet.store.tables import COUNTS, INTERACTIONS, JOURNAL

if TYPE_CHECKING:
    import pyarrow as pa

APPLICATION = "application"
"""Key of metadata under which an interaction names its application."""
FIRST, ASKED, UNTIL, TOLD = "signal first", "signal asked", "signal until", "signal told"
TIMES = (FIRST, ASKED, UNTIL, TOLD)
"""Names of the kept times of `Alone`."""
FOLLOWED, DERIVED, STOPPED, STARTED = (
    "traffic followed", "traffic derived", "traffic stopped", "traffic started",
)  # fmt: skip
TRAFFIC_TIMES = (FOLLOWED, DERIVED, STOPPED, STARTED)
"""Names of the kept times of `Following`."""
SETTLED = timedelta(minutes=30)
"""Age of an answer at which what was not seen in the traffic did not happen."""
_TOLD = (*DECLARABLE_KINDS, *STANDS_FOR, *TRAFFIC_KINDS)
_AS_SENT, _NOTHING, _WHEN_IT_HAPPENS = 0, 1, 2

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]


def application() -> sa.ColumnElement[str]:
    """Return the application of an interaction: what its metadata names, else its segment."""
    named = INTERACTIONS.c.metadata[APPLICATION].as_string()
    return sa.func.coalesce(sa.func.nullif(named, ""), INTERACTIONS.c.segment)


def shown() -> sa.ColumnElement[int]:
    """Return 1 where a user had an answer to react to, 0 where there was an error in its place."""
    return sa.case((INTERACTIONS.c.error.is_(None), 1), else_=0)


@dataclass(frozen=True, slots=True)
class Answers:
    """What decides how an absence is read: arrays of shape (n,).

    Attributes:
        names: Applications.
        number: Each answer's application, as its place in `names`.
        given: When it was given, in microseconds since 1970.
        shown: Whether a user had an answer to react to.
    """

    names: tuple[str, ...]
    number: IntArray
    given: IntArray
    shown: BoolArray

    @classmethod
    def of(cls, table: pa.Table) -> Answers:
        """Return those of a table with the columns application, created_at and shown."""
        coded = table["application"].combine_chunks().dictionary_encode()
        return cls(
            names=tuple(coded.dictionary.to_pylist()),
            number=np.asarray(coded.indices.to_numpy(zero_copy_only=False), dtype=np.int64),
            given=table["created_at"].to_numpy().astype("datetime64[us]").astype(np.int64),
            shown=table["shown"].to_numpy() == 1,
        )


@dataclass(frozen=True, slots=True)
class Alone:
    """An application that was found to send the yes of a kind alone.

    Attributes:
        first: When the first answer with a yes was given, in microseconds since 1970.
        asked: When it was found.
        until: When the first answer with a no was given; None where no no ever came.
        told: When that was seen.
    """

    kind: str
    application: str
    first: int
    asked: int
    until: int | None = None
    told: int | None = None

    def over(self, given: int) -> bool:
        """Tell whether an answer was given after noes had begun to come."""
        return self.until is not None and self.until <= given


@dataclass(frozen=True, slots=True)
class Following:
    """What is known of the traffic that signals are derived from, in microseconds since 1970.

    Attributes:
        applications: The first answer of each application that the conversation followed: from
            there on its conversations can be followed.
        derived: The first answer that each kind was derived for.
        stopped: From which answer on a kind is derived no more.
        started: When deriving began, or began again.
    """

    applications: Mapping[str, int]
    derived: Mapping[str, int]
    stopped: Mapping[str, int]
    started: Mapping[str, int]

    def observed(self, kind: str, answers: Answers) -> BoolArray:
        """Tell of which answers the absence of a kind says something, shape (n,)."""
        found = np.zeros(answers.number.size, np.bool_)
        if kind not in self.derived:
            return found
        until = self.stopped.get(kind, np.iinfo(np.int64).max)
        for place, name in enumerate(answers.names):
            if name in self.applications:
                since = max(self.applications[name], self.derived[kind])
                own = answers.number == place
                found |= own & (answers.given >= since) & (answers.given < until)
        return found


NOT_FOLLOWED = Following({}, {}, {}, {})


@dataclass(frozen=True)
class Reporting:
    """How every application reports, and what follows for values of signals.

    Attributes:
        now: The time at which it is read.
        declarations: In the order in which they were written.
        alone: What was found and not declared.
        known_at: Changes that became known later than this count as not observed: a board goes on
            comparing what its baseline knew.
        following: What is known of the traffic.
    """

    now: datetime
    declarations: tuple[SignalDeclaration, ...] = ()
    alone: tuple[Alone, ...] = ()
    known_at: datetime | None = None
    following: Following = NOT_FOLLOWED

    @property
    def is_plain(self) -> bool:
        """Whether every value is what was sent."""
        return not self.declarations and not self.alone and not self.following.derived

    def declared_only(self) -> Reporting:
        """Return the same for who reads single answers and forms no rate: a yes is a yes."""
        return replace(self, alone=())

    def at(self, moment: datetime | None) -> Reporting:
        """Return the same as a board reads it whose baseline was frozen then."""
        return replace(self, known_at=moment)

    @cached_property
    def _by_application(self) -> Mapping[tuple[str, str], list[SignalDeclaration]]:
        found: dict[tuple[str, str], list[SignalDeclaration]] = {}
        for item in self.declarations:
            found.setdefault((item.kind, item.application), []).append(item)
        return found

    @cached_property
    def _alone(self) -> Mapping[tuple[str, str], Alone]:
        return {(item.kind, item.application): item for item in self.alone}

    def _of(self, kind: str, name: str) -> list[SignalDeclaration]:
        """Return the declarations about an application; the last one in the list counts."""
        known = self._by_application
        general = known.get((kind, EVERY_APPLICATION), [])
        return [*general, *known.get((kind, name), ())] if name != EVERY_APPLICATION else general

    def declared(self, kind: str, name: str) -> SignalDeclaration | None:
        """Return the declaration that holds for an answer that an application gives now."""
        holding = [item for item in self._of(kind, name) if item.since <= self.now]
        return holding[-1] if holding else None

    def read(
        self,
        kind: str,
        values: FloatArray,
        answers: Answers,
        lag: timedelta | None,
    ) -> FloatArray:
        """Return the values of a kind as they are to be read; see `SignalDeclaration`.

        An answer that is younger than the settling time is not observed, whatever came: who has
        sent a yes so far is no sample of all. Where feedback counts within a lag alone, absence
        after it means no within the lag.

        Args:
            kind: The kind of feedback.
            values: 1, 0 or nan as it was sent, shape (n,).
            answers: The answers, in the same order.
            lag: Age up to which feedback counts; None for any.
        """
        if kind not in DECLARABLE_KINDS:
            return values
        state = np.zeros(values.size, np.int8)
        after = np.zeros(values.size, np.int64)
        for place, name in enumerate(answers.names):
            self._decide(kind, name, answers.number == place, answers.given, state, after)
        if not state.any():
            return values
        if lag is not None:
            after = np.minimum(after, lag // timedelta(microseconds=1))
        waits = state == _WHEN_IT_HAPPENS
        young = waits & (answers.given + after > microseconds(self.now))
        read = np.where((state == _NOTHING) | young, np.nan, values)
        return np.where(waits & ~young & np.isnan(values) & answers.shown, 0.0, read)

    def read_all(
        self, kinds: Mapping[str, FloatArray], answers: Answers, lag: timedelta | None
    ) -> dict[str, FloatArray]:
        """Return the values of all kinds as they are to be read.

        Reported kinds are read by `read`. What was derived from the traffic of a kind that is
        reported too stands where no report came, and where neither came an absence that the traffic
        shows: a report goes before what was derived.
        """
        found = {kind: self.read(kind, values, answers, lag) for kind, values in kinds.items()}
        for kind in TRAFFIC_KINDS:
            if kind in found:
                found[kind] = self._seen(kind, kinds, answers, lag)
        for kind, stand_in in STANDS_FOR.items():
            if kind in found and stand_in in found:
                found[kind] = np.where(np.isnan(found[kind]), found[stand_in], found[kind])
        return found

    def _seen(
        self,
        kind: str,
        kinds: Mapping[str, FloatArray],
        answers: Answers,
        lag: timedelta | None,
    ) -> FloatArray:
        """Return what was derived of a kind, with the noes that its absence says."""
        values, following = kinds[kind], self.following
        started = following.started.get(kind)
        if started is not None and not self._knows(moment_of(started)):
            return np.full(values.size, np.nan)
        if kind == "left":
            return np.where(values > 0.0, values, np.nan)  # 0 takes it back
        if kind == "visit_seconds" and "left" in kinds:
            return np.where(kinds["left"] == 0.0, np.nan, values)
        if BY_NAME[kind].absence != "traffic":
            return values
        wait = SETTLED if lag is None else min(lag, SETTLED)
        settled = answers.given + wait // timedelta(microseconds=1) <= microseconds(self.now)
        no = following.observed(kind, answers) & settled & answers.shown & np.isnan(values)
        return np.where(no, 0.0, values)

    def _decide(
        self,
        kind: str,
        name: str,
        own: BoolArray,
        given: IntArray,
        state: NDArray[np.int8],
        after: IntArray,
    ) -> None:
        """Say how each answer of one application is read."""
        alone = self._alone.get((kind, name))
        if alone is not None:
            seen = alone.told is not None and self._knows(moment_of(alone.told))
            early = given < alone.until if seen and alone.until is not None else own
            state[own & early] = _NOTHING
        for item, changes in self._steps(kind, name):
            rows = own & (given >= microseconds(item.since))
            known = self._knows(item.created_at) or not changes
            state[rows], after[rows] = _meaning(item) if known else (_NOTHING, 0)

    def _steps(self, kind: str, name: str) -> Iterator[tuple[SignalDeclaration, bool]]:
        """Yield an application's declarations, and whether each changes how answers are read."""
        own, alone = self._of(kind, name), self._alone.get((kind, name))
        for place, item in enumerate(own):
            earlier = [other for other in own[:place] if other.since <= item.since]
            silent = alone is not None and not alone.over(microseconds(item.since))
            before = _meaning(earlier[-1]) if earlier else (_NOTHING if silent else _AS_SENT, 0)
            yield item, _meaning(item) != before

    def _knows(self, moment: datetime) -> bool:
        return self.known_at is None or moment <= self.known_at

    # Changes ----------------------------------------------------------------------------------

    def unsteady(self, kind: str, answers: Answers) -> BoolArray:
        """Tell of which answers a kind cannot be compared with the others of a window, shape (n,).

        With `known_at`: answers to which a change applies that became known since. Without: answers
        from before the last change of how their application reports, so that a series begins anew.
        """
        found = np.zeros(answers.number.size, np.bool_)
        for place, name in enumerate(answers.names):
            begins = [
                microseconds(begin)
                for known, begin, _ in self._changes(kind, name)
                if self.known_at is None or known > self.known_at
            ]
            if begins and self.known_at is None:
                found |= (answers.number == place) & (answers.given < max(begins))
            elif begins:
                found |= (answers.number == place) & (answers.given >= min(begins))
        return found

    def _changes(self, kind: str, name: str) -> Iterator[tuple[datetime, datetime, bool]]:
        """Yield when each change became known, since which answer it holds, whether values come."""
        alone = self._alone.get((kind, name))
        if alone is not None and alone.until is not None and alone.told is not None:
            yield moment_of(alone.told), moment_of(alone.until), True
        for item, changes in self._steps(kind, name):
            if changes:
                yield item.created_at, item.since, item.reported != "never"

    def begins_anew(self, moment: datetime) -> datetime | None:
        """Return from which answer on all that became known after a time holds; None for nothing.

        Only what brings values counts: what is never reported leaves nothing to be watched anew.
        """
        begins = [
            begin
            for kind, name in {**self._by_application, **self._alone}
            for known, begin, brings in self._changes(kind, name)
            if brings and known > moment
        ]
        following = self.following
        begins += [
            moment_of(following.derived.get(kind, at))
            for kind, at in following.started.items()
            if moment_of(at) > moment and following.applications
        ]
        return max(begins, default=None)

    def spoiled(self, frozen_at: datetime, window_end: datetime) -> frozenset[str]:
        """Return the kinds of which a baseline holds a rate that rests on presence alone.

        Args:
            frozen_at: When the baseline was frozen.
            window_end: Up to when it has taken answers in.
        """
        at, end = microseconds(frozen_at), microseconds(window_end)
        return frozenset(item.kind for item in self.alone if item.asked > at and item.first < end)


def _meaning(item: SignalDeclaration) -> tuple[int, int]:
    """Return how a declaration reads an answer, and after how many microseconds."""
    if item.reported == "when it happens":
        return _WHEN_IT_HAPPENS, item.after // timedelta(microseconds=1)
    return (_AS_SENT if item.reported == "both" else _NOTHING), 0


# Reading ------------------------------------------------------------------------------------------


def read_reporting(connection: sa.Connection, now: datetime) -> Reporting:
    """Return how applications report, as far as it is declared or was heard."""
    query = sa.select(JOURNAL.c.body).where(JOURNAL.c.kind == SignalDeclaration.__name__)
    bodies = connection.execute(query.order_by(JOURNAL.c.position)).scalars()
    declarations = tuple(SignalDeclaration.model_validate(body) for body in bodies)
    kept, alone = read_numbers(connection, COUNTS, (*TIMES, *TRAFFIC_TIMES)), []
    for part, asked in kept[ASKED].items():
        kind, name = part.split(" ", 1)
        first, until, told = (kept[field].get(part) for field in (FIRST, UNTIL, TOLD))
        alone.append(Alone(kind, name, asked if first is None else first, asked, until, told))
    following = Following(*(kept[name] for name in TRAFFIC_TIMES))
    return Reporting(now, declarations, tuple(alone), following=following)


def told_feedback(
    connection: sa.Connection,
    feedback: pa.Table,
    inside: sa.ColumnElement[bool],
    reporting: Reporting,
) -> pa.Table:
    """Return feedback with the noes that absence says, without what presence alone says.

    Args:
        connection: An open connection.
        feedback: On a window's answers, as `EventStore.feedback` returns it.
        inside: The window.
        reporting: How they are reported about.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    schema = pa.schema(
        [
            ("id", pa.string()),
            ("created_at", pa.timestamp("us", "UTC")),
            ("application", pa.string()),
            ("shown", pa.int64()),
        ]
    )
    columns = INTERACTIONS.c.id, INTERACTIONS.c.created_at, application(), shown()
    table = read_table(connection, sa.select(*columns).where(inside), schema)
    answers, ids = Answers.of(table), table["id"].combine_chunks()
    row = pc.fill_null(pc.index_in(feedback["interaction_id"], value_set=ids), -1).to_numpy()
    kinds = {kind: pc.equal(feedback["kind"], kind).to_numpy() & (row >= 0) for kind in _TOLD}
    sent = {kind: _sent(feedback, row, of_kind, len(ids)) for kind, of_kind in kinds.items()}
    read = reporting.read_all(sent, answers, None)
    dropped, added = np.zeros(feedback.num_rows, np.bool_), []
    for kind, of_kind in kinds.items():
        other = sent[kind] != read[kind]  # also where one of them is nan
        dropped |= of_kind & (other & ~np.isnan(sent[kind]))[row]
        if kind in STANDS_FOR.values():
            continue  # its noes are told as those of the kind that it stands for
        told = np.flatnonzero(other & ~np.isnan(read[kind]))
        about = table.take(pa.array(told))
        added.append(_told(kind, about, read[kind][told], feedback.schema))
    return pa.concat_tables([feedback.filter(pa.array(~dropped)), *added])


def _sent(feedback: pa.Table, row: IntArray, of_kind: BoolArray, size: int) -> FloatArray:
    """Return the last number that was sent of a kind about each answer, shape (n,)."""
    import pyarrow.compute as pc

    found = np.full(size, np.nan)
    numbers = pc.fill_null(feedback["number"], 1.0).to_numpy()
    found[row[of_kind]] = numbers[of_kind]  # in the order in which they were given
    return found


def _told(kind: str, answers: pa.Table, numbers: FloatArray, schema: pa.Schema) -> pa.Table:
    """Return what is known of answers that nobody has sent, as feedback."""
    import pyarrow as pa
    import pyarrow.compute as pc

    size = answers.num_rows
    given = {
        "id": pc.binary_join_element_wise(f"no {kind}", answers["id"].cast(pa.string()), " "),
        "interaction_id": answers["id"],
        "kind": pa.array([kind] * size, pa.string()),
        "created_at": answers["created_at"],
        "number": pa.array(numbers),
        "text": pa.nulls(size, pa.string()),
    }
    return pa.table([given[name] for name in schema.names], schema=schema)
