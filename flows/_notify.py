"""People are told: what is due goes into the outbox, what is in it goes out.

Monitoring, reminders and the weekly report end here. What only some messages need is imported when
one of them is sent, since monitoring starts a new process every five minutes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from prefect.events import emit_event

from ratchet.analyze.monitoring.alerts import is_fresh
from ratchet.flows._runtime import logger, now, workspace
from ratchet.notify.channels import address_channels, open_channels
from ratchet.notify.messages import Links, Message, alert_message
from ratchet.notify.muting import muted_at, mutes
from ratchet.notify.outgoing import AGAIN, REMINDER, REPORT, STEP, Routes, message_id, news_since
from ratchet.notify.policy import AlertPolicy, load_policy
from ratchet.notify.results import Channel
from ratchet.notify.sending import send_due
from ratchet.records import AlertEvent, BoardState, Delivery, digest
from ratchet.store.outbox import Outgoing
from ratchet.web.links import pages_address


@dataclass(frozen=True, slots=True)
class Told:
    """Who is told, and by which channels.

    Attributes:
        policy: From the file of RATCHET_ALERTS.
        routes: Of the policy and of RATCHET_NOTIFY.
        channels: By key.
    """

    policy: AlertPolicy
    routes: Routes
    channels: dict[str, Channel]


def told() -> Told:
    """Read who is told of what.

    Raises:
        InvalidInputError: The policy breaks a rule.
        SettingsError: A secret is missing, or an address is none.
    """
    settings = workspace().settings
    policy = load_policy(settings.alerts)
    routes = Routes.of(policy, address_channels(settings.notify))
    return Told(policy, routes, open_channels(policy, settings.notify, os.environ))


def send_waiting(whom: Told) -> int:
    """Send what is due; return how many messages arrived."""
    done = send_due(workspace().store, whom.channels, compose, now)
    if done:
        logger.info("messages: %s", ", ".join(f"{count} {how}" for how, count in done.items()))
    return done["sent"]


def tell_prefect() -> None:
    """Emit every step of a day that was not emitted yet."""
    store, moment = workspace().store, now()
    recent = store.records(AlertEvent, since=news_since(moment))
    keys = {event.id: message_id(event.id, digest("prefect")) for event in recent}
    there = store.present(Delivery, list(keys.values()))
    for event in recent:
        if keys[event.id] not in there:
            _emit(event)
            emitted = Delivery(
                id=keys[event.id], created_at=moment, event_id=event.id, channel="prefect",
                delivered=True,
            )  # fmt: skip
            store.append(emitted)


def _emit(event: AlertEvent) -> None:
    board = next(
        iter(workspace().store.records(BoardState, subject=event.model_version, latest=1)), None
    )
    fresh = board is not None and is_fresh(board, event.created_at)
    resource = {
        "prefect.resource.id": f"ratchet.version.{event.model_version}",
        "prefect.resource.name": event.model_version,
        "ratchet.severity": event.severity,
        "ratchet.fresh": str(fresh).lower(),
        "ratchet.kind": event.kind,
    }
    emit_event(f"ratchet.alert.{event.change}", resource=resource, payload=event.canonical())


def compose(taken: Outgoing, moment: datetime) -> Message | None:
    """Make the message of a row of the outbox; None where it is true no more."""
    settings = workspace().settings
    make: Callable[[Outgoing, Links, datetime], Message | None] = _MAKERS[taken.kind]
    return make(taken, Links(pages_address(settings, os.environ)), moment)


def _of_alert(taken: Outgoing, links: Links, moment: datetime) -> Message | None:
    store = workspace().store
    event = store.get(AlertEvent, taken.about)
    if event is None or muted_at(mutes(store), event, moment) is not None:
        return None
    again = taken.kind == AGAIN
    if again:
        of_version = store.records(AlertEvent, subject=event.model_version, latest=1_000)
        steps = [one for one in of_version if one.alert_id == event.alert_id]
        if steps[-1].id != event.id:
            return None  # it changed since, and that is told by itself
    return alert_message(event, key=taken.id, links=links, now=moment, again=again)


def _of_reminder(taken: Outgoing, links: Links, moment: datetime) -> Message | None:
    from ratchet.operate.reminding import reminder_message

    return reminder_message(workspace().store, taken, links=links, now=moment)


def _of_report(taken: Outgoing, links: Links, moment: datetime) -> Message | None:
    from ratchet.web.weekly import report_message

    work = workspace()
    return report_message(
        work.store, taken, assistant=work.settings.model_name, links=links, now=moment
    )


_MAKERS = {STEP: _of_alert, AGAIN: _of_alert, REMINDER: _of_reminder, REPORT: _of_report}
