"""A person's answer on a promotion, kept, acted on and told to the run that waits for it.

done = decide(store, tracker, answering, decision, approved=True, by="ada", reason="read 20",
via="command", approvers=(), now=now)
resume_runs(api, done.approval)
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import httpx

from ratchet.deploy.answering import Answering
from ratchet.deploy.approval import say
from ratchet.deploy.promotion import apply_decision
from ratchet.deploy.refusals import not_acted_on
from ratchet.deploy.rollout.canary import begin_decided
from ratchet.errors import RatchetError
from ratchet.prefect_api import ask
from ratchet.records import Approval, Decision, Release, Rollout
from ratchet.store import EventStore
from ratchet.tracking import Tracker


@dataclass(frozen=True, slots=True)
class Decided:
    """A person's answer and its effect.

    Attributes:
        approval: The answer as it is kept.
        release: The release that it led to.
        rollout: The rollout that it led to.
        says: The effect, in words; empty where there is none, as after a rejection.
    """

    approval: Approval
    release: Release | None
    rollout: Rollout | None
    says: str


def decide(
    store: EventStore,
    tracker: Tracker,
    answering: Answering,
    decision: Decision,
    *,
    approved: bool,
    by: str,
    reason: str,
    via: Literal["command", "page"],
    approvers: Collection[str],
    now: datetime,
) -> Decided:
    """Keep that a person approves or rejects a promotion, and act on it.

    Args:
        store: The store.
        tracker: The registry.
        answering: By what the challenger has to answer before users are sent to it.
        decision: The gate's decision.
        approved: Whether the person approves.
        by: Who.
        reason: Why.
        via: Where the person said it.
        approvers: Who may; anybody where empty.
        now: The time.

    Raises:
        InvalidInputError: As `ratchet.deploy.approval.say`.
        ConflictError: The opposite was said before.
    """
    approval = say(
        store, decision, approved=approved, by=by, reason=reason, via=via, now=now,
        approvers=approvers,
    )  # fmt: skip
    release = apply_decision(store, tracker, decision, now, answering=answering)
    rollout = begin_decided(store, decision, now=now, answering=answering)
    return Decided(approval, release, rollout, _effect(store, decision, release, rollout, approved))


def _effect(
    store: EventStore,
    decision: Decision,
    release: Release | None,
    rollout: Rollout | None,
    approved: bool,
) -> str:
    if rollout is not None:
        return f"{decision.challenger} goes to users in stages: ratchet rollout status"
    if release is not None:
        return f"champion is now {release.champion}"
    if (why := not_acted_on(store, decision)) is not None:
        return why
    if approved:
        return "nothing was promoted: the champion has changed since the decision"
    return ""


def resume_runs(api: str, approval: Approval) -> int:
    """Let the runs that wait for a decision in Prefect go on; return how many did.

    Args:
        api: Prefect's API.
        approval: The answer that they wait for; its id is the decision's.

    Raises:
        RatchetError: Prefect does not answer.
    """
    which = {
        "flow_runs": {"state": {"type": {"any_": ["PAUSED"]}}},
        "deployments": {"name": {"any_": ["approve"]}},
    }
    word = {
        "verdict": "approve" if approval.approved else "reject",
        "reason": approval.reason,
        "by": approval.by,
    }
    runs = [
        run
        for run in _ask(api, "flow_runs/filter", which)
        if run["parameters"]["options"]["decision"] == approval.id
    ]
    for run in runs:
        _ask(api, f"flow_runs/{run['id']}/resume", {"run_input": word})
    return len(runs)


def start_cycle(api: str, *, by: str, reason: str) -> str:
    """Start a run of the deployment `loop`, which opens or goes on with a cycle; return its id.

    Args:
        api: Prefect's API.
        by: Who starts it; part of the run's name.
        reason: Why; stands with the name in the message of its first state, and in its labels.

    Raises:
        RatchetError: Prefect does not answer, or has no such deployment.
    """
    try:
        deployment = ask(api, "GET", "deployments/name/loop/loop").raise_for_status().json()
    except httpx.HTTPError as error:
        raise _away(error) from error
    run = {
        "name": f"started by {by}",
        "state": {"type": "SCHEDULED", "message": f"started by {by}: {reason}"},
        "labels": {"ratchet.by": by, "ratchet.reason": reason},
    }
    return str(_ask(api, f"deployments/{deployment['id']}/create_flow_run", run)["id"])


def _ask(api: str, path: str, body: dict[str, Any]) -> Any:
    try:
        return ask(api, "POST", path, body).raise_for_status().json()
    except httpx.HTTPError as error:
        raise _away(error) from error


def _away(error: httpx.HTTPError) -> RatchetError:
    return RatchetError(
        f"Prefect must answer to start or resume a run, got: {error}; `ratchet up` serves it"
    )
