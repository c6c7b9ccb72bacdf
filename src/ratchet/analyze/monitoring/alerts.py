"""The life of an alert: opened once, updated, acknowledged, resolved.

An alert is a chain of events in the journal; nothing is overwritten. The same trouble on the next
pass is the same alert: it is updated where what it says has changed, and says nothing otherwise.

Four makers raise alerts, and each words its own:

- a version's board, and its watch over the feedback pipeline: `_from_finding` here;
- a fixed threshold: `thresholds.check_thresholds` (message), `records.signals.Limits` (action) and
  `alert_steps.from_threshold` (certainty);
- a failure cluster: `ratchet.analyze.failures.emerging`;
- a rollout that is aborted: `ratchet.deploy.rollout.abort_alert`.

`send_alerts` of the flow `_watch` sends, as `ratchet.notify` words, routes and delivers;
`ratchet.views.text.cycle` prints. The threshold alerts of a cycle are listed and never sent, and an
aborted rollout's is sent by the next pass of monitoring.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from ratchet.analyze.alert_steps import (
    by_hand,
    from_threshold,
    later,
    next_step,
    open_alerts,
    standing,
)
from ratchet.analyze.monitoring.board import Budget
from ratchet.records import Alert, AlertEvent, BoardState, Finding, derive_id
from ratchet.records.signals import BOARD_SHARES, READ_CLUSTERS, words_of

__all__ = [
    "FRESH",
    "SEVERE",
    "board_events",
    "by_hand",
    "is_fresh",
    "later",
    "next_step",
    "open_alerts",
    "seeks_cluster",
    "standing",
    "threshold_events",
]

FRESH = timedelta(hours=24)
SOUGHT_AT_ONCE = timedelta(hours=1)
SEVERE = 1.5
"""A rate whose lower bound is this many times the expected one is critical."""

_SHARES = {share.name: share for share in BOARD_SHARES}


def board_events(
    board: BoardState,
    finding: Finding | None,
    known: Sequence[AlertEvent],
    *,
    previous: str | None,
    budget: Budget,
    now: datetime,
    cluster: str | None = None,
) -> tuple[AlertEvent, ...]:
    """Return what a board's state adds to the life of its alert.

    Args:
        board: The board after this pass.
        finding: What is worse where the board is in alarm, else None.
        known: The events so far, of all alerts.
        previous: The version to go back to, if there is one.
        budget: How often the board may raise a false alarm; the alert says so.
        now: When.
        cluster: The failure cluster that most of the trouble is about.
    """
    current = next(
        (
            event
            for event in open_alerts(known)
            if event.model_version == board.model_version and event.kind in ("board", "pipeline")
        ),
        None,
    )
    if finding is None:
        return () if current is None else (_resolved(current, now),)
    event = _from_finding(board, finding, current, previous, budget, now, cluster)
    if current is not None and _says_the_same(current, event):
        return ()
    return (event,)


def threshold_events(
    alerts: Iterable[Alert],
    known: Sequence[AlertEvent],
    *,
    model_version: str,
    now: datetime,
    unchecked: Collection[str] = (),
) -> tuple[AlertEvent, ...]:
    """Return what a check against the fixed thresholds adds.

    Args:
        alerts: What is over a threshold now.
        known: The events so far.
        model_version: The version that was checked.
        now: When.
        unchecked: Signals that there was too little of to check: their alerts stand as they are.
    """
    current = {
        event.signal: event
        for event in open_alerts(known)
        if event.kind == "threshold" and event.model_version == model_version
    }
    over = {alert.signal: alert for alert in alerts}
    current_events = [from_threshold(alert, current.get(name), now) for name, alert in over.items()]
    ended = [
        _resolved(event, now)
        for name, event in current.items()
        if name not in over and name not in unchecked
    ]
    return tuple(
        event
        for event in (*current_events, *ended)
        if event.signal not in current
        or event.change == "resolved"
        or event.severity != current[event.signal].severity
    )


def is_fresh(board: BoardState, now: datetime) -> bool:
    """Tell whether a version has been in use for less than a day."""
    return now - board.opened_at < FRESH


def seeks_cluster(known: Sequence[AlertEvent], now: datetime) -> bool:
    """Tell whether this pass looks for the failure cluster that a version's trouble is about.

    Looking loads a model of language. A pass looks until the alert stands for an hour without a
    change, so that what the first answers do not show yet is found; then one pass an hour does.

    Args:
        known: The version's alerts that are open, with their latest step.
        now: When.
    """
    steps = [event.created_at for event in known if event.kind == "board"]
    return not steps or now - max(steps) < SOUGHT_AT_ONCE or now.minute < 5


def _from_finding(
    board: BoardState,
    finding: Finding,
    current: AlertEvent | None,
    previous: str | None,
    budget: Budget,
    now: datetime,
    cluster: str | None,
) -> AlertEvent:
    pipeline = _SHARES[finding.signal].group == "pipeline"
    kind = "pipeline" if pipeline else "board"
    severity = _severity(finding, pipeline)
    alert_id = current.alert_id if current else derive_id("alert", board.model_version, kind, now)
    change = later(current)
    return AlertEvent(
        id=derive_id(alert_id, change, now),
        alert_id=alert_id,
        created_at=now,
        change=change,
        kind=kind,
        severity=severity,
        model_version=board.model_version,
        signal=finding.signal,
        segment=finding.segment,
        cluster=cluster,
        since=finding.since,
        value=finding.events / finding.trials if finding.trials else finding.expected,
        lower=finding.lower,
        upper=finding.upper,
        expected=finding.expected,
        observations=finding.trials,
        certainty=(
            f"the board as a whole raises a false alarm at most once in {budget.days:g} days on "
            f"average; evidence is {_times(finding)} the threshold"
        ),
        message=_message(board, finding, cluster),
        action=_action(board, finding, previous, severity, now),
        by=current.by if current else None,
        note=current.note if current else None,
    )


def _severity(finding: Finding, pipeline: bool) -> Any:
    if pipeline:
        return "warning"
    large = finding.lower >= SEVERE * finding.expected
    return "critical" if large or _SHARES[finding.signal].critical else "warning"


def _message(board: BoardState, finding: Finding, cluster: str | None) -> str:
    share = finding.events / finding.trials if finding.trials else 0.0
    where = f" in segment {finding.segment}" if finding.segment else ""
    about = f", mostly about {cluster}" if cluster else ""
    also = f"; also worse: {', '.join(map(words_of, finding.also))}" if finding.also else ""
    return (
        f"{board.model_version}{where}: {finding.says} {share:.1%} "
        f"({finding.lower:.1%} to {finding.upper:.1%}) where {finding.expected:.1%} is normal, "
        f"since about {finding.since:%Y-%m-%d %H:%M} UTC, {finding.trials} observations"
        f"{about}{also}"
    )


def _action(
    board: BoardState, finding: Finding, previous: str | None, severity: str, now: datetime
) -> str:
    group = _SHARES[finding.signal].group
    if group == "pipeline":
        return "check that the application still sends feedback; quality cannot be seen meanwhile"
    from_release = finding.since - board.opened_at < timedelta(hours=1)
    if from_release and previous and is_fresh(board, now):
        return f"roll back to {previous}: it began with this release (`ratchet rollback`)"
    if group == "service":
        return "check load, timeouts and the server's log; roll back if a release is the cause"
    if severity == "critical":
        return "read the top failure clusters and start an improvement cycle on them today"
    return READ_CLUSTERS


def _times(finding: Finding) -> str:
    factor = finding.log_evidence - finding.log_threshold
    return (
        "more than 1,000 times" if factor > 6.9 else f"{2.718281828 ** max(0.0, factor):.3g} times"
    )


def _says_the_same(current: AlertEvent, event: AlertEvent) -> bool:
    """Tell whether an update would tell people nothing new."""
    moved = (
        current.since is not None
        and event.since is not None
        and abs(current.since - event.since) > timedelta(hours=1)
    )
    same = (current.severity, current.signal, current.segment, current.cluster) == (
        event.severity,
        event.signal,
        event.segment,
        event.cluster,
    )
    return same and not moved


def _resolved(current: AlertEvent, now: datetime) -> AlertEvent:
    return next_step(current, "resolved", now, by=None, note="back to normal")
