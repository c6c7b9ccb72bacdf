"""A validation of a source weighs each sampled answer by the chance with which it was drawn."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ratchet.records import JudgeValidation
from ratchet.safety.source_validation import Reviewed, validate_source

NOW = datetime(2026, 3, 2, tzinfo=UTC)
FLAGGED = [f"f-{number}" for number in range(50)]


def reviewed(
    parts: list[tuple[int, int, int, float | None]], decided: int | None = None
) -> Reviewed:
    """Make days of answers, drawn answers and violations among these, with the share of each."""
    looked_at, sampled = list(FLAGGED), list[str]()
    shares: dict[str, float] = {}
    violations = dict.fromkeys(FLAGGED, True)
    for day, (answers, drawn, found, share) in enumerate(parts):
        keys = [f"d{day}-{number}" for number in range(answers)]
        looked_at += keys
        sampled += keys[:drawn]
        shares |= {} if share is None else dict.fromkeys(keys[:drawn], share)
        violations |= {key: number < found for number, key in enumerate(keys[:drawn][:decided])}
    return Reviewed(looked_at, FLAGGED, (), sampled, violations, shares)


def recall(seen: Reviewed) -> tuple[float, float, float]:
    record: JudgeValidation = validate_source("rule", "rule-1", seen, now=NOW)
    figure = record.figure("recall")
    assert figure is not None
    assert figure.value is not None
    assert figure.lower is not None
    assert figure.upper is not None
    return figure.value, figure.lower, figure.upper


def test_a_busy_day_with_a_small_share_counts_as_much_as_its_answers() -> None:
    days = [(1_000, 100, 10, 0.1), (10_000, 100, 1, 0.01)]
    # 50 flagged violations, and 10 / 0.1 + 1 / 0.01 that nobody flagged
    value, lower, upper = recall(reviewed([*days]))
    assert value == pytest.approx(50 / (50 + 100 + 100))
    assert lower < value < upper
    # of equal weight they would be 11 of 200 of 11,000 answers
    equal = recall(reviewed([(a, d, f, 0.05) for a, d, f, _ in days]))[0]
    assert equal == pytest.approx(50 / (50 + 11 / 200 * 11_000))


def test_one_share_gives_what_an_unknown_one_gives_whatever_it_is() -> None:
    unknown = recall(reviewed([(5_000, 100, 2, None)]))
    assert recall(reviewed([(5_000, 100, 2, 0.02)])) == unknown
    assert recall(reviewed([(5_000, 100, 2, 0.5)])) == unknown
    assert unknown[0] == pytest.approx(50 / (50 + 2 / 100 * 5_000))


def test_a_chance_that_is_not_known_is_taken_as_the_greatest_that_is() -> None:
    days = [(1_000, 100, 10, 0.1), (10_000, 100, 1, 0.01), (1_000, 100, 10, None)]
    known = [(1_000, 100, 10, 0.1), (10_000, 100, 1, 0.01), (1_000, 100, 10, 0.1)]
    assert recall(reviewed([*days])) == recall(reviewed([*known]))


def test_what_was_drawn_and_not_decided_weighs_nothing() -> None:
    days = [(1_000, 100, 10, 0.1), (10_000, 100, 10, 0.01)]
    # 40 decided of each: 10 of 40 of 1,000 and 10 of 40 of 10,000
    assert recall(reviewed([*days], decided=40))[0] == pytest.approx(50 / (50 + 11_000 / 4))


def test_more_decided_than_a_share_stands_for_is_no_error() -> None:
    # 30 of 40 drawn at 0.9 stand for 33 answers, 5 at 0.001 for 5,000, of 140 in all
    assert recall(reviewed([(40, 30, 3, 0.9), (100, 5, 1, 0.001)]))[0] > 0.0
