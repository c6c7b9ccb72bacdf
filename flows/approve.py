"""Approve: a promotion waits for a person, its process freed, in a run of its own.

The gate asks by starting this flow's deployment. The run suspends: its page in the Prefect UI shows
a form with the evidence. Filled in, or resumed by `ratchet approve`, the run goes on, keeps who,
when and why, and acts.
"""

from __future__ import annotations

from itertools import count
from typing import Literal

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from pydantic import BaseModel, ConfigDict, Field

from ratchet.deploy.approval import (
    expire,
    find_decision,
    may_decide,
    say,
    seconds_to_decide,
    standing,
    waiting_decisions,
    waits_for_person,
)
from ratchet.deploy.promotion import apply_decision
from ratchet.errors import InvalidInputError
from ratchet.files.text import cell
from ratchet.flows._canary import start
from ratchet.flows._runtime import logger, now, publish_text, workspace
from ratchet.records import Approval, Decision
from ratchet.views.text.gate import approval_markdown, decision_markdown

DEPLOYMENT = "approve/approve"


class ApproveOptions(BaseModel):
    """Which decision waits.

    Attributes:
        decision: Its id, or a start of it that no other has; empty for the oldest that waits.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    decision: str = ""


DEFAULTS = ApproveOptions()


class Word(RunInput):
    """The form."""

    verdict: Literal["approve", "reject"] = Field(description="What is to happen.")
    reason: str = Field(min_length=1, description="Why.")
    by: str = Field(min_length=1, description="Who you are.")


def ask(decision: Decision) -> None:
    """Start the run that waits, once a decision; without its deployment, say what to do."""
    try:
        run_deployment(
            DEPLOYMENT,
            parameters={"options": {"decision": decision.id}},
            timeout=0,
            as_subflow=False,
            idempotency_key=f"approve-{decision.id}",
            flow_run_name=f"approve {decision.challenger}",
            tags=["approval"],
        )
    except ObjectNotFound:
        logger.info("no deployment waits for a person here (`ratchet up` serves one)")
    logger.warning(
        "%s waits for a person: %s. In the Prefect UI, or: ratchet approve %s",
        decision.challenger,
        decision.approval,
        decision.id[:8],
    )


@flow(name="approve", validate_parameters=True, persist_result=True)
def approve(options: ApproveOptions = DEFAULTS) -> str:
    """Wait for a person's word on a promotion, keep it and act on it; return how it stands."""
    store = workspace().store
    decision = _decision(options)
    expire(store, decision, now())
    if waits_for_person(store, decision):
        word = _wait(decision)
        keep(decision, word.verdict == "approve", word.reason, word.by)
    return settle(decision)


def _wait(decision: Decision) -> Word:
    """Wait for the form, again where somebody filled it in who may not decide."""
    approvers, asked = workspace().settings.approvers, decision.id
    shown = decision_markdown(decision)
    for number in count(1):
        word = suspend_flow_run(
            wait_for_input=Word.with_initial_data(description=shown),
            timeout=seconds_to_decide(decision, now()),
            key=asked,
        )
        if may_decide(word.by, approvers):
            break
        may = ", ".join(map(cell, approvers))
        shown = f"{cell(word.by)} may not decide; {may} may\n\n{decision_markdown(decision)}"
        asked = f"{decision.id}-{number}"
    return word


@task(name="keep-word", cache_policy=NO_CACHE)
def keep(decision: Decision, approved: bool, reason: str, by: str) -> None:
    """Store what the form says; a word that was given before stands."""
    store = workspace().store
    if waits_for_person(store, decision):
        say(
            store,
            decision,
            approved=approved,
            by=by,
            reason=reason,
            via="prefect",
            now=now(),
            approvers=workspace().settings.approvers,
        )


@task(name="act-on-word", cache_policy=NO_CACHE)
def settle(decision: Decision) -> str:
    """Promote what was approved, or begin to roll it out, once."""
    work = workspace()
    apply_decision(work.store, work.tracker, decision, now(), answering=work.answering)
    start(decision)
    approval = work.store.get(Approval, decision.id)
    if approval is not None:
        publish_text("approval", approval_markdown(decision, approval), f"On {decision.challenger}")
    state = standing(work.store, decision)
    logger.warning("%s: %s", decision.challenger, state)
    return state


def _decision(options: ApproveOptions) -> Decision:
    store = workspace().store
    if options.decision:
        return find_decision(store.records(Decision), options.decision)
    waiting = waiting_decisions(store)
    if not waiting:
        raise InvalidInputError(
            "an approval needs a decision that waits, got none; run deploy first"
        )
    return waiting[0]
