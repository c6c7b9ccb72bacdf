"""Expected values are planted changes, closed forms and the same thing done in another order."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from numpy.testing import assert_allclose

from ratchet.analyze.monitoring.batches import Counts
from ratchet.analyze.monitoring.board import (
    CEILING,
    MEMORY,
    Budget,
    advance,
    change_point,
    evidence_of,
    find,
    in_alarm,
    open_board,
)
from ratchet.errors import InvalidInputError
from ratchet.records import BoardState
from tests.analyze.monitoring.planted import (
    BATCH,
    DAY,
    RATES,
    SEGMENTS,
    TRIALS,
    draw,
    freeze,
    moment,
)

WEEK = 7 * DAY
NOW = moment(0)
SEEDS = 15
RELEASE = {("thumbs_down", None): 0.16, ("regenerated", None): 0.18}
LIMIT = Budget().limit(BATCH)


def generator(*key):
    return np.random.default_rng([2026, *key])


def opened(baseline, first=WEEK, **budget):
    return open_board(
        baseline, model_version="router/2", start=moment(first), now=NOW, budget=Budget(**budget)
    )


def part(counts, start, stop=None):
    rows = slice(start, stop)
    return Counts(
        counts.starts[rows], counts.segments, counts.signals, counts.events[rows],
        counts.trials[rows],
    )  # fmt: skip


def alarm(evidence):
    """Index of the first batch in alarm, or infinity."""
    over = np.flatnonzero(evidence >= LIMIT.log_threshold)
    return int(over[0]) if over.size else math.inf


# State -------------------------------------------------------------------------------------------


def test_passes_of_any_length_give_the_state_of_one_pass():
    rng = generator(0)
    baseline = freeze(draw(rng, WEEK))
    counts = draw(rng, 300, first=WEEK, changed={("regenerated", "app"): 0.14})
    whole = advance(opened(baseline), baseline, counts, now=NOW)
    board, evidence = opened(baseline), []
    for start, stop in ((0, 1), (1, 2), (2, 120), (120, 120), (120, 299), (299, 300)):
        passed = advance(board, baseline, part(counts, start, stop), now=NOW)
        board = BoardState.model_validate_json(passed.state.model_dump_json())
        evidence.append(passed.evidence)
    assert_allclose(np.concatenate(evidence), whole.evidence, atol=1e-5)
    assert (board.starts, board.batches) == (whole.state.starts, 300)
    assert (board.id, board.charted_until) == (whole.state.id, whole.state.charted_until)
    for field in ("log_statistics", "cusums"):
        assert_allclose(getattr(board, field), getattr(whole.state, field), atol=1e-5)


def test_a_fresh_board_has_its_head_start_and_is_not_in_alarm():
    baseline = freeze(draw(generator(1), WEEK))
    board = opened(baseline)
    # risk 0.01 of the threshold: log 0.01 below it
    assert evidence_of(board, baseline) == pytest.approx(LIMIT.log_threshold + math.log(0.01))
    assert not in_alarm(board, baseline)
    assert board.charted_until == board.opened_at == moment(WEEK)


def test_boards_that_share_a_budget_each_get_a_higher_threshold():
    # run length of 30 days a board becomes 60 for two: log 2 more
    two = Budget(versions=2).limit(BATCH)
    assert two.log_threshold - LIMIT.log_threshold == pytest.approx(math.log(2.0))
    assert LIMIT.log_threshold == pytest.approx(math.log(30 * DAY / 0.99))


def test_gaps_repetitions_and_other_baselines_are_refused():
    rng = generator(2)
    baseline, other = freeze(draw(rng, WEEK)), freeze(draw(rng, WEEK), "router/9")
    for first in (WEEK + 1, WEEK - 1):
        with pytest.raises(InvalidInputError, match="batches must follow on 2026-01-12T00:00"):
            advance(opened(baseline), baseline, draw(rng, 3, first=first), now=NOW)
    with pytest.raises(InvalidInputError, match="a board keeps its baseline"):
        advance(opened(baseline), other, draw(rng, 3, first=WEEK), now=NOW)


@pytest.mark.slow
def test_a_version_that_stands_idle_never_gets_an_alarm():
    """Silence is no evidence, however long: 60 days of a budget of one alarm in 30."""
    baseline = freeze(draw(generator(3), WEEK))
    idle = draw(generator(3), 60 * DAY, first=WEEK, traffic=0.0)
    passed = advance(opened(baseline), baseline, idle, now=NOW)
    assert_allclose(passed.evidence, LIMIT.log_head_start, atol=1e-6)
    assert passed.alarmed_at is None
    assert passed.state.batches == 60 * DAY


# Finding -----------------------------------------------------------------------------------------


def found(seed, changed, good=0, bad=24, **world):
    """Return what a board finds in `good` batches in control and `bad` changed ones."""
    rng = generator(4, seed)
    baseline = freeze(draw(rng, WEEK, **world))
    calm = draw(rng, good, first=WEEK, **world)
    worse = draw(rng, bad, first=WEEK + good, changed=changed, **world)
    joined = {
        name: np.concatenate([getattr(calm, name), getattr(worse, name)])
        for name in ("starts", "events", "trials")
    }
    counts = replace(worse, **joined)
    passed = advance(opened(baseline), baseline, counts, now=NOW)
    assert in_alarm(passed.state, baseline)
    return find(passed.state, baseline, counts), passed


@pytest.mark.parametrize("good", [0, 100])
def test_a_planted_release_is_found_with_signal_time_and_interval(good):
    findings = [found(seed, RELEASE, good)[0] for seed in range(SEEDS)]
    late = [(item.since - moment(WEEK + good)).total_seconds() / BATCH for item in findings]
    assert abs(np.median(late)) <= 2
    assert {item.segment for item in findings} == {None}
    assert {item.signal for item in findings} <= {"thumbs_down", "regenerated"}
    truth = {name: rate for (name, _), rate in RELEASE.items()}
    covered = sum(item.lower <= truth[item.signal] <= item.upper for item in findings)
    assert covered >= SEEDS - 4  # nominal 95 %: fewer than 11 of 15 have a chance of 1e-4
    for item in findings:
        assert item.expected == pytest.approx(RATES[item.signal], rel=0.3)
        assert item.lower <= item.events / item.trials <= item.upper


def test_the_alarm_is_dated_by_the_end_of_the_batch_that_raised_it():
    _, passed = found(0, RELEASE, good=100)
    first = alarm(passed.evidence)
    assert 100 <= first < 124
    assert passed.alarmed_at == moment(WEEK + first + 1)


def test_a_finding_counts_what_came_since_the_change():
    rng = generator(5)
    baseline = freeze(draw(rng, WEEK))
    counts = draw(rng, 60, first=WEEK, changed={("not_copied", "app"): 0.80})
    state = advance(opened(baseline), baseline, counts, now=NOW).state
    finding = find(state, baseline, counts)
    start = round((change_point(state, baseline) - moment(WEEK)).total_seconds() / BATCH)
    place, position = SEGMENTS.index("app"), counts.signals.index("not_copied")
    assert (finding.signal, finding.segment) == ("not_copied", "app")
    assert finding.trials == counts.trials[start:, position, place].sum()
    assert finding.events == counts.events[start:, position, place].sum()


def test_a_feedback_pipeline_that_dropped_is_found_as_such():
    dropped = {("no_feedback", None): 1.0 - 1e-12}
    for seed in range(5):
        rng = generator(6, seed)
        baseline = freeze(draw(rng, WEEK))
        silent = TRIALS | {"thumbs_down": 0.0}
        counts = draw(rng, 12, first=WEEK, changed=dropped, trials=silent)
        state = advance(opened(baseline), baseline, counts, now=NOW).state
        assert in_alarm(state, baseline)
        assert find(state, baseline, counts).signal == "no_feedback"


# The life of an alarm ----------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.20, 0.15])
def test_a_lasting_degradation_stays_one_alarm_and_keeps_its_name(rate):
    """Six days: the alarm is never over, nor renamed, nor dated anew."""
    rng = generator(7)
    baseline = freeze(draw(rng, WEEK))
    board, standing, said = opened(baseline), False, set()
    for start in range(0, 6 * DAY, 12):
        counts = draw(rng, 12, first=WEEK + start, changed={("regenerated", "web"): rate})
        passed = advance(board, baseline, counts, now=NOW)
        board = passed.state
        if start >= DAY:
            assert standing
            assert (passed.evidence >= LIMIT.log_threshold - MEMORY).all()
            finding = find(board, baseline, counts)
            said.add((finding.signal, finding.segment))
            assert abs(finding.since - moment(WEEK)) < timedelta(hours=3)
        standing = in_alarm(board, baseline, standing=standing)
    assert said == {("regenerated", "web")}


def divergence(rate, other):
    """Kullback-Leibler divergence of `other` from `rate`."""
    return rate * math.log(rate / other) + (1 - rate) * math.log((1 - rate) / (1 - other))


def repaired(seed, days, rest=DAY):
    """Return batches from the repair to the end of the alarm, and the board's parts."""
    rng = generator(8, seed)
    baseline = freeze(draw(rng, WEEK))
    bad = draw(rng, days * DAY, first=WEEK, changed=RELEASE)
    board = advance(opened(baseline), baseline, bad, now=NOW).state
    good = draw(rng, rest, first=WEEK + days * DAY)
    passed = advance(board, baseline, good, now=NOW)
    under = np.flatnonzero(passed.evidence < LIMIT.log_threshold - MEMORY)
    return (int(under[0]) if under.size else math.inf), rng, baseline, passed.state


