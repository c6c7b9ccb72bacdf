import json
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.stats.charts.e_detector import (
    RateNull,
    estimated_null,
    rate_e_process,
    start_e_detector,
    state_from_json,
    update_e_detector,
)
from ratchet.stats.intervals import clopper_pearson

NULL = RateNull(0.1)
KINDS = ["sr", "cusum"]
batch = st.integers(1, 80).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
streams = st.lists(batch, min_size=2, max_size=30)


def plain_recursion(kind, stream, odds_ratios, rate):
    """Log statistic, a batch and an alternative at a time, in fractions that cannot overflow."""
    odds = [Fraction(ratio) for ratio in odds_ratios]
    values = [Fraction(0)] * len(odds)
    course = []
    for events, trials in stream:
        ratios = [o**events / (1 + Fraction(rate) * (o - 1)) ** trials for o in odds]
        before = [value + 1 if kind == "sr" else max(value, Fraction(1)) for value in values]
        values = [ratio * value for ratio, value in zip(ratios, before, strict=True)]
        mean = sum(values) / len(values)
        course.append(math.log(mean.numerator) - math.log(mean.denominator))
    return course


@pytest.mark.parametrize("kind", KINDS)
@given(streams)
def test_the_statistic_is_the_plain_recursion(kind, stream):
    odds_ratios = (1.2, 2.0, 4.0)
    state = start_e_detector(NULL, alpha=0.01, kind=kind, odds_ratios=odds_ratios)
    update = update_e_detector(state, *zip(*stream, strict=True))
    expected = plain_recursion(kind, stream, odds_ratios, NULL.rate)
    assert update.log_evidence == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("kind", KINDS)
@given(streams, st.data())
def test_batches_in_two_calls_give_the_state_of_one_pass(kind, stream, data):
    cut = data.draw(st.integers(1, len(stream) - 1))
    start = start_e_detector(NULL, alpha=0.05, kind=kind)
    whole = update_e_detector(start, *zip(*stream, strict=True))
    first = update_e_detector(start, *zip(*stream[:cut], strict=True))
    stored = state_from_json(json.loads(json.dumps(first.state.to_json(), allow_nan=False)))
    second = update_e_detector(stored, *zip(*stream[cut:], strict=True))
    joined = np.concatenate((first.log_evidence, second.log_evidence))
    assert joined == pytest.approx(whole.log_evidence, abs=1e-9)
    assert second.state.log_sr == pytest.approx(whole.state.log_sr, abs=1e-9)
    assert second.state.log_cusum == pytest.approx(whole.state.log_cusum, abs=1e-9)
    assert (second.state.batches, second.state.trials) == (whole.state.batches, whole.state.trials)
    if np.abs(whole.log_evidence - start.log_threshold).min() > 1e-6:
        assert second.state.alarm_batch == whole.state.alarm_batch
        assert second.state.change_batch == whole.state.change_batch


@given(streams)
def test_a_state_survives_json_unchanged(stream):
    state = update_e_detector(start_e_detector(NULL, alpha=0.05), *zip(*stream, strict=True)).state
    assert state_from_json(json.loads(json.dumps(state.to_json(), allow_nan=False))) == state


def test_a_change_is_found_and_its_batch_estimated():
    rng = np.random.default_rng(3)
    events = np.concatenate((rng.binomial(200, 0.1, 60), rng.binomial(200, 0.2, 20)))
    state = update_e_detector(start_e_detector(NULL, alpha=1e-3), events, np.full(80, 200)).state
    assert 60 < state.alarm_batch <= 66
    assert abs(state.change_batch - 61) <= 1


def test_the_first_alarm_and_its_change_point_stay():
    state = start_e_detector(NULL, alpha=0.01)
    alarmed = update_e_detector(state, [40], [100]).state
    later = update_e_detector(alarmed, [5] * 50 + [60], [100] * 51)
    assert (later.state.alarm_batch, later.state.change_batch) == (1, 1)
    assert later.alarms[-1]
    assert not later.alarms[-2]


def test_cusum_is_never_above_shiryaev_roberts_and_sums_of_scores_are_allowed():
    rng = np.random.default_rng(1)
    sums = rng.beta(2.0, 8.0, size=(40, 25)).sum(axis=1)
    sr, cusum = (
        update_e_detector(start_e_detector(RateNull(0.2), alpha=0.01, kind=kind), sums, [25.0] * 40)
        for kind in KINDS
    )
    assert (cusum.log_evidence <= sr.log_evidence).all()


