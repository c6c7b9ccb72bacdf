"""A cycle of what real users did: what is in the store is learnt from, and nobody is simulated."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ratchet.collect.ingest import ingest
from ratchet.records import (
    Candidate,
    Correction,
    Cycle,
    CycleEnd,
    Decision,
    ExampleSet,
    Feedback,
    Interaction,
    Thumbs,
)
from ratchet.simulation.routing import conversation
from tests.flows.bank import QUEUES, bank_messages
from tests.flows.prefect_home import PrefectHome, new_home, run_python

RECORDED = 120
LOOP = """
import sys
from ratchet.flows.loop import main
for options in sys.argv[1:]:
    print("ended with", main([options]))
"""


pytestmark = pytest.mark.slow  # `test_adopted_loop` runs the like in front of a server


@pytest.fixture(scope="module")
def home(
    tmp_path_factory: pytest.TempPathFactory,
    served_once: Path,
    shared_data: Path,
    tiny_model: Path,
) -> tuple[PrefectHome, str]:
    """A home that serves real users, after five loops, and what they said."""
    folder = tmp_path_factory.mktemp("recorded")
    made = new_home(folder, served_once, RATCHET_BASE_MODEL=str(tiny_model))
    messages = bank_messages(shared_data)
    _fill(made, messages[:RECORDED])
    rows = [
        {
            "id": n,
            "messages": [m.canonical() for m in conversation(QUEUES, text)],
            "target": queue,
        }
        for n, (text, queue) in enumerate(messages[RECORDED : RECORDED + 100])
    ]
    (folder / "examples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recorded = {"examples": str(folder / "examples.jsonl")}
    options = [
        {},
        {"collect": {"source": "simulated"}},
        {"collect": {"messages_limit": 10}},
        {"collect": recorded, "improve": {"finetune": {"epochs": 1.0, "rank": 4}}},
        {"collect": recorded},
    ]
    with made.serving() as environment:
        said = run_python(environment, "-c", LOOP, *map(json.dumps, options))
    return made, said


def _fill(home: PrefectHome, messages: list[tuple[str, str]]) -> None:
    now = datetime.now(UTC)
    events: list[Interaction | Feedback] = []
    for number, (text, queue) in enumerate(messages):
        right = number % 2 == 0
        at, key = now - timedelta(hours=20) + timedelta(minutes=number), f"chatcmpl-{number}"
        events.append(
            Interaction(
                id=key, session_id=key, user_id=f"u{number % 40}", created_at=at,
                model_version="support-router/1", messages=conversation(QUEUES, text),
                response=queue if right else "I cannot say.", latency_seconds=0.1,
            )
        )  # fmt: skip
        about = {"interaction_id": key, "created_at": at + timedelta(minutes=1)}
        events.append(Thumbs(id=f"t{number}", value="up" if right else "down", **about))
        if not right:
            events.append(Correction(id=f"c{number}", value=queue, **about))
    ingest(events, home.store, source="gateway", now=now)


def test_no_option_of_a_cycle_simulates_users(home) -> None:
    made, said = home
    assert "a cycle is about recorded traffic; `ratchet demo` has simulated users talk" in said
    assert "messages_limit" in said
    assert made.store.counts()["interactions"] == RECORDED


def test_without_examples_and_without_a_judge_the_run_waits(home) -> None:
    _, said = home
    assert "waiting: a cycle of recorded traffic waits for" in said
    assert "- a judge of pairs, since the policy is on win_rate" in said


def test_a_challenger_learns_from_what_users_did_and_is_gated_on_the_examples(home) -> None:
    made, _ = home
    (cycle,) = made.store.records(Cycle)
    assert made.store.get(CycleEnd, cycle.id) is not None
    (candidate,) = made.store.records(Candidate)
    (decision,) = made.store.records(Decision)
    assert candidate.cycle_id == decision.cycle_id == cycle.id
    frozen = made.store.get(ExampleSet, cycle.example_set_id)
    assert frozen is not None
    assert len(frozen.examples) == decision.examples == 100


def test_without_new_traffic_the_next_cycle_does_not_begin(home) -> None:
    _, said = home
    assert "- answers that no cycle had: got the last at" in said
    assert [line for line in said.splitlines() if line.startswith("ended with")] == [
        "ended with 0", "ended with 2", "ended with 2", "ended with 0", "ended with 0",
    ]  # fmt: skip