@pytest.mark.slow
def test_after_a_repair_the_alarm_ends_in_a_time_that_does_not_grow_with_the_trouble():
    short = [repaired(seed, 1)[0] for seed in range(9)]
    long = [repaired(seed, 4)[0] for seed in range(9)]
    # The planted change is the likeliest hypothesis; it loses its divergence a batch.
    loss = sum(TRIALS[name] * divergence(RATES[name], rate) for (name, _), rate in RELEASE.items())
    expected = (CEILING + MEMORY) / loss
    assert np.median(short) <= 2 * expected
    assert np.median(long) <= 2 * expected
    assert max(short + long) <= 6 * expected


@pytest.mark.slow
def test_trouble_after_a_repair_is_dated_anew_and_named_for_what_it_is():
    late, names = [], []
    for seed in range(SEEDS):
        _, rng, baseline, board = repaired(seed, 3, rest=DAY // 4)
        after = WEEK + 3 * DAY + DAY // 4
        again = draw(rng, 24, first=after, changed={("regenerated", None): 0.22})
        board = advance(board, baseline, again, now=NOW).state
        finding = find(board, baseline, again)
        late.append((finding.since - moment(after)).total_seconds() / BATCH)
        names.append(finding.signal)
    assert abs(np.median(late)) <= 2
    assert names.count("regenerated") >= SEEDS - 1


def test_an_alarm_that_stands_ends_lower_than_it_began():
    rng = generator(9)
    baseline = freeze(draw(rng, WEEK))
    board = opened(baseline)
    for above, begins, stays in ((0.1, True, True), (-0.1, False, True), (-3.1, False, False)):
        shift = board.log_threshold + above - board.log_head_start
        raised = tuple(value + shift for value in board.log_statistics)
        state = board.model_copy(update={"log_statistics": raised})
        assert in_alarm(state, baseline) is begins
        assert in_alarm(state, baseline, standing=True) is stays


# Fusion ------------------------------------------------------------------------------------------


def delays(names, seeds):
    """Return batches to the alarm of boards that see only `names` of the same draws."""
    found = []
    rates = {name: RATES[name] for name in ("thumbs_down", "regenerated")}
    changed = {("thumbs_down", None): 0.125, ("regenerated", None): 0.125}
    trials = {"thumbs_down": 25.0, "regenerated": 60.0}
    world = {"rates": rates, "segments": ("all", "other"), "mix": (1.0, 0.0), "trials": trials}
    for seed in range(seeds):
        rng = generator(10, seed)
        before = draw(rng, WEEK, **world)
        after = draw(rng, DAY, first=WEEK, changed=changed, **world)
        kept = [before.signals.index(name) for name in names]
        before, after = (
            Counts(c.starts, c.segments, names, c.events[:, kept], c.trials[:, kept])
            for c in (before, after)
        )
        baseline = freeze(before)
        found.append(alarm(advance(opened(baseline), baseline, after, now=NOW).evidence))
    return np.array(found)


@pytest.mark.slow
def test_the_fused_board_is_faster_than_either_signal_alone():
    both = delays(("thumbs_down", "regenerated"), 20)
    thumbs, regenerated = delays(("thumbs_down",), 20), delays(("regenerated",), 20)
    assert np.isfinite(both).all()
    assert np.median(both) < min(np.median(thumbs), np.median(regenerated))
