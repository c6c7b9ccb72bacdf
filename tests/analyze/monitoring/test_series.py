"""Expected values are sums over the planted counts."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
from numpy.testing import assert_allclose

from ratchet.analyze.monitoring.baselines import expected_rates
from ratchet.analyze.monitoring.batches import NAMES
from ratchet.analyze.monitoring.board import Budget, find, open_board
from ratchet.analyze.monitoring.series import (
    MOST_PANELS,
    MOST_POINTS,
    baseline_of,
    board_series,
    chart_title,
    recent_counts,
    series_of,
)
from ratchet.analyze.monitoring.watch import BoardVerdict, WatchConfig
from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.records import Interaction, Message
from ratchet.records.signals import words_of
from tests.analyze.monitoring.planted import BATCH, DAY, START, TRIALS, draw, freeze, moment

WEEK = 7 * DAY
ASKED = (Message(role="user", content="Where is my parcel?"),)


@pytest.fixture(scope="module")
def baseline():
    return freeze(draw(np.random.default_rng(0), WEEK))


@pytest.fixture
def board(baseline):
    return open_board(
        baseline, model_version="router/2", start=moment(WEEK), now=START, budget=Budget()
    )


def after(batches, **world):
    return draw(np.random.default_rng(1), batches, first=WEEK, **world)


def test_a_point_is_the_share_over_its_batches_and_segments(baseline):
    counts = after(2 * DAY)  # 576 batches at 96 points: 6 to a point
    series = series_of(baseline, counts)[words_of("regenerated")]
    position = counts.signals.index("regenerated")
    events = counts.events[:, position].sum(axis=1).reshape(MOST_POINTS, 6).sum(axis=1)
    trials = counts.trials[:, position].sum(axis=1).reshape(MOST_POINTS, 6).sum(axis=1)
    assert_allclose(series.values, events / trials)
    assert_allclose(series.trials, trials)
    assert_allclose(series.starts, counts.starts[::6])
    rates = expected_rates(baseline, counts.starts, caution=0.0)[:, position]
    weighted = (rates * counts.trials[:, position]).sum(axis=1).reshape(MOST_POINTS, 6).sum(axis=1)
    assert_allclose(series.expected, weighted / trials)


def test_a_shift_between_segments_moves_the_expectation_and_not_the_points_out():
    changed = {("regenerated", "app"): 0.40}
    own = freeze(draw(np.random.default_rng(2), WEEK, changed=changed))
    counts = after(DAY, changed=changed, mix=(0.1, 0.9, 0.0))
    series = series_of(own, counts)[words_of("regenerated")]
    assert_allclose(series.expected, 0.1 * 0.10 + 0.9 * 0.40, rtol=0.05)
    # 96 points at 0.27 %: more than 3 outside have a chance of 0.02 %
    assert series.signals.size <= 3


def test_what_the_alarm_is_about_comes_first_and_five_are_shown(baseline, board):
    counts = after(24, changed={("failed", None): 0.05})
    finding = find(board, baseline, counts).model_copy(
        update={"signal": "failed", "also": ("not_copied",)}
    )
    shown = list(series_of(baseline, counts, finding))
    assert shown[:2] == [words_of("failed"), words_of("not_copied")]
    assert len(shown) == len(set(shown)) == min(MOST_PANELS, len(baseline.signals))


def test_a_signal_that_was_not_observed_is_passed_over_and_none_at_all_is_an_error(baseline):
    silent = series_of(baseline, after(24, trials=TRIALS | {"thumbs_down": 0.0}))
    assert words_of("thumbs_down") not in silent
    with pytest.raises(InsufficientDataError, match="needs a signal that was observed"):
        series_of(baseline, after(24, traffic=0.0))
    with pytest.raises(InsufficientDataError, match="needs a signal that was observed"):
        series_of(baseline, after(0))


@pytest.mark.parametrize(("batches", "shown"), [(0, 0), (10, 10), (700, 2 * DAY)])
def test_the_last_two_days_of_a_board_are_counted_or_what_there_is(
    store, baseline, board, batches, shown
):
    store.append(baseline)
    end = moment(WEEK + batches)
    until = board.model_copy(update={"charted_until": end, "batches": batches})
    times = [moment(WEEK) + timedelta(seconds=BATCH * n + 1) for n in range(batches + 2)]
    store.add_interactions(
        [
            Interaction(
                id=f"i{n}", session_id="s", user_id="u", created_at=at, model_version="router/2",
                messages=ASKED, response="ok", segment="web",
            )
            for n, at in enumerate(times)
        ]
    )  # fmt: skip
    counts = recent_counts(store, WatchConfig(), until)
    assert len(counts) == shown
    assert (counts.trials[:, NAMES.index("failed"), 0] == 1).all()
    if shown:
        assert counts.starts[-1] == (end - timedelta(seconds=BATCH)).timestamp()
        series = board_series(store, until, counts, None)
        assert_allclose(series[words_of("failed")].values, 0.0)


def test_a_board_whose_baseline_is_gone_is_an_error(store, board):
    with pytest.raises(InvalidInputError, match="needs its baseline in the store"):
        baseline_of(store, board)


def test_titles_say_how_it_stands(baseline, board):
    calm = chart_title(BoardVerdict("router/2", "in control", 1.0, 9.0))
    assert (calm[0], calm[2]) == ("router/2: in control", "in control")
    finding = find(board, baseline, after(24)).model_copy(
        update={"says": "answers regenerated", "events": 3, "trials": 10, "expected": 0.1}
    )
    title, subtitle, says = chart_title(BoardVerdict("router/2", "alarm", 10.0, 9.0, finding))
    assert (title, says) == ("router/2: alarm", "alarm")
    assert subtitle == "answers regenerated 30.0% where 10.0% is normal"
