import time
from dataclasses import fields
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.evaluation.metrics import constant_answer_rate, exact_match, normalise_answer
from ratchet.outcomes.experience import experience_metrics
from ratchet.outcomes.join import join_feedback
from ratchet.outcomes.quality import QualityWeights, quality
from ratchet.stats.intervals import mean_interval, wilson
from tests.parameters import examples

START = datetime(2026, 11, 1, tzinfo=UTC)
TIME = pa.timestamp("us", "UTC")
INTERACTIONS = pa.schema(
    [
        *((name, pa.string()) for name in ("id", "session_id", "user_id")),
        ("created_at", TIME),
        *((name, pa.string()) for name in ("model_version", "segment", "prompt", "response")),
        ("latency_seconds", pa.float64()),
        ("error", pa.string()),
    ]
)
FEEDBACK = pa.schema(
    [
        *((name, pa.string()) for name in ("id", "interaction_id", "kind")),
        ("created_at", TIME),
        ("number", pa.float64()),
        ("text", pa.string()),
    ]
)


def interaction(name, minute=0, *, latency=1.0, error=None):
    return {
        "id": name,
        "session_id": f"session-{name}",
        "user_id": "ada",
        "created_at": START + timedelta(minutes=minute),
        "model_version": "router/1",
        "segment": "all",
        "prompt": f"question {name}",
        "response": "" if error else "an answer",
        "latency_seconds": latency,
        "error": error,
    }


def event(name, about, kind, number=None, *, minute=0, text=None):
    return {
        "id": name,
        "interaction_id": about,
        "kind": kind,
        "created_at": START + timedelta(minutes=minute),
        "number": number,
        "text": text,
    }


def joined(interactions, events=(), *, judges=()):
    return join_feedback(
        pa.Table.from_pylist(list(interactions), INTERACTIONS),
        pa.Table.from_pylist(list(events), FEEDBACK),
        judges=judges,
    )


def scored(*events, weights=None, error=None, judges=()):
    outcomes = joined([interaction("a", error=error)], events, judges=judges)
    return quality(outcomes, weights or QualityWeights())


@pytest.mark.parametrize(
    ("answer", "target"),
    [
        ("Card Payments.", "card payments"),
        ('  "Card   payments" ', "card\npayments"),
        ("**Card payments**", "card payments"),
        ("„Straße“", "STRASSE"),
        ("42.", "42"),
        ("", " "),
    ],
)
def test_answers_match_when_they_differ_in_form_alone(answer, target):
    assert exact_match(answer, target)


@pytest.mark.parametrize(
    ("answer", "target"),
    [("-5", "5"), (".5", "5"), ("?", "!"), ("card payment", "card payments"), ("", "card")],
)
def test_answers_do_not_match_when_they_differ_in_substance(answer, target):
    assert not exact_match(answer, target)


@given(st.text())
def test_normalising_twice_changes_nothing_more(text):
    once = normalise_answer(text)
    assert normalise_answer(once) == once


def test_the_constant_answer_rate_is_the_share_of_the_commonest_target():
    assert constant_answer_rate(["a", "A.", "b", "c"]) == 0.5
    with pytest.raises(InsufficientDataError, match="got 0"):
        constant_answer_rate([])


