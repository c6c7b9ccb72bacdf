"""The loop of a home that adopted what serves: what it lacks, and whose traffic a cycle has."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ratchet.collect.ingest import ingest
from ratchet.deploy.adoption import adopt, choose, look
from ratchet.deploy.backends import Replicas
from ratchet.records import Analysis, Cycle, Feedback, Interaction, Message, Thumbs
from ratchet.tracking import Tracker
from tests.flows.prefect_home import PrefectHome, new_home, python_process
from tests.servers.vllm_server import VllmServer

BASE = "org/base"
IMPORTS = """
import json, os
from ratchet.flows._runtime import base_folder, register_base, workspace
from ratchet.flows.analyze import AnalyzeOptions, analyze
from ratchet.flows.collect import CollectOptions, collect
from ratchet.flows.loop import main
"""
REFUSED = """
try:
    {}
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.fixture(scope="module")
def told(
    tmp_path_factory: pytest.TempPathFactory, served_once: Path, tiny_model: Path
) -> tuple[PrefectHome, dict[str, str]]:
    """A home after a loop without a champion, one after its adoption, and a first cycle."""
    folder, said = tmp_path_factory.mktemp("adopted"), {}
    examples = folder / "examples.jsonl"
    examples.write_text(json.dumps({"id": "1", "prompt": "x", "target": "y"}) + "\n")
    with VllmServer(BASE, aliases=["assistant"]) as server:
        made = new_home(folder, served_once, RATCHET_BACKEND=server.url)
        _fill(made)
        loop = "print('ended with', main([]))"
        with made.serving() as environment, python_process(environment, IMPORTS) as run:
            said["base"] = run(REFUSED.format("register_base()"))
            said["before"] = run(loop)
            _adopt(made, server)
            said["after"] = run(loop)
            said["weights"] = run(REFUSED.format("base_folder()"))
            run(f"collect(CollectOptions(examples={str(examples)!r}))\nanalyze(AnalyzeOptions())")
            said["versions"] = run("print(len(workspace().tracker._versions()))")
    return made, said


def _fill(home: PrefectHome) -> None:
    """Answers that a gateway recorded under the names that applications asked for."""
    now = datetime.now(UTC)
    events: list[Interaction | Feedback] = []
    for number in range(60):
        at, key = now - timedelta(hours=2) + timedelta(minutes=number), f"chatcmpl-{number}"
        events.append(
            Interaction(
                id=key, session_id=key, user_id=f"u{number % 20}", created_at=at,
                model_version=("gpt-4o", "assistant", "unrelated")[number % 3],
                messages=(Message(role="user", content=f"question {number}"),),
                response="answer", latency_seconds=0.1,
            )
        )  # fmt: skip
        events.append(
            Thumbs(
                id=f"t{number}", interaction_id=key, created_at=at + timedelta(minutes=1),
                value="up" if number % 2 else "down",
            )
        )  # fmt: skip
    ingest(events, home.store, source="gateway", now=now)


def _adopt(home: PrefectHome, server: VllmServer) -> None:
    settings = home.settings
    tracker = Tracker(
        settings.tracking_uri, artifacts=settings.artifacts, model_name=settings.model_name
    )
    with Replicas.of([server.url], key=None) as replicas:
        served = look(replicas)
    adopt(
        home.store, tracker, choose(served, BASE), served, also=["gpt-4o"], by="ann",
        now=datetime.now(UTC),
    )  # fmt: skip


def test_no_base_model_is_registered_in_front_of_a_server(told) -> None:
    _, said = told
    assert said["base"].startswith("InvalidInputError a cycle needs a champion, got none in front")
    assert "ratchet adopt --backend URL" in said["base"]
    assert said["versions"].strip().splitlines()[-1] == "1"  # what was adopted, and nothing else


def test_a_loop_says_all_that_it_lacks_at_once_before_anything_moves(told) -> None:
    _, said = told
    for when in ("before", "after"):
        assert "ended with 0" in said[when]  # it waits, and has not failed
        assert "- a judge of pairs, since the policy is on win_rate" in said[when]
    assert "- a champion: got none in front of" in said["before"]
    assert "- a champion: got none in front of" not in said["after"]
    assert "- a base model to train from: the weights of org/base" in said["after"]


def test_the_default_base_model_is_not_taken_for_the_weights_of_what_serves(told) -> None:
    _, said = told
    assert said["weights"].startswith("InvalidInputError the weights of org/base must be named")


def test_the_first_cycle_sees_what_was_recorded_under_other_names_of_the_champion(told) -> None:
    made, _ = told
    (cycle,) = made.store.records(Cycle)
    assert (cycle.champion, set(cycle.also)) == (BASE, {"assistant", "gpt-4o"})
    analysis = made.store.latest(Analysis)
    assert analysis is not None
    assert analysis.model_version == BASE
    thumbs = next(metric for metric in analysis.metrics if metric.name == "thumbs_down_rate")
    assert thumbs.observations == 40  # of gpt-4o and assistant, not of the unrelated one
