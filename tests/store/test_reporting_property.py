"""A declared stream of yes alone says the same as the same stream with every no sent."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratchet.analyze.monitoring.observed import observe
from ratchet.outcomes.experience import experience_metrics
from ratchet.outcomes.join import join_feedback
from ratchet.outcomes.quality import QualityWeights, quality
from ratchet.records import Interaction
from ratchet.records.reporting import DECLARABLE_KINDS
from ratchet.store import EventStore, Window, read_exposures
from ratchet.store.heard import hear
from tests.store.reported_store import DAY, MINUTE, START, answer, declare, event

AFTER = 5 * MINUTE
LAG = 6 * MINUTE
FAR = START + 100_000 * DAY
ANSWERS = st.lists(
    st.fixed_dictionaries(
        {
            "yes": st.sets(st.sampled_from(DECLARABLE_KINDS)),
            "again": st.sets(st.sampled_from(DECLARABLE_KINDS)),
            "seconds": st.integers(0, 299),
            "failed": st.booleans(),
            "thumb": st.sampled_from([None, "up", "down"]),
            "arm": st.sampled_from(["champion", "challenger"]),
        }
    ),
    min_size=1,
    max_size=30,
)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EventStore, EventStore]]:
    """One store of an application that sends yes and no, one of one that sends the yes alone."""
    folder: Path = tmp_path_factory.mktemp("stores")
    both, alone = (
        EventStore.open(f"sqlite:///{folder / name}.db", clock=lambda: FAR)
        for name in ("both", "alone")
    )
    declare(alone, *DECLARABLE_KINDS, application="*", after=AFTER)
    yield both, alone
    both.close()
    alone.close()


DAYS = count()


@given(rows=ANSWERS)
@settings(max_examples=15, deadline=None)
def test_rates_are_those_of_the_same_stream_with_explicit_noes(
    stores: tuple[EventStore, EventStore], rows: list[dict[str, object]]
) -> None:
    start = START + next(DAYS) * DAY  # each example has a day of its own
    window = Window(start, start + DAY)
    answers = [_answer(f"{start:%F} {n}", start + n * MINUTE, row) for n, row in enumerate(rows)]
    for explicit, store in zip((True, False), stores, strict=True):
        store.add_interactions(answers)
        events = []
        for item, row in zip(answers, rows, strict=True):
            seconds = timedelta(seconds=int(str(row["seconds"])))
            if row["thumb"]:
                events.append(event(item, "thumbs", row["thumb"], seconds))
            for kind in DECLARABLE_KINDS:
                if kind in row["yes"]:  # type: ignore[operator]
                    events.append(event(item, kind, True, seconds))
                    if kind in row["again"]:  # type: ignore[operator]
                        events.append(event(item, kind, True, seconds, key=" again"))
                elif explicit and not row["failed"]:
                    events.append(event(item, kind, False, AFTER))
        store.add_feedback(events)
        hear(store, now=FAR)
    both, alone = stores
    assert _metrics(both, window) == _metrics(alone, window)
    tables = [
        read_exposures(store, window, experiment="e", lag=LAG).to_pylist() for store in stores
    ]
    assert tables[0] == tables[1]
    boards = [observe(store, window, None, lag=LAG).values for store in stores]
    for name, values in boards[0].items():
        # the sending of signals itself is what was sent, not what absence says
        if name != "no_signals":
            np.testing.assert_array_equal(values, boards[1][name], err_msg=name)


def _answer(key: str, at: object, row: dict[str, object]) -> Interaction:
    failed = {"error": "timeout", "response": ""} if row["failed"] else {}
    return answer(key, at, metadata={"experiment": "e", "arm": row["arm"]}, **failed)  # type: ignore[arg-type]


def _metrics(store: EventStore, window: Window) -> object:
    outcomes = join_feedback(store.interactions(window), store.told_feedback(window))
    return experience_metrics(outcomes, quality(outcomes, QualityWeights()))
