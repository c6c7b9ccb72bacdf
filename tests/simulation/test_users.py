"""Traffic and reactions with known truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone, tzinfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ratchet.errors import InvalidInputError
from ratchet.records import (
    EXPLICIT_KINDS,
    FEEDBACK,
    IMPLICIT_KINDS,
    Feedback,
    Interaction,
    LabelledMessage,
    Message,
    derive_id,
)
from ratchet.simulation.users import (
    ReactionRates,
    Visit,
    is_right,
    plan_traffic,
    react,
    reaction_rng,
)
from tests.parameters import examples

START = datetime(2026, 3, 2, 6, 30, tzinfo=UTC)
END = START + timedelta(days=7)
LABELS = ("billing", "refunds", "account access")
VISITS = 20_000
RATES = ReactionRates()
SHARES = [name for name, field in ReactionRates.model_fields.items() if field.default <= 1]
NUMBERS = tuple(ReactionRates.model_fields)


class SummerTime(tzinfo):
    """One hour ahead of UTC, two from 29 March 2026, 02:00 on the clock."""

    def utcoffset(self, moment: datetime | None) -> timedelta:
        assert moment is not None
        return timedelta(hours=1 if moment.replace(tzinfo=None) < datetime(2026, 3, 29, 2) else 2)  # noqa: DTZ001

    def dst(self, moment: datetime | None) -> timedelta:
        return self.utcoffset(moment) - timedelta(hours=1)


def some_messages(count: int) -> list[LabelledMessage]:
    return [LabelledMessage(text=f"message {i}", label=LABELS[i % 3]) for i in range(count)]


def some_plan(count: int = 500, seed: int = 1, users: int = 40) -> tuple[Visit, ...]:
    return plan_traffic(
        some_messages(count),
        traffic_id="t",
        users=users,
        start=START,
        end=END,
        rng=np.random.default_rng(seed),
    )


def a_visit(index: int = 0, *, truth: str = "billing", turn: int = 1, ends: bool = True) -> Visit:
    return Visit(
        interaction_id=derive_id("visit", index),
        session_id=f"s{index}",
        user_id="user-1",
        at=START,
        message="charged twice",
        truth=truth,
        ends_session=ends,
        session_turn=turn,
    )


def an_answer(visit: Visit, response: str, error: str | None = None) -> Interaction:
    return Interaction(
        id=visit.interaction_id,
        session_id=visit.session_id,
        user_id=visit.user_id,
        created_at=visit.at,
        model_version="m/1",
        messages=(Message(role="user", content=visit.message),),
        response=response,
        error=error,
    )


Sample = dict[bool, list[dict[str, Feedback]]]


@pytest.fixture(scope="module")
def sample() -> Sample:
    """Reactions of one-turn sessions by right and wrong, VISITS in all, as kind -> event."""
    reactions: Sample = {True: [], False: []}
    for index in range(VISITS):
        right = index % 2 == 0
        visit = a_visit(index)
        answer = an_answer(visit, "billing" if right else "refunds")
        events = react(visit, answer, RATES, LABELS, reaction_rng(7, visit.interaction_id))
        reactions[right].append({event.kind: event for event in events})
    return reactions


def assert_share(hits: int, trials: int, share: float) -> None:
    """Compare with four binomial standard errors: two-sided chance of a false alarm 6e-5."""
    assert abs(hits / trials - share) <= 4 * np.sqrt(share * (1 - share) / trials)


def assert_mean(values: list[float], mean: float) -> None:
    """Compare with four standard errors of the mean."""
    assert abs(np.mean(values) - mean) <= 4 * np.std(values, ddof=1) / np.sqrt(len(values))


# Rates


@pytest.mark.parametrize(
    ("kind", "right", "share"),
    [
        ("thumbs", True, RATES.thumbs),
        ("thumbs", False, RATES.thumbs),
        ("stars", True, RATES.stars),
        ("stars", False, RATES.stars),
        ("comment", True, RATES.comment_right),
        ("comment", False, RATES.comment_wrong),
        ("correction", True, 0.0),
        ("correction", False, RATES.correction_wrong),
        ("task_completed", True, RATES.completion_observed),
        ("task_completed", False, RATES.completion_observed),
        ("copy", True, 1.0),
        ("regenerate", False, 1.0),
        ("session_end", True, 1.0),
    ],
)
def test_each_kind_is_given_as_often_as_its_rate_says(sample, kind, right, share):
    group = sample[right]
    assert_share(sum(kind in events for events in group), len(group), share)


@pytest.mark.parametrize(
    ("kind", "right", "hit", "share"),
    [
        ("thumbs", True, lambda value: value == "down", RATES.thumb_error),
        ("thumbs", False, lambda value: value == "up", RATES.thumb_error),
        ("copy", True, bool, RATES.copy_right),
        ("copy", False, bool, RATES.copy_wrong),
        ("regenerate", True, bool, RATES.regenerate_right),
        ("regenerate", False, bool, RATES.regenerate_wrong),
        ("task_completed", True, bool, RATES.completed_right),
        ("task_completed", False, bool, RATES.completed_wrong),
        ("correction", False, lambda value: value != "billing", RATES.correction_error),
    ],
)
def test_values_follow_their_rates(
    sample, kind: str, right: bool, hit: Callable[[object], bool], share: float
):
    values = [events[kind].value for events in sample[right] if kind in events]
    assert_share(sum(map(hit, values)), len(values), share)


def test_all_eight_kinds_appear_and_round_trip_through_the_records(sample):
    events = [event for group in sample.values() for each in group for event in each.values()]
    kinds = {*EXPLICIT_KINDS, *IMPLICIT_KINDS} - {"dimension"}  # no simulated user rates one
    assert {event.kind for event in events} == kinds
    for event in events[:200]:
        assert FEEDBACK.validate_json(FEEDBACK.dump_json(event)) == event


def test_wrong_corrections_are_spread_over_all_other_labels(sample):
    values = [e["correction"].value for e in sample[False] if "correction" in e]
    wrong = Counter(value for value in values if value != "billing")
    assert set(wrong) == {"refunds", "account access"}
    assert_share(wrong["refunds"], wrong.total(), 0.5)


def test_right_answers_get_more_stars(sample):
    right, wrong = (
        [events["stars"].value for events in sample[group] if "stars" in events]
        for group in (True, False)
    )
    assert set(right) | set(wrong) == {1, 2, 3, 4, 5}
    assert np.mean(right) > np.mean(wrong) + 2


def test_explicit_feedback_comes_seconds_to_hours_after_the_answer_with_the_stated_mean(sample):
    delays = [
        (events[kind].created_at - START).total_seconds()
        for group in sample.values()
        for events in group
        for kind in EXPLICIT_KINDS
        if kind in events
    ]
    assert_mean(delays, RATES.explicit_delay)
    assert min(delays) < 60
    assert max(delays) > 3_600


@pytest.mark.parametrize("right", [True, False])
def test_sessions_last_as_long_as_the_rates_say(sample, right):
    mean = RATES.turn_seconds_right if right else RATES.turn_seconds_wrong
    cut = RATES.abandon_right if right else RATES.abandon_wrong
    values = [events["session_end"].value for events in sample[right]]
    # Mixture of two exponentials: (1 - cut) * mean + cut * mean of an abandoned turn.
    assert_mean(values, (1 - cut) * mean + cut * RATES.turn_seconds_abandoned)


def test_sessions_are_longer_when_answers_were_wrong(sample):
    right, wrong = (
        np.mean([events["session_end"].value for events in sample[group]])
        for group in (True, False)
    )
    assert wrong > right


def test_later_turns_make_longer_sessions():
    rates = ReactionRates(abandon_right=0.0)
    values = []
    for index in range(2_000):
        visit = a_visit(index, turn=4)
        events = react(
            visit, an_answer(visit, "billing"), rates, LABELS, reaction_rng(3, str(index))
        )
        values.append(next(event.value for event in events if event.kind == "session_end"))
    assert_mean(values, 4 * rates.turn_seconds_right)


# Events


def test_ids_derive_from_interaction_and_kind_and_times_never_precede_the_answer(sample):
    for group in sample.values():
        for each in group[:500]:
            for kind, event in each.items():
                assert event.id == derive_id(event.interaction_id, kind)
                assert event.created_at >= START
                assert event.user_id == "user-1"


def test_events_come_in_order_of_time():
    visit = a_visit()
    rates = ReactionRates(thumbs=1, stars=1, comment_wrong=1, correction_wrong=1)
    events = react(visit, an_answer(visit, "refunds"), rates, LABELS, np.random.default_rng(0))
    times = [event.created_at for event in events]
    assert times == sorted(times)
    assert len({event.kind for event in events}) == len(events)


def test_a_visit_in_the_middle_of_a_session_does_not_end_it():
    visit = a_visit(ends=False)
    events = react(visit, an_answer(visit, "billing"), RATES, LABELS, np.random.default_rng(0))
    kinds = {event.kind for event in events}
    assert "session_end" not in kinds
    assert {"copy", "regenerate"} <= kinds


def test_comments_sometimes_name_the_right_queue():
    rates = ReactionRates(comment_wrong=1.0)
    comments = []
    for index in range(200):
        visit = a_visit(index, truth="refunds")
        events = react(
            visit, an_answer(visit, "billing"), rates, LABELS, reaction_rng(0, str(index))
        )
        comments += [event.value for event in events if event.kind == "comment"]
    assert 0 < sum("refunds" in comment for comment in comments) < len(comments) == 200
    assert not any("{" in comment for comment in comments)


def test_reactions_are_the_same_in_any_order_and_differ_between_interactions_and_seeds():
    def reactions(order: range, seed: int) -> dict[int, tuple[Feedback, ...]]:
        return {
            i: react(
                a_visit(i),
                an_answer(a_visit(i), "refunds"),
                RATES,
                LABELS,
                reaction_rng(seed, a_visit(i).interaction_id),
            )
            for i in order
        }

    assert reactions(range(30), 4) == reactions(range(29, -1, -1), 4)
    assert reactions(range(30), 4) != reactions(range(30), 5)
    draws = {reaction_rng(4, str(i)).random() for i in range(100)}
    assert len(draws) == 100


@pytest.mark.parametrize(
    ("response", "right"),
    [
        ("account access", True),
        ("  Account  ACCESS.\n", True),
        ("account\taccess !?", True),
        ("account access…", True),
        ("account", False),
        ("account access, billing", False),
        (".account access", False),
        ("", False),
    ],
)
def test_an_answer_is_right_up_to_case_blanks_and_punctuation_at_the_end(response, right):
    visit = a_visit(truth="account access")
    assert is_right(visit, an_answer(visit, response)) is right


def test_an_interaction_with_an_error_counts_as_wrong():
    visit = a_visit()
    answer = an_answer(visit, "billing", error="time limit")
    assert not is_right(visit, answer)
    rates = ReactionRates(correction_wrong=1.0)
    events = react(visit, answer, rates, LABELS, np.random.default_rng(0))
    assert "correction" in {event.kind for event in events}


def test_reacting_to_another_visits_answer_is_refused():
    with pytest.raises(InvalidInputError, match=r"must be the visit's.*got .*; pass"):
        react(a_visit(1), an_answer(a_visit(2), "x"), RATES, LABELS, np.random.default_rng(0))


def test_labels_must_hold_more_than_the_truth():
    visit = a_visit()
    with pytest.raises(InvalidInputError, match=r"besides the truth 'billing', got \['Billing'\]"):
        react(visit, an_answer(visit, "x"), RATES, ["Billing"], np.random.default_rng(0))


def test_a_negative_seed_is_refused():
    with pytest.raises(InvalidInputError, match=r"0 or more, got -1"):
        reaction_rng(-1, "a")


# Parameters


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), 1e9])
def test_rates_out_of_range_are_refused(name, value):
    with pytest.raises(ValidationError):
        ReactionRates(**{name: value})


@pytest.mark.parametrize("name", [name for name in SHARES if name != "stars_spread"])
def test_shares_above_one_are_refused(name):
    with pytest.raises(ValidationError):
        ReactionRates(**{name: 1.01})


def test_rates_are_frozen_refuse_unknown_names_and_are_all_documented():
    with pytest.raises(ValidationError):
        ReactionRates(thumb=0.1)
    with pytest.raises(ValidationError):
        RATES.thumbs = 0.5
    assert ReactionRates.__doc__ is not None
    assert all(f"\n        {name}: " in ReactionRates.__doc__ for name in NUMBERS)


# Traffic


@settings(max_examples=examples(60), deadline=None)
@given(
    count=st.integers(0, 200),
    users=st.integers(1, 50),
    microseconds=st.integers(1, 10**12),
    seed=st.integers(0, 2**32),
)
def test_a_plan_uses_each_message_once_within_the_window_and_in_order(
    count, users, microseconds, seed
):
    end = START + timedelta(microseconds=microseconds)
    messages = some_messages(count)
    plan = plan_traffic(
        messages,
        traffic_id="t",
        users=users,
        start=START,
        end=end,
        rng=np.random.default_rng(seed),
    )
    assert [(visit.message, visit.truth) for visit in plan] == [(m.text, m.label) for m in messages]
    times = [visit.at for visit in plan]
    assert times == sorted(times)
    assert all(START <= at < end and at.tzinfo is UTC for at in times)
    assert [visit.interaction_id for visit in plan] == [derive_id("t", i) for i in range(count)]
    assert len({visit.user_id for visit in plan}) <= users


@settings(max_examples=examples(40), deadline=None)
@given(count=st.integers(1, 200), seed=st.integers(0, 2**32))
def test_sessions_have_one_user_one_to_four_turns_in_order_and_one_end(count, seed):
    sessions: dict[str, list[Visit]] = {}
    for visit in some_plan(count, seed):
        sessions.setdefault(visit.session_id, []).append(visit)
    for visits in sessions.values():
        assert [visit.session_turn for visit in visits] == list(range(1, len(visits) + 1))
        assert 1 <= len(visits) <= 4
        assert len({visit.user_id for visit in visits}) == 1
        assert [visit.ends_session for visit in visits] == [False] * (len(visits) - 1) + [True]


def test_planning_again_gives_the_same_plan_and_another_seed_does_not():
    assert some_plan(seed=1) == some_plan(seed=1)
    assert some_plan(seed=1) != some_plan(seed=2)


def test_other_traffic_has_other_ids():
    arguments = {"users": 5, "start": START, "end": END}
    plans = [
        plan_traffic(some_messages(50), traffic_id=name, rng=np.random.default_rng(0), **arguments)
        for name in ("a", "b")
    ]
    assert not {v.interaction_id for v in plans[0]} & {v.interaction_id for v in plans[1]}
    assert not {v.session_id for v in plans[0]} & {v.session_id for v in plans[1]}


def test_sessions_of_all_four_sizes_appear():
    sizes = Counter(Counter(visit.session_id for visit in some_plan()).values())
    assert set(sizes) == {1, 2, 3, 4}


def test_users_are_unequally_active():
    counts = sorted(Counter(visit.user_id for visit in some_plan(2_000)).values(), reverse=True)
    # Of forty equal users the busiest four would bring a tenth; log-normal ones over a fifth.
    assert sum(counts[:4]) > 0.2 * 2_000


def test_intensity_follows_a_daily_cycle_that_peaks_at_fifteen_hours():
    hours = np.array([visit.at.hour for visit in some_plan(8_000)])
    # Intensity 1 + 0.8 cos: the six hours around the peak hold 1/4 + 0.8 * sin(pi/4) / pi = 0.430.
    # Turns cluster in sessions (mean 1.7), so the binomial error is doubled.
    share = np.mean((hours >= 12) & (hours < 18))
    expected = 0.25 + 0.8 * np.sin(np.pi / 4) / np.pi
    assert abs(share - expected) < 4 * 2 * np.sqrt(expected * (1 - expected) / 8_000)


def test_times_in_another_zone_are_turned_to_utc():
    zone = timezone(timedelta(hours=5))
    plan = plan_traffic(
        some_messages(20),
        traffic_id="t",
        users=3,
        start=START.astimezone(zone),
        end=END.astimezone(zone),
        rng=np.random.default_rng(1),
    )
    assert plan == some_plan(20, users=3)


def test_a_window_over_a_change_of_clocks_has_its_true_length():
    # From 01:30 (UTC+1) to 03:30 (UTC+2) on the clock is one hour.
    clock = SummerTime()
    start = datetime(2026, 3, 29, 1, 30, tzinfo=clock)
    plan = plan_traffic(
        some_messages(300),
        traffic_id="t",
        users=3,
        start=start,
        end=datetime(2026, 3, 29, 3, 30, tzinfo=clock),
        rng=np.random.default_rng(1),
    )
    assert plan[-1].at < start.astimezone(UTC) + timedelta(hours=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"users": 0}, "users must be at least 1, got 0"),
        ({"end": START}, "end must be after start"),
        ({"start": START.replace(tzinfo=None)}, "must carry a time zone"),
        ({"end": END.replace(tzinfo=None)}, "must carry a time zone"),
    ],
)
def test_a_plan_that_cannot_be_made_is_refused(changes, message):
    arguments = {"users": 3, "start": START, "end": END} | changes
    with pytest.raises(InvalidInputError, match=message):
        plan_traffic(some_messages(3), traffic_id="t", rng=np.random.default_rng(0), **arguments)
