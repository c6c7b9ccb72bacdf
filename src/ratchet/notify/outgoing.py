"""Which messages are due: each step of an alert, and again until somebody looks after it.

Every message has an id made of what it tells of and its channel, so a pass that looks twice, or two
passes at a time, put it into the outbox once.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from ratchet.analyze.alert_steps import open_alerts
from ratchet.notify.muting import muted_at, mutes
from ratchet.notify.policy import AlertPolicy, Route, addresses_route
from ratchet.notify.results import Channel
from ratchet.records import AlertEvent, AlertMute, Delivery, derive_id
from ratchet.records.monitoring import Severity
from ratchet.store import EventStore
from ratchet.store.outbox import OVERTAKEN, Outgoing, last_put, put
from ratchet.views.words import moment

logger = logging.getLogger(__name__)

NEWS = timedelta(days=1)
"""Older events are not sent: a new address gets no history, a dead one is not tried for ever."""
STEP, AGAIN, REMINDER, REPORT = "step", "again", "reminder", "report"
"""What a message is made from: an alert's step, the same once more, what waits, a week."""
_KNOWN: Final = 1_000


@dataclass(frozen=True, slots=True)
class Routes:
    """Who is told of what, with the channels that are open.

    Attributes:
        all: The routes of the policy, and the one of RATCHET_NOTIFY.
        keys: Names of channels, and what tells the messages of each.
    """

    all: tuple[Route, ...]
    keys: Mapping[str, str]

    @classmethod
    def of(cls, policy: AlertPolicy, addresses: Sequence[Channel]) -> Routes:
        """Return the routes of a policy and of the addresses of RATCHET_NOTIFY."""
        keys = {name: name for name in policy.channels}
        numbered = {f"notify-{number}": one.key for number, one in enumerate(addresses, 1)}
        also = (addresses_route(tuple(numbered)),) if numbered else ()
        return cls((*policy.routes, *also), keys | numbered)

    def told(self, kind: str, severity: Severity) -> list[str]:
        """Return the keys of the channels that are told of something, each once."""
        taking = [route for route in self.all if route.takes(kind, severity)]
        return list(dict.fromkeys(self.keys[name] for route in taking for name in route.to))


def news_since(now: datetime) -> datetime:
    """Return the time from which on events are sent to people; older ones are not news."""
    return now - NEWS


def message_id(about: str, channel: str) -> str:
    """Return the id of the message that tells a channel of an alert's step."""
    return derive_id("delivery", about, channel)


def put_alerts(store: EventStore, routes: Routes, now: datetime) -> None:
    """Put into the outbox what people are to be told of alerts now."""
    known, muted = store.records(AlertEvent, latest=_KNOWN), mutes(store)
    worst: dict[str, Severity] = {}
    for event in known:
        if worst.get(event.alert_id) != "critical":
            worst[event.alert_id] = event.severity
    steps = store.records(AlertEvent, since=news_since(now))
    due = [
        *_steps(steps, worst, muted, routes, now),
        *_repetitions(known, muted, routes, now),
    ]
    there = store.present(Delivery, [one.id for one in due])  # sent by an earlier version
    put(store, [one for one in due if one.id not in there])


def put_once(
    store: EventStore,
    routes: Routes,
    *,
    kind: str,
    made_from: str,
    about: str,
    now: datetime,
    every: timedelta | None,
) -> bool:
    """Put a reminder or a report into the outbox, unless one went there lately.

    Args:
        store: The store.
        routes: Who is told of it.
        kind: Of what.
        made_from: What makes its message when it is sent.
        about: Id of what it tells of.
        now: When.
        every: How long after one the next may come; None: there is one alone.

    Returns:
        Whether anything was put there.
    """
    with store.atomic():
        last = last_put(store, made_from, about)
        if last is not None and (every is None or now - last < every):
            return False
        made = [
            Outgoing(
                id=derive_id("delivery", made_from, about, channel, now),
                kind=made_from,
                about=about,
                channel=channel,
                created_at=now,
                expires_at=now + max(NEWS, every or 3 * NEWS),
            )
            for channel in routes.told(kind, "warning")
        ]
        put(store, made)
    return bool(made)


def _steps(
    steps: Iterable[AlertEvent],
    worst: Mapping[str, Severity],
    muted: Sequence[AlertMute],
    routes: Routes,
    now: datetime,
) -> Iterator[Outgoing]:
    """Yield a message for each step; of what is muted one that is never sent.

    Who was told that an alert is critical is told that it is less, and that it is over.
    """
    for event in steps:
        mute = muted_at(muted, event, event.created_at) or muted_at(muted, event, now)
        for channel in routes.told(event.kind, worst.get(event.alert_id, event.severity)):
            made = Outgoing(
                id=message_id(event.id, channel),
                kind=STEP,
                about=event.id,
                channel=channel,
                created_at=now,
                expires_at=event.created_at + NEWS,
            )
            if mute is not None:
                said = f"muted by {mute.by} until {moment(mute.until)}"
                made = replace(made, state=OVERTAKEN, said=said)
            yield made


def _repetitions(
    known: Sequence[AlertEvent], muted: Sequence[AlertMute], routes: Routes, now: datetime
) -> Iterator[Outgoing]:
    """Yield a message for each open alert that nobody looks after and whose time has come.

    One that began or changed while it was muted is told of as soon as the mute is over.
    """
    for event in open_alerts(known):
        if event.change == "acknowledged" or muted_at(muted, event, now) is not None:
            continue
        age, unheard = now - event.created_at, muted_at(muted, event, event.created_at) is not None
        told: dict[str, int] = {}
        for route in routes.all:
            if not route.takes(event.kind, event.severity):
                continue
            hours = route.repeat_hours
            number = int(age / timedelta(hours=hours)) if hours is not None else 0
            if number or unheard:
                for name in route.to:
                    told[routes.keys[name]] = max(number, told.get(routes.keys[name], 0))
        for channel, number in told.items():
            yield Outgoing(
                id=derive_id("delivery", "again", event.id, number, channel),
                kind=AGAIN,
                about=event.id,
                channel=channel,
                created_at=now,
                expires_at=now + NEWS,
            )
