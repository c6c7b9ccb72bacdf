"""One pass of monitoring over the store: read what became ripe, advance each version's board.

A pass reads the interactions that became ripe since the last one and their feedback, by index; how
long the history is makes no difference. Everything that it needs to go on is in the journal.

Where interactions or feedback arrived about a time that was charted already, the board goes back to
its state before that time and takes everything in from there, so that it says what it would have
said had all arrived in time (docs/decisions/0017).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

from ratchet.analyze.monitoring.alerts import board_events, open_alerts
from ratchet.analyze.monitoring.baselines import freeze_baseline
from ratchet.analyze.monitoring.batches import BATCH_SECONDS, NAMES, Observations, count
from ratchet.analyze.monitoring.board import (
    Budget,
    advance,
    change_point,
    evidence_of,
    find,
    in_alarm,
    open_board,
)
from ratchet.analyze.monitoring.observed import observations_of, observe
from ratchet.analyze.monitoring.versions import (
    WatchedVersion,
    predecessors,
    versions_to_watch,
)
from ratchet.errors import InsufficientDataError
from ratchet.judges.usable import usable_versions
from ratchet.outcomes.experience import latency_metric, share_metric
from ratchet.records import (
    AlertEvent,
    Baseline,
    BoardState,
    Finding,
    Metric,
)
from ratchet.records.signals import SIGNALS
from ratchet.store import EVER, EventStore, Window
from ratchet.store.arrivals import (
    Arrived,
    Position,
    arrived_between,
    count_answers,
    last_answer,
    last_position,
)
from ratchet.store.heard import Question, hear, unknown_reasons

logger = logging.getLogger(__name__)

R = TypeVar("R", Baseline, BoardState)
_RECENT = timedelta(days=7)
_SLICE = timedelta(days=1)
_ALERT_EVENTS = 1_000
_STATES_READ = (16, 512, None)
"""How many of a board's newest states are read to find one to go back to, as long as there is none:
most of what is late is so by minutes."""


class WatchConfig(BaseModel):
    """How versions are watched.

    Attributes:
        batch_seconds: Length of a batch.
        lag_seconds: Age at which an interaction is charted; later feedback is not charted.
        baseline_days: Traffic that a baseline is frozen from; a successor that comes sooner takes
            what there is, from `minimum_hours` on.
        minimum_hours: Traffic that a baseline needs at least.
        false_alarm_days: Mean time between false alarms of the whole board, at least.
        release_risk: Greatest chance of a false alarm that a release as such brings.
        active_days: A version without an answer for this long is watched no more, until answers of
            it arrive late.
        late_days: How late answers and feedback may arrive and still be watched; what is older is
            counted in the report.
        threshold_minutes: Traffic that the fixed thresholds are checked on.
        left_out: Signals that the board does not watch, such as latency on a shared machine.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch_seconds: int = Field(default=BATCH_SECONDS, ge=10, le=86_400)
    lag_seconds: int = Field(default=300, ge=0, le=604_800)
    baseline_days: float = Field(default=7.0, gt=0.0, le=90.0)
    minimum_hours: float = Field(default=24.0, gt=0.0)
    false_alarm_days: float = Field(default=30.0, gt=0.0)
    release_risk: float = Field(default=0.01, ge=0.0, lt=1.0)
    active_days: float = Field(default=7.0, gt=0.0)
    late_days: float = Field(default=35.0, gt=0.0, le=366.0)
    threshold_minutes: float = Field(default=60.0, gt=0.0)
    left_out: tuple[str, ...] = ()

    @field_validator("left_out")
    @classmethod
    def _are_signals(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := sorted(set(names) - set(NAMES)):
            raise ValueError(f"left_out must name signals, got {unknown}; they are {NAMES}")
        return names

    @property
    def lag(self) -> timedelta:
        """The lag as a span of time."""
        return timedelta(seconds=self.lag_seconds)

    def since(self, now: datetime) -> datetime:
        """Return from when on answers are watched, a baseline's included."""
        return now - timedelta(days=max(self.late_days, self.baseline_days + 1.0))


@dataclass(frozen=True, slots=True)
class BoardVerdict:
    """How a version stands.

    Attributes:
        says: `in control`, `alarm`, or `no baseline` with the reason.
        evidence: The board's log evidence.
        threshold: Where it becomes an alarm.
        unwatched: Answers and feedback that arrived since the last pass about a time before the
            board began, or longer ago than `late_days`: nothing watches them.
        opened: Whether its board began in this pass.
    """

    model_version: str
    says: str
    evidence: float | None = None
    threshold: float | None = None
    finding: Finding | None = None
    reason: str | None = None
    unwatched: int = 0
    opened: bool = field(default=False, compare=False)

    @property
    def in_words(self) -> str:
        """The verdict, and what could not be watched, in a line for a log."""
        reason = f" ({self.reason})" if self.reason else ""
        late = (
            f"; {self.unwatched} answers and feedback events came too late to be watched: they are "
            "about a time before its board began, or longer ago than watch.late_days"
        )
        return f"{self.model_version}: {self.says}{reason}{late if self.unwatched else ''}"


@dataclass(frozen=True, slots=True)
class WatchReport:
    """What a pass found.

    Attributes:
        verdicts: One a version, oldest version first.
        alerts: New steps in the life of alerts, stored already.
        interactions: Interactions read in this pass.
        asked: What is asked about how applications report, since this pass.
    """

    verdicts: tuple[BoardVerdict, ...]
    alerts: tuple[AlertEvent, ...]
    interactions: int
    asked: tuple[Question, ...] = ()

    @property
    def unwatched(self) -> int:
        """Answers and feedback, of all versions, that arrived too late to be watched."""
        return sum(verdict.unwatched for verdict in self.verdicts)


def watch(
    store: EventStore,
    config: WatchConfig,
    *,
    now: datetime,
    about: Callable[[str, datetime], str | None] = lambda _version, _since: None,
) -> WatchReport:
    """Advance every version's board to now, and store what it found.

    Args:
        store: The store.
        config: How to watch.
        now: The time; what is younger than the lag is left for the next pass.
        about: Names the failure cluster that a version's trouble since then is mostly about.
    """
    arrived = last_position(store)  # before anything is read: what arrives meanwhile comes again
    asked = hear(store, now=now)
    since = config.since(now)
    active_since = now - timedelta(days=config.active_days)
    versions = versions_to_watch(
        store, since=since, active_since=active_since, now=now, arrived=arrived
    )
    verdicts: list[BoardVerdict] = []
    alerts: list[AlertEvent] = []
    read = 0
    for version in versions:
        advancing = _Pass(store, config, version, len(versions), now, arrived)
        verdict, events = advancing.run(about)
        verdicts.append(verdict)
        alerts += events
        read += advancing.read
    return WatchReport(tuple(verdicts), tuple(alerts), read, asked)


def recent_metrics(
    store: EventStore, config: WatchConfig, version: str, *, now: datetime
) -> tuple[tuple[Metric, ...], float | None]:
    """Measure what the fixed thresholds are about, on the last ripe hour.

    Args:
        store: The store.
        config: How the version is watched.
        version: The version.
        now: The time.

    Returns:
        The metrics that `check_thresholds` knows, and the baseline's p99 latency in seconds.
    """
    end = now - config.lag
    window = Window(end - timedelta(minutes=config.threshold_minutes), end, version)
    table = store.signals(window, lag=config.lag, judges=usable_versions(store))
    seen = observations_of(table).values
    baseline = _latest(store, Baseline, version)
    board = _latest(store, BoardState, version)
    if board is not None:
        baseline = store.get(Baseline, board.baseline_id) or baseline
    cut = cuts_of(baseline).get("slower_than_p99") if baseline else None
    unknown = unknown_reasons(store, now=now)
    rates = (
        share_metric(signal.limited_metric, seen[share.name], unknown.get(signal.name))
        for signal in SIGNALS
        for share in signal.shares[:1]
        if signal.rate and signal.limits
    )
    return (*rates, latency_metric(seen["slower_than_p99"])), cut


class _Pass:
    """A pass over one version."""

    def __init__(
        self,
        store: EventStore,
        config: WatchConfig,
        version: WatchedVersion,
        versions: int,
        now: datetime,
        arrived: Position,
    ) -> None:
        self.store, self.config, self.watched = store, config, version
        self.version, self.first = version.name, version.start
        self.known = store.records(AlertEvent, subject=self.version, latest=_ALERT_EVENTS)
        self.now, self.ripe, self.read = now, now - config.lag, 0
        self.since = config.since(now)
        self.arrived = arrived
        self.reporting = store.reporting()
        self.standing = any(e.kind in ("board", "pipeline") for e in open_alerts(self.known))
        self.budget = Budget(config.false_alarm_days, config.release_risk, max(1, versions))

    def run(
        self, about: Callable[[str, datetime], str | None]
    ) -> tuple[BoardVerdict, tuple[AlertEvent, ...]]:
        board = self._board(self.version)
        try:
            baseline = self._baseline(board)
        except InsufficientDataError as error:
            return BoardVerdict(self.version, "no baseline", reason=str(error)), ()
        opened = board is None
        if board is None:
            board, unwatched = self._open(baseline)
        else:
            unwatched = self._too_late(board)
            board = self._before_late_rows(board)
        board, baseline = self._renewed(board, baseline)
        board = self._advance(board, baseline)
        alarm = in_alarm(board, baseline, standing=self.standing)
        finding = self._finding(board, baseline) if alarm else None
        self._freeze_own(board, finding)
        cluster = about(self.version, finding.since) if finding else None
        events = self._alerts(board, baseline, finding, cluster)
        says = "alarm" if finding else "in control"
        evidence = evidence_of(board, baseline)
        verdict = BoardVerdict(
            self.version,
            says,
            evidence,
            board.log_threshold,
            finding,
            unwatched=unwatched,
            opened=opened,
        )
        return verdict, events

    def _open(self, baseline: Baseline) -> tuple[BoardState, int]:
        """Open the version's board; count its answers before that, which nothing watches."""
        inherited = baseline.model_version != self.version
        start = self.first if inherited else baseline.window_end
        board = open_board(
            baseline,
            model_version=self.version,
            start=_floor(start, baseline.batch_seconds),
            now=self.now,
            budget=self.budget,
            arrived=self.arrived.both,
        )
        self.store.append(board)
        known_from = board.opened_at if inherited else baseline.window_start
        return board, count_answers(self.store, Window(EVER, known_from, self.version))

    # Late rows --------------------------------------------------------------------------------

    def _arrived_after(self, board: BoardState, start: datetime, end: datetime) -> Arrived:
        """Return what arrived since a state was stored and belongs to a span of time."""
        if board.arrived is None or start >= end:
            return Arrived(0, None)
        before, window = Position(*board.arrived), Window(start, end, self.version)
        return arrived_between(self.store, before, self.arrived, window, lag=self.config.lag)

    def _watched_from(self, board: BoardState) -> datetime:
        return max(board.opened_at, self.now - timedelta(days=self.config.late_days))

    def _too_late(self, board: BoardState) -> int:
        return self._arrived_after(board, EVER, self._watched_from(board)).rows

    def _before_late_rows(self, board: BoardState) -> BoardState:
        """Return the latest state that lacks nothing of its time: this one, or an earlier one.

        A state lacks what arrived after it was stored about a time that it had charted.
        """
        late = self._lacking(board)
        for newest in _STATES_READ if late else ():
            states = self.store.records(BoardState, subject=self.version, latest=newest)
            for state in reversed(states):
                if state.opened_at != board.opened_at or (late and state.charted_until > late):
                    continue
                earlier = self._lacking(state)
                if earlier is None:
                    logger.info("%s: charted again from %s", self.version, state.charted_until)
                    return state
                late = earlier
        return board

    def _lacking(self, state: BoardState) -> datetime | None:
        """Return the earliest time about which something arrived after a state had charted it."""
        start = self._watched_from(state)
        return self._arrived_after(state, start, state.charted_until).earliest

    # Baselines --------------------------------------------------------------------------------

    def _board(self, version: str) -> BoardState | None:
        return _latest(self.store, BoardState, version)

    def _baseline(self, board: BoardState | None) -> Baseline:
        """Return the board's baseline; else the predecessor's; else the version's own."""
        if board is not None:
            stored = self.store.get(Baseline, board.baseline_id)
            if stored is not None:
                return stored
        for predecessor in self._predecessors:
            inherited = self._inherited(predecessor)
            if inherited is not None:
                return inherited
        own = self._frozen(self.version)
        return own or self._freeze(self.watched, self._arrived_until, self.config.baseline_days)

    @cached_property
    def _predecessors(self) -> tuple[WatchedVersion, ...]:
        return predecessors(self.store, self.watched, since=self.since)

    @property
    def _arrived_until(self) -> datetime:
        """Return up to when answers have arrived: those of today may come tonight, in one file."""
        last = last_answer(self.store, Window(self.first, self.ripe, self.version))
        batch = timedelta(seconds=self.config.batch_seconds)
        return self.ripe if last is None else min(self.ripe, last + batch)

    def _frozen(self, version: str) -> Baseline | None:
        return _latest(self.store, Baseline, version)

    def _inherited(self, predecessor: WatchedVersion) -> Baseline | None:
        """Return the predecessor's baseline; where it came too soon, of what traffic there is.

        A predecessor in alarm is no measure of what is normal: what it is compared with is.
        """
        frozen = self._frozen(predecessor.name)
        if frozen is not None:
            return frozen
        board = self._board(predecessor.name)
        if board is not None:
            compared = self.store.get(Baseline, board.baseline_id)
            if compared is not None and in_alarm(board, compared):
                return compared
        hours = self.config.minimum_hours / 24.0
        try:
            return self._freeze(predecessor, self.first, hours)
        except InsufficientDataError as error:
            logger.info("%s has no baseline of its own yet: %s", predecessor.name, error)
            return None

    def _freeze(self, of: WatchedVersion, end: datetime, days: float) -> Baseline:
        version, start = of.name, of.start
        batch = timedelta(seconds=self.config.batch_seconds)
        until = _floor(end, self.config.batch_seconds)
        begin = _floor(start + batch - timedelta(microseconds=1), self.config.batch_seconds)
        if until - begin < timedelta(days=days):
            raise InsufficientDataError(
                f"a baseline needs {days:g} days of traffic, got "
                f"{max(0.0, (until - begin) / timedelta(days=1)):.2f} of {version}; "
                "the version is watched from then on"
            )
        longest = timedelta(days=max(days, self.config.baseline_days))
        begin = max(begin, until - batch * -(-longest // batch))
        observations = self._observe(version, begin, until, None)
        baseline = freeze_baseline(
            observations,
            model_version=version,
            start=begin,
            end=until,
            now=self.now,
            batch_seconds=self.config.batch_seconds,
        )
        self.store.append(baseline)
        logger.info("froze the baseline of %s on %d interactions", version, len(observations))
        return baseline

    def _freeze_own(self, board: BoardState, finding: Finding | None) -> None:
        """Freeze what is normal of a version that has done well, for its successor.

        Once more where how applications report has changed since: then for its own board as well.
        """
        frozen = self._frozen(self.version)
        changed = self._changed(frozen) if frozen else None
        if finding is not None or (frozen is not None and changed is None):
            return
        try:
            since = max(self._well_since(), changed or self.first)
            well = WatchedVersion(self.version, since)
            self._freeze(well, board.charted_until, self.config.baseline_days)
        except InsufficientDataError as error:
            logger.debug("%s", error)

    def _changed(self, baseline: Baseline) -> datetime | None:
        """Return from which answer on more is known of how applications report; None for no."""
        begins = self.reporting.begins_anew(baseline.created_at)
        if begins is None and self.reporting.spoiled(baseline.created_at, baseline.window_end):
            begins = baseline.window_end
        return begins

    def _renewed(self, board: BoardState, baseline: Baseline) -> tuple[BoardState, Baseline]:
        """Go on with the version's own newer baseline, where reporting changed after the board's.

        A board in alarm goes on as it is: what is worse must not become what is normal.
        """
        own = self._frozen(self.version)
        stale = own is not None and own.window_end > baseline.window_end and self._changed(baseline)
        if own is None or not stale or in_alarm(board, baseline, standing=self.standing):
            return board, baseline
        start = max(board.charted_until, own.window_end)
        fresh = open_board(
            own, model_version=self.version, start=_floor(start, own.batch_seconds), now=self.now,
            budget=self.budget, arrived=self.arrived.both,
        )  # fmt: skip
        self.store.append(fresh)
        logger.info("%s: watched anew, applications report otherwise now", self.version)
        return fresh, own

    def _well_since(self) -> datetime:
        """Return the end of the version's last trouble, or when it came into use."""
        troubles = [event.created_at for event in self.known if event.kind in ("board", "pipeline")]
        return max([self.first, *troubles])

    def _advance(self, board: BoardState, baseline: Baseline) -> BoardState:
        """Take in what became ripe, a day at a time; each day's state is stored."""
        batch = timedelta(seconds=baseline.batch_seconds)
        while board.charted_until + batch <= self.ripe:
            until = min(self.ripe, board.charted_until + _SLICE)
            until = board.charted_until + batch * ((until - board.charted_until) // batch)
            observations = self._observe(self.version, board.charted_until, until, baseline)
            counts = count(
                observations,
                start=board.charted_until.timestamp(),
                end=until.timestamp(),
                segments=baseline.segments,
                cuts=cuts_of(baseline),
                batch_seconds=baseline.batch_seconds,
            )
            board = advance(board, baseline, counts, now=self.now, arrived=self.arrived.both).state
            self.store.append(board)
        return board

    def _finding(self, board: BoardState, baseline: Baseline) -> Finding:
        """Say what is worse, from the traffic since the estimated change, a week at most."""
        batch = baseline.batch_seconds
        earliest = max(board.opened_at, board.charted_until - _RECENT)
        earliest = board.opened_at + timedelta(
            seconds=batch * ((earliest - board.opened_at) // timedelta(seconds=batch))
        )
        since = max(earliest, change_point(board, baseline))
        counts = count(
            self._observe(self.version, since, board.charted_until, baseline),
            start=since.timestamp(),
            end=board.charted_until.timestamp(),
            segments=baseline.segments,
            cuts=cuts_of(baseline),
            batch_seconds=batch,
        )
        return find(board, baseline, counts)

    def _alerts(
        self, board: BoardState, baseline: Baseline, finding: Finding | None, cluster: str | None
    ) -> tuple[AlertEvent, ...]:
        previous = None
        if finding is not None:
            inherited = [baseline.model_version] if baseline.model_version != self.version else []
            names = [*(version.name for version in self._predecessors), *inherited]
            previous = next(iter(names), None)
        events = board_events(
            board, finding, self.known,
            previous=previous, budget=self.budget, now=self.now, cluster=cluster,
        )  # fmt: skip
        for event in events:
            self.store.append(event)
        return events

    def _observe(
        self, version: str, start: datetime, end: datetime, baseline: Baseline | None
    ) -> Observations:
        window = Window(start, end, version)
        lag, left_out = self.config.lag, self.config.left_out
        observations = observe(self.store, window, baseline, lag=lag, left_out=left_out)
        self.read += len(observations)
        return observations


def _latest(store: EventStore, kind: type[R], version: str) -> R | None:
    """Return a version's latest record of a kind; one about simulated users ends with them."""
    found = next(iter(store.records(kind, subject=version, latest=1)), None)
    return found if found is not None and store.origins().counts(found.created_at) else None


def cuts_of(baseline: Baseline) -> dict[str, float]:
    """Return the cut-offs that a baseline froze, by signal."""
    return {item.name: item.cut_off for item in baseline.signals if item.cut_off is not None}


def _floor(moment: datetime, batch_seconds: int) -> datetime:
    seconds = moment.timestamp() // batch_seconds * batch_seconds
    return datetime.fromtimestamp(seconds, UTC)
