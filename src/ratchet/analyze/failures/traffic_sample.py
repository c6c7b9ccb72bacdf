"""A held-out sample of a cycle's traffic, frozen before anything is trained on.

    frozen = freeze_traffic(store, cycle, outcomes, explicit, most=200, withheld=withheld, now=now)

What a user asked is in it as a whole or not at all, and examples keep whose they are, so that the
gate counts users. No training set may hold its prompts or anything close to them; other messages of
its users may be trained on. Only interactions whose right answer is known are of use, corrected and
well-rated ones: no random part of all traffic, so take the sample for a guardrail, not for how good
a model is.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

import numpy as np

from ratchet.analyze.failures.analysis import ReadTexts
from ratchet.analyze.failures.profile import right_is_known
from ratchet.analyze.failures.regression_sets import Known, known_answers, permitted, user_digest
from ratchet.outcomes.join import FloatArray, Outcomes
from ratchet.records import Cycle, Example, ExampleSet, derive_id, digest
from ratchet.store import EventStore

TRAFFIC = "traffic"
"""What policies call the set."""
HELD_OUT = 0.2
"""Share of a cycle's users that may be held out."""
LATEST_SETS = 200
LOOKED_AT = 50_000
"""Interactions whose right answer is known that a sample is drawn from: their texts are read."""


def freeze_traffic(
    store: EventStore,
    cycle: Cycle,
    outcomes: Outcomes,
    explicit: FloatArray,
    *,
    most: int,
    withheld: Collection[str],
    now: datetime,
    texts: ReadTexts = lambda outcomes: outcomes,
    looked_at: int = LOOKED_AT,
) -> ExampleSet | None:
    """Freeze the cycle's sample, once; None where no right answer is known.

    Args:
        store: The store.
        cycle: The cycle.
        outcomes: Its interactions.
        explicit: What users said the answers are worth, shape (n,).
        most: Examples at most.
        withheld: Ids of interactions that wait for review or were found unsafe.
        now: The time.
        texts: Reads the texts of outcomes; by default they are there.
        looked_at: Of the interactions whose right answer is known so many at most, the newest.
    """
    frozen = traffic_set(store, cycle)
    if frozen is not None or most < 1:
        return frozen
    rows = np.flatnonzero(right_is_known(outcomes, explicit))[-looked_at:]
    found = texts(outcomes.take(rows))
    known = known_answers(range(len(found)), found, explicit[rows], withheld=withheld)
    held = sample_users(permitted(store, known), cycle.id, most=most)
    interactions = store.stored_interactions([item.interaction_id for item in held])
    examples = tuple(
        Example(
            id=derive_id(TRAFFIC, item.interaction_id),
            messages=interactions[item.interaction_id].messages,
            target=item.target,
            user_id=user_digest(item.user),
        )
        for item in held
        if item.interaction_id in interactions
    )
    if not examples:
        return None
    made = ExampleSet.freeze(_name(cycle), examples, now)
    store.append(made)
    return made


def traffic_set(store: EventStore, cycle: Cycle) -> ExampleSet | None:
    """Return the cycle's sample, if one was frozen."""
    found = store.records(ExampleSet, latest=LATEST_SETS)
    return next((item for item in reversed(found) if item.name == _name(cycle)), None)


def sample_users(known: Sequence[Known], key: str, *, most: int) -> tuple[Known, ...]:
    """Return what belongs to a share of users, in an order that only a digest decides."""
    users = sorted({item.user for item in known}, key=lambda user: digest([key, user]))
    chosen = set(users[: int(HELD_OUT * len(users))])
    return tuple(item for item in known if item.user in chosen)[:most]


def _name(cycle: Cycle) -> str:
    return f"{TRAFFIC}-{cycle.id[:12]}"