def test_outcomes_are_in_time_order_and_carry_every_signal():
    outcomes = joined(
        [interaction("b", 5, latency=None, error="timeout"), interaction("a", 1)],
        [
            event("1", "a", "thumbs", 1.0),
            event("2", "a", "stars", 4.0),
            event("3", "a", "copy", 1.0),
            event("4", "a", "regenerate", 0.0),
            event("5", "a", "task_completed", 1.0),
            event("6", "a", "session_end", 33.5),
            event("7", "a", "correction", text="better"),
            event("8", "b", "comment", text="no answer at all"),
        ],
    )
    assert outcomes.interaction_ids.tolist() == ["a", "b"]
    assert outcomes.created_at[0] == np.datetime64("2026-11-01T00:01:00", "us")
    assert outcomes.failed_with_error.tolist() == [False, True]
    numbers = ("thumbs", "stars", "copied", "regenerated", "completed", "session_seconds")
    assert [getattr(outcomes, name)[0] for name in numbers] == [1.0, 4.0, 1.0, 0.0, 1.0, 33.5]
    assert all(np.isnan(getattr(outcomes, name)[1]) for name in (*numbers, "latency_seconds"))
    assert outcomes.corrections.tolist() == ["better", None]
    assert outcomes.comments.tolist() == [None, "no answer at all"]
    assert (
        {len(getattr(outcomes, item.name)) for item in fields(outcomes)} == {2} == {len(outcomes)}
    )


def test_the_latest_of_several_events_counts_whatever_the_order_of_arrival():
    late_up = [
        event("1", "a", "thumbs", 1.0, minute=9),
        event("2", "a", "thumbs", 0.0, minute=3),
        event("3", "a", "correction", minute=1, text="first thought"),
        event("4", "a", "correction", minute=2, text="second thought"),
    ]
    for events in (late_up, late_up[::-1]):
        outcomes = joined([interaction("a")], events)
        assert outcomes.thumbs.tolist() == [1.0]
        assert outcomes.corrections.tolist() == ["second thought"]


def test_of_two_events_at_the_same_moment_the_greater_id_counts():
    events = [event("2", "a", "thumbs", 0.0), event("1", "a", "thumbs", 1.0)]
    for order in (events, events[::-1]):
        assert joined([interaction("a")], order).thumbs.tolist() == [0.0]


def test_feedback_on_an_unknown_interaction_and_events_without_value_are_left_out():
    outcomes = joined(
        [interaction("a")],
        [
            event("1", "elsewhere", "thumbs", 0.0),
            event("2", "a", "thumbs", 1.0, minute=1),
            event("3", "a", "thumbs", None, minute=2),
        ],
    )
    assert outcomes.thumbs.tolist() == [1.0]


@settings(deadline=None, max_examples=examples(50))
@given(
    st.lists(
        st.tuples(
            st.sampled_from("abcx"),
            st.sampled_from(["thumbs", "copy", "stars"]),
            st.integers(0, 5),
            st.integers(0, 1),
        ),
        max_size=25,
    ),
    st.randoms(use_true_random=False),
)
def test_the_join_equals_a_plain_loop_and_ignores_the_order_of_rows(rows, random):
    events = [
        event(f"{i:03}", about, kind, float(value), minute=minute)
        for i, (about, kind, minute, value) in enumerate(rows)
    ]
    expected = {}
    for item in sorted(events, key=lambda e: (e["created_at"], e["id"])):
        expected[item["interaction_id"], item["kind"]] = item["number"]
    interactions = [interaction(name, minute) for minute, name in enumerate("abc")]
    outcomes = joined(random.sample(interactions, 3), random.sample(events, len(events)))
    for name, kind in (("thumbs", "thumbs"), ("copied", "copy"), ("stars", "stars")):
        wanted = [expected.get((about, kind), np.nan) for about in "abc"]
        np.testing.assert_array_equal(getattr(outcomes, name), wanted)


def test_two_interactions_with_one_id_are_refused():
    with pytest.raises(InvalidInputError, match="2 rows with 1 ids"):
        joined([interaction("a"), interaction("a", 1)])


def test_empty_tables_give_empty_outcomes_and_metrics_that_say_why():
    outcomes = joined([])
    assert len(outcomes) == 0
    for metric in experience_metrics(outcomes, quality(outcomes, QualityWeights())):
        assert metric.value is None
        assert metric.reason


