"""The state of the home as one screen shows it, from records of the journal and kept counts.

Nothing here reads interactions or feedback: metrics come from the analyses of cycles, evidence from
the boards' alerts, counts from what the store keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from ratchet.analyze.alert_steps import known_alerts, open_alerts
from ratchet.deploy.approval import waiting_decisions
from ratchet.deploy.routing import last_look, running_rollout, running_test, serving_champion
from ratchet.evaluation.directions import direction_of
from ratchet.judges.pair_labels import waiting_sheets
from ratchet.records import (
    WIN_RATE,
    AlertEvent,
    Analysis,
    Approval,
    Candidate,
    Cycle,
    CycleEnd,
    CycleWait,
    Decision,
    FailureCluster,
    LabelSheet,
    Metric,
    PairLabel,
    Record,
    Release,
    ReviewDecision,
    ReviewItem,
    ReviewUndo,
    Rollout,
    RolloutLook,
    RolloutStop,
    Routing,
    TrainingSet,
    VariantTest,
    VariantTestEnd,
)
from ratchet.records.signals import USER_RATES
from ratchet.stats.intervals import Interval
from ratchet.stats.intervals.differences import mover_difference
from ratchet.store import EventStore
from ratchet.store.review_items import Source, sources_waiting
from ratchet.store.waits import latest_wait
from ratchet.views.words import EXPERIENCE
from ratchet.web.refreshing import Kept

WEEK = timedelta(days=7)
_LOOKED_BACK = timedelta(days=21)
_SLACK = timedelta(hours=12)
"""A nightly analysis is some hours more or less than a week after that of a week before."""
_HIGHER: Mapping[str, bool] = {
    **{one.rate.metric: one.rate.of == "good" for one in USER_RATES if one.rate},
    "implicit_quality": True,
    "quality": True,
}
MOST_CLUSTERS = 6
ALERTS = (AlertEvent, Analysis)
"""Records that alerts are made of."""
_WEEK = (Analysis, Decision, Release)
_CHAMPION = (Release, Routing)
_UNDERWAY = (
    Candidate, Cycle, CycleEnd, CycleWait, Decision, Release, Rollout, RolloutLook, RolloutStop,
    Routing, TrainingSet, VariantTest, VariantTestEnd,
)  # fmt: skip
_REVIEWS = (ReviewDecision, ReviewItem, ReviewUndo)
_SHEETS = (CycleEnd, LabelSheet, PairLabel)
_KINDS: set[type[Record]] = {*ALERTS, *_WEEK, *_UNDERWAY, *_REVIEWS, *_SHEETS, Approval}
_TOLD_BY = tuple(_KINDS)


@dataclass(frozen=True, slots=True)
class Change:
    """A metric now and a week before.

    Attributes:
        now: As the latest analysis says.
        before: As the analysis of about a week before said.
        difference: Now minus before, with its interval.
        says: `better`, `worse` or `no difference shown`.
    """

    now: Metric
    before: Metric
    difference: float
    interval: Interval
    says: str


@dataclass(frozen=True, slots=True)
class Week:
    """How the model in front of users did beside a week before.

    Attributes:
        now: The latest analysis.
        before: That of about a week before; None where there is none.
        changes: Metrics that both have.
        decisions: Decisions of this week by which another version was released.
    """

    now: Analysis | None
    before: Analysis | None
    changes: tuple[Change, ...]
    decisions: tuple[Decision, ...]

    @property
    def says(self) -> str:
        """The answer in one word: `better`, `worse`, `mixed`, `same` or `unknown`."""
        found = {change.says for change in self.changes} - {"no difference shown"}
        if not self.changes:
            return "unknown"
        return found.pop() if len(found) == 1 else "mixed" if found else "same"


@dataclass(frozen=True, slots=True)
class Underway:
    """A cycle and what is in front of users beside the champion.

    Attributes:
        cycle: The latest cycle; None before the first.
        ended: How it ended; None while it is open.
        step: What it does or waits for, in words.
        training_set: That of the cycle.
        candidate: That of the cycle.
        decision: That of the cycle.
        rollout: The rollout that runs.
        look: Its last look.
        test: The test of variants that runs.
    """

    cycle: Cycle | None
    ended: str | None
    step: str
    training_set: TrainingSet | None
    candidate: Candidate | None
    decision: Decision | None
    rollout: Rollout | None
    look: RolloutLook | None
    test: VariantTest | None


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits for a person.

    Attributes:
        decisions: Promotions to approve or reject.
        reviews: Other items to review, by who raised them.
        pairs: Sheets of pairs, with how many more are to be compared.
        alerts: How many open alerts nobody looks after.
    """

    decisions: tuple[Decision, ...]
    reviews: tuple[Source, ...]
    pairs: tuple[tuple[str, int], ...]
    alerts: int

    @property
    def anything(self) -> bool:
        """Whether anything waits."""
        return bool(self.decisions or self.reviews or self.pairs or self.alerts)


@dataclass(frozen=True, slots=True)
class Standing:
    """All that the first screen shows."""

    champion: str | None
    release: Release | None
    week: Week
    alerts: tuple[AlertEvent, ...]
    clusters: tuple[FailureCluster, ...]
    underway: Underway
    waiting: Waiting


