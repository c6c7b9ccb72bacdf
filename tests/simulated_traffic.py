"""Traffic of simulated users in a store, as a gateway would have recorded it before a cycle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from ratchet.collect.ingest import ingest
from ratchet.demo.plan import DemoOptions, plan_visits, read_task, write_examples
from ratchet.models import Completion
from ratchet.records import Cycle, Feedback, Interaction
from ratchet.simulation.routing import record_answers
from ratchet.simulation.traffic import Visit
from ratchet.simulation.users import ReactionRates, react, reaction_rng
from ratchet.store import EventStore

CHATS = "I cannot say."
"""The answer of a model that was not trained to name a queue."""


def record_traffic(
    store: EventStore,
    folder: Path,
    *,
    champion: str = "support-router/1",
    right: float = 0.0,
    **options: Any,
) -> dict[str, Any]:
    """Record what users asked before the next cycle, and what they said of the answers.

    Args:
        store: Gets it.
        folder: Gets the file of examples.
        champion: Who answered.
        right: Share of right answers; the others chat.
        options: Of `DemoOptions`.

    Returns:
        The options of `collect` for that cycle.
    """
    given, now = DemoOptions.model_validate(options), datetime.now(UTC)
    task, _ = read_task(given, now)
    planned = plan_visits(task, given, len(store.records(Cycle)) + 1)
    latest = max(visit.at for visit in planned)
    visits = [replace(visit, at=visit.at + (now - timedelta(minutes=10) - latest))
              for visit in planned]  # fmt: skip
    is_right = np.random.default_rng([given.seed, 2]).random(len(visits)) < right
    said = [
        Completion(visit.truth if good else CHATS, 0.1)
        for visit, good in zip(visits, is_right, strict=True)
    ]
    answers = record_answers(
        visits, said, labels=task.labels, model_version=champion, instruction=given.instruction
    )
    by_id = {answer.id: answer for answer in answers}
    events = reactions(
        visits, by_id, rates=given.reactions, labels=task.labels, seed=given.seed, until=now
    )
    with store.simulating():
        ingest([*answers, *events], store, source="gateway", now=now)
    return {"examples": str(write_examples(task, given.instruction, folder))}


def reactions(
    visits: Sequence[Visit],
    interactions: Mapping[str, Interaction],
    *,
    rates: ReactionRates,
    labels: Sequence[str],
    seed: int,
    until: datetime,
) -> list[Feedback]:
    """Return what the users do about the answers; what would come after `until` comes then."""
    events: list[Feedback] = []
    for visit in visits:
        interaction = interactions[visit.interaction_id]
        rng = reaction_rng(seed, visit.interaction_id)
        events += react(visit, interaction, rates, labels, rng)
    return [
        event.model_copy(update={"created_at": min(event.created_at, until)}) for event in events
    ]