def test_columns_may_be_dictionaries_or_large_strings():
    interactions = pa.Table.from_pylist([interaction("a")], INTERACTIONS)
    feedback = pa.Table.from_pylist([event("1", "a", "thumbs", 1.0)], FEEDBACK)
    recast = interactions.cast(
        pa.schema(
            [
                f.with_type(pa.large_string()) if f.type == pa.string() else f
                for f in interactions.schema
            ]
        )
    )
    at = feedback.schema.get_field_index("kind")
    coded = feedback.set_column(at, "kind", feedback["kind"].dictionary_encode())
    assert join_feedback(recast, coded).thumbs.tolist() == [1.0]


def test_a_quarter_of_a_million_events_are_joined_within_three_seconds():
    rng = np.random.default_rng(1)
    size, many = 50_000, 250_000
    names = [f"interaction-{i:06}" for i in range(size)]
    moments = pa.array(rng.integers(0, 10**12, size=many)).cast(TIME)
    interactions = pa.table(
        {
            **dict.fromkeys(("id", "session_id", "user_id", "prompt", "response"), names),
            "created_at": pa.array(np.arange(size)).cast(TIME),
            "model_version": ["router/1"] * size,
            "segment": ["all"] * size,
            "latency_seconds": rng.random(size),
            "error": pa.nulls(size, pa.string()),
        }
    )
    feedback = pa.table(
        {
            "id": [f"event-{i:07}" for i in rng.permutation(many)],
            "interaction_id": [names[i] for i in rng.integers(size, size=many)],
            "kind": rng.choice(["thumbs", "copy", "session_end"], size=many),
            "created_at": moments,
            "number": rng.integers(0, 2, size=many).astype(float),
            "text": pa.nulls(many, pa.string()),
        }
    )
    began = time.process_time()
    join_feedback(interactions, feedback)
    assert time.process_time() - began < 3.0  # ten times what it takes on two cores


def test_quality_follows_the_documented_weights():
    score = scored(
        event("1", "a", "thumbs", 1.0),
        event("2", "a", "stars", 3.0),
        event("3", "a", "copy", 1.0),
        event("4", "a", "regenerate", 1.0),
        event("5", "a", "task_completed", 1.0),
        event("6", "a", "session_end", 5.0),
    )
    assert score.explicit[0] == pytest.approx((1.0 + 0.5) / 2)
    # copied and completed for, regenerated and left after 5 s against
    assert score.implicit[0] == pytest.approx(0.25 + 0.35)
    assert score.value[0] == pytest.approx(0.6 * 0.75 + 0.4 * 0.60)


def test_missing_signals_count_neither_for_nor_against():
    score = scored(event("1", "a", "copy", 1.0), event("2", "a", "session_end", 5.0))
    assert np.isnan(score.explicit[0])
    assert score.implicit[0] == pytest.approx(0.25 / (0.25 + 0.15))
    assert score.value[0] == score.implicit[0]
    assert np.isnan(score.parts["task_completed"][0])


def test_quality_of_an_unobserved_interaction_is_undefined():
    score = scored()
    assert np.isnan([score.value[0], score.explicit[0], score.implicit[0]]).all()


def test_a_correction_makes_the_explicit_score_zero_even_with_a_thumb_up():
    score = scored(event("1", "a", "thumbs", 1.0), event("2", "a", "correction", text="no, this"))
    assert score.explicit[0] == 0.0


def test_an_error_makes_the_quality_zero_even_when_nothing_was_observed():
    assert scored(error="timeout").value[0] == 0.0
    assert scored(event("1", "a", "thumbs", 1.0), error="timeout").value[0] == 0.0


@pytest.mark.parametrize(("seconds", "engaged"), [(9.9, 0.0), (10.0, 1.0), (60.0, 1.0)])
def test_a_session_of_at_least_ten_seconds_counts_as_engaged(seconds, engaged):
    assert scored(event("1", "a", "session_end", seconds)).parts["engaged"][0] == engaged