def standing(store: EventStore, now: datetime, kept: Kept) -> Standing:
    """Return the state of a home.

    Args:
        store: The store.
        now: The time.
        kept: Parts of the state, of which those are gathered anew that another record changes.
    """
    get = partial(kept.get, written=kept.written(_TOLD_BY))
    known = get("alerts", ALERTS, lambda: known_alerts(store))
    alerts = tuple(reversed(open_alerts(known)))
    champion = get("champion", _CHAMPION, lambda: serving_champion(store))
    week = get("week", _WEEK, lambda: week_of(store, now))
    return Standing(
        champion=None if champion is None else champion.version,
        release=get("release", (Release,), lambda: store.latest(Release)),
        week=week,
        alerts=alerts,
        clusters=() if week.now is None else week.now.clusters[:MOST_CLUSTERS],
        underway=get("underway", _UNDERWAY, lambda: underway(store)),
        waiting=waiting(store, alerts, get),
    )


def week_of(store: EventStore, now: datetime) -> Week:
    """Compare the latest analysis with that of about a week before."""
    latest = store.latest(Analysis)
    if latest is None:
        return Week(None, None, (), ())
    start = latest.created_at - WEEK
    earlier = store.records(Analysis, since=start - _LOOKED_BACK)
    before = [one for one in earlier if one.created_at <= start + _SLACK]
    decided = {one.decision_id for one in store.records(Release, since=now - WEEK)}
    decisions = tuple(
        one for one in store.records(Decision, since=now - 2 * WEEK) if one.id in decided
    )
    changes = changes_between(latest, before[-1]) if before else ()
    return Week(latest, before[-1] if before else None, changes, decisions)


def changes_between(now: Analysis, before: Analysis) -> tuple[Change, ...]:
    """Return how each metric of the users' experience changed, where both analyses have it."""
    known = {metric.name: metric for metric in before.metrics}
    found = []
    for name in EXPERIENCE:
        metric = next((one for one in now.metrics if one.name == name), None)
        change = None if metric is None else _change(metric, known.get(name))
        if change is not None:
            found.append(change)
    return tuple(found)


def _change(now: Metric, before: Metric | None) -> Change | None:
    if before is None or now.value is None or before.value is None:
        return None
    if None in (now.lower, now.upper, before.lower, before.upper) or now.level != before.level:
        return None
    assert now.lower is not None
    assert now.upper is not None
    assert before.lower is not None
    assert before.upper is not None
    interval = mover_difference(
        now.value, Interval(now.lower, now.upper, now.level),
        before.value, Interval(before.lower, before.upper, before.level),
    )  # fmt: skip
    higher = _HIGHER.get(now.name, direction_of(now.name))
    says = "no difference shown"
    if higher is not None and 0.0 not in interval:
        says = "better" if (interval.lower > 0.0) == higher else "worse"
    return Change(now, before, now.value - before.value, interval, says)


def wins(cluster: FailureCluster) -> tuple[float, float] | None:
    """Return the ends of what mending a cluster would win; None where they are not known.

    Those of the cluster's failure rate, beside the rate of the rest, which rests on far more.
    """
    if cluster.interactions is None or cluster.rest_rate is None:
        return None
    low, high = cluster.interval
    beyond = (low - cluster.rest_rate, high - cluster.rest_rate)
    return beyond[0] * cluster.interactions, beyond[1] * cluster.interactions


def underway(store: EventStore) -> Underway:
    """Return what is in training, in the gate and in rollout."""
    cycle = store.latest(Cycle)
    rollout = running_rollout(store)
    look = None if rollout is None else last_look(store, rollout)
    test = running_test(store)
    if cycle is None:
        return Underway(None, None, "no cycle yet", None, None, None, rollout, look, test)
    end = store.get(CycleEnd, cycle.id)
    key = cycle.id
    sets, candidates, decisions = (
        [one for one in store.records(TrainingSet, latest=5) if one.cycle_id == key],
        [one for one in store.records(Candidate, latest=5) if one.cycle_id == key],
        [one for one in store.records(Decision, latest=5) if one.cycle_id == key],
    )
    training_set = sets[-1] if sets else None
    candidate = candidates[-1] if candidates else None
    decision = decisions[-1] if decisions else None
    wait = latest_wait(store)
    step = "in training" if training_set is not None else "collects and analyzes"
    if end is not None:
        step = str(end.outcome)
    elif wait is not None:
        step = f"waits for {wait.what}: {wait.message}"
    elif decision is not None:
        step = f"decided: {decision.verdict}"
    elif candidate is not None:
        step = "in the gate"
    return Underway(
        cycle, None if end is None else end.outcome, step, training_set, candidate, decision,
        rollout, look, test,
    )  # fmt: skip


def read_anew(_name: str, _kinds: tuple[type[Record], ...], read: Callable[[], Any]) -> Any:
    """Return what is read just now, for who keeps nothing."""
    return read()


def waiting(store: EventStore, alerts: tuple[AlertEvent, ...], get: Callable[..., Any]) -> Waiting:
    """Return what waits for a person.

    Args:
        store: The store.
        alerts: The open ones.
        get: Keeps what is read, as `Kept.get` does, or `read_anew`.
    """
    asked = get("asked", (Decision, Approval), lambda: waiting_decisions(store))
    sheets = get("sheets", _SHEETS, lambda: waiting_sheets(store))
    sources = get("reviews", _REVIEWS, lambda: sources_waiting(store))
    return Waiting(
        decisions=asked,
        # pairs are counted by their sheets, whether they were put into the queue yet or not
        reviews=tuple(one for one in sources if one.dimension != WIN_RATE),
        pairs=tuple((sheet.id, sheet.wanted - said) for sheet, said in sheets),
        alerts=sum(one.change != "acknowledged" for one in alerts),
    )
