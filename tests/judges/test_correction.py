"""A judge's rate corrected by labels of people on a random part."""

from __future__ import annotations

import math

import numpy as np

from ratchet.judges.correction import corrected_rate


def test_a_lenient_judge_is_corrected_and_its_own_rate_has_no_interval():
    # 4,000 items of which 60 % are right; the judge passes all of them and half of the wrong ones
    rng = np.random.default_rng(1)
    truth = (rng.random(4_000) < 0.6).astype(float)
    verdicts = np.where(truth == 1.0, 1.0, (rng.random(4_000) < 0.5).astype(float))
    labels = np.where(np.arange(4_000) < 200, truth, math.nan)
    found = corrected_rate(labels, verdicts)
    judge, human, corrected = found.figures
    assert abs((judge.value or 0.0) - 0.8) < 0.03
    assert (judge.lower, judge.upper) == (None, None)
    assert human.observations == 200
    assert (corrected.lower or 1.0) < 0.6 < (corrected.upper or 0.0)
    width = (corrected.upper or 0.0) - (corrected.lower or 0.0)
    assert width < (human.upper or 0.0) - (human.lower or 0.0)


def test_it_says_how_many_more_labels_settle_the_question():
    labels = [1.0] * 12 + [0.0] * 8 + [math.nan] * 980
    verdicts = [1.0] * 10 + [0.0] * 10 + [1.0] * 500 + [0.0] * 480
    found = corrected_rate(labels, verdicts)
    assert found.settles.startswith("whether it is above 0.5: 79 more labels")  # labels_needed


def test_too_few_labels_are_a_reason_and_no_number():
    (only,) = corrected_rate([1.0] + [math.nan] * 9, [1.0] * 10).figures
    assert only.value is None
    assert "needs 10 labelled examples" in (only.reason or "")
    assert corrected_rate([1.0] + [math.nan] * 9, [1.0] * 10).as_json()["settles"] == ""
