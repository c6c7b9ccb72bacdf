"""A person's approval of a promotion: asked for, given once, kept with who, when and why.

A decision that waits for a person is acted on when somebody approves it. A rejection, or no answer
in time, leaves the champion where it is. A decision is approved or rejected once: the same answer
again changes nothing, and the opposite is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Literal

from ratchet.errors import ConflictError, InvalidInputError
from ratchet.records import Approval, Decision
from ratchet.store import EventStore

EXPIRY = "expiry"
ANY_NUMBER = 1_000


def waits_for_person(store: EventStore, decision: Decision) -> bool:
    """Tell whether a promotion waits for a person who has not answered yet."""
    return _asked(decision) and store.get(Approval, decision.id) is None


def approved_to_promote(store: EventStore, decision: Decision) -> bool:
    """Tell whether a promotion may be made: nobody had to approve it, or somebody did."""
    if not _asked(decision):
        return decision.verdict == "promote"
    approval = store.get(Approval, decision.id)
    return approval is not None and approval.approved


def standing(store: EventStore, decision: Decision) -> Literal["waiting", "approved", "rejected"]:
    """Say how a decision that asks for a person stands."""
    approval = store.get(Approval, decision.id)
    if approval is None:
        return "waiting"
    return "approved" if approval.approved else "rejected"


def waiting_decisions(store: EventStore) -> tuple[Decision, ...]:
    """Return the decisions that wait for a person, the oldest first."""
    decisions = store.records(Decision, latest=ANY_NUMBER)
    return tuple(one for one in decisions if waits_for_person(store, one))


def seconds_to_decide(decision: Decision, now: datetime) -> int:
    """Return for how many seconds a person may still decide, at least 1."""
    left = (decision.expires_at - now).total_seconds() if decision.expires_at else 0.0
    return max(1, int(left))


def find_decision(decisions: Sequence[Decision], start: str) -> Decision:
    """Return the decision whose id begins so.

    Raises:
        InvalidInputError: None or several do.
    """
    matching = [decision for decision in decisions if start and decision.id.startswith(start)]
    if len(matching) != 1:
        known = ", ".join(decision.id[:8] for decision in decisions) or "none"
        raise InvalidInputError(
            f"a decision must be named by its id or a start of it that no other has, got "
            f"{start!r}; there are: {known}"
        )
    return matching[0]


def may_decide(by: str, approvers: Collection[str]) -> bool:
    """Tell whether somebody may approve or reject: one of the approvers, anybody without any.

    A name is what the person says it is: nothing here proves it.
    """
    return not approvers or by.strip().casefold() in {name.casefold() for name in approvers}


def say(
    store: EventStore,
    decision: Decision,
    *,
    approved: bool,
    by: str,
    reason: str,
    via: Literal["prefect", "command", "page"],
    now: datetime,
    approvers: Collection[str] = (),
) -> Approval:
    """Store that a person approves or rejects a decision, once; what expired stays rejected.

    Raises:
        InvalidInputError: The decision does not wait for a person, a name or reason is missing, or
            the name is none of the approvers, where there are some.
        ConflictError: The opposite is stored already.
    """
    if not _asked(decision):
        raise InvalidInputError(
            "only a promotion that waits for a person can be approved or rejected, got a decision "
            f"to {decision.verdict} that nobody has to approve; set approval in the gate's policy"
        )
    if not by.strip() or not reason.strip():
        raise InvalidInputError(
            f"an approval must say who and why, got {by!r} and {reason!r}; give both"
        )
    if not may_decide(by, approvers):
        raise InvalidInputError(
            f"a promotion is decided by {', '.join(sorted(approvers))}, got {by!r}; ask one of "
            "them, or correct RATCHET_APPROVERS (`approvers` in ratchet.toml)"
        )
    stored = expire(store, decision, now) or store.get(Approval, decision.id)
    if stored is not None:
        if stored.approved != approved:
            answer = "approved" if stored.approved else "rejected"
            raise ConflictError(
                f"a decision is approved or rejected once, got the opposite: it was {answer} by "
                f"{stored.by} at {stored.created_at:%F %H:%M} UTC ({stored.reason}); gate a new "
                "candidate, or roll back"
            )
        return stored
    return _store(store, decision, approved, by.strip(), reason.strip(), via, now)


def expire(store: EventStore, decision: Decision, now: datetime) -> Approval | None:
    """Reject a decision that waited too long; None where it does not wait or still may."""
    late = decision.expires_at is not None and now >= decision.expires_at
    if not late or not waits_for_person(store, decision):
        return None
    reason = f"nobody approved it by {decision.expires_at:%F %H:%M} UTC"
    return _store(store, decision, False, EXPIRY, reason, "expiry", now)


def _store(
    store: EventStore,
    decision: Decision,
    approved: bool,
    by: str,
    reason: str,
    via: Literal["prefect", "command", "page", "expiry"],
    now: datetime,
) -> Approval:
    approval = Approval(
        id=decision.id,
        created_at=now,
        challenger=decision.challenger,
        approved=approved,
        by=by,
        reason=reason,
        via=via,
    )
    store.append(approval)
    return approval


def _asked(decision: Decision) -> bool:
    return decision.verdict == "promote" and decision.approval is not None
