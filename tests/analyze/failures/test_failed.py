"""Which interactions failed: what is said counts, signals count where they leave little doubt."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.analyze.failure_rule import FailureRule
from ratchet.analyze.failures.failed import WIDEST, which_failed, why_failed
from ratchet.outcomes.quality import QualityWeights, quality
from tests.outcomes.made_outcomes import outcomes


def told(rows: list[dict[str, Any]], rule: FailureRule | None = None) -> list[bool | None]:
    """Return per row whether it failed, None where it cannot be told."""
    found, weights = outcomes(rows), QualityWeights()
    verdict = which_failed(found, quality(found, weights), weights, rule or FailureRule())
    return [bool(f) if t else None for f, t in zip(verdict.failed, verdict.told, strict=True)]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"error": True, "thumbs": 1.0}, True),
        ({"unsafe": 1.0, "stars": 5.0}, True),
        ({"thumbs": 0.0, "copied": 1.0, "completed": 1.0}, True),
        ({"corrections": "so"}, True),
        ({"stars": 2.0}, True),
        ({"thumbs": 1.0, "regenerated": 1.0, "completed": 0.0}, False),
        ({"stars": 3.0}, False),
        ({}, None),
        ({"unsafe": 0.0}, None),
    ],
)
def test_what_is_said_counts(row: dict[str, Any], expected: bool | None) -> None:
    assert told([row]) == [expected]


def test_signals_count_where_they_leave_little_doubt() -> None:
    # fewer than 30 interactions with two signals: the widest deviation, 0.5, is taken;
    # 0.8416 x 0.5 = 0.42 for one signal, so that only 0 and 1 are told from the threshold
    assert told([{"regenerated": 1.0}, {"regenerated": 0.0}]) == [True, False]
    # 0.25 against 0.25, mean 1/2: between
    assert told([{"regenerated": 1.0, "copied": 1.0}]) == [None]


def test_the_noise_is_pooled_within_interactions() -> None:
    rows = [{"copied": 1.0, "regenerated": 0.0}] * 20 + [{"copied": 0.0, "regenerated": 0.0}] * 20
    found, weights = outcomes(rows), QualityWeights()
    verdict = which_failed(found, quality(found, weights), weights)
    # closed form: 20 pairs (1, 1) without and 20 pairs (0, 1) with squares of 1/2, one degree each
    assert verdict.noise == pytest.approx(np.sqrt(20 * 0.5 / 40))
    few = outcomes(rows[:29])
    assert which_failed(few, quality(few, weights), weights).noise == WIDEST


def test_more_certainty_tells_fewer() -> None:
    rng = np.random.default_rng(3)
    rows = [
        {name: float(rng.integers(2)) for name in ("copied", "regenerated", "completed")}
        for _ in range(200)
    ]
    counts = [
        sum(answer is not None for answer in told(rows, FailureRule(certainty=certainty)))
        for certainty in (0.5, 0.8, 0.99)
    ]
    assert counts[0] == 200
    assert counts[0] > counts[1] > counts[2]


@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "thumbs": st.sampled_from([0.0, 1.0]),
                "stars": st.sampled_from([1.0, 3.0, 5.0]),
                "copied": st.sampled_from([0.0, 1.0]),
                "completed": st.sampled_from([0.0, 1.0]),
                "unsafe": st.sampled_from([0.0, 1.0]),
                "error": st.booleans(),
            },
        ),
        max_size=40,
    )
)
def test_only_what_is_told_failed(rows: list[dict[str, Any]]) -> None:
    found, weights = outcomes(rows), QualityWeights()
    verdict = which_failed(found, quality(found, weights), weights)
    assert not np.any(verdict.failed & ~verdict.told)
    assert not np.any(verdict.stated & ~verdict.told)
    assert verdict.untold == int((~verdict.told).sum())


def test_a_usable_judge_tells_where_it_weighs() -> None:
    found = outcomes([{"judge_scores": 0.0}, {"judge_scores": 1.0}])
    silent, heard = QualityWeights(), QualityWeights(judge=0.5)
    assert which_failed(found, quality(found, silent), silent).untold == 2
    verdict = which_failed(found, quality(found, heard), heard)
    assert verdict.failed.tolist() == [True, False]
    assert verdict.untold == 0


def test_reasons_are_said_the_strongest_first() -> None:
    rows: list[dict[str, Any]] = [
        {"error": True},
        {"thumbs": 0.0, "corrections": "so", "regenerated": 1.0},
        {"stars": 1.0, "completed": 0.0},
        {"copied": 0.0},
        {"session_seconds": 1.0},
    ]
    found = outcomes(rows)
    assert [why_failed(found, row) for row in range(len(rows))] == [
        "an error in place of an answer",
        "the user corrected it, thumbs down, asked for another answer",
        "1 of 5 stars, the task was not done",
        "not copied",
        "low quality by its signals together",
    ]


def test_rows_can_be_taken() -> None:
    found = outcomes([{"thumbs": 0.0}, {"thumbs": 1.0}])
    taken = found.take(np.array([False, True]))
    assert {item.name: len(getattr(taken, item.name)) for item in dataclasses.fields(taken)} == {
        item.name: 1 for item in dataclasses.fields(taken)
    }
