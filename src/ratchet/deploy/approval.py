"""A person's word on a promotion: asked for, given once, kept with who, when and why.

A decision that waits for a person is acted on when somebody approves it; a rejection, or no word in
time, leaves the champion where it is. The first word stands: saying the same again changes nothing,
saying the opposite is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from ratchet.errors import ConflictError, InvalidInputError
from ratchet.records import Approval, Decision
from ratchet.store import EventStore

EXPIRY = "expiry"
ANY_NUMBER = 1_000


def waits_for_person(store: EventStore, decision: Decision) -> bool:
    """Whether a promotion may be made only after a person's word, which is not there yet."""
    return _asked(decision) and store.get(Approval, decision.id) is None


def approved_to_promote(store: EventStore, decision: Decision) -> bool:
    """Whether a promotion may be made: nobody had to approve it, or somebody did."""
    if not _asked(decision):
        return decision.verdict == "promote"
    said = store.get(Approval, decision.id)
    return said is not None and said.approved


def standing(store: EventStore, decision: Decision) -> Literal["waiting", "approved", "rejected"]:
    """Say how a decision that asks for a person stands."""
    said = store.get(Approval, decision.id)
    if said is None:
        return "waiting"
    return "approved" if said.approved else "rejected"


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
    found = [one for one in decisions if start and one.id.startswith(start)]
    if len(found) != 1:
        known = ", ".join(one.id[:8] for one in decisions) or "none"
        raise InvalidInputError(
            f"a decision must be named by its id or a start of it that no other has, got "
            f"{start!r}; there are: {known}"
        )
    return found[0]


def say(
    store: EventStore,
    decision: Decision,
    *,
    approved: bool,
    by: str,
    reason: str,
    via: Literal["prefect", "command"],
    now: datetime,
) -> Approval:
    """Keep a person's word on a decision, once. After its expiry the word is that it expired.

    Raises:
        InvalidInputError: The decision does not wait for a person, or a name or reason is missing.
        ConflictError: The opposite was said before.
    """
    if not _asked(decision):
        raise InvalidInputError(
            f"only a promotion that waits for a person is approved, got a decision to "
            f"{decision.verdict} that nobody must approve; run the gate under a policy that asks"
        )
    if not by.strip() or not reason.strip():
        raise InvalidInputError(
            f"an approval must say who and why, got {by!r} and {reason!r}; give both"
        )
    stored = expire(store, decision, now) or store.get(Approval, decision.id)
    if stored is not None:
        if stored.approved != approved:
            word = "approved" if stored.approved else "rejected"
            raise ConflictError(
                f"the first word on a decision stands, got the opposite: it was {word} by "
                f"{stored.by} at {stored.created_at:%F %H:%M} UTC ({stored.reason}); gate a new "
                "candidate, or roll back"
            )
        return stored
    said = Approval(
        id=decision.id,
        created_at=now,
        challenger=decision.challenger,
        approved=approved,
        by=by.strip(),
        reason=reason.strip(),
        via=via,
    )
    store.append(said)
    return said


def expire(store: EventStore, decision: Decision, now: datetime) -> Approval | None:
    """Reject a decision that waited too long; None where it does not wait or still may."""
    late = decision.expires_at is not None and now >= decision.expires_at
    if not late or not waits_for_person(store, decision):
        return None
    said = Approval(
        id=decision.id,
        created_at=now,
        challenger=decision.challenger,
        approved=False,
        by=EXPIRY,
        reason=f"nobody approved it by {decision.expires_at:%F %H:%M} UTC",
        via="expiry",
    )
    store.append(said)
    return said


def _asked(decision: Decision) -> bool:
    return decision.verdict == "promote" and decision.approval is not None
