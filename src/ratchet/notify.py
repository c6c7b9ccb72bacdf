"""Send alerts to people: Slack, e-mail, webhooks and whatever else Apprise reaches.

`ratchet.analyze.monitoring.alerts` lists who raises and words alerts. Addresses are Apprise's URLs,
for example `slack://...`, `mailtos://...` or `json://host/path`; they hold secrets and are never
logged or stored. The only importer of apprise.

What an alert says quotes names that others chose: it is sent as text, one line a sentence. Apprise
escapes it where a message is HTML; in chats nothing of it is markup, a link in disguise or a call
to everybody (`in_chat`).
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from ratchet.errors import SettingsError
from ratchet.files.text import shown_line, shown_lines
from ratchet.records import AlertEvent, Delivery, derive_id, digest
from ratchet.records.signals import words_of

if TYPE_CHECKING:
    import apprise

logger = logging.getLogger(__name__)

NEWS = timedelta(days=1)
"""Older events are not sent: a new address gets no history, a dead one is not tried for ever."""

_AS_IT_IS = ("json", "xml", "form", "mailto")
"""How the addresses begin of what shows or reads a text as it is; all others are chats."""
_IN_CHAT = str.maketrans("<>[]@`*", "‹›［］＠'∗")
_WORDS = {
    "opened": "new alert",
    "updated": "alert changed",
    "acknowledged": "alert acknowledged",
    "resolved": "alert resolved",
}


def news_since(now: datetime) -> datetime:
    """Return the time from which on events are sent to people; older ones are not news."""
    return now - NEWS


def check_addresses(addresses: Sequence[str]) -> None:
    """Refuse an address that Apprise does not understand, without showing it.

    Raises:
        SettingsError: Apprise does not understand one; the message names it by its number.
    """
    for number, address in enumerate(addresses, 1):
        if len(_target(address)) != 1:
            raise SettingsError(
                f"notify address {number} must be one URL that Apprise knows, got "
                f"{_kind(address)}; for example slack://..., mailtos://... or json://host/path"
            )


def deliver(
    events: Sequence[AlertEvent],
    addresses: Sequence[str],
    *,
    sent: Collection[str],
    now: datetime,
) -> tuple[Delivery, ...]:
    """Send each event to each address once; what fails is recorded, and tried again for a day.

    Args:
        events: What to send; events older than a day are left out.
        addresses: Where to.
        sent: Ids of deliveries that reached their address before, as `delivery_id` gives them.
        now: When.

    Returns:
        The deliveries tried now, arrived or not.
    """
    tried = []
    for event in events:
        if event.created_at < news_since(now):
            continue
        for address in addresses:
            key = delivery_id(event, address)
            if key in sent:
                continue
            arrived = _send(event, address)
            channel = address.partition(":")[0]
            if not arrived:
                logger.warning(
                    "alert %s did not reach %s; it is sent again", event.alert_id, channel
                )
            tried.append(
                Delivery(
                    id=key if arrived else derive_id(key, now),
                    created_at=now,
                    event_id=event.id,
                    channel=channel,
                    delivered=arrived,
                )
            )
    return tuple(tried)


def delivery_id(event: AlertEvent, address: str) -> str:
    """Return the id that the delivery of an event to an address has once it arrived."""
    return derive_id("delivery", event.id, digest(address))


def title_of(event: AlertEvent) -> str:
    """Return an event's headline, such as `m/2: thumbs down, alert changed (critical)`."""
    what = f"{words_of(event.signal)}, {_WORDS[event.change]}"
    return shown_line(f"{event.model_version}: {what} ({event.severity})")


def text_of(event: AlertEvent) -> str:
    """Return what an event says, in four lines at most; a resolved alert asks for nothing."""
    lines = [event.message, f"How sure: {event.certainty}"]
    if event.change != "resolved":
        lines.append(f"What to do: {event.action}")
    if event.note:
        lines.append(f"{event.by or 'Ratchet'}: {event.note}")
    return shown_lines(lines)


def in_chat(text: str) -> str:
    """Return a text in which chats find no markup, no link in disguise and nobody to call.

    >>> in_chat("<!channel> [here](https://evil.example) @everyone")
    '‹!channel› ［here］(https://evil.example) ＠everyone'
    """
    return text.translate(_IN_CHAT)


def _send(event: AlertEvent, address: str) -> bool:
    import apprise

    kinds = {"critical": apprise.NotifyType.FAILURE, "warning": apprise.NotifyType.WARNING}
    kind = apprise.NotifyType.SUCCESS if event.change == "resolved" else kinds[event.severity]
    title, text = title_of(event), text_of(event)
    if not address.lower().startswith(_AS_IT_IS):
        title, text = in_chat(title), in_chat(text)
    as_text = apprise.NotifyFormat.TEXT
    target = _target(address)
    return bool(target.notify(title=title, body=text, body_format=as_text, notify_type=kind))


def _target(address: str) -> apprise.Apprise:
    """Return an Apprise target; it is empty where Apprise does not understand the address."""
    import apprise

    # Apprise's log quotes addresses that it cannot read, secrets and all.
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
    target = apprise.Apprise()
    target.add(address)
    return target


def _kind(address: str) -> str:
    """Describe an address without showing it: a kind that Apprise does not know may be a secret."""
    from apprise.manager_plugins import NotificationManager

    kind, mark, _ = address.partition("://")
    untyped: Any = NotificationManager
    known = bool(mark) and kind.lower() in untyped().schemas()
    return f"one of kind {kind.lower()!r}" if known else "one of an unknown kind"
