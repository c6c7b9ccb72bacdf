"""The audit trail: what people and Ratchet did, from the records that say so.

    for entry in trail(store, since=since, until=until, kind="approval"):
        print(entry.at, entry.by, entry.action, entry.about)

Log-ins, accounts and what is done on the pages are `AuditEntry` records. A decision, an approval by
command or by Prefect's form, a release, a rollout's end, a key, an erasure and an export are
records of their own, and are read from these. An action of a page writes both at one time, by which
they are known as one.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args

from ratchet.files.text import counted, harmless_cell, one_line
from ratchet.records import (
    AlertEvent,
    ApiKey,
    ApiKeyRevocation,
    Approval,
    DataExport,
    Decision,
    Erasure,
    Record,
    Release,
    Rollout,
    RolloutStop,
    SignalDeclaration,
    SignalSwitch,
    VariantTestEnd,
)
from ratchet.records.accounts import AuditEntry
from ratchet.store import EventStore
from ratchet.views.words import RELEASES

Kind = Literal[
    "decision", "approval", "release", "rollout", "alert", "key", "erasure", "export", "signal",
    "account", "sign-in", "cycle", "refusal", "other",
]  # fmt: skip
KINDS: tuple[Kind, ...] = get_args(Kind)
RATCHET = "Ratchet"
"""Who does what no person does."""
_UNSAID = ""
_KIND_OF_ACTION: dict[str, Kind] = {
    "approve": "approval", "reject": "approval", "roll back": "release", "stop rollout": "rollout",
    "acknowledge": "alert", "resolve": "alert", "make key": "key", "revoke key": "key",
    "new secret of tokens": "key", "forget user": "erasure", "look up user": "erasure",
    "switch signal off": "signal", "switch signal on": "signal", "start cycle": "cycle",
    "add account": "account", "make one-time link": "account", "change role": "account",
    "disable account": "account", "enable account": "account", "log-in": "sign-in",
    "log-in by OpenID Connect": "sign-in", "log-out": "sign-in", "first sign-in": "sign-in",
    "one-time link": "sign-in", "refused": "refusal",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that was done, or tried.

    Attributes:
        at: When.
        kind: What it is about.
        by: Who; `Ratchet` for what no person did, empty where that was not kept.
        action: What, in a few words.
        about: Id or name of what it was done to.
        outcome: `done`, `refused` or `failed`.
        reason: Why, or what it did.
        way: Address of a browser, or how it was said otherwise.
        subject: Id of the record that a page shows; empty where there is none.
    """

    at: datetime
    kind: Kind
    by: str
    action: str
    about: str
    outcome: str = "done"
    reason: str = ""
    way: str = ""
    subject: str = ""


def trail(
    store: EventStore, *, since: datetime, until: datetime, kind: str = "", who: str = ""
) -> tuple[Entry, ...]:
    """Return what was done in a time, the newest first.

    Args:
        store: The store.
        since: From when on.
        until: Before when.
        kind: Only entries of this kind; all where empty.
        who: Only what was done by somebody whose name holds this, in any case of letters.
    """
    audited = [_of_audit(one) for one in store.records(AuditEntry, since=since)]
    deeds = {(one.at, one.by) for one in audited if one.outcome == "done"}
    deeds |= {(one.at, _UNSAID) for one in audited if one.outcome == "done"}
    others = (
        entry
        for record, kinds, read in _READERS
        if not kind or kind in kinds
        for entry in read(store.records(record, since=since))
        if (entry.at, entry.by) not in deeds
    )
    found = [
        one
        for one in (*audited, *others)
        if one.at < until and (not kind or one.kind == kind) and who.casefold() in one.by.casefold()
    ]
    # of one moment what was written last comes first
    return tuple(sorted(found, key=lambda one: one.at))[::-1]


