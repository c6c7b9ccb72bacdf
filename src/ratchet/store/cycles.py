"""The book-keeping of cycles: opened once, found again after an interruption, ended once.

A cycle fixes what must not change under it: the champion, the window of its traffic, the seed and
the frozen evaluation set. A stage that starts looks for the open cycle and goes on with it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Literal

from ratchet.errors import ConflictError, InsufficientDataError, WaitingError
from ratchet.records import (
    CODE_TOKENS,
    GOLDEN,
    LABEL_TOKENS,
    SAMPLED,
    Cycle,
    CycleEnd,
    Decision,
    Example,
    ExampleSet,
    derive_id,
)
from ratchet.store import EVER, EventStore, Window
from ratchet.store.arrivals import (
    count_answers,
    first_answer,
    last_answer,
    last_position,
    versions_in_use,
)
from ratchet.store.leases import LOOP, TRAINING, hold, read_leases

logger = logging.getLogger(__name__)

_FIRST_IDS = 500
_OF_DATASET: Literal["dataset"] = "dataset"


def unfinished_cycle(store: EventStore) -> Cycle | None:
    """Return the latest cycle if it goes on: it has not ended, and is about those who count today.

    One of simulated users does not go on once a real user came.
    """
    cycle = _latest_open(store)
    if cycle is None or cycle.source == _OF_DATASET:
        return cycle
    return cycle if _is_simulated(store, cycle) == store.origins().about_simulated else None


def _latest_open(store: EventStore) -> Cycle | None:
    latest = store.latest(Cycle)
    return latest if latest and store.get(CycleEnd, latest.id) is None else None


def latest_cycle(store: EventStore) -> Cycle:
    """Return the latest cycle, ended or not.

    Raises:
        WaitingError: Nothing was collected yet.
    """
    latest = store.latest(Cycle)
    if latest is None:
        raise WaitingError(
            "this stage needs collected interactions, got an empty store; "
            "run the stage collect or `ratchet demo` first",
            "traffic",
        )
    return latest


def open_for(store: EventStore, handed_over: str | None) -> Cycle:
    """Return the latest cycle, for a training that a loop may have handed over.

    Args:
        store: The store.
        handed_over: The cycle that the loop was in; None: nobody handed anything over.

    Raises:
        WaitingError: Nothing was collected yet.
        ConflictError: The loop's cycle has ended, or another one was opened since.
    """
    cycle = latest_cycle(store)
    if handed_over is None:
        return cycle
    ended = store.get(CycleEnd, handed_over)
    if cycle.id != handed_over or ended is not None:
        raise ConflictError(
            "a training that a loop handed over needs the loop's cycle to be the open one, got "
            f"cycle {cycle.number} ({ended.outcome if ended else 'of later'}); "
            "what it would train is of no use, run the loop again"
        )
    return cycle


def open_cycle(
    store: EventStore,
    *,
    champion: str,
    options_digest: str,
    seed: int,
    example_set_id: str,
    now: datetime,
    also: tuple[str, ...] = (),
) -> Cycle:
    """Return the open cycle with these options, or open the next one.

    An open cycle with other options, or whose champion was replaced by another than its own
    challenger, or of simulated users where a real one came, is ended as abandoned: what it
    collected stays in the store. The new cycle is about all interactions up to now that no cycle
    had, those that came late among them.

    Args:
        store: Keeps it.
        champion: The version in use.
        options_digest: Digest of the options.
        seed: Of everything that is drawn.
        example_set_id: The evaluation set.
        now: The time.
        also: Other names of the champion.

    Raises:
        WaitingError: No interaction came that no cycle had.
    """
    current = unfinished_cycle(store)
    if goes_on := _going_on(store, current, options_digest, champion):
        return goes_on
    # where no user did anything new, what is unfinished stays as it is
    window = _new_traffic(store, now)
    return _open_next(
        store,
        champion,
        options_digest,
        now,
        seed=seed,
        window_start=window.start,
        window_end=window.end,
        example_set_id=example_set_id,
        arrived_until=window.arrived_until,
        taken_before=window.without,
        also=also,
        source="simulated" if window.simulated else "recorded",
    )


def open_dataset_cycle(
    store: EventStore, *, champion: str, options_digest: str, example_set_id: str, now: datetime
) -> Cycle:
    """Return the open cycle of a data set, or open one; no traffic belongs to such a cycle.

    Args:
        store: Keeps it.
        champion: The version in use.
        options_digest: Digest of the rows and of what the gate asks.
        example_set_id: The evaluation set.
        now: The time.

    Raises:
        ConflictError: A cycle of traffic is open: its gate comes first.
    """
    current = unfinished_cycle(store)
    if goes_on := _going_on(store, current, options_digest, champion):
        return goes_on
    if current is not None and current.source != _OF_DATASET:
        raise ConflictError(
            f"a cycle of a data set needs the one before to have ended, got cycle {current.number} "
            "of users' traffic, which is open; end it by `ratchet train` and `ratchet gate "
            "--candidate`, or train in another RATCHET_HOME"
        )
    return _open_next(
        store,
        champion,
        options_digest,
        now,
        seed=0,
        window_start=now,
        window_end=now,
        example_set_id=example_set_id,
        source=_OF_DATASET,
    )


def _going_on(store: EventStore, cycle: Cycle | None, digest: str, champion: str) -> Cycle | None:
    """Return the unfinished cycle where it has these options and a champion that fits."""
    if cycle is None or not _goes_on(store, cycle, digest, champion):
        return None
    logger.info("going on with cycle %d", cycle.number)
    return cycle


def _open_next(
    store: EventStore, champion: str, options_digest: str, now: datetime, **said: Any
) -> Cycle:
    """End the open cycle as abandoned, if there is one, and open the next with what is said."""
    unfinished = _latest_open(store)
    if unfinished is not None:
        logger.warning(
            "cycle %d is abandoned: it had other options, another champion or simulated users",
            unfinished.number,
        )
        end_cycle(store, unfinished, "abandoned", now)
    number = len(store.records(Cycle)) + 1
    cycle = Cycle(
        id=derive_id("cycle", number, options_digest, champion),
        number=number,
        created_at=now,
        champion=champion,
        options_digest=options_digest,
        **said,
    )
    store.append(cycle)
    logger.info(
        "opened cycle %d with champion %s, source: %s", cycle.number, champion, cycle.source
    )
    return cycle


def _goes_on(store: EventStore, cycle: Cycle, options_digest: str, champion: str) -> bool:
    expected = {cycle.champion, _promoted_in(store, cycle)}
    return cycle.options_digest == options_digest and champion in expected


def _new_traffic(store: EventStore, now: datetime) -> Window:
    """Return the window of all interactions up to now that no cycle had.

    They are those of whom the store is about: real users as soon as there is one.
    """
    simulated = store.origins().about_simulated
    before, arrived = _latest_about(store, simulated), last_position(store).interactions
    taken = None if before is None else (before.window_end, before.arrived_until)
    if before is not None and before.arrived_until is not None:
        arrived = max(arrived, before.arrived_until)
    everything = Window(EVER, now, None, arrived, taken, simulated=simulated)
    start = first_answer(store, everything)
    if start is None:
        raise WaitingError(
            f"a cycle of recorded traffic needs interactions before {now:%Y-%m-%d %H:%M} UTC that "
            f"no cycle had, {nothing_recorded(store)}",
            "traffic",
        )
    return replace(everything, start=start)


def nothing_recorded(store: EventStore) -> str:
    """Return when users were last answered, and how their answers come in, in words."""
    last = last_answer(store, Window(EVER, datetime.max.replace(tzinfo=UTC)))
    had = "none at all" if last is None else f"the last at {last:%Y-%m-%d %H:%M} UTC"
    origins = store.origins()
    if origins.simulated:
        mine = "that was a simulated user's" if origins.about_simulated else ""
        had += f" ({mine or 'those of simulated users do not count'})"
    return f"got {had}; serve users with `ratchet serve`, or bring a log in with `ratchet ingest`"


def await_traffic(store: EventStore, now: datetime) -> Window | None:
    """Return what the next cycle would be about; None: one is open.

    Raises:
        WaitingError: Nothing was recorded that no cycle had.
    """
    current = unfinished_cycle(store)
    free = current is None or current.source == _OF_DATASET
    return _new_traffic(store, now) if free else None


def _latest_about(store: EventStore, simulated: bool) -> Cycle | None:
    """Return the latest cycle of simulated users, or of real ones."""
    cycles = (one for one in reversed(store.records(Cycle)) if one.source != _OF_DATASET)
    return next((cycle for cycle in cycles if _is_simulated(store, cycle) == simulated), None)


def _is_simulated(store: EventStore, cycle: Cycle) -> bool:
    """Tell whether users were simulated; of a cycle of before, the ids of its answers say so."""
    if cycle.source is not None or cycle.arrived_until is not None:
        return cycle.source == "simulated"
    return bool(store.answered_at([derive_id(cycle.id, number) for number in range(_FIRST_IDS)]))


def recorded_so_far(store: EventStore, now: datetime) -> Window:
    """Return the window of everything that real users did up to now, whatever cycle had it."""
    return Window(EVER, now, None, last_position(store).interactions, simulated=False)


def cycle_window(cycle: Cycle, model_version: str | None = None) -> Window:
    """Return the interactions of a cycle, of one version where it is given.

    Of the champion, those that were recorded under another of its names too.
    """
    return Window(
        cycle.window_start,
        cycle.window_end,
        model_version,
        cycle.arrived_until,
        cycle.taken_before,
        simulated=None if cycle.source is None else cycle.source == "simulated",
        also=cycle.also if model_version == cycle.champion else (),
    )


def measured_versions(store: EventStore, cycle: Cycle) -> tuple[str, ...]:
    """Return whose answers a cycle's analysis is about, by their names.

    They are the champion's; where it gave none in the cycle, those of the version that gave most,
    as somebody else's model does whose log was brought in.
    """
    if count_answers(store, cycle_window(cycle, cycle.champion)):
        return cycle.names
    used = versions_in_use(store, cycle.window_start, cycle.window_end)
    counts = {name: count_answers(store, cycle_window(cycle, name)) for name in used}
    most = max(sorted(counts), key=lambda name: counts[name], default=cycle.champion)
    return (most,) if counts.get(most) else cycle.names


def _promoted_in(store: EventStore, cycle: Cycle) -> str | None:
    """Return the version that a cycle decided to promote: it may be the champion already."""
    decision = store.latest(Decision)
    if decision is None or decision.cycle_id != cycle.id or decision.verdict != "promote":
        return None
    return decision.challenger


def end_cycle(
    store: EventStore, cycle: Cycle, outcome: Literal["finished", "abandoned"], now: datetime
) -> None:
    """End a cycle, once."""
    if store.get(CycleEnd, cycle.id) is None:
        store.append(CycleEnd(id=cycle.id, created_at=now, outcome=outcome))


def freeze_examples(
    store: EventStore,
    name: str,
    examples: Sequence[Example],
    now: datetime,
    max_new_tokens: int | None = None,
) -> ExampleSet:
    """Store an evaluation set; the same examples are the same set.

    Args:
        store: Keeps it.
        name: Begins its id.
        examples: What is asked.
        now: The time.
        max_new_tokens: Longest answer; left out, that of a label, of code where any has tests.
    """
    if max_new_tokens is None:
        has_code = any(example.tests is not None for example in examples)
        max_new_tokens = CODE_TOKENS if has_code else LABEL_TOKENS
    fresh = ExampleSet.freeze(name, tuple(examples), now, max_new_tokens)
    stored = store.get(ExampleSet, fresh.id)
    if stored is not None:
        return stored
    store.append(fresh)
    return fresh


def example_set(store: EventStore, key: str) -> ExampleSet:
    """Return a frozen evaluation set.

    Raises:
        InsufficientDataError: There is none with this id.
    """
    examples = store.get(ExampleSet, key)
    if examples is None:
        raise InsufficientDataError(
            f"an evaluation set must be frozen before it is used, got {key!r}; run collect first"
        )
    return examples


def held_out_users(store: EventStore) -> frozenset[str]:
    """Return what stands for the users (`user_digest`) whose questions the gate asks.

    Those of every sample and of every version of the golden set, so that old ones stay untrained
    on.
    """
    return frozenset(
        example.user_id
        for item in store.records(ExampleSet)
        if item.name.startswith((f"{SAMPLED}-", f"{GOLDEN}-"))
        for example in item.examples
        if example.user_id is not None
    )


@contextmanager
def sole_loop(store: EventStore) -> Iterator[None]:
    """Be the only loop over a store, on whatever machine; its own stages may take it again.

    A loop whose machine was lost is waited for until its lease ends, a minute at most.

    Raises:
        BusyError: Another process is.
    """
    with hold(store, LOOP, outlast=True):
        yield


@contextmanager
def sole_training(store: EventStore, run: str) -> Iterator[None]:
    """Be the only training over a store, which a loop that hands training over is not.

    Args:
        store: The store.
        run: Names the flow run that trains.

    Raises:
        BusyError: Another process trains.
    """
    with hold(store, TRAINING, note=run, outlast=True):
        yield


def training_died(store: EventStore, run: str) -> bool:
    """Tell whether a flow run trained and its process is gone, or has been silent for a minute."""
    with store.reading() as connection:
        lease = read_leases(connection).get(TRAINING)
    return lease is not None and lease.note == run and lease.is_free
