from datetime import timedelta
from itertools import pairwise

import numpy as np
import pytest

from ratchet.deploy.rollout.exposure_counts import Period, read_tally
from ratchet.records import (
    Copy,
    Interaction,
    Message,
    Regenerate,
    SafetyViolation,
    TaskCompleted,
    Thumbs,
)
from tests.deploy.rollout.served import NEW, OLD

LAG = timedelta(minutes=5)
HOUR = timedelta(hours=1)
ARMS = ("champion", "challenger")


@pytest.fixture
def answer(store, now):
    """Record an answer with its feedback, half an hour after the start."""

    def add(key, *, user="u", arm="champion", version=None, at=0.5, **made):
        moment, soon = now + at * HOUR, now + at * HOUR + timedelta(minutes=1)
        chosen = version or {"champion": OLD, "challenger": NEW}[arm]
        feedback = made.pop("feedback", {})
        metadata = made.pop("metadata", {"experiment": "e", "arm": arm})
        store.add_interactions(
            [
                Interaction(
                    id=key, session_id=key, user_id=user, created_at=moment, model_version=chosen,
                    messages=(Message(role="user", content="?"),), response="!", metadata=metadata,
                    **made,
                )
            ]
        )  # fmt: skip
        kinds = {
            "thumbs": Thumbs, "regenerate": Regenerate, "copy": Copy,
            "task_completed": TaskCompleted, "safety_violation": SafetyViolation,
        }  # fmt: skip
        store.add_feedback(
            [
                kinds[kind](
                    id=f"{key}:{kind}", interaction_id=key, created_at=soon,
                    value=value,
                )
                for kind, value in feedback.items()
            ]
        )  # fmt: skip

    return add


@pytest.fixture
def tally(store, now):
    def read(*, hours=(0, 1), slow=None, **changes):
        periods = [Period(now + a * HOUR, now + b * HOUR) for a, b in pairwise(hours)]
        options = {
            "experiment": "e", "arms": ARMS, "versions": (OLD, NEW), "lag": LAG,
            "slow_seconds": slow,
        }  # fmt: skip
        return read_tally(store, periods, **(options | changes))

    return read


def counts(found, signal):
    """Events and trials by arm, over users and stages."""
    events, trials = found.of(signal)
    return events.sum(axis=(0, 1)).tolist(), trials.sum(axis=(0, 1)).tolist()


def test_nothing_recorded_is_an_empty_tally(tally):
    found = tally()
    assert (found.interactions, found.seen.shape, found.latest) == (0, (0, 1, 2), (None, None))


def test_each_kind_of_feedback_is_a_bad_answer_or_not_or_unknown(answer, tally):
    worst = {
        "thumbs": "down", "regenerate": True, "copy": False, "task_completed": False,
        "safety_violation": True,
    }  # fmt: skip
    best = {
        "thumbs": "up", "regenerate": False, "copy": True, "task_completed": True,
        "safety_violation": False,
    }  # fmt: skip
    answer("a", user="one", feedback=worst, latency_seconds=9.0)
    answer("b", user="two", arm="challenger", feedback=best, latency_seconds=1.0)
    answer("c", user="two", arm="challenger")
    found = tally(slow=5.0)
    for signal in ("thumbs_down", "regenerated", "not_copied", "not_completed", "unsafe", "slow"):
        assert counts(found, signal) == ([1, 0], [1, 1]), signal
    assert counts(found, "failed") == ([0, 0], [1, 2])
    assert found.seen.tolist() == [[[True, False]], [[False, True]]]
    assert found.interactions == 3


def test_without_a_limit_nothing_is_known_to_be_slow(answer, tally):
    answer("a", latency_seconds=100.0)
    assert counts(tally(), "slow") == ([0, 0], [0, 0])


def test_an_error_is_a_failure_and_says_nothing_else(answer, tally):
    answer("a", arm="challenger", error="out of memory", feedback={"thumbs": "up"})
    found = tally()
    assert counts(found, "failed") == ([0, 1], [0, 1])
    assert counts(found, "thumbs_down") == ([0, 0], [0, 0])


def test_an_answer_that_another_version_gave_is_a_failure_of_the_arm(answer, tally):
    answer("a", arm="challenger", version=OLD, feedback={"thumbs": "up"})
    found = tally()
    assert counts(found, "failed") == ([0, 1], [0, 1])
    assert counts(found, "thumbs_down") == ([0, 0], [0, 0])


def test_feedback_that_came_after_the_lag_is_left_out(store, answer, tally, now):
    answer("a")
    store.add_feedback(
        [Thumbs(id="t", interaction_id="a", created_at=now + 0.5 * HOUR + LAG, value="down")]
    )
    assert counts(tally(), "thumbs_down") == ([0, 0], [0, 0])


def test_other_experiments_and_answers_outside_any_are_not_counted(answer, tally):
    answer("a", metadata={"experiment": "other", "arm": "champion"})
    answer("b", metadata={})
    answer("c", metadata={"experiment": "e", "arm": "a third"})
    assert tally().interactions == 0


def test_stages_are_told_apart_and_what_lies_between_is_left_out(answer, tally, store, now):
    for key, at in (("a", 0.5), ("b", 1.5), ("c", 30.5), ("d", 40.0)):
        answer(key, at=at, feedback={"thumbs": "down"})
    found = tally(hours=(0, 1, 31))  # the second stage lasts longer than a slice
    events, _ = found.of("thumbs_down")
    assert events[0, :, 0].tolist() == [1, 2]
    gap = read_tally(
        store, [Period(now, now + HOUR), Period(now + 2 * HOUR, now + 31 * HOUR)],
        experiment="e", arms=ARMS, versions=(OLD, NEW), lag=LAG,
    )  # fmt: skip
    assert gap.of("thumbs_down")[0][0, :, 0].tolist() == [1, 1]


def test_the_latest_answer_of_each_arm_is_known(answer, tally, now):
    answer("a", at=0.25)
    answer("b", at=0.75)
    assert tally().latest == (now + 0.75 * HOUR, None)


def test_users_are_the_unit_however_many_answers_they_get(answer, tally):
    for number in range(7):
        answer(f"a{number}", user="one", feedback={"thumbs": "down"})
    found = tally()
    events, trials = found.of("thumbs_down")
    assert (events.shape[0], events.max(), trials.max()) == (1, 7, 7)
    assert np.count_nonzero(found.seen) == 1