def trail_csv(entries: Iterable[Entry]) -> str:
    """Write entries as CSV that no spreadsheet takes for formulas, times in UTC."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(("at", "kind", "by", "action", "about", "outcome", "reason", "way"))
    for one in entries:
        row = (one.kind, one.by, one.action, one.about, one.outcome, one.reason, one.way)
        writer.writerow((one.at.isoformat(), *(harmless_cell(one_line(cell)) for cell in row)))
    return text.getvalue()


# Records as entries -------------------------------------------------------------------------------


def _of_audit(entry: AuditEntry) -> Entry:
    kind = _KIND_OF_ACTION.get(entry.action, "other")
    subject = entry.about if kind in ("approval", "alert") else ""
    return Entry(
        entry.created_at, kind, entry.by, entry.action, entry.about, entry.outcome, entry.reason,
        entry.address, subject,
    )  # fmt: skip


def _decisions(records: Iterable[Decision]) -> Iterator[Entry]:
    for one in records:
        yield Entry(
            one.created_at, "decision", RATCHET, one.verdict, one.challenger,
            reason="; ".join(one.reasons), way="gate", subject=one.id,
        )  # fmt: skip


def _approvals(records: Iterable[Approval]) -> Iterator[Entry]:
    for one in records:
        by = RATCHET if one.via == "expiry" else one.by
        action = "approve" if one.approved else "reject"
        yield Entry(
            one.created_at, "approval", by, action, one.challenger, reason=one.reason, way=one.via,
            subject=one.id,
        )  # fmt: skip


def _releases(records: Iterable[Release]) -> Iterator[Entry]:
    for one in records:
        yield Entry(
            one.created_at, "release", one.by or RATCHET, RELEASES[one.action], one.champion,
            reason=one.note,
        )  # fmt: skip


def _rollouts(records: Iterable[Rollout]) -> Iterator[Entry]:
    for one in records:
        yield Entry(
            one.created_at, "rollout", one.by or RATCHET, "start rollout", one.challenger.version,
            subject=one.id,
        )  # fmt: skip


def _stops(records: Iterable[RolloutStop]) -> Iterator[Entry]:
    for one in records:
        yield Entry(
            one.created_at, "rollout", one.by, "stop rollout", one.id, reason=one.note,
            subject=one.id,
        )  # fmt: skip


def _tests(records: Iterable[VariantTestEnd]) -> Iterator[Entry]:
    for one in records:
        said = f"everybody gets {one.winner or 'the control'}"
        reason = f"{said}: {one.note}" if one.note else said
        yield Entry(
            one.created_at, "rollout", one.by, "end test of variants", one.id, reason=reason
        )


def _alerts(records: Iterable[AlertEvent]) -> Iterator[Entry]:
    """Yield what people did; what Ratchet updates keeps the name of who looks after the alert."""
    known: dict[str, tuple[str | None, str | None]] = {}
    for one in records:
        said = one.by, one.note
        again = one.change == "acknowledged" and known.get(one.alert_id) == said
        if one.by and one.change in ("acknowledged", "resolved") and not again:
            action = "acknowledge" if one.change == "acknowledged" else "resolve"
            yield Entry(
                one.created_at, "alert", one.by, action, one.message, reason=one.note or "",
                subject=one.alert_id,
            )  # fmt: skip
        known[one.alert_id] = said


def _keys(records: Iterable[ApiKey]) -> Iterator[Entry]:
    for one in records:
        said = f"{one.application}: {', '.join(one.roles)}"
        yield Entry(one.created_at, "key", _UNSAID, "make key", one.id, reason=said)


def _revocations(records: Iterable[ApiKeyRevocation]) -> Iterator[Entry]:
    for one in records:
        yield Entry(one.created_at, "key", _UNSAID, "revoke key", one.id)


def _erasures(records: Iterable[Erasure]) -> Iterator[Entry]:
    for one in records:
        state = "" if one.state == "done" else "begun and not finished: "
        sets = counted(len(one.training_sets), "training set")
        said = f"{state}{counted(one.interactions, 'interaction')}, {sets}"
        digest = one.user_digest[:16]
        yield Entry(one.created_at, "erasure", _UNSAID, "forget user", digest, reason=said)


def _exports(records: Iterable[DataExport]) -> Iterator[Entry]:
    for one in records:
        redacted = ", personal data taken out" if one.redacted else ""
        said = f"{counted(one.rows, 'row')} as {one.format}{redacted}"
        yield Entry(
            one.created_at, "export", one.by, f"export {one.kind}", one.out, reason=said,
            way="command",
        )  # fmt: skip


def _switches(records: Iterable[SignalSwitch]) -> Iterator[Entry]:
    for one in records:
        action = f"switch signal {'off' if one.off else 'on'}"
        yield Entry(one.created_at, "signal", one.by, action, one.kind, reason=one.note)


def _declarations(records: Iterable[SignalDeclaration]) -> Iterator[Entry]:
    for one in records:
        yield Entry(
            one.created_at, "signal", one.by, f"declare {one.kind}: {one.reported}",
            one.application, reason=one.note or "", way="command",
        )  # fmt: skip


_READERS: tuple[tuple[type[Record], tuple[Kind, ...], Callable[[Any], Iterator[Entry]]], ...] = (
    (Decision, ("decision",), _decisions),
    (Approval, ("approval",), _approvals),
    (Release, ("release",), _releases),
    (Rollout, ("rollout",), _rollouts),
    (RolloutStop, ("rollout",), _stops),
    (VariantTestEnd, ("rollout",), _tests),
    (AlertEvent, ("alert",), _alerts),
    (ApiKey, ("key",), _keys),
    (ApiKeyRevocation, ("key",), _revocations),
    (Erasure, ("erasure",), _erasures),
    (DataExport, ("export",), _exports),
    (SignalSwitch, ("signal",), _switches),
    (SignalDeclaration, ("signal",), _declarations),
)