@settings(deadline=None, max_examples=examples(60))
@given(
    st.lists(st.sampled_from([0.0, 1.0, None]), min_size=5, max_size=5),
    st.sampled_from([None, 1.0, 2.0, 3.0, 4.0, 5.0]),
    st.lists(st.floats(0.01, 10.0), min_size=6, max_size=6),
    st.floats(0.1, 10.0),
)
def test_quality_is_in_range_and_depends_on_the_ratio_of_the_weights_alone(
    flags, stars, weights, factor
):
    kinds = ("thumbs", "copy", "regenerate", "task_completed", "session_end")
    events = [event(k, "a", k, v) for k, v in zip(kinds, flags, strict=True) if v is not None]
    if stars is not None:
        events.append(event("stars", "a", "stars", stars))
    names = ("explicit", "implicit", "copied", "not_regenerated", "task_completed", "engaged")

    def weighed(scale):
        values = {n: w * scale for n, w in zip(names, weights, strict=True)}
        return scored(*events, weights=QualityWeights(**values)).value[0]

    one, other = weighed(1.0), weighed(factor)
    if events:
        assert 0.0 <= one <= 1.0
        assert one == pytest.approx(other)
    else:
        assert np.isnan(one)
        assert np.isnan(other)


@pytest.mark.parametrize(
    "weights",
    [
        {"explicit": -0.1},
        {"engaged": float("nan")},
        {"explicit": 0.0, "implicit": 0.0},
        {"copied": 0.0, "not_regenerated": 0.0, "task_completed": 0.0, "engaged": 0.0},
    ],
)
def test_weights_that_are_negative_or_all_zero_are_refused(weights):
    with pytest.raises(ValidationError):
        QualityWeights(**weights)


def test_experience_metrics_carry_the_documented_denominators_and_intervals():
    interactions = [interaction(str(i), i, error="e" if i == 0 else None) for i in range(10)]
    outcomes = joined(
        interactions,
        [
            *(event(f"t{i}", str(i), "thumbs", float(i > 1)) for i in range(1, 5)),
            event("k", "9", "comment", text="nice"),
            event("c", "1", "correction", text="rather this"),
            *(event(f"s{i}", str(i), "session_end", 20.0 + i) for i in range(3)),
            event("r", "2", "regenerate", 1.0),
        ],
    )
    metrics = {m.name: m for m in experience_metrics(outcomes, quality(outcomes, QualityWeights()))}
    shares = {
        "thumbs_down_rate": (1, 4),
        "regenerate_rate": (1, 1),
        "correction_rate": (1, 10),
        "error_rate": (1, 10),
        "feedback_coverage": (5, 10),
    }
    for name, (successes, trials) in shares.items():
        expected = wilson(successes, trials)
        assert (metrics[name].value, metrics[name].observations) == (successes / trials, trials)
        assert (metrics[name].lower, metrics[name].upper) == (expected.lower, expected.upper)
    expected = mean_interval([20.0, 21.0, 22.0])
    assert metrics["session_seconds"].value == 21.0
    assert metrics["session_seconds"].lower == pytest.approx(expected.lower)
    for name in ("copy_rate", "completion_rate", "safety_violation_rate", "latency_seconds_p99"):
        assert metrics[name].value is None
        assert metrics[name].reason
    assert metrics["latency_seconds_p50"].value == 1.0
    assert 0.0 <= metrics["quality"].lower <= metrics["quality"].value <= metrics["quality"].upper


def judged(name, value, version, *, about="a", minute=0):
    return event(name, about, "judge_score", value, minute=minute, text=version)


def test_scores_count_from_the_named_judges_alone_and_from_none_by_default():
    events = [judged("1", 0.9, "good-1"), judged("2", 0.1, "bad-1", minute=5)]
    weights = QualityWeights(judge=1.0, explicit=0.0, implicit=0.0)
    for judges, expected in (
        ((), np.nan),
        (["other-1"], np.nan),
        (["good-1"], 0.9),  # although the other judge spoke later
        (["bad-1"], 0.1),
        (["good-1", "bad-1"], 0.1),  # of two that count the later one
    ):
        found = scored(*events, weights=weights, judges=judges)
        np.testing.assert_equal(found.judge[0], expected)
        np.testing.assert_equal(found.value[0], expected)


