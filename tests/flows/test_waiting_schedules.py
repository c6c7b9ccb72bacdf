"""What is shipped does nothing surprising: a run that lacks something ends well and says what."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from ratchet.records import Cycle, CycleEnd, Example, Interaction, Message, Release
from ratchet.store import EventStore
from ratchet.store.cycles import end_cycle, freeze_examples, open_cycle
from tests.flows.prefect_home import ROOT, PrefectHome, new_home, python_process

# test_adopted_loop.py runs a loop that lacks what it needs, test_served_loop.py a schedule
pytestmark = pytest.mark.slow
SCHEDULED = {
    item["name"]: item
    for item in yaml.safe_load((ROOT / "prefect.yaml").read_text("utf-8"))["deployments"]
    if "schedules" in item
}
FIRST = """
import importlib, json
from prefect.client.orchestration import get_client

def states(given):
    said = {}
    for name, (entrypoint, parameters) in json.loads(given).items():
        module, _, function = entrypoint.rpartition(".")
        flow = getattr(importlib.import_module(module), function)
        state = flow(**flow.validate_parameters(parameters), return_state=True)
        with get_client(sync_client=True) as client:
            stored = client.read_flow_run(state.state_details.flow_run_id).state
        said[name] = [stored.type.value, stored.name, stored.message]
    print("SAID", json.dumps(said))
"""
State = tuple[str, str, str]
_QUESTION = (Message(role="user", content="Where is my card?"),)


@dataclass(frozen=True)
class Ran:
    """What the runs ended as: in a fresh home, after simulated users, in one that serves."""

    home: PrefectHome
    fresh: dict[str, State]
    simulated: dict[str, State]
    serving: dict[str, State]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, served_once: Path, tiny_model: Path) -> Ran:
    folder = tmp_path_factory.mktemp("waiting")
    home = new_home(folder, served_once, RATCHET_BASE_MODEL=str(tiny_model))
    shipped = {name: (item["entrypoint"], item["parameters"]) for name, item in SCHEDULED.items()}
    whole: dict[str, Any] = {
        "analyze of a cycle": ("ratchet.flows.analyze.analyze", {"options": {}})
    }
    loop = {"loop": shipped["loop"], "collect": shipped["collect"]}
    with home.serving() as environment, python_process(environment, FIRST) as run:

        def states(of: dict[str, Any]) -> dict[str, State]:
            said = run(f"states({json.dumps(of)!r})")
            line = next(line for line in said.splitlines() if line.startswith("SAID "))
            return {name: tuple(state) for name, state in json.loads(line[5:]).items()}

        fresh = states(shipped | whole)
        nothing_there = (home.store.records(Cycle), home.store.records(Release))
        assert nothing_there == ((), ())
        with SimulatedCycle(home.store):
            simulated = states(loop)
        home.store.add_interactions([_answer("real", datetime.now(UTC) - timedelta(hours=1))])
        return Ran(home, fresh, simulated, states(loop))


class SimulatedCycle:
    """A cycle of simulated users that is under way."""

    def __init__(self, store: EventStore) -> None:
        self.store = store

    def __enter__(self) -> None:
        now = datetime.now(UTC)
        with self.store.simulating():
            self.store.add_interactions([_answer("simulated", now - timedelta(hours=2))])
        asked = Example(id="1", messages=_QUESTION, target="cards")
        examples = freeze_examples(self.store, "held-out", [asked], now)
        self.cycle = open_cycle(
            self.store, champion="support-router/1", options_digest="demo", seed=0,
            example_set_id=examples.id, now=now,
        )  # fmt: skip

    def __exit__(self, *_: object) -> None:
        assert self.store.get(CycleEnd, self.cycle.id) is None, "it goes on"
        end_cycle(self.store, self.cycle, "finished", datetime.now(UTC))


def _answer(key: str, at: datetime) -> Interaction:
    return Interaction(
        id=key, session_id=key, user_id="u", created_at=at, model_version="support-router/1",
        messages=_QUESTION, response="cards",
    )  # fmt: skip


@pytest.mark.slow
def test_every_schedule_ends_well_in_a_fresh_home(ran: Ran) -> None:
    assert set(SCHEDULED) < set(ran.fresh)
    assert {name: state[0] for name, state in ran.fresh.items()} == dict.fromkeys(
        ran.fresh, "COMPLETED"
    )


def test_each_says_what_it_waits_for(ran: Ran) -> None:
    names = {name: state[1] for name, state in ran.fresh.items() if state[1] != "Completed"}
    assert names == {
        "loop": "WaitingForSetup",
        "collect": "WaitingForTraffic",
        "improve": "WaitingForTraffic",
        "deploy": "WaitingForTraffic",
        "analyze of a cycle": "WaitingForTraffic",
    }
    lacks = ran.fresh["loop"][2]
    assert "answers that no cycle had: got none at all" in lacks
    assert "serve users with `ratchet serve`" in lacks
    assert "a judge of pairs" in lacks
    assert "run the stage collect" in ran.fresh["improve"][2]


def test_a_schedule_neither_simulates_users_nor_registers_a_model_in_a_fresh_home(
    ran: Ran,
) -> None:
    assert ran.home.store.counts()["interactions"] == 2  # of this test


def test_the_nightly_loop_leaves_simulated_users_alone(ran: Ran) -> None:
    kinds = {name: state[:2] for name, state in ran.simulated.items()}
    assert kinds == {
        "loop": ("COMPLETED", "WaitingForSetup"),
        "collect": ("COMPLETED", "WaitingForTraffic"),
    }
    assert "drawn from traffic they need 500 answers at least, got 0" in ran.simulated["loop"][2]
    assert "got 0 of 0 users" in ran.simulated["collect"][2]


def test_where_users_are_served_the_nightly_loop_waits_for_examples(ran: Ran) -> None:
    loop, collect = ran.serving["loop"], ran.serving["collect"]
    assert loop[:2] == ("COMPLETED", "WaitingForSetup")
    assert "a judge of pairs" in loop[2]
    assert "they need 500 answers at least, got 1" in loop[2]
    assert collect[:2] == ("COMPLETED", "WaitingForTraffic")
    assert "name a file in collect.examples" in collect[2]
