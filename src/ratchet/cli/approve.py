"""`ratchet approve`: a person's word on a promotion that waits for one."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Annotated

import typer

from ratchet.cli.shared import current_settings, nothing_stored, open_tracker
from ratchet.errors import InvalidInputError
from ratchet.settings import Settings


def approve(
    decision: Annotated[
        str, typer.Argument(help="Id of the decision, or its start; none lists what waits.")
    ] = "",
    approved: Annotated[
        bool | None, typer.Option("--approve/--reject", help="What is to happen.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why.")] = "",
    by: Annotated[str, typer.Option(help="Who you are; default: $USER.")] = "",
) -> None:
    """List the promotions that wait for a person, or approve or reject one."""
    from ratchet.deploy.approval import expire, find_decision, say, waiting_decisions
    from ratchet.deploy.promotion import apply_decision
    from ratchet.deploy.rollout.canary import begin_decided
    from ratchet.records import Decision
    from ratchet.store import EventStore
    from ratchet.views.text.gate import approval_markdown, decision_markdown

    settings, now = current_settings(), datetime.now(UTC)
    if nothing_stored(settings):
        raise InvalidInputError(
            f"an approval needs a home folder with a store, got none in {settings.home.name!r}; "
            "run it where `ratchet demo` ran, or set RATCHET_HOME"
        )
    store = EventStore.open(settings.store_url)
    for late in waiting_decisions(store):
        expire(store, late, now)
    if not decision:
        waiting = waiting_decisions(store)
        print("\n\n".join(f"{one.id[:8]}\n{decision_markdown(one)}" for one in waiting) or "none")
        return
    if approved is None:
        raise InvalidInputError("say which it is, got neither --approve nor --reject; add one")
    found = find_decision(store.records(Decision), decision)
    who = by or os.environ.get("USER", "")
    said = say(store, found, approved=approved, by=who, reason=reason, via="command", now=now)
    tracker = open_tracker(settings)
    release = apply_decision(store, tracker, found, now)
    rollout = begin_decided(store, found, now=now)
    print(approval_markdown(found, said))
    if rollout is not None:
        print(f"{found.challenger} goes to users by stages: ratchet rollout")
    elif release is not None:
        print(f"champion is now {release.champion}")
    elif approved:
        print("nothing was promoted: there was a rollback or another promotion since")
    _resume(settings, found.id)


def _resume(settings: Settings, decision_id: str) -> None:
    """Let the run that waits in Prefect go on, where a server of this home runs."""
    from ratchet.servers import answering_prefect, child_environment

    if answering_prefect(settings) is None:
        return
    os.environ.update(child_environment(settings, os.environ))
    from ratchet.flows.approve import resume

    if resume(decision_id):
        print("the run that waited for it goes on")