def test_a_score_without_a_version_never_counts():
    events = [event("1", "a", "judge_score", 0.9)]
    assert np.isnan(scored(*events, judges=["good-1"]).judge[0])


def test_naming_judges_leaves_all_other_feedback_as_it_is():
    events = [
        event("t", "a", "thumbs", 1.0),
        event("c", "a", "correction", text="good-1"),  # a text that reads like a version
        event("u", "a", "safety_violation", 1.0, text="rule-1"),
        judged("j", 0.5, "good-1"),
    ]
    one = joined([interaction("a")], events)
    other = joined([interaction("a")], events, judges=["good-1"])
    for item in fields(one):
        if item.name != "judge_scores":
            np.testing.assert_array_equal(getattr(one, item.name), getattr(other, item.name))
    assert (other.unsafe[0], other.corrections[0], other.judge_scores[0]) == (1.0, "good-1", 0.5)


def test_the_judge_is_weighed_beside_what_users_said_and_alone_where_they_said_nothing():
    weights = QualityWeights(explicit=0.6, judge=0.2, implicit=0.2)
    score = judged("j", 0.5, "good-1")
    both = scored(event("t", "a", "thumbs", 1.0), score, weights=weights, judges=["good-1"])
    assert both.value[0] == pytest.approx((0.6 * 1.0 + 0.2 * 0.5) / 0.8)
    alone = scored(score, weights=weights, judges=["good-1"])
    assert alone.value[0] == pytest.approx(0.5)
    default = scored(score, judges=["good-1"])
    assert np.isnan(default.value[0])  # by default a judge has no weight
    assert default.judge[0] == 0.5


def test_judge_scores_and_violations_have_metrics_with_documented_denominators():
    interactions = [interaction(str(i), i) for i in range(10)]
    events = [
        *(judged(f"j{i}", i / 4, "good-1", about=str(i)) for i in range(5)),
        *(event(f"u{i}", str(i), "safety_violation", float(i == 0)) for i in range(4)),
    ]
    outcomes = joined(interactions, events, judges=["good-1"])
    found = {m.name: m for m in experience_metrics(outcomes, quality(outcomes, QualityWeights()))}
    expected = mean_interval([0.0, 0.25, 0.5, 0.75, 1.0])
    score, unsafe = found["judge_score"], found["safety_violation_rate"]
    assert (score.value, score.observations, score.unit) == (0.5, 5, "score")
    assert score.lower == pytest.approx(max(0.0, expected.lower))
    assert score.upper == pytest.approx(min(1.0, expected.upper))
    assert (unsafe.value, unsafe.observations) == (0.25, 4)
    assert (unsafe.lower, unsafe.upper) == (wilson(1, 4).lower, wilson(1, 4).upper)


def test_the_latency_quantiles_get_an_interval_once_there_are_enough_values():
    def latencies(size):
        outcomes = joined([interaction(f"{i:04}", i, latency=float(i)) for i in range(size)])
        metrics = experience_metrics(outcomes, quality(outcomes, QualityWeights()))
        return {m.name: m for m in metrics if m.unit == "seconds"}

    few, many = latencies(150), latencies(400)
    assert few["latency_seconds_p99"].value == pytest.approx(0.99 * 149)  # linear interpolation
    assert few["latency_seconds_p99"].lower is None
    assert "too few" in few["latency_seconds_p99"].reason
    assert many["latency_seconds_p99"].lower < many["latency_seconds_p99"].value
    assert many["latency_seconds_p99"].upper == 399.0


def test_taking_rows_keeps_all_arrays_together():
    outcomes = joined([interaction("a"), interaction("b", 1)], [event("1", "b", "thumbs", 0.0)])
    taken = outcomes.take(outcomes.thumbs == 0.0)
    assert taken.interaction_ids.tolist() == ["b"]
    assert len(taken) == 1
