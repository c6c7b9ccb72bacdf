"""Reminders: what has waited for people longer than stated, and what they are told of it.

remind(store, routes, policy.reminders, now=now)     # puts them into the outbox
reminder_message(store, taken, links=links, now=now)  # says how it stands when it is sent
"""

from __future__ import annotations

from datetime import datetime, timedelta

from ratchet.deploy.approval import waiting_decisions, waits_for_person
from ratchet.files.text import counted
from ratchet.judges.pair_labels import waiting_sheets
from ratchet.notify.messages import Links, Message
from ratchet.notify.outgoing import REMINDER, Routes, put_once
from ratchet.notify.policy import Reminders
from ratchet.notify.runbooks import APPROVAL, LABELS
from ratchet.records import WIN_RATE, Decision
from ratchet.store import EventStore
from ratchet.store.outbox import Outgoing
from ratchet.store.review_items import sources_waiting
from ratchet.views.text.gate import difference
from ratchet.views.words import duration, moment

_QUEUE = "review-queue"
"""What reminders of labels are about: one for all that waits."""


def remind(store: EventStore, routes: Routes, policy: Reminders, *, now: datetime) -> int:
    """Put a reminder into the outbox for each thing that waited too long; return how many."""
    again = timedelta(hours=policy.again_hours)
    due = [
        (APPROVAL, decision.id)
        for decision in waiting_decisions(store)
        if now - decision.created_at >= timedelta(hours=policy.approval_hours)
        and not _is_late(decision, now)
    ]
    oldest = oldest_label(store)
    if oldest is not None and now - oldest >= timedelta(hours=policy.labels_hours):
        due.append((LABELS, _QUEUE))
    return sum(
        put_once(store, routes, kind=kind, made_from=REMINDER, about=about, now=now, every=again)
        for kind, about in due
    )


def oldest_label(store: EventStore) -> datetime | None:
    """Return since when the item that waits longest for a label waits; None where none does."""
    waits = [one.oldest for one in sources_waiting(store) if one.dimension != WIN_RATE]
    waits += [sheet.created_at for sheet, compared in waiting_sheets(store)]
    return min(waits, default=None)


def reminder_message(
    store: EventStore, taken: Outgoing, *, links: Links, now: datetime
) -> Message | None:
    """Return what people are told now of something that waits; None where it waits no more."""
    if taken.about == _QUEUE:
        return _of_labels(store, taken.id, links, now)
    decision = store.get(Decision, taken.about)
    if decision is None or _is_late(decision, now) or not waits_for_person(store, decision):
        return None
    return _of_approval(decision, taken.id, links, now)


def _is_late(decision: Decision, now: datetime) -> bool:
    return decision.expires_at is not None and now >= decision.expires_at


def _of_approval(decision: Decision, key: str, links: Links, now: datetime) -> Message:
    facts = [
        (
            "Waits",
            f"for {duration(now - decision.created_at)}, since {moment(decision.created_at)}",
        ),
        ("Better by", f"{difference(decision)} on {counted(decision.examples, 'example')}"),
        ("Why it waits", decision.approval or "the policy asks for a person"),
    ]
    if decision.expires_at is not None:
        left = f"{moment(decision.expires_at)}, in {duration(decision.expires_at - now)}"
        facts.append(("Rejected", f"without an answer at {left}"))
    facts.append(("What to do", f"approve or reject it, or ratchet approve {decision.id[:8]}"))
    return Message(
        id=key,
        thread=decision.id,
        kind=APPROVAL,
        tone="warning",
        title=f"A promotion waits for you: {decision.challenger}",
        lead=f"The gate would put {decision.challenger} in the place of {decision.champion}.",
        facts=tuple(facts),
        page=links.page("decisions", decision.id),
        runbook=links.page("runbooks", APPROVAL),
        data={"decision": decision.id, "challenger": decision.challenger},
    )


def _of_labels(store: EventStore, key: str, links: Links, now: datetime) -> Message | None:
    oldest = oldest_label(store)
    if oldest is None:
        return None
    facts = [
        (
            f"{one.dimension}, {one.raised_by}",
            f"{counted(one.waiting, 'item')}, the oldest for {duration(now - one.oldest)}",
        )
        for one in sources_waiting(store)
        if one.dimension != WIN_RATE
    ]
    facts += [
        ("pairs", f"{counted(sheet.wanted - compared, 'pair')} of answers that the gate waits for")
        for sheet, compared in waiting_sheets(store)
    ]
    return Message(
        id=key,
        thread=_QUEUE,
        kind=LABELS,
        tone="warning",
        title=f"Items wait for a label, the oldest for {duration(now - oldest)}",
        lead="What waits is not trained on, and a judge or gate that needs these labels waits too.",
        facts=(*facts, ("What to do", "label some of them: the queue shows one after another")),
        page=links.page("review"),
        runbook=links.page("runbooks", LABELS),
        data={"oldest": oldest.isoformat()},
    )
