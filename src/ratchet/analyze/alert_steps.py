"""Alerts in the journal: how each stands, and what a person does to it.

Apart from `alerts`, so that a command which only reads alerts loads no statistics.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from ratchet.errors import InvalidInputError
from ratchet.records import Alert, AlertChange, AlertEvent, Analysis, derive_id
from ratchet.store import EventStore


def standing(events: Iterable[AlertEvent]) -> dict[str, AlertEvent]:
    """Return the latest event of each alert, by alert id, in the order in which they opened."""
    latest: dict[str, AlertEvent] = {}
    for event in events:
        latest[event.alert_id] = event
    return latest


def open_alerts(events: Iterable[AlertEvent]) -> tuple[AlertEvent, ...]:
    """Return the latest event of each alert that is not resolved."""
    return tuple(event for event in standing(events).values() if event.change != "resolved")


def known_alerts(store: EventStore) -> tuple[AlertEvent, ...]:
    """Return the steps of all alerts that a person may look after, for every command alike.

    An alert of the latest analysis of a cycle is one of them, unless monitoring has an open alert
    on the same signal of the same version, or has looked at it since. It is listed and never sent:
    the cycle may be of any length and age, and monitoring checks the last hour by the same
    thresholds and sends what it finds.
    """
    events = store.records(AlertEvent, latest=1_000)
    analysis = store.latest(Analysis)
    watched = {
        (event.model_version, event.signal): event
        for event in standing(events).values()
        if event.kind == "threshold"
    }
    found = []
    for alert in analysis.alerts if analysis else ():
        last = watched.get((alert.model_version, alert.signal))
        if last is None or (last.change == "resolved" and last.created_at < alert.created_at):
            first = from_threshold(alert, None, alert.created_at)
            found.append(first.model_copy(update={"id": alert.id, "alert_id": alert.id}))
    return (*found, *events)


def by_hand(
    known: Iterable[AlertEvent],
    alert_id: str,
    change: AlertChange,
    *,
    by: str,
    note: str | None,
    now: datetime,
) -> AlertEvent:
    """Return the event by which a person acknowledges or resolves an alert.

    Args:
        known: The events so far.
        alert_id: The alert, or the start of its id.
        change: `acknowledged` or `resolved`.
        by: Who.
        note: Why.
        now: When.

    Raises:
        InvalidInputError: No open alert, or more than one, has this id.
    """
    matching = [
        event for event in open_alerts(known) if alert_id and event.alert_id.startswith(alert_id)
    ]
    if len(matching) != 1:
        raise InvalidInputError(
            f"an alert id must name one open alert, got {alert_id!r}, which names {len(matching)}; "
            "`ratchet alerts` lists them"
        )
    return next_step(matching[0], change, now, by=by, note=note)


def later(current: AlertEvent | None) -> AlertChange:
    """Return what an alert's next step is called; what a person acknowledged stays so."""
    if current is None:
        return "opened"
    return "acknowledged" if current.change == "acknowledged" else "updated"


def from_threshold(alert: Alert, current: AlertEvent | None, now: datetime) -> AlertEvent:
    """Return the step of an alert's life that a check against a fixed threshold stands for."""
    alert_id = (
        current.alert_id if current else derive_id("alert", alert.model_version, alert.signal, now)
    )
    change = later(current)
    return AlertEvent(
        id=derive_id(alert_id, change, now),
        alert_id=alert_id,
        created_at=now,
        change=change,
        kind="threshold",
        severity=alert.severity,
        model_version=alert.model_version,
        signal=alert.signal,
        value=alert.value,
        lower=alert.lower,
        upper=max(alert.value, alert.lower),
        expected=alert.threshold,
        observations=alert.observations,
        certainty=(
            "the lower 95 % bound is above the threshold; one check is a false alarm in about 5 % "
            "of cases, repeated checks more often"
        ),
        message=alert.message,
        action=alert.action,
        by=current.by if current else None,
        note=current.note if current else None,
    )


def next_step(
    current: AlertEvent, change: AlertChange, now: datetime, *, by: str | None, note: str | None
) -> AlertEvent:
    """Return an alert's next step that says the same but for who took it and why.

    A resolved alert asks for nothing: its action is empty.
    """
    return current.model_copy(
        update={
            "id": derive_id(current.alert_id, change, now),
            "created_at": now,
            "change": change,
            "action": "" if change == "resolved" else current.action,
            "by": by,
            "note": note,
        }
    )
