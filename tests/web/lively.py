"""What goes on behind the records of `filled`: traffic that boards watch, and a gate's answers."""

from __future__ import annotations

from datetime import datetime, timedelta

from ratchet.analyze.monitoring.watch import watch
from ratchet.deploy.gate.head_to_head import Answers, GateExamples, answer_table
from ratchet.evaluation.paired import question_digest
from ratchet.records import Example, Interaction, Message, Release, ReviewItem
from ratchet.store import EventStore
from ratchet.tracking import EXPERIMENT, FLOW_RUN, Tracker, stage_key
from tests.analyze.monitoring.watched_store import CONFIG, HOUR, READY, traffic
from tests.views.text.test_rollouts import look, readout
from tests.web.filled import OLD, decision, roll_out

BEFORE = "support-router/0"
FLOW = "5f0c7d9e-2f6b-4d3e-9c6f-0a6b1c2d3e4f"
QUEUES = ("billing", "parcel tracking", "returns and refunds", "account and password")
PROBLEMS = (
    "I was charged twice in May, please look at it", "where is my parcel, it said Monday",
    "I want to send the shoes back", "my password is not accepted any more",
)  # fmt: skip


def watched(store: EventStore, now: datetime, hours: int = 12) -> None:
    """Three days of a version, then one that is asked again three times as often, and watched."""
    released = now - hours * HOUR - READY
    begin = released - 72 * HOUR
    for version, start, length, rates in (
        (BEFORE, begin, 72, {}), (OLD, released, hours, {"regenerated": 0.30}),
    ):  # fmt: skip
        answers, feedback = traffic(version, start, length, **rates)
        store.add_interactions(
            [
                one.model_copy(
                    update={"user_id": f"user-{n % 40}", "segment": ("app", "web")[n % 2]}
                )
                for n, one in enumerate(answers)
            ]
        )
        store.add_feedback(feedback)
    store.append(
        Release(id="r-live", created_at=released, action="promote", champion=OLD, previous=BEFORE)
    )
    watch(store, CONFIG, now=released)
    for hour in range(1, hours + 1):
        watch(store, CONFIG, now=released + hour * HOUR + READY)


def rolled(store: EventStore, now: datetime) -> None:
    """A rollout with a look every ten minutes, whose bounds grow narrower."""
    rollout = roll_out(store, now)
    for number in range(2, 6):
        at = now - timedelta(minutes=20 - 4 * number)
        half = 0.09 / number**0.5
        seen = readout(difference=0.012, lower=0.012 - half, upper=0.012 + half, margin=0.02)
        store.append(
            look(
                number, hours=0, id=f"ro-look-{number}", rollout_id=rollout.id, created_at=at,
                model_version=rollout.challenger.version, until=at, interactions=1_100 * number,
                readouts=(seen, readout("failed", "passes", difference=0.001, lower=-half / 4,
                                        upper=half / 4, margin=0.005)),
            )
        )  # fmt: skip


def gate_run(tracker: Tracker, now: datetime, size: int = 60) -> str:
    """Write the run of the decision that waits as the gate does: every answer with its scores.

    Of every ten questions the champion is right on five and the challenger on seven.

    Returns:
        The run's id.
    """
    made = decision(now)
    examples = tuple(
        Example(
            id=f"e-{number:02}",
            messages=(Message(role="user", content=f"{PROBLEMS[number % 4]} (order {number})"),),
            target=QUEUES[number % 4],
        )
        for number in range(size)
    )
    right = {0: range(5), 1: (0, 1, 2, 5, 6, 7, 8)}
    sides = []
    for side in (0, 1):
        texts = {
            question_digest(one): one.target or ""
            if number % 10 in right[side]
            else f"I would say {QUEUES[(number + 1) % 4]}"
            for number, one in enumerate(examples)
        }
        sides.append(Answers(f"digest-{side}", texts, {}))
    table, _ = answer_table(made, GateExamples(golden=examples), (sides[0], sides[1]), None)
    key = stage_key(made.cycle_id, "deploy", made.id)
    with tracker.run(
        EXPERIMENT, key=key, name="cycle 7 deploy", tags={FLOW_RUN: FLOW, "ratchet.stage": "deploy"}
    ) as run:
        run.table(table, "answers.json")
    return run.run_id


def to_review(store: EventStore, now: datetime) -> None:
    """Put an answer into the queue for review."""
    asked = Interaction(
        id="i-review", session_id="s-review", user_id="user-7", created_at=now - timedelta(hours=2),
        model_version=BEFORE, response="Have you tried to turn it off and on again?",
        messages=(
            Message(role="user", content="My router drops the line every evening around eight."),
            Message(role="assistant", content="Which lights are on when it happens?"),
            Message(role="user", content="Power and DSL are green, the internet light is red."),
        ),
    )  # fmt: skip
    store.add_interactions([asked])
    store.append(
        ReviewItem(
            id="review-1", created_at=now - timedelta(hours=1), interaction_id=asked.id,
            dimension="helpfulness", priority="normal", raised_by="low_confidence",
            queue="low_confidence", why="two of three judges disagree",
        )
    )  # fmt: skip
