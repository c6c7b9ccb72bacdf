"""What people are not told of for a while: one alert, a kind of alert, or all of them.

    mute(store, "3f9c2a1b", hours=4, by="ada", reason="the vendor mends it", now=now)

A mute silences; it changes nothing about an alert, which stays open on every page. Once it is over,
people are told of what is still open and nobody looks after.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

from ratchet.analyze.alert_steps import known_alerts, open_alerts
from ratchet.errors import InvalidInputError
from ratchet.notify.runbooks import ALERT_KINDS
from ratchet.records import AlertEvent, AlertMute, derive_id
from ratchet.store import EventStore

ALL: Final = "all"
LONGEST = timedelta(days=31)
_KNOWN = 1_000


def mutes(store: EventStore) -> tuple[AlertMute, ...]:
    """Return what was muted and unmuted, in the order in which it was."""
    return store.records(AlertMute, latest=_KNOWN)


def muted_at(known: Iterable[AlertMute], alert: AlertEvent, at: datetime) -> AlertMute | None:
    """Return the mute that an alert was, or is, under at a time; None where people are told.

    Args:
        known: What was muted, in order.
        alert: Any step of the alert.
        at: The time.
    """
    latest: dict[str, AlertMute] = {}
    for one in known:
        if one.about in (alert.alert_id, alert.kind, ALL) and one.created_at <= at:
            latest[one.about] = one
    standing = [one for one in latest.values() if one.until > at]
    return max(standing, key=lambda one: one.until, default=None)


def standing_mutes(known: Iterable[AlertMute], now: datetime) -> tuple[AlertMute, ...]:
    """Return the mutes that hold now."""
    latest = {one.about: one for one in known}
    return tuple(one for one in latest.values() if one.until > now)


def mute(
    store: EventStore, about: str, *, hours: float, by: str, reason: str, now: datetime
) -> AlertMute:
    """Have people not be told of something for some hours.

    Args:
        store: The store.
        about: An open alert by the start of its id, a kind of alert, or `all`.
        hours: For how long.
        by: Who.
        reason: Why.
        now: When.

    Raises:
        InvalidInputError: Nothing is named so, or the time or the reason is none.
    """
    if not 0.0 < hours <= LONGEST / timedelta(hours=1):
        raise InvalidInputError(
            f"a mute must last more than 0 and at most {LONGEST // timedelta(hours=1)} hours, got "
            f"{hours:g}; an alert that does not matter is resolved, or its route changed"
        )
    if not reason.strip():
        raise InvalidInputError("a mute must have a reason, got none; write one")
    known = open_alerts(known_alerts(store))
    return _keep(store, _named(about, known), now + timedelta(hours=hours), by, reason, now)


def unmute(store: EventStore, about: str, *, by: str, reason: str, now: datetime) -> AlertMute:
    """End a mute before its time.

    Raises:
        InvalidInputError: Nothing of this name is muted.
    """
    standing = [
        one for one in standing_mutes(mutes(store), now) if about and one.about.startswith(about)
    ]
    if len(standing) != 1:
        raise InvalidInputError(
            f"what is unmuted must name one mute that holds, got {about!r}, which names "
            f"{len(standing)}; `ratchet alerts routes` lists them"
        )
    return _keep(store, standing[0].about, now, by, reason, now)


def _named(about: str, known: Sequence[AlertEvent]) -> str:
    if about in (ALL, *ALERT_KINDS):
        return about
    found = [one.alert_id for one in known if about and one.alert_id.startswith(about)]
    if len(found) != 1:
        raise InvalidInputError(
            f"a mute must name one open alert by its id, {ALL}, or a kind among "
            f"{', '.join(ALERT_KINDS)}, got {about!r}, which names {len(found)} alerts; "
            "`ratchet alerts` lists them"
        )
    return found[0]


def _keep(
    store: EventStore, about: str, until: datetime, by: str, reason: str, now: datetime
) -> AlertMute:
    made = AlertMute(
        id=derive_id("mute", about, until, now),
        created_at=now,
        about=about,
        until=until,
        by=by,
        reason=reason,
    )
    store.append(made)
    return made
