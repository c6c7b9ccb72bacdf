"""Error rates of what may be looked at all the time, by simulation. `-s` prints the figures.

Each tolerance is three standard errors of the simulation itself.
"""

import math

import numpy as np
import pytest

from ratchet.stats.charts.e_detector import (
    RateNull,
    estimated_null,
    rate_e_process,
    start_e_detector,
    update_e_detector,
)
from ratchet.stats.experiments.confidence_sequences import (
    bernoulli_sequence,
    empirical_bernstein_sequence,
    hedged_sequence,
    proportion_difference_log_e,
)
from ratchet.stats.intervals import wilson
from ratchet.stats.intervals.clustered import cluster_rate_interval

pytestmark = pytest.mark.slow

LEVEL, ALPHA = 0.9, 0.1
LOOKS = 300
NUMBER = np.arange(1, LOOKS + 1)


def at_most(rate, runs, failures):
    """Whether a failure rate of at most `rate` explains this many failures."""
    return failures / runs <= rate + 3.0 * math.sqrt(rate * (1.0 - rate) / runs)


def difference_excluded(*arms_and_truth):
    """Whether the sequence of a difference ever excludes it, by the test that it inverts."""
    *arms, truth = arms_and_truth
    log_e = proportion_difference_log_e(*arms, t_opt=60, difference=truth, alpha=ALPHA)
    return bool((log_e >= -math.log(ALPHA)).any())


def ever_excludes(sequence, truth):
    return bool(((sequence.lower > truth) | (sequence.upper < truth)).any())


@pytest.mark.parametrize(("rate", "t_opt"), [(0.05, 50), (0.3, 20), (0.5, 300)])
def test_looking_after_every_trial_excludes_the_true_rate_in_at_most_alpha_of_runs(rate, t_opt):
    rng, runs = np.random.default_rng(1), 500
    sequence, fixed = 0, 0
    for _ in range(runs):
        done = np.cumsum(rng.random(LOOKS) < rate)
        sequence += ever_excludes(bernoulli_sequence(done, NUMBER, t_opt=t_opt, level=LEVEL), rate)
        looks = ((int(done[n - 1]), n) for n in range(10, LOOKS + 1, 10))
        fixed += any(rate not in wilson(*look, level=LEVEL) for look in looks)
    print(f"rate {rate}, t_opt {t_opt}: sequence {sequence / runs:.3f}, Wilson {fixed / runs:.3f}")
    assert at_most(ALPHA, runs, sequence)
    assert fixed / runs > 2.0 * ALPHA  # Wilson at 30 looks: the failure that this avoids


@pytest.mark.parametrize("sequence_of", [empirical_bernstein_sequence, hedged_sequence])
@pytest.mark.parametrize("shape", [(0.3, 0.7), (8.0, 2.0), None])
def test_looking_after_every_value_excludes_the_true_mean_in_at_most_alpha_of_runs(
    sequence_of, shape
):
    rng, runs, failures = np.random.default_rng(2), 400, 0
    mean = 0.2 if shape is None else shape[0] / sum(shape)
    options = {"resolution": 200} if sequence_of is hedged_sequence else {}
    for _ in range(runs):
        values = rng.random(LOOKS) < mean if shape is None else rng.beta(*shape, size=LOOKS)
        sequence = sequence_of(np.asarray(values, dtype=float), level=LEVEL, **options)
        failures += ever_excludes(sequence, mean)
    print(f"{sequence_of.__name__}, {shape}: {failures / runs:.3f}")
    assert at_most(ALPHA, runs, failures)


@pytest.mark.parametrize(("first", "second"), [(0.3, 0.3), (0.1, 0.25)])
def test_two_arms_that_grow_unevenly_exclude_their_difference_in_at_most_alpha_of_runs(
    first, second
):
    rng, runs, failures = np.random.default_rng(3), 500, 0
    for _ in range(runs):
        is_second = rng.random(LOOKS) < 0.2  # a canary with a fifth of the traffic
        is_second[:2] = False, True
        success = rng.random(LOOKS) < np.where(is_second, second, first)
        done = [np.cumsum(success & arm)[1:] for arm in (~is_second, is_second)]
        total = [np.cumsum(arm)[1:] for arm in (~is_second, is_second)]
        failures += difference_excluded(done[0], total[0], done[1], total[1], second - first)
    print(f"difference {first} {second}: {failures / runs:.3f}")
    assert at_most(ALPHA, runs, failures)


def test_an_arm_that_grows_by_what_is_seen_keeps_the_error_rate():
    rng, runs, failures, rate = np.random.default_rng(4), 400, 0, 0.4
    for _ in range(runs):
        done, total, course = [0, 0], [0, 0], []
        for step in range(150):
            leader = int(done[1] * total[0] > done[0] * total[1])
            arm = step % 2 if step < 4 else leader  # play the winner
            total[arm] += 1
            done[arm] += int(rng.random() < rate)
            course.append((done[0], total[0], done[1], total[1]))
        counts = np.array(course[4:]).T
        failures += difference_excluded(*counts, 0.0)
    print(f"play the winner: {failures / runs:.3f}")
    assert at_most(ALPHA, runs, failures)


