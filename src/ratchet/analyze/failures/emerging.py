"""Failure clusters as alerts: one opens with a new cluster, and is resolved when it is gone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Literal

from ratchet.analyze.failures.regression_sets import safety_related
from ratchet.analyze.monitoring.alerts import later, next_step, open_alerts
from ratchet.files.text import counted
from ratchet.records import (
    AlertEvent,
    EarlierCluster,
    FailureCluster,
    derive_id,
)

SIGNAL = "failure_cluster"
_ENDED = {"gone": "no longer fails more than the rest", "merged": "merged"}
"""Trends that end a cluster's alert, and what it then says."""


def cluster_events(
    clusters: Sequence[FailureCluster],
    earlier: Iterable[EarlierCluster],
    known: Sequence[AlertEvent],
    *,
    model_version: str,
    first_run: bool,
    now: datetime,
) -> tuple[AlertEvent, ...]:
    """Return what an analysis adds to the life of the clusters' alerts.

    A cluster that no earlier run knew, or that grows beyond chance, opens an alert; one that is
    gone or merged resolves its own. In the first run all clusters are new, which is no news: only
    those that are about safety open one then.

    Error rate: where nothing depends on what users ask, any alert is opened in at most 2 % of
    analyses (`ratchet.analyze.failures.excess.scan`); one for growth in about 5 % a known cluster
    and analysis (the 95 % interval of the difference).

    Args:
        clusters: What was found.
        earlier: What was found before and not now.
        known: The events so far, of all alerts.
        model_version: The version whose traffic was analyzed.
        first_run: Whether no earlier run has been.
        now: When.
    """
    open_now = {event.alert_id: event for event in open_alerts(known) if event.kind == "cluster"}
    events = []
    for cluster in clusters:
        current = open_now.get(_alert_id(cluster.id))
        news = cluster.trend in ("new", "growing") and not first_run
        opens = current is None and (news or safety_related(cluster))
        if opens or (current is not None and current.severity != _severity(cluster)):
            events.append(_event(cluster, current, model_version, now))
    for lost in earlier:
        current = open_now.get(_alert_id(lost.id))
        if current is not None and lost.trend in _ENDED:
            note = _ENDED[lost.trend]
            events.append(next_step(current, "resolved", now, by=None, note=note))
    return tuple(events)


def _alert_id(cluster_id: str) -> str:
    return derive_id("alert", SIGNAL, cluster_id)


def _severity(cluster: FailureCluster) -> Literal["warning", "critical"]:
    return "critical" if safety_related(cluster) else "warning"


def _event(
    cluster: FailureCluster, current: AlertEvent | None, model_version: str, now: datetime
) -> AlertEvent:
    alert_id, change = _alert_id(cluster.id), later(current)
    lower, upper = cluster.interval
    growth = "new" if cluster.trend in ("new", "split") else cluster.trend
    rest = "" if cluster.rest_rate is None else f" where {cluster.rest_rate:.0%} of the rest do"
    safety = f", {cluster.safety} of them unsafe" if cluster.safety else ""
    action = (
        "its typical answers wait for review; nothing is trained on it before they are decided"
        if safety_related(cluster)
        else "read its examples; the next training set is asked for answers to them"
    )
    stands = f"p = {cluster.p_value:.2g} among all groups" if cluster.p_value is not None else ""
    return AlertEvent(
        id=derive_id(alert_id, change, now),
        alert_id=alert_id,
        created_at=now,
        change=change,
        kind="cluster",
        severity=_severity(cluster),
        model_version=model_version,
        signal=SIGNAL,
        cluster=cluster.name,
        by=current.by if current else None,
        note=current.note if current else None,
        since=cluster.first_seen,
        value=cluster.failure_rate,
        lower=lower,
        upper=upper,
        expected=cluster.rest_rate or 0.0,
        observations=cluster.interactions or cluster.size,
        certainty=(
            "where failures do not depend on the message, any cluster is reported in at most 2 % "
            f"of analyses; {stands}"
        ),
        message=(
            f"{model_version}: {growth} failure cluster {cluster.name!r}: "
            f"{cluster.failure_rate:.0%} ({lower:.0%} to {upper:.0%}) of "
            f"{cluster.interactions or cluster.size} interactions fail{rest}, "
            f"{counted(cluster.users or 0, 'user')}{safety}"
        ),
        action=action,
    )
