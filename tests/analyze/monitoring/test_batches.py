"""Expected values are counted by hand or by a loop over the interactions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from ratchet.analyze.monitoring.batches import (
    NAMES,
    Observations,
    bad_events,
    count,
    cut_offs,
    main_segments,
    observed_signals,
)
from ratchet.analyze.monitoring.watch import observations_of
from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.records import FEEDBACK, Interaction, Message
from ratchet.store import Window

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
LAG = timedelta(minutes=5)
ASKED = (Message(role="user", content="Where is my parcel?"),)


def answer(key, at=NOON, version="router/1", segment="web", **fields):
    values = {"response": "On its way.", "latency_seconds": 0.5} | fields
    return Interaction(
        id=key, session_id="s", user_id="u", created_at=at, model_version=version,
        messages=ASKED, segment=segment, **values,
    )  # fmt: skip


def event(about, kind, value, after, key=None, at=NOON):
    judge = {"judge_version": "helpfulness-1"} if kind == "judge_score" else {}
    return FEEDBACK.validate_python(
        {"id": key or f"{about}-{kind}-{after}", "interaction_id": about, "kind": kind,
         "value": value, "created_at": at + timedelta(seconds=after), **judge}
    )  # fmt: skip


def window(version=None, start=NOON, hours=1):
    return Window(start, start + timedelta(hours=hours), version)


# The store's signals ------------------------------------------------------------------------------


def test_an_interaction_is_one_row_with_its_feedback_in_columns(open_store):
    store = open_store()
    store.add_interactions(
        [
            answer("b", NOON + timedelta(minutes=1), segment="app", response="", error="timeout"),
            answer("a", response="twelve chars"),
        ]
    )
    store.add_feedback(
        [
            event("a", "thumbs", "down", 10),
            event("a", "stars", 4, 11),
            event("a", "comment", "wrong", 12),
            event("a", "copy", False, 13),
            event("a", "task_completed", True, 14),
            event("a", "session_end", 42.5, 15),
            event("a", "judge_score", 0.25, 16),
            event("b", "regenerate", True, 61),
        ]
    )
    rows = store.signals(window(), lag=LAG, judges=["helpfulness-1"]).to_pylist()
    assert [row["created_at"] for row in rows] == [NOON, NOON + timedelta(minutes=1)]
    first, second = rows
    nothing = {"correction": None, "safety_violation": None, "regenerate": None}
    seen = {"thumbs": 0.0, "stars": 4.0, "comment": 1.0, "copy": 0.0, "task_completed": 1.0}
    number = {"session_end": 42.5, "judge_score": 0.25, "latency_seconds": 0.5, "characters": 12}
    assert first.items() >= (nothing | seen | number).items()
    assert (first["failed"], second["failed"]) == (False, True)
    assert (second["segment"], second["regenerate"], second["thumbs"]) == ("app", 1.0, None)


def test_the_latest_feedback_within_the_lag_counts_and_later_feedback_does_not(open_store):
    store = open_store()
    store.add_interactions([answer("changed"), answer("late"), answer("late-change")])
    edge = LAG.total_seconds()
    store.add_feedback(
        [
            event("changed", "thumbs", "up", 60),  # arrives first, was given last
            event("changed", "thumbs", "down", 30),
            event("late", "thumbs", "down", edge),
            event("late-change", "thumbs", "down", edge - 1),
            event("late-change", "thumbs", "up", edge + 1),
        ]
    )
    thumbs = store.signals(window(), lag=LAG)["thumbs"].to_pylist()
    assert sorted(thumbs, key=str) == [0.0, 1.0, None]
    longer = store.signals(window(), lag=2 * LAG)["thumbs"].to_pylist()
    assert sorted(longer) == [0.0, 1.0, 1.0]


def test_scores_are_those_of_the_named_judges_and_of_none_by_default(open_store):
    store = open_store()
    store.add_interactions([answer("a"), answer("b", NOON + timedelta(minutes=1))])

    def score(about, value, version, after):
        return event(about, "judge_score", value, after, f"{about}-{version}").model_copy(
            update={"judge_version": version}
        )

    store.add_feedback(
        [score("a", 0.25, "one", 10), score("a", 0.75, "two", 20), score("b", 0.5, "two", 70),
         event("a", "thumbs", "up", 5)]
    )  # fmt: skip
    for judges, expected in (
        ((), [None, None]),
        (["three"], [None, None]),
        (["one"], [0.25, None]),  # although the other judge spoke later
        (["two"], [0.75, 0.5]),
        ({"one", "two"}, [0.75, 0.5]),  # of two that count the later one
    ):
        table = store.signals(window(), lag=LAG, judges=judges)
        assert table["judge_score"].to_pylist() == expected, judges
        assert table["thumbs"].to_pylist() == [1.0, None]


def test_other_windows_and_versions_do_not_leak_in(open_store):
    store = open_store()
    times = {"before": NOON - timedelta(microseconds=1), "in": NOON, "end": NOON + timedelta(1)}
    store.add_interactions(
        [*(answer(key, at) for key, at in times.items()), answer("other", version="router/2")]
    )
    store.add_feedback([event(key, "copy", True, 5, at=at) for key, at in times.items()])
    store.add_feedback([event("other", "stars", 1, 5), event("unknown", "stars", 2, 5)])
    table = store.signals(window("router/1", hours=24), lag=LAG)
    assert table.num_rows == 1
    assert (table["copy"].to_pylist(), table["stars"].to_pylist()) == ([1.0], [None])
    assert store.signals(window(), lag=LAG).num_rows == 2  # both versions where none is named


def test_an_empty_window_is_an_empty_table_and_counts_nothing(open_store):
    table = open_store().signals(window(), lag=LAG)
    counted = count(
        observations_of(table), start=0.0, end=600.0, segments=("web", "other"), cuts={}
    )
    assert counted.trials.sum() == 0
    assert counted.trials.shape == (2, len(NAMES), 2)


def test_what_is_bad_is_told_from_what_was_not_observed(open_store):
    store = open_store()
    store.add_interactions([answer("a"), answer("b", response="", error="timeout")])
    store.add_feedback([event("a", "thumbs", "down", 1), event("a", "copy", True, 2)])
    observations = observations_of(store.signals(window(), lag=LAG))
    by_failed = np.argsort(observations.values["failed"])
    rows = {name: values[by_failed].tolist() for name, values in observations.values.items()}
    nan = float("nan")
    for name, expected in {
        "thumbs_down": [1.0, nan],
        "not_copied": [0.0, nan],
        "regenerated": [nan, nan],
        "failed": [0.0, 1.0],
        "no_feedback": [0.0, 1.0],
        "no_signals": [0.0, 1.0],
        "shorter_than_usual": [11.0, nan],  # an error has no length
    }.items():
        assert_array_equal(rows[name], expected, err_msg=name)


# Counting -----------------------------------------------------------------------------------------


def observations(rng, size=400, span=3_000.0):
    values = {
        "thumbs_down": np.where(rng.random(size) < 0.7, np.nan, rng.integers(0, 2, size)),
        "slower_than_median": np.where(rng.random(size) < 0.1, np.nan, rng.exponential(1.0, size)),
    }
    segments = rng.choice(np.array(["web", "app", "phone"], dtype=object), size)
    return Observations(rng.uniform(-300.0, span, size), segments, values)


def brute_force(seen, start, end, segments, cuts):
    trials, events = {}, {}
    for row in range(len(seen)):
        if not start <= seen.seconds[row] < end:
            continue
        batch = int((seen.seconds[row] - start) // 300)
        place = seen.segments[row] if seen.segments[row] in segments[:-1] else segments[-1]
        for name, values in seen.values.items():
            value = values[row]
            if value != value:
                continue
            key = (batch, name, place)
            trials[key] = trials.get(key, 0) + 1
            events[key] = events.get(key, 0) + int(value > cuts.get(name, 0.5))
    return events, trials


def test_counting_is_a_loop_over_the_interactions():
    seen = observations(np.random.default_rng(0))
    segments, cuts = ("web", "app", "other"), {"slower_than_median": 0.8}
    counted = count(seen, start=0.0, end=2_700.0, segments=segments, cuts=cuts)
    events, trials = brute_force(seen, 0.0, 2_700.0, segments, cuts)
    for (batch, signal, place), total in np.ndenumerate(counted.trials):
        key = (batch, NAMES[signal], segments[place])
        assert total == trials.get(key, 0), key
        assert counted.events[batch, signal, place] == events.get(key, 0), key
    assert_array_equal(counted.starts, 300.0 * np.arange(9))


def test_a_batch_that_is_not_whole_waits_and_edges_belong_to_the_later_batch():
    times = np.array([0.0, 299.999999, 300.0, 600.0])
    seen = Observations(times, np.full(4, "web", object), {"failed": np.zeros(4)})
    counted = count(seen, start=0.0, end=899.0, segments=("web", "other"), cuts={})
    assert counted.trials[:, NAMES.index("failed"), 0].tolist() == [2, 1]


def test_a_number_without_a_cut_off_cannot_be_judged_and_equal_to_it_is_not_bad():
    values = np.array([1.0, 2.0, 3.0, np.nan])
    assert bad_events("slower_than_median", values, {}) is None
    above = bad_events("slower_than_median", values, {"slower_than_median": 2.0})
    below = bad_events("shorter_than_usual", values, {"shorter_than_usual": 2.0})
    assert_array_equal(above, [0.0, 0.0, 1.0, np.nan])
    assert_array_equal(below, [1.0, 0.0, 0.0, np.nan])


def test_cut_offs_are_the_quantiles_of_what_was_observed():
    length = np.append(np.arange(1.0, 102.0), np.nan)  # 1 to 101: the q quantile is 1 + 100 q
    seen = Observations(
        np.zeros(102),
        np.full(102, "web", object),
        {"longer_than_usual": length, "shorter_than_usual": length, "thumbs_down": length * 0},
    )
    assert cut_offs(seen) == pytest.approx({"longer_than_usual": 96.0, "shorter_than_usual": 6.0})


def test_segments_are_the_large_ones_by_size_and_other_is_last():
    sizes = {"b": 40, "a": 40, "other": 12, "c": 5, "rare": 3}
    names = np.concatenate([np.full(n, name, object) for name, n in sizes.items()])
    seen = Observations(np.zeros(names.size), names, {})
    assert main_segments(seen) == ("a", "b", "c", "other")
    many = np.repeat(np.array([f"s{i}" for i in range(12)], dtype=object), 10)
    assert len(main_segments(Observations(np.zeros(120), many, {}))) == 9


def test_what_does_not_fit_together_is_refused():
    seen = observations(np.random.default_rng(2))
    first = count(seen, start=0.0, end=600.0, segments=("web", "other"), cuts={})
    with pytest.raises(InvalidInputError, match="end after they start"):
        count(seen, start=300.0, end=0.0, segments=("other",), cuts={})
    with pytest.raises(InsufficientDataError, match="at least 100000 observations"):
        observed_signals(first, 100_000)


def test_over_consecutive_passes_every_interaction_is_counted_once(open_store):
    """Feedback comes late, twice, or twice with another value: one trial at most stays."""
    store, rng = open_store(), np.random.default_rng(3)
    offsets = np.sort(rng.uniform(0.0, 3_600.0, 300))
    times = [NOON + timedelta(seconds=float(s)) for s in offsets]
    store.add_interactions([answer(f"i{n}", at) for n, at in enumerate(times)])
    delays = rng.exponential(200.0, 300)
    counted, sent = [], 0
    for end in range(600, 3_600 + 601, 600):  # what was given until then has arrived, some twice
        fresh = [n for n in range(300) if end - 600 <= offsets[n] + delays[n] < end]
        events = [event(f"i{n}", "thumbs", "down", delays[n], f"t{n}", times[n]) for n in fresh]
        store.add_feedback(events + events[:3])
        again = [event(f"i{n}", "thumbs", "up", delays[n] + 9, f"u{n}", times[n]) for n in fresh]
        store.add_feedback(again[:2])
        sent += len(fresh)
        ripe = NOON + timedelta(seconds=end - 600)
        seen = observations_of(store.signals(Window(ripe - timedelta(minutes=10), ripe), lag=LAG))
        counted.append(
            count(
                seen, start=ripe.timestamp() - 600, end=ripe.timestamp(),
                segments=("web", "other"), cuts={},
            )
        )  # fmt: skip
    answers = sum(int(c.trials[:, NAMES.index("failed")].sum()) for c in counted)
    thumbs = sum(int(c.trials[:, NAMES.index("thumbs_down")].sum()) for c in counted)
    assert answers == 300
    assert thumbs == int((delays < LAG.total_seconds()).sum()) < sent
