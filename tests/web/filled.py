"""A home in which much goes on: for the pages' tests and screenshots."""

from __future__ import annotations

from datetime import datetime, timedelta

from ratchet.records import (
    AlertEvent,
    Analysis,
    Candidate,
    Cycle,
    Decision,
    FailureCluster,
    FailureExample,
    Measured,
    Metric,
    Release,
    Rollout,
    RolloutPlan,
    Routing,
    TrainingSet,
    Variant,
)
from ratchet.store import EventStore
from tests.views.text.test_rollouts import look

OLD, NEW = "support-router/1", "support-router/2"
ROLLED = "support-router/3"


MEASURED = (
    Measured(role="primary", name="exact match", metric="exact_match", margin=0.03, champion=0.61,
             challenger=0.72, difference=0.11, interval=(0.06, 0.16), p_shown=0.0004, p_harm=0.9999,
             examples=300, units=300, test="exact McNemar"),
    Measured(role="guardrail", name="latency", metric="latency_seconds", higher_is_better=False,
             margin=0.1, relative=True, champion=0.42, challenger=0.44, difference=0.02,
             interval=(-0.01, 0.05), p_shown=0.01, p_harm=0.2, examples=300, units=300,
             test="paired t"),
)  # fmt: skip


def metric(name: str, value: float, half: float, unit: str = "share") -> Metric:
    """A metric with an interval of equal halves."""
    return Metric.model_validate(
        {"name": name, "value": value, "lower": value - half, "upper": value + half,
         "observations": 900, "unit": unit}
    )  # fmt: skip


def analysis(key: str, at: datetime, version: str, down: float, copied: float) -> Analysis:
    """An analysis with two metrics and a failure cluster."""
    cluster = FailureCluster(
        id="c-parcel", name="parcel, tracking, courier", size=61, interactions=80,
        failure_rate=0.76, rest_rate=0.2, lift=3.1, interval=(0.65, 0.84), share=0.3, excess=45.2,
        stable=True, trend="growing", users=40, examples=("where is my parcel?",),
        beside=(
            FailureExample(interaction_id="i-1", prompt="where is it?", answer="billing",
                           why="thumbs down", better="parcel tracking", source="correction"),
        ),
    )  # fmt: skip
    return Analysis(
        id=key, cycle_id="cycle-1", created_at=at, model_version=version,
        metrics=(metric("thumbs_down_rate", down, 0.02), metric("copy_rate", copied, 0.03)),
        alerts=(), clusters=(cluster,),
    )  # fmt: skip


def decision(at: datetime, **changes: object) -> Decision:
    """A promotion that waits for a person."""
    values = {
        "id": "d-2", "cycle_id": "cycle-1", "created_at": at, "champion": OLD, "challenger": NEW,
        "verdict": "promote", "reasons": ("better by 3 points or more",),
        "primary_metric": "exact_match", "champion_value": 0.61, "challenger_value": 0.72,
        "difference": 0.11, "interval": (0.06, 0.16), "p_value": 0.0001, "examples": 300,
        "example_set_id": "held-out-1", "policy": {}, "evidence": {"unscored": 0.0},
        "approval": "the policy asks for a person", "expires_at": at + timedelta(days=2),
        "level": 0.025, "measured": MEASURED,
    }  # fmt: skip
    return Decision.model_validate(values | changes)


def alert(key: str, at: datetime, **changes: object) -> AlertEvent:
    """The opening of an alert."""
    values = {
        "id": f"{key}-opened", "alert_id": key, "created_at": at, "change": "opened",
        "kind": "board", "severity": "critical", "model_version": OLD, "signal": "thumbs_down",
        "since": at - timedelta(hours=3), "value": 0.31, "lower": 0.27, "upper": 0.35,
        "expected": 0.12, "observations": 481, "certainty": "one false alarm in a year",
        "message": "thumbs down of support-router/1 is 31 % where 12 % is normal",
        "action": "roll back if the rise began with the release",
    }  # fmt: skip
    return AlertEvent.model_validate(values | changes)


def fill(store: EventStore, now: datetime) -> None:
    """Put a champion, a cycle, two analyses, a decision, an alert and a rollout into a store."""
    store.append(Release(id="r-1", created_at=now - timedelta(days=20), action="start",
                         champion=OLD, previous=None))  # fmt: skip
    store.append(
        Cycle(id="cycle-1", number=7, created_at=now - timedelta(hours=5), champion=OLD,
              options_digest="o", seed=0, window_start=now - timedelta(days=1), window_end=now,
              example_set_id="held-out-1")
    )  # fmt: skip
    store.append(analysis("a-1", now - timedelta(days=7, hours=1), OLD, 0.20, 0.30))
    store.append(analysis("a-2", now - timedelta(hours=4), OLD, 0.12, 0.31))
    store.append(
        TrainingSet(id="t-1", cycle_id="cycle-1", created_at=now - timedelta(hours=3), digest="abc",
                    path="datasets/abc", size=320, funnel=(("interactions", 900), ("good", 320)))
    )  # fmt: skip
    store.append(
        Candidate(id="k-1", cycle_id="cycle-1", created_at=now - timedelta(hours=2),
                  model_name="support-router", version="2", adapter_digest="d" * 64, path="x",
                  training_set_id="t-1", run_id="run-1", losses=(2.0, 1.0), training_seconds=9.0)
    )  # fmt: skip
    store.append(decision(now - timedelta(hours=1)))
    store.append(alert("al-1", now - timedelta(hours=2)))


def roll_out(store: EventStore, now: datetime) -> Rollout:
    """Put a running rollout with a look into a store."""
    plan = RolloutPlan()
    rollout = Rollout(
        id="ro-1", created_at=now - timedelta(hours=1),
        champion=Variant(version=OLD, share=0.95, name="champion"),
        challenger=Variant(version=ROLLED, share=0.05, name="challenger"), plan=plan,
        signals=plan.signals[:2],
    )  # fmt: skip
    store.append(rollout)
    store.append(
        Routing(id="routing-1", created_at=now - timedelta(hours=1), experiment="ro-1",
                variants=(rollout.challenger, rollout.champion))
    )  # fmt: skip
    at = now - timedelta(minutes=20)
    changes = {"rollout_id": "ro-1", "model_version": ROLLED, "created_at": at, "until": at}
    store.append(look().model_copy(update=changes))
    return rollout
