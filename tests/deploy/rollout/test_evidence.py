import math

import numpy as np
import pytest

from ratchet.deploy.rollout.evidence import (
    Errors,
    alarm_groups,
    arm_groups,
    check_ratio,
    moved_users,
    read_signal,
)
from ratchet.deploy.rollout.exposure_counts import Tally
from ratchet.errors import InvalidInputError
from ratchet.records import SIGNAL_NAMES, WatchedSignal

SIGNAL = WatchedSignal(name="thumbs_down", margin=0.05, primary=True)
ERRORS = Errors.shared(0.04, 0.05, 4)
THUMBS, ALL = SIGNAL_NAMES.index("thumbs_down"), SIGNAL_NAMES.index("failed")


def tally(users, shares=(0.5,), *, down=(0.1, 0.1), rated=(1.0, 1.0), answers=5, seed=0, arms=2):
    """Users with some answers in one arm, drawn by hash, in each stage."""
    rng = np.random.default_rng(seed)
    points = rng.random(users)
    shape = (users, len(shares), arms, len(SIGNAL_NAMES))
    events, trials = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for stage, share in enumerate(shares):
        arm = (points < share).astype(int)
        known = rng.binomial(answers, np.array(rated)[arm])
        every = np.arange(users)
        trials[every, stage, arm, THUMBS] = known
        events[every, stage, arm, THUMBS] = rng.binomial(known, np.array(down)[arm])
        trials[every, stage, arm, ALL] = answers
    seen = trials[..., ALL] > 0
    labels = ("champion", "challenger", "third")[:arms]
    return Tally(labels, events, trials, seen, int(trials[..., ALL].sum()), (None,) * arms)


def read(made, shares=((0.5,),), **changes):
    options = {"ready": True, "minimum_users": 30}
    return read_signal(made, 1, SIGNAL, shares, ERRORS, **(options | changes))


# The sample ratio ---------------------------------------------------------------------------------


def test_a_sound_assignment_is_as_agreed_and_ready_once_there_are_users():
    for users, ready in ((500, False), (6_000, True)):
        ratio = check_ratio(tally(users), [[0.5]], error=0.01, imbalance=11 / 9)
        assert not ratio.broken
        assert ratio.ready is ready
        assert sum(ratio.users.values()) == users


def test_users_who_are_missing_from_an_arm_break_it():
    made = tally(6_000)
    lost = made.seen[:, 0, 1] & (np.arange(6_000) % 5 == 0)  # a fifth of one arm
    seen = made.seen.copy()
    seen[lost] = False
    broken = Tally(made.arms, made.events, made.trials, seen, 0, made.latest)
    ratio = check_ratio(broken, [[0.5]], error=0.01, imbalance=11 / 9)
    assert ratio.broken
    assert ratio.log_evidence >= ratio.log_threshold == pytest.approx(math.log(100))


def test_one_user_who_went_back_breaks_it():
    seen = np.zeros((3, 2, 2), bool)
    seen[0, 0, 0] = seen[0, 1, 1] = True  # from the control into the grown arm: as it should be
    seen[1, :, 1] = True
    assert moved_users(seen) == 0
    seen[2, 0, 1] = seen[2, 1, 0] = True  # back
    assert moved_users(seen) == 1
    seen[1, 1, 0] = True  # in both arms at once
    assert moved_users(seen) == 2


def test_with_several_variants_each_is_checked_against_all_others():
    seen = np.zeros((100, 1, 3), bool)
    seen[:50, 0, 0] = seen[50:70, 0, 1] = seen[70:, 0, 2] = True
    groups = arm_groups(seen, [[0.2, 0.3]])
    assert [(g.successes.item(), g.trials.item()) for g in groups] == [(20, 100), (30, 100)]
    made = Tally(
        ("a", "b", "c"), np.zeros((100, 1, 3, 7), int), np.zeros((100, 1, 3, 7), int), seen, 0,
        (None,) * 3,
    )  # fmt: skip
    ratio = check_ratio(made, [[0.2, 0.3]], error=0.01, imbalance=2.0)
    assert ratio.log_threshold == pytest.approx(math.log(200))  # shared by the two variants


def test_several_variants_whose_shares_change_are_refused():
    with pytest.raises(InvalidInputError, match="keep their shares"):
        arm_groups(np.zeros((2, 2, 3), bool), [[0.2, 0.3], [0.3, 0.3]])


# The alarm ----------------------------------------------------------------------------------------


def test_only_users_to_whom_it_happened_count_and_each_once():
    events = np.zeros((4, 1, 2), int)
    events[0, 0, 1] = 40
    events[1, 0, 0] = 1
    groups = alarm_groups(events, 1, [[0.25]])
    assert (groups.successes.tolist(), groups.trials.tolist()) == ([1], [2])


def test_beside_a_third_arm_a_variant_is_compared_with_the_control_alone():
    events = np.zeros((6, 1, 3), int)
    events[:2, 0, 0] = events[2:5, 0, 1] = events[5, 0, 2] = 1
    groups = alarm_groups(events, 1, [[0.2, 0.3]])
    assert (groups.successes.tolist(), groups.trials.tolist()) == ([3], [5])
    assert groups.shares.tolist() == [pytest.approx(0.2 / 0.7)]


def test_the_alarm_needs_no_minimum_and_no_trust_in_the_assignment():
    made = tally(400, (0.01,), down=(0.0, 1.0), seed=3)
    assert 2 <= (made.events.sum(axis=(1, 2, 3)) > 0).sum() < 30
    readout = read(made, ((0.01,),), ready=False)
    assert readout.says == "harm"
    assert readout.difference is None


# Rates --------------------------------------------------------------------------------------------


def test_rates_are_not_read_before_the_assignment_can_be_trusted():
    readout = read(tally(3_000), ready=False)
    assert (readout.says, readout.rates, readout.upper) == ("open", None, None)


def test_a_release_that_is_no_worse_passes():
    readout = read(tally(3_000))
    assert readout.says == "passes"
    assert readout.lower < 0.0 < readout.upper < 0.05
    assert readout.control[2] + readout.variant[2] == 3_000


def test_harm_is_harm_before_anything_passes():
    readout = read(tally(3_000, down=(0.1, 0.2)), slack=10.0)
    assert readout.upper < 0.5  # it would pass
    assert readout.says == "harm"
    assert readout.rates == (pytest.approx(0.1, abs=0.01), pytest.approx(0.2, abs=0.01))


def test_slack_is_what_a_stage_of_few_users_lets_through():
    made = tally(120)
    assert read(made).says == "open"
    assert read(made, slack=3.0).says == "passes"
    assert read(made, slack=3.0).margin == pytest.approx(0.15)


def test_too_few_users_of_an_arm_are_not_read():
    readout = read(tally(3_000), minimum_users=2_000)
    assert (readout.says, readout.difference) == ("open", None)


def test_a_signal_that_falls_silent_under_the_variant_is_no_good_news():
    assert read(tally(3_000, rated=(1.0, 0.0))).says == "no data"


def test_a_signal_that_is_reported_less_under_the_variant_does_not_pass():
    # the few who get to rate are as content as others
    readout = read(tally(6_000, rated=(0.5, 0.3)))
    assert readout.upper < 0.05
    assert readout.says == "uneven"


def test_errors_are_shared_by_comparisons_half_and_half():
    errors = Errors.shared(0.04, 0.05, 4)
    assert (errors.alarm, errors.lower, errors.upper) == (0.005, 0.005, 0.05)
