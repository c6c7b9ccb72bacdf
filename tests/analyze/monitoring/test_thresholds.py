import subprocess
import sys
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ratchet.analyze.monitoring import (
    DEFAULT_THRESHOLDS,
    Threshold,
    check_thresholds,
    not_checked,
)
from ratchet.outcomes.join import Outcomes
from ratchet.records import Metric, derive_id
from ratchet.stats.intervals import wilson_lower

NOW = datetime(2026, 11, 24, tzinfo=UTC)


def share(name, successes, trials):
    return Metric(name=name, value=successes / trials, observations=trials)


def checked(*metrics, **options):
    return check_thresholds(
        metrics, model_version="router/1", cycle_id="cycle-1", now=NOW, **options
    )


def outcomes_with(thumbs=(), regenerated=()):
    size = max(len(thumbs), len(regenerated))
    words = np.full(size, "x", dtype=object)
    missing = np.full(size, np.nan)
    start = np.datetime64("2026-11-01T00:00", "us")
    return Outcomes(
        interaction_ids=words,
        created_at=start + np.arange(size) * np.timedelta64(60_000_000, "us"),
        model_versions=words,
        segments=words,
        user_ids=words,
        session_ids=words,
        prompts=words,
        responses=words,
        failed_with_error=np.zeros(size, dtype=bool),
        latency_seconds=missing,
        thumbs=np.array(thumbs, dtype=float) if len(thumbs) else missing,
        stars=missing,
        copied=missing,
        regenerated=np.array(regenerated, dtype=float) if len(regenerated) else missing,
        completed=missing,
        session_seconds=missing,
        judge_scores=missing,
        unsafe=missing,
        corrections=np.full(size, None, dtype=object),
        comments=np.full(size, None, dtype=object),
        edited=missing,
        next_turn=missing,
    )


def test_the_default_thresholds_are_those_of_the_design():
    limits = {item.signal: (item.warning, item.critical) for item in DEFAULT_THRESHOLDS}
    assert limits == {
        "thumbs_down_rate": (0.15, 0.25),
        "regenerate_rate": (0.20, 0.35),
        "safety_violation_rate": (0.001, 0.005),
        "latency_seconds_p99": (2.0, 5.0),
    }


@pytest.mark.parametrize(
    ("successes", "severity", "threshold"), [(45, "warning", 0.15), (80, "critical", 0.25)]
)
def test_a_rate_over_a_threshold_beyond_chance_raises_the_most_severe_alert(
    successes, severity, threshold
):
    (alert,) = checked(share("thumbs_down_rate", successes, 200))
    assert (alert.severity, alert.threshold) == (severity, threshold)
    assert alert.lower == wilson_lower(successes, 200)
    assert (alert.value, alert.observations) == (successes / 200, 200)
    assert alert.id == derive_id("cycle-1", "router/1", "thumbs_down_rate")
    assert alert.created_at == NOW
    assert f"{severity} threshold of {100 * threshold:g} %" in alert.message
    assert "router/1" in alert.message
    assert alert.action


@pytest.mark.parametrize("signal", ["thumbs_down_rate", "regenerate_rate", "safety_violation_rate"])
def test_a_version_that_replaced_none_is_not_told_to_roll_back(signal):
    bad = share(signal, 1_500, 2_000)
    (of_later,), (of_first,) = checked(bad), checked(bad, is_first=True)
    assert (of_later.severity, of_first.severity) == ("critical", "critical")
    assert "roll back" in of_later.action
    assert "roll back" not in of_first.action
    assert of_first.action


def test_a_rate_over_a_threshold_by_chance_alone_is_no_alert():
    assert checked(share("thumbs_down_rate", 18, 100)) == ()


def test_below_the_minimum_sample_nothing_is_said():
    assert checked(share("thumbs_down_rate", 29, 29)) == ()
    assert len(checked(share("thumbs_down_rate", 30, 30))) == 1


@given(st.integers(30, 2_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_there_is_an_alert_exactly_when_the_lower_bound_exceeds_the_warning(count):
    successes, trials = count
    alerts = checked(share("thumbs_down_rate", successes, trials))
    assert bool(alerts) == (wilson_lower(successes, trials) > 0.15)


def test_an_undefined_metric_is_no_alert_and_is_named_as_not_checked():
    metric = Metric(name="safety_violation_rate", value=None, observations=0, reason="no check")
    assert checked(metric) == ()
    reasons = dict(not_checked([metric, share("thumbs_down_rate", 1, 10)]))
    assert reasons["safety_violation_rate"] == "not observed: no check"
    assert reasons["thumbs_down_rate"] == "10 observations, 30 are needed"
    assert reasons["regenerate_rate"] == "not observed: no such metric"


def latency(lower, observations=500):
    return Metric(
        name="latency_seconds_p99",
        value=9.0,
        lower=lower,
        upper=None if lower is None else 12.0,
        observations=observations,
        unit="seconds",
    )


@pytest.mark.parametrize(
    ("baseline", "severities"), [(5.0, []), (3.0, ["warning"]), (1.0, ["critical"])]
)
def test_latency_is_judged_relative_to_its_baseline(baseline, severities):
    alerts = checked(latency(7.0), latency_baseline=baseline)
    assert [alert.severity for alert in alerts] == severities
    for alert in alerts:
        assert alert.threshold == baseline * (2.0 if alert.severity == "warning" else 5.0)


@pytest.mark.parametrize(
    ("metric", "baseline", "reason"),
    [
        (latency(7.0), None, "no baseline"),
        (latency(None), 1.0, "no interval"),
        (latency(7.0, 399), 1.0, "399 observations, 400 are needed"),
    ],
)
def test_latency_without_baseline_interval_or_sample_is_not_checked(metric, baseline, reason):
    assert checked(metric, latency_baseline=baseline) == ()
    assert reason in dict(not_checked([metric], latency_baseline=baseline))["latency_seconds_p99"]


def test_alerts_come_in_the_order_of_the_thresholds_one_a_signal():
    metrics = [share("regenerate_rate", 90, 100), share("thumbs_down_rate", 90, 100)]
    assert [alert.signal for alert in checked(*metrics)] == ["thumbs_down_rate", "regenerate_rate"]
    assert checked(*metrics) == checked(*metrics[::-1])


def test_a_threshold_whose_warning_is_above_its_critical_is_refused():
    with pytest.raises(ValidationError, match="below critical"):
        Threshold(
            signal="x",
            warning=0.3,
            critical=0.2,
            minimum_sample=1,
            warning_action="a",
            critical_action="b",
        )


def test_importing_monitoring_loads_nothing_slow():
    slow = "('sklearn', 'matplotlib', 'torch', 'pandas', 'scipy.stats')"
    code = f"import sys, ratchet.analyze.monitoring; print([m for m in {slow} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_time_of_an_alert_keeps_its_zone():
    (alert,) = checked(share("thumbs_down_rate", 90, 100))
    assert alert.created_at.utcoffset() == timedelta(0)
