"""Steps that could not be taken yet: recorded, told, and tried again.

A version did not answer, or its rollout lacked traffic. The decision stands and the earlier
routing too. `standing_refusal` is what `ratchet status` shows and what the schedule of `rollout`
tries again, until the step is taken or another routing made it void.
"""

from __future__ import annotations

import logging
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from ratchet.deploy.routing import written_after
from ratchet.records import AlertEvent, Decision, Release, Routing, RoutingRefusal, derive_id
from ratchet.store import EventStore

if TYPE_CHECKING:
    from ratchet.deploy.answering import Answering

logger = logging.getLogger(__name__)

Step = Literal["promotion", "rollout", "stage", "alias", "start"]
_SENT = {
    "promotion": "was not promoted",
    "rollout": "was not rolled out",
    "stage": "was not given to more users",
    "alias": "was not made the champion, though the alias in MLflow was moved to it,",
    "start": "was not rolled out",
}
_NEXT = {
    "promotion": "it is promoted by itself",
    "rollout": "its rollout begins by itself",
    "stage": "its rollout goes on by itself",
    "alias": "move the alias again",
}
_ANSWERS = "it was asked and did not answer; no estimate"


def refused(
    store: EventStore,
    answering: Answering | None,
    version: str,
    *,
    step: Step,
    about: str,
    stands: str,
    now: datetime,
    decision_id: str | None = None,
) -> str | None:
    """Return why a version cannot be routed, with record and alert; None where it answers.

    Args:
        store: The store.
        answering: What has to answer; None where nothing is asked.
        version: The version.
        step: What would send users to it.
        about: Id of the decision, look or release that the step is about: one alert each.
        stands: The champion that users have and keep.
        now: The time.
        decision_id: The decision that is tried again later.
    """
    if answering is None:
        return None
    problem = answering.problem(version)
    if problem is None:
        _resolve(store, step, version, about, now)
        return None
    refusal = RoutingRefusal(
        id=derive_id("refusal", step, version, about, problem),
        created_at=now,
        step=step,
        version=version,
        stands=stands,
        reason=problem,
        decision_id=decision_id,
    )
    _keep(store, refusal, about, now)
    return problem


def not_started(store: EventStore, decision: Decision, why: str | None, now: datetime) -> None:
    """Record and tell what a decided rollout still lacks; the numbers in it once a day.

    Args:
        store: The store.
        decision: That decided it.
        why: What it lacks; None: it began.
        now: The time.
    """
    version, about = decision.challenger, decision.id
    if why is None:
        _resolve(store, "start", version, about, now)
        return
    refusal = RoutingRefusal(
        id=derive_id("refusal", "start", version, about, f"{now:%F}"),
        created_at=now,
        step="start",
        version=version,
        stands=decision.champion,
        reason=why,
        decision_id=decision.id,
    )
    _keep(store, refusal, about, now)


def _keep(store: EventStore, refusal: RoutingRefusal, about: str, now: datetime) -> None:
    """Store a refusal once, and open its alert."""
    with store.atomic():
        if store.get(RoutingRefusal, refusal.id) is None:
            store.append(refusal)
        last = _last_step(store, refusal.step, refusal.version, about)
        if last is None or last.change == "resolved":
            store.append(_alert(refusal, about, now))
    logger.warning("%s %s: %s", refusal.version, _SENT[refusal.step], refusal.reason)


def standing_refusal(store: EventStore) -> RoutingRefusal | None:
    """Return the latest refused step, unless another routing or release came after it."""
    overtaken = any(written_after(store, kind, RoutingRefusal) for kind in (Routing, Release))
    return None if overtaken else store.latest(RoutingRefusal)


def decision_to_try_again(store: EventStore) -> Decision | None:
    """Return the latest decision, where it could not be acted on when it was made."""
    refusal, decision = standing_refusal(store), store.latest(Decision)
    if refusal is None or decision is None or refusal.decision_id != decision.id:
        return None
    return decision


def words(refusal: RoutingRefusal) -> str:
    """Return a refusal as a sentence."""
    why = "" if refusal.step == "start" else " since it does not answer"
    return f"{refusal.version} {_SENT[refusal.step]}{why}: {refusal.reason}"


def not_acted_on(store: EventStore, decision: Decision) -> str | None:
    """Return as a sentence why a decision was not acted on yet; None where nothing stands so."""
    refusal = standing_refusal(store)
    if refusal is None or refusal.decision_id != decision.id:
        return None
    return f"{words(refusal)}; {refusal.stands} stays, and it is tried again by itself"


def _alert(refusal: RoutingRefusal, about: str, now: datetime) -> AlertEvent:
    alert_id, starts = _alert_id(refusal.step, refusal.version, about), refusal.step == "start"
    then = (
        "Mend what is named, or wait: its rollout begins by itself once nothing is lacking."
        if starts
        else f"Mend what is named, or stop it; once {refusal.version} answers, "
        f"{_NEXT[refusal.step]}."
    )
    return AlertEvent(
        id=derive_id(alert_id, "opened", now),
        alert_id=alert_id,
        created_at=now,
        change="opened",
        kind="routing",
        severity="warning",
        model_version=refusal.version,
        signal="no rollout" if starts else "no answer",
        since=refusal.created_at,
        value=1.0,
        lower=1.0,
        upper=1.0,
        expected=0.0,
        observations=1,
        certainty="counted; no estimate" if starts else _ANSWERS,
        message=f"{words(refusal)}.",
        action=f"Everybody still has {refusal.stands}. {then}",
    )


def _resolve(store: EventStore, step: Step, version: str, about: str, now: datetime) -> None:
    """End the alert about a step that can be taken now."""
    last = _last_step(store, step, version, about)
    if last is None or last.change == "resolved":
        return
    fields = {"change": "resolved", "created_at": now, "action": "", "by": None, "note": None}
    end = last.model_copy(update=fields | {"id": derive_id(last.alert_id, "resolved", now)})
    store.append(end)


def _last_step(store: EventStore, step: Step, version: str, about: str) -> AlertEvent | None:
    alert_id = _alert_id(step, version, about)
    events = store.records(AlertEvent, subject=version)
    return next((event for event in reversed(events) if event.alert_id == alert_id), None)


def _alert_id(step: Step, version: str, about: str) -> str:
    return derive_id("alert", "refused", step, version, about)