def test_more_events_are_more_evidence():
    start = start_e_detector(NULL, alpha=0.01)
    few, many = ([update_e_detector(start, k, 50).log_evidence[0]] for k in (5, 9))
    assert few < many
    low, high = (rate_e_process(9, 50, RateNull(rate)).log_e[0] for rate in (0.1, 0.2))
    assert low > high


@given(st.integers(1, 60), st.sampled_from([0.02, 0.1, 0.4]))
def test_the_evidence_of_a_batch_has_mean_one_at_the_null_and_less_below(trials, rate):
    events = np.arange(trials + 1)
    for true, most in ((rate, 1.0), (0.5 * rate, 1.0)):
        chance = stats.binom.pmf(events, trials, true)
        e_values = [np.exp(rate_e_process(k, trials, RateNull(rate)).log_e[0]) for k in events]
        mean = chance @ np.array(e_values)
        assert mean == pytest.approx(1.0, abs=1e-9) if true == rate else mean <= most


def test_the_e_process_is_the_mean_of_likelihood_ratios():
    null, ratios = RateNull(0.2), (1.5, 3.0)
    expected = []
    for o in ratios:
        other = 0.2 * o / (1.0 + 0.2 * (o - 1.0))  # the rate with o times the odds
        expected.append(stats.binom.pmf(17, 50, other) / stats.binom.pmf(17, 50, 0.2))
    ours = rate_e_process(17, 50, null, odds_ratios=ratios).log_e[0]
    assert ours == pytest.approx(math.log(np.mean(expected)))


def test_a_p_value_is_of_all_looks_so_far_and_pays_for_the_baseline():
    looks = ([30, 31, 60], [100, 200, 400])
    known = rate_e_process(*looks, NULL)
    estimated = rate_e_process(*looks, RateNull(0.1, error=0.02))
    assert (np.diff(known.p_values) <= 0.0).all()
    assert known.p_values[-1] == pytest.approx(math.exp(-known.log_e.max()))
    assert estimated.p_values == pytest.approx(known.p_values + 0.02)


def test_an_estimated_null_is_the_exact_upper_bound_and_raises_the_threshold():
    null = estimated_null(37, 500, error=0.05)
    assert null.rate == pytest.approx(clopper_pearson(37, 500, level=0.9).upper)
    state = start_e_detector(null, alpha=0.01)
    assert math.exp(state.log_threshold) == pytest.approx(100.0 / 0.95)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: RateNull(0.0), InvalidInputError, r"must be in \(0, 1\), got 0"),
        (lambda: RateNull(0.1, error=1.0), InvalidInputError, r"error of a null .* got 1"),
        (lambda: estimated_null(0, 0), InsufficientDataError, "got 0 of 0; collect more"),
        (lambda: estimated_null(5, 5), InsufficientDataError, "got 5 of 5"),
        (lambda: estimated_null(6, 5), InvalidInputError, "got 6 of 5"),
        (lambda: start_e_detector(NULL, alpha=0), InvalidInputError, "alpha must be"),
        (lambda: start_e_detector(NULL, alpha=0.1, kind="x"), InvalidInputError, "kind must be"),
        (
            lambda: start_e_detector(NULL, alpha=0.1, odds_ratios=(0.5,)),
            InvalidInputError,
            "odds_ratios must be above 1",
        ),
        (lambda: detect([3], [0]), InvalidInputError, "got 3 of 0; leave out batches"),
        (lambda: detect([3], [2]), InvalidInputError, "got 3 of 2"),
        (lambda: detect([3, 4], [9]), InvalidInputError, r"got shapes \(2,\) and \(1,\)"),
        (lambda: detect([], []), InsufficientDataError, "at least 1 batch, got 0"),
        (
            lambda: rate_e_process([5, 3], [10, 12], NULL),
            InvalidInputError,
            r"cumulative.*pass np\.cumsum",
        ),
        (lambda: state_from_json({"rate": 0.1}), InvalidInputError, r"got \['rate'\]; pass what"),
        (
            lambda: state_from_json(start_e_detector(NULL, alpha=0.1).to_json() | {"starts": [1]}),
            InvalidInputError,
            "one finite number .* per alternative",
        ),
    ],
)
def test_bad_input_is_one_clear_error(call, error, message):
    with pytest.raises(error, match=message):
        call()


def detect(events, trials):
    return update_e_detector(start_e_detector(NULL, alpha=0.1), events, trials)
