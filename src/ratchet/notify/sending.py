"""Send what is due: each message is taken from the outbox by one process, and what came of it kept.

A message is taken for the time of a lease, sent, and ended in one transaction with the record of
its delivery. Killed before it is sent, it is sent by the next pass; killed after its end is stored,
never again. Killed in between, nobody can know whether it arrived: it is sent again under the same
id, by which mail and webhooks tell a repetition, and says so.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Final, Literal

from ratchet.files.text import printable
from ratchet.notify.messages import Message
from ratchet.notify.results import Channel, Result
from ratchet.records import Delivery, derive_id
from ratchet.store import EventStore
from ratchet.store.outbox import GIVEN_UP, OVERTAKEN, SENT, Outgoing, end, put_off, take

logger = logging.getLogger(__name__)

LEASE = timedelta(minutes=3)
"""Longer than any channel takes for a message: its parts have limits of 10 to 15 seconds."""
FIRST_WAIT, LONGEST_BACKOFF = timedelta(minutes=1), timedelta(hours=1)
_MOST: Final = 1_000
"""Messages of one pass."""

Outcome = Literal["sent", "put off", "given up", "overtaken"]
Compose = Callable[[Outgoing, datetime], Message | None]
"""Makes the message of a row of the outbox; None where it is true no more."""


def send_due(
    store: EventStore,
    channels: Mapping[str, Channel],
    compose: Compose,
    clock: Callable[[], datetime],
) -> Counter[Outcome]:
    """Send what is due, and return how many messages ended how.

    Args:
        store: The store.
        channels: By key.
        compose: Makes a message.
        clock: Tells the time.
    """
    done: Counter[Outcome] = Counter()
    for _ in range(_MOST):
        taken = take(store, now=clock(), lease=LEASE)
        if taken is None:
            break
        done[_deal_with(store, taken, channels.get(taken.channel), compose, clock)] += 1
    return done


def backoff(attempts: int) -> timedelta:
    """Return how long to wait after so many tries: a minute, doubled each time, an hour at most."""
    return min(FIRST_WAIT * (1 << min(attempts - 1, 10)), LONGEST_BACKOFF)


def _deal_with(
    store: EventStore,
    taken: Outgoing,
    channel: Channel | None,
    compose: Compose,
    clock: Callable[[], datetime],
) -> Outcome:
    now = clock()
    if channel is None:
        return _give_up(
            store, taken, "a channel that is gone", "the policy has no such channel", now
        )
    if now >= taken.expires_at:
        said = f"it is no news any more; the last try said: {taken.said or 'nothing'}"
        return _give_up(store, taken, channel.shown, said, now)
    message = compose(taken, now)
    if message is None:
        end(store, taken, OVERTAKEN, now=now, said="it was true no more")
        return "overtaken"
    result = _sent(channel, message, now)
    now = clock()
    if result.arrived:
        with store.atomic():
            if end(store, taken, SENT, now=now, said=result.said or None):
                store.append(_delivery(taken, channel.shown, now, delivered=True))
        return "sent"
    if result.hopeless:
        return _give_up(store, taken, channel.shown, result.said, now)
    return _put_off(store, taken, channel.shown, result, now)


def _sent(channel: Channel, message: Message, now: datetime) -> Result:
    """Send a message; whatever goes wrong with one keeps nothing from the others.

    What an error says may quote an address, so only its kind is told.
    """
    try:
        return channel.send(message, now=now)
    except Exception as error:
        return Result(False, f"failed by {type(error).__name__}")


def _put_off(
    store: EventStore, taken: Outgoing, shown: str, result: Result, now: datetime
) -> Outcome:
    wait = max(backoff(taken.attempts), result.again_after or timedelta(0))
    logger.warning(
        "a message did not reach %s (%s); it is sent again", shown, printable(result.said)
    )
    with store.atomic():
        if put_off(store, taken, until=now + wait, said=result.said):
            store.append(_delivery(taken, shown, now, delivered=False, reason=result.said))
    return "put off"


def _give_up(store: EventStore, taken: Outgoing, shown: str, said: str, now: datetime) -> Outcome:
    logger.error("a message is given up, it did not reach %s (%s)", shown, printable(said))
    with store.atomic():
        if end(store, taken, GIVEN_UP, now=now, said=said):
            store.append(_delivery(taken, shown, now, delivered=False, reason=f"given up: {said}"))
    return "given up"


def _delivery(
    taken: Outgoing, shown: str, now: datetime, *, delivered: bool, reason: str | None = None
) -> Delivery:
    """Return the record of a try; that of an arrival has the message's id, so there is one."""
    return Delivery(
        id=taken.id if delivered else derive_id(taken.id, taken.attempts, now),
        created_at=now,
        event_id=taken.about,
        channel=shown,
        delivered=delivered,
        reason=reason or None,
    )
