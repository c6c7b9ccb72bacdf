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
    from ratchet.operate.approving import decide, resume_runs
    from ratchet.records import Decision
    from ratchet.servers import answering_prefect
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
    done = decide(
        store,
        open_tracker(settings),
        open_answering(settings, store),
        decided,
        approved=approved,
        by=by or os.environ.get("USER", ""),
        reason=reason,
        via="command",
        approvers=settings.approvers,
        now=now,
    )
    say_text(approval_markdown(decided, done.approval))
    if done.says:
        say(done.says)
    prefect = answering_prefect(settings)
    if prefect is not None and resume_runs(prefect, done.approval):
        say("the Prefect run that waited for it goes on")