@pytest.mark.parametrize("baseline", [None, 200])
def test_the_e_process_rejects_a_true_null_at_any_look_in_at_most_alpha_of_runs(baseline):
    rng, runs, failures, rate = np.random.default_rng(5), 2_000, 0, 0.1
    for _ in range(runs):
        null = RateNull(rate)
        if baseline:
            null = estimated_null(int(rng.binomial(baseline, rate)), baseline, error=0.05)
        done = np.cumsum(rng.binomial(20, rate, size=LOOKS))
        failures += rate_e_process(done, 20 * NUMBER, null).p_values[-1] <= ALPHA
    print(f"e-process, baseline {baseline}: {failures / runs:.4f}")
    assert at_most(ALPHA, runs, failures)


# The e-detector -----------------------------------------------------------------------------------

TRIALS, WANTED = 50, 200
HORIZON = 8 * WANTED


def run_length(rng, rate, null, kind, *, trials=TRIALS, horizon=HORIZON):
    """Batches to the first alarm, at most the horizon: cutting can only shorten the mean."""
    state = start_e_detector(null, alpha=1.0 / WANTED, kind=kind)
    while state.alarm_batch is None and state.batches < horizon:
        size = 50 if state.batches < 200 else 500
        state = update_e_detector(state, rng.binomial(trials, rate, size), [trials] * size).state
    return min(state.alarm_batch or horizon, horizon)


@pytest.mark.parametrize("kind", ["sr", "cusum"])
@pytest.mark.parametrize("baseline", [None, 300])
def test_the_average_run_length_to_a_false_alarm_is_at_least_one_over_alpha(kind, baseline):
    rng, runs, rate = np.random.default_rng(6), 300, 0.1
    lengths = np.empty(runs)
    for run in range(runs):
        null = RateNull(rate)
        if baseline:
            null = estimated_null(int(rng.binomial(baseline, rate)), baseline)
        lengths[run] = run_length(rng, rate, null, kind)
    error = lengths.std(ddof=1) / math.sqrt(runs)
    print(
        f"ARL {kind}, baseline {baseline}: {lengths.mean():.0f} +- {error:.0f}, at least {WANTED}"
    )
    assert lengths.mean() >= WANTED - 3.0 * error


@pytest.mark.parametrize(("trials", "claimed"), [(5, 1.6), (50, 2.7), (500, 6.0)])
def test_the_run_length_is_as_much_longer_as_the_docstring_says(trials, claimed):
    rng, runs = np.random.default_rng(9), 300
    lengths = np.array(
        [
            run_length(rng, 0.1, RateNull(0.1), "sr", trials=trials, horizon=60 * WANTED)
            for _ in range(runs)
        ]
    )
    ratio = lengths.mean() / WANTED
    error = lengths.std(ddof=1) / math.sqrt(runs) / WANTED
    print(f"batches of {trials}: ARL {ratio:.2f} +- {error:.2f} times {WANTED}")
    assert abs(ratio - claimed) <= 3.0 * error


@pytest.mark.parametrize("changed", [0.15, 0.2, 0.3])
def test_the_detection_delay_is_near_the_bound_of_its_own_run_length(changed):
    rng, runs, rate, start = np.random.default_rng(7), 400, 0.1, 20
    divergence = TRIALS * (
        changed * math.log(changed / rate) + (1 - changed) * math.log((1 - changed) / (1 - rate))
    )
    bound = math.log(WANTED) / divergence
    delays, misses = [], []
    for _ in range(runs):
        events = np.concatenate(
            (rng.binomial(TRIALS, rate, start), rng.binomial(TRIALS, changed, 300))
        )
        detector = start_e_detector(RateNull(rate), alpha=1.0 / WANTED)
        state = update_e_detector(detector, events, [TRIALS] * events.size).state
        assert state.alarm_batch is not None
        if state.alarm_batch > start:
            delays.append(state.alarm_batch - start)
            misses.append(abs(state.change_batch - (start + 1)))
    print(
        f"0.1 -> {changed}: mean delay {np.mean(delays):.2f} batches, log(ARL)/KL {bound:.2f}, "
        f"change point off by {np.median(misses):.0f} in the median, {len(delays)} of {runs} runs"
    )
    # the mixture of 11 alternatives costs log(11) of evidence, and a batch cannot be split
    assert np.mean(delays) <= (math.log(WANTED) + math.log(11)) / divergence + 1.5
    assert np.median(misses) <= 2
    assert len(delays) >= 0.8 * runs


# Clusters -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("users", "spread", "claimed"),
    # the docstring of cluster_rate_interval
    [
        (30, (2.0, 2.0), 0.95),
        (30, (0.5, 9.5), 0.91),
        (100, (2.0, 2.0), 0.95),
        (100, (0.5, 9.5), 0.93),
    ],
)
def test_with_repeated_users_the_cluster_interval_covers_where_wilson_fails(users, spread, claimed):
    rng, runs, level = np.random.default_rng(8), 4_000, 0.95
    rate = spread[0] / sum(spread)
    robust, fixed, effects = 0, 0, []
    for _ in range(runs):
        trials = rng.integers(5, 30, size=users)
        successes = rng.binomial(trials, rng.beta(*spread, size=users))
        result = cluster_rate_interval(successes, trials, level=level)
        robust += rate in result.interval
        fixed += rate in wilson(int(successes.sum()), int(trials.sum()), level=level)
        effects.append(result.design_effect)
    print(
        f"{users} users, rate {rate}: cluster-robust {robust / runs:.3f}, Wilson "
        f"{fixed / runs:.3f}, design effect {np.mean(effects):.1f}"
    )
    rounding = 0.005  # of the claimed figure
    error = 3.0 * math.sqrt(claimed * (1.0 - claimed) / runs) + rounding
    assert abs(robust / runs - claimed) <= error
    assert fixed / runs < 0.8
