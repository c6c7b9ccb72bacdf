"""`ratchet approve`: approve or reject a promotion that waits for a person."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Annotated

import typer

from ratchet.cli.saying import say, say_text
from ratchet.cli.shared import (
    By,
    current_settings,
    open_answering,
    open_tracker,
    readable_text,
    required_store,
)
from ratchet.errors import InvalidInputError
from ratchet.settings import Settings


def approve(
    decision: Annotated[
        str,
        typer.Argument(
            help="Id of the decision, or the first characters of the id; without one, list what "
            "waits."
        ),
    ] = "",
    approved: Annotated[
        bool | None, typer.Option("--approve/--reject", help="Promote the challenger, or do not.")
    ] = None,
    reason: Annotated[
        str, typer.Option(help="Why; kept with the approval.", callback=readable_text)
    ] = "",
    by: By = "",
) -> None:
    """List the promotions that wait for a person, or approve or reject one."""
    from ratchet.deploy.approval import expire, find_decision, waiting_decisions
    from ratchet.deploy.approval import say as answer_with
    from ratchet.deploy.promotion import apply_decision
    from ratchet.deploy.refusals import standing_refusal, words
    from ratchet.deploy.rollout.canary import begin_decided
    from ratchet.records import Decision
    from ratchet.views.text.gate import approval_markdown, decision_markdown

    store, settings, now = required_store("an approval"), current_settings(), datetime.now(UTC)
    for waiting in waiting_decisions(store):
        expire(store, waiting, now)
    if not decision:
        texts = [
            f"{waiting.id[:8]}\n{decision_markdown(waiting)}"
            for waiting in waiting_decisions(store)
        ]
        say_text("\n\n".join(texts) or "no promotion waits for approval")
        return
    if approved is None:
        raise InvalidInputError(
            "--approve or --reject must say what to do, got neither --approve nor --reject; add one"
        )
    decided = find_decision(store.records(Decision), decision)
    who = by or os.environ.get("USER", "")
    approval = answer_with(
        store,
        decided,
        approved=approved,
        by=who,
        reason=reason,
        via="command",
        now=now,
        approvers=settings.approvers,
    )
    tracker, answering = open_tracker(settings), open_answering(settings, store)
    release = apply_decision(store, tracker, decided, now, answering=answering)
    rollout = begin_decided(store, decided, now=now, answering=answering)
    say_text(approval_markdown(decided, approval))
    if rollout is not None:
        say(f"{decided.challenger} goes to users in stages: ratchet rollout status")
    elif release is not None:
        say(f"champion is now {release.champion}")
    elif (refusal := standing_refusal(store)) and refusal.decision_id == decided.id:
        say(f"{words(refusal)}; {refusal.stands} stays, and it is tried again by itself")
    elif approved:
        say("nothing was promoted: the champion has changed since the decision")
    _resume(settings, decided.id)


def _resume(settings: Settings, decision_id: str) -> None:
    """Let the run that waits in Prefect go on, where a server of this home runs."""
    from ratchet.servers import answering_prefect, child_environment

    if answering_prefect(settings) is None:
        return
    os.environ.update(child_environment(settings, os.environ))
    from ratchet.flows.approve import resume

    if resume(decision_id):
        say("the Prefect run that waited for it goes on")
