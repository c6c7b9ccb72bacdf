"""Prune: what may go, by which rule, and how much it is; then it goes.

    for line in Pruning(store, settings, config, now=now, preview=True).run():
        print(line.what, line.rows, line.bytes, line.rule)

Each rule can be stopped and goes on at the next call. What the loop still needs stays: the window
of the latest cycle, what a running experiment reads, interactions that people labelled or are to
review, the rows that a version in use was trained on, frozen baselines, decisions and everything in
the model registry.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import datetime, time, timedelta
from functools import cache, cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ratchet.deploy.routing import running_rollout, running_test
from ratchet.errors import RatchetError
from ratchet.files.text import counted
from ratchet.gateway.blobs import erase_files, noted_folders, unreferred
from ratchet.operate.flow_runs import EndedRuns
from ratchet.operate.forgetting import Everywhere
from ratchet.operate.retention import RetentionConfig
from ratchet.operate.sqlite_files import give_back, space_of
from ratchet.records import Candidate, Cycle, Release, TrainingSet
from ratchet.settings import Settings
from ratchet.store import EventStore
from ratchet.store import retention as stored
from ratchet.store.arrivals import Position, last_position
from ratchet.store.forget import rows_of_set
from ratchet.store.history import History
from ratchet.store.keeping import PastKeeping, past_keeping
from ratchet.store.leases import PRUNING, hold
from ratchet.store.retention import Found, Size
from ratchet.store.tables import ANSWERS, EMBEDDINGS, SET_ASIDE, SHARDS, VERDICTS

if TYPE_CHECKING:
    from ratchet.tracking import Tracker

logger = logging.getLogger(__name__)
T = TypeVar("T")

WATCHED_STAGES = ("watch", "collect", "analyze")
"""Stages whose MLflow runs show what the store says as well."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What a rule takes away.

    Attributes:
        what: Of what kind it is.
        says: The rule in words.
        size: Counts it.
        delete: Takes it away, and returns how many rows or runs (of a file: bytes) went.
    """

    what: str
    says: str
    size: Callable[[], Size]
    delete: Callable[[], int]


@dataclass(frozen=True, slots=True)
class Line:
    """What a retention rule found and what it deleted.

    Attributes:
        rows: Rows or runs that it applies to.
        oldest: When the first of them was made.
        bytes: What they take, as far as a sample tells.
        gone: Rows, runs or bytes that were taken away; None in a preview, or where it failed.
        failed: Why nothing, or not all, was taken away.
    """

    what: str
    rule: str
    rows: int = 0
    oldest: datetime | None = None
    bytes: int = 0
    gone: int | None = None
    failed: str | None = None


@dataclass(frozen=True)
class Pruning:
    """What may go of an installation, now.

    Attributes:
        store: The store.
        settings: Where everything lies.
        config: How long things are kept.
        now: The time.
        history: Where interactions stay that leave the store; they stay in the store without it.
        prefect: Prefect's API, where it answers.
        tracker: MLflow, where it answers.
        preview: Count as if history had what the store has: a run copies it before it deletes.
    """

    store: EventStore
    settings: Settings
    config: RetentionConfig
    now: datetime
    history: History | None = None
    prefect: str | None = None
    tracker: Tracker | None = None
    preview: bool = False

    def rules(self) -> tuple[Rule, ...]:
        """Return what applies, what is largest first."""
        return (
            *self._past_keeping(),
            *self._of_interactions(),
            *self._of_bytes(),
            *self._of_recorded(),
            *self._of_journal(),
            *self._of_flow_runs(),
            *self._of_tracking(),
            *self._of_files(),
        )

    def run(self) -> Iterator[Line]:
        """Yield a line a rule: in a preview what it would take away, else what it did.

        A rule that fails is told and leaves the others alone.

        Raises:
            BusyError: Another process prunes.
        """
        with nullcontext() if self.preview else hold(self.store, PRUNING):
            yield from self._lines()

    def _lines(self) -> Iterator[Line]:
        for rule in self.rules():
            line = Line(rule.what, rule.says)
            try:
                size = rule.size()
                line = replace(line, rows=size.rows, oldest=size.oldest, bytes=size.bytes)
                yield line if self.preview else replace(line, gone=rule.delete())
            except Exception as error:  # of a database, Prefect's or MLflow's: told, not hidden
                logger.debug("%s", rule.what, exc_info=True)
                yield replace(line, failed=f"{type(error).__name__}: {error}")

    # Interactions -----------------------------------------------------------------------------

    def _past_keeping(self) -> Iterator[Rule]:
        @cache
        def past() -> PastKeeping:
            sets_too = self.tracker is not None or self.preview
            home = self.settings.home
            return past_keeping(self.store, home, self.history, self.now, sets_too=sets_too)

        def size() -> Size:
            days = past().days.values()
            oldest = min(days, default=None)
            when = None if oldest is None else datetime.combine(oldest, time.min, self.now.tzinfo)
            return Size(len(days), when, 0)

        def delete() -> int:
            erased = self._everywhere.erase_past(self.history, past())
            for name in erased.training_sets:
                logger.info("training set %s held some of it and is deleted", name)
            if self.tracker is not None:
                for run in erased.runs:
                    self.tracker.drop_folder(run, "training_set")
            return erased.interactions

        says = "their own retain_until is over: texts are erased, in history too"
        yield Rule("interactions past their time", says, size, delete)
        if (self.settings.home / "gateway").is_dir():
            yield Rule(
                "lines of the gateway's log",
                "of users who were forgotten since, and of what may be kept no longer",
                lambda: Size(0, None, 0),
                lambda: self._everywhere.blank_lines(),
            )

    def _of_bytes(self) -> Iterator[Rule]:
        """Bytes that gateways keep (`--keep-blobs`)."""
        gateway, before = self.settings.home / "gateway", self._ago(1)
        if not noted_folders(gateway):
            return
        found = cache(lambda: unreferred(self.store, self.history, gateway, before=before))

        def size() -> Size:
            oldest = found().oldest
            when = None if oldest is None else datetime.fromtimestamp(oldest, self.now.tzinfo)
            return Size(len(found().files), when, found().bytes)

        yield Rule(
            "bytes that clients sent",
            "no record has referred to them for a day",
            size,
            lambda: erase_files(found(), before=before),
        )

    @cached_property
    def _everywhere(self) -> Everywhere:
        return Everywhere(
            self.store,
            self.settings,
            now=self.now,
            prefect=self.prefect,
            tracker=lambda: self.tracker,
        )

    def _of_interactions(self) -> Iterator[Rule]:
        days, until = self.config.interactions_days, self._in_history()
        if days is not None and until is not None:
            expired = stored.Expired(self._horizon(days), until, self._kept)
            says = f"older than {counted(days, 'day')}, and in history"
            sizes = cache(lambda: stored.size_of_expired(self.store, expired))
            delete = cache(lambda: stored.delete_expired(self.store, expired))
            for place, what in enumerate(("interactions", "feedback about them")):
                yield Rule(what, says, partial(_part, sizes, place), partial(_part, delete, place))
            yield self._rows(
                "feedback about interactions that are not there",
                says,
                lambda: stored.old_orphans(self.store, before=self._ago(days), until=until),
            )
        kept = self.config.history_days
        if self.history is not None and kept is not None:
            yield self._days_of_history(self.history, kept)
        yield self._rows(
            "definitions of tools, answers and documents",
            "no interaction refers to them",
            self._unreferred,
        )

    def _unreferred(self) -> Found:
        besides = set() if self.history is None else self.history.references()
        return stored.unreferred_definitions(self.store, besides, now=self.now)

    def _in_history(self) -> Position | None:
        """Return up to where history has everything; None where it is not to be relied on."""
        if self.history is None:
            return None
        try:
            cursor = self.history.cursor_of(self.store)
        except (RatchetError, OSError) as error:
            logger.warning("interactions stay in the store: %s", error)
            return None
        if self.preview:
            return last_position(self.store)
        return None if cursor is None else cursor.position

    def _horizon(self, days: int) -> datetime:
        """Return before when interactions may go: not what a cycle or an experiment reads."""
        needed = [self._ago(days)]
        cycle = self.store.latest(Cycle)
        if cycle is not None:
            needed.append(cycle.window_start)
        for running in (running_rollout(self.store), running_test(self.store)):
            if running is not None:
                needed.append(running.created_at)
        return min(needed)

    @cached_property
    def _kept(self) -> frozenset[str]:
        """Ids of interactions that people labelled, or that a version in use was trained on."""
        sets = {item.id: item for item in self.store.records(TrainingSet)}
        in_use = self._versions_in_use()
        trained: set[str] = set()
        for candidate in self.store.records(Candidate):
            training_set = sets.get(candidate.training_set_id)
            if training_set is not None and candidate.reference in in_use:
                folder = self.settings.home / "datasets" / Path(training_set.path).name
                trained |= rows_of_set(folder)
        return stored.labelled(self.store) | trained

    def _versions_in_use(self) -> set[str]:
        release, candidate = self.store.latest(Release), self.store.latest(Candidate)
        names = {release.champion, release.previous} if release else set()
        names |= {candidate.reference} if candidate else set()
        rollout = running_rollout(self.store)
        names |= {rollout.challenger.version} if rollout else set()
        return {name for name in names if name is not None}

    def _days_of_history(self, history: History, days: int) -> Rule:
        day = self._ago(days).date()

        @cache
        def size() -> Size:
            old = [item for item in history.days() if item.day < day]
            when = min((item.day for item in old), default=None)
            oldest = datetime.combine(when, time.min, self.now.tzinfo) if when else None
            return Size(sum(item.rows for item in old), oldest, sum(item.bytes for item in old))

        def delete() -> int:
            history.drop_before(day)
            return size().rows

        return Rule("days of history", f"older than {counted(days, 'day')}", size, delete)

    # Other tables -----------------------------------------------------------------------------

    def _of_recorded(self) -> Iterator[Rule]:
        config = self.config
        for what, days, table in (
            ("rows set aside", config.set_aside_days, SET_ASIDE),
            ("verdicts of judges", config.verdicts_days, VERDICTS),
        ):
            if days is not None:
                yield self._rows(what, f"older than {counted(days, 'day')}", self._old(table, days))
        for what, days, table in (
            ("recorded answers", config.answers_days, ANSWERS),
            ("vectors of texts", config.vectors_days, EMBEDDINGS),
            ("results of shards", config.vectors_days, SHARDS),
        ):
            if days is not None:
                yield self._rows(
                    what, f"made {counted(days, 'day')} ago", self._old_recorded(table, days)
                )

    def _of_journal(self) -> Iterator[Rule]:
        store, config = self.store, self.config
        late = timedelta(days=config.late_days)
        yield self._rows(
            "states of boards",
            f"all but one an hour after a day, and one after {counted(config.late_days, 'day')}",
            lambda: stored.spare_boards(store, now=self.now, late=late),
        )
        if (days := config.passes_days) is not None:
            passed = self._ago(days)
            yield self._rows(
                "safety passes",
                f"older than {counted(days, 'day')}",
                lambda: stored.old_passes(store, before=passed),
            )
        if (days := config.records_days) is not None:
            before, says = self._ago(days), f"older than {counted(days, 'day')}"
            rollout = running_rollout(store)
            running = {rollout.id} if rollout else set()
            yield self._rows(
                "deliveries of alerts", says, lambda: stored.old_deliveries(store, before=before)
            )
            yield self._rows(
                "messages that were sent", says, lambda: stored.old_messages(store, before=before)
            )
            yield self._rows(
                "looks that decided nothing",
                f"{says}, of ended rollouts",
                lambda: stored.old_looks(store, before=before, running=running),
            )

    def _old(self, table: Any, days: int) -> Callable[[], Found]:
        before = self._ago(days)
        return lambda: stored.old_rows(self.store, table, before=before)

    def _old_recorded(self, table: Any, days: int) -> Callable[[], Found]:
        before = self._ago(days)
        return lambda: stored.old_recorded(self.store, table, before=before)

    def _rows(self, what: str, says: str, find: Callable[[], Found]) -> Rule:
        return Rule(
            what,
            says,
            lambda: stored.size_of(self.store, find()),
            lambda: stored.delete_rows(self.store, find()),
        )

    # Prefect, MLflow, files -------------------------------------------------------------------

    def _of_flow_runs(self) -> Iterator[Rule]:
        if self.prefect is None:
            return
        database = self.settings.prefect_home / "prefect.db"
        for what, days, passes in (
            ("flow runs of passes", self.config.passes_days, True),
            ("other flow runs", self.config.flow_runs_days, False),
        ):
            if days is None:
                continue
            runs = EndedRuns(self.prefect, self._ago(days), passes, database.exists())
            says = f"ended {counted(days, 'day')} ago, none whose artifact is the newest of its key"
            yield Rule(what, says, _size_of_runs(runs, database), runs.delete)

    def _of_tracking(self) -> Iterator[Rule]:
        days, tracker = self.config.tracking_days, self.tracker
        if tracker is None or days is None:
            return
        before = self._ago(days)

        def size() -> Size:
            runs = tracker.old_runs(WATCHED_STAGES, before=before)
            oldest = min((run.ended_at for run in runs), default=None)
            return Size(len(runs), oldest, sum(run.bytes for run in runs))

        def delete() -> int:
            runs = tracker.old_runs(WATCHED_STAGES, before=before)
            tracker.delete_runs([run.run_id for run in runs])
            return len(runs)

        stages = ", ".join(WATCHED_STAGES)
        yield Rule("MLflow runs", f"of {stages}, ended {counted(days, 'day')} ago", size, delete)

    def _of_files(self) -> Iterator[Rule]:
        for path in database_files(self.settings):
            space = space_of(path)
            if not space.free:
                continue
            says = "given back step by step"
            if not space.can_shrink:
                says = "used again; `ratchet prune --compact` gives it back"
            yield Rule(
                f"free space in {path.name}",
                says,
                partial(Size, 0, None, space.free),
                partial(give_back, path),
            )

    def _ago(self, days: int) -> datetime:
        return self.now - timedelta(days=days)


def database_files(settings: Settings) -> tuple[Path, ...]:
    """Return the files of SQLite that an installation has, those of servers elsewhere left out."""
    named = [settings.store_url, settings.tracking_uri]
    paths = [Path(url.partition(":///")[2]) for url in named if url.startswith("sqlite")]
    return tuple(path for path in (*paths, settings.prefect_home / "prefect.db") if path.exists())


def advance_history(history: History, store: EventStore) -> None:
    """Copy what is new into history; where that fails, say so: nothing leaves the store then."""
    try:
        copied = history.advance(store)
    except (RatchetError, OSError) as error:
        logger.warning("history is not up to date, and what it lacks stays: %s", error)
        return
    logger.info(
        "copied %d interactions and %d feedback events into history",
        copied.interactions,
        copied.feedback,
    )


def _part(pair: Callable[[], tuple[T, T]], place: int) -> T:
    return pair()[place]


def _size_of_runs(runs: EndedRuns, database: Path) -> Callable[[], Size]:
    """Bytes are the share of all runs in what the database holds."""

    def size() -> Size:
        count, space = runs.count(), space_of(database)
        held = (space.bytes - space.free) / max(1, runs.total())
        return Size(count, runs.oldest() if count else None, round(held * count))

    return size
