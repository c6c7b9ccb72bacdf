"""A rollout driven by its flow on a real Prefect server and a real registry.

What an interrupted run decided is done by the next one; a rollback by an automation stops it;
another challenger does harm and is aborted with nobody touching it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from mlflow import MlflowClient

from ratchet.deploy.rollout.canary import outcome, start_rollout, take_look
from ratchet.deploy.routing import current_routing, looks_of, running_rollout
from ratchet.records import (
    Decision,
    Delivery,
    Release,
    Rollout,
    RolloutLook,
    RolloutStop,
    Variant,
)
from ratchet.settings import Settings
from ratchet.store import EventStore
from ratchet.tracking import Tracker
from tests.deploy.rollout.served import NEW, NEW_VARIANT, OLD, PLAN, released, serve
from tests.flows.prefect_home import new_home, run_python

pytestmark = pytest.mark.slow
HOUR = timedelta(hours=1)
THIRD = "support-router/3"
ROLLOUT = "from ratchet.flows.rollout import rollout; print('said', rollout())"
ROLL_BACK = """
import sys
from ratchet.flows.rollback import RollbackOptions, rollback
rollback(RollbackOptions(model_version=sys.argv[1]))
"""
START = """
import sys
from ratchet.flows._canary import start
from ratchet.records import Decision
print("started", start.fn(Decision.model_validate_json(sys.argv[1])))
"""


@dataclass(frozen=True)
class Home:
    """A home folder with a Prefect server."""

    settings: Settings
    environment: dict[str, str]
    api: str

    @property
    def store(self) -> EventStore:
        return EventStore.open(self.settings.store_url)

    @property
    def tracker(self) -> Tracker:
        return Tracker(
            self.settings.tracking_uri, artifacts=self.settings.artifacts,
            model_name="support-router",
        )  # fmt: skip

    def run(self, code: str, *arguments: str) -> str:
        return run_python(self.environment, "-c", code, *arguments, seconds=120.0)

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the events with a name; they travel through queues."""
        deadline = time.monotonic() + 20.0
        while True:
            body = {"filter": {"event": {"name": [f"ratchet.rollout.{name}"]}}}
            found = httpx.post(f"{self.api}/events/filter", json=body).json()["events"]
            if found or time.monotonic() > deadline:
                return list(found)
            time.sleep(0.3)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, served_once: Path) -> Iterator[Home]:
    """A champion with traffic; a rollout whose first look was stored and not acted on."""
    fresh = new_home(tmp_path_factory.mktemp("rollout"), served_once)
    with fresh.serving() as environment:
        made = Home(fresh.settings, environment, fresh.servers.prefect_api)
        for name in ("first", "second", "third"):
            made.tracker.register_base(name, digest=name)
        made.tracker.move_champion(OLD, None)
        now = datetime.now(UTC)
        store = made.store
        released(store, now - 3 * HOUR)
        rollout = start_rollout(store, NEW_VARIANT, PLAN, now=now - 3 * HOUR)
        serve(store, current_routing(store), now - 3 * HOUR, hours=1.5, number=1_500)
        look = take_look(store, rollout, now - HOUR)
        assert look.decision == "advance", look.reasons
        yield made


def test_the_next_run_does_what_an_interrupted_one_decided_and_looks_on(home: Home) -> None:
    store = home.store
    rollout = running_rollout(store)
    assert rollout is not None
    assert current_routing(store).variants[0].share == 0.2
    assert "said wait" in home.run(ROLLOUT)
    assert current_routing(store).variants[0].share == 0.5
    looks = looks_of(store, rollout)
    assert [look.decision for look in looks] == ["advance", "wait"]
    (event,) = home.events("advanced")
    assert event["resource"]["prefect.resource.id"] == f"ratchet.rollout.{rollout.id}"
    assert event["resource"]["ratchet.challenger"] == NEW
    assert event["payload"] == looks[0].canonical()


def test_a_run_adds_a_look_and_announces_nothing_twice(home: Home) -> None:
    home.run(ROLLOUT)
    assert len(home.events("advanced")) == 1
    store = home.store
    looks = {look.id for look in store.records(RolloutLook)}
    assert len([d for d in store.records(Delivery) if d.event_id in looks]) == 1
    assert current_routing(store).variants[0].share == 0.5


def test_a_rollback_by_an_automation_stops_the_rollout_and_says_so(home: Home) -> None:
    store = home.store
    rollout = running_rollout(store)
    assert rollout is not None
    home.run(ROLL_BACK, "support-router/77")
    assert running_rollout(store) == rollout
    home.run(ROLL_BACK, NEW)
    assert running_rollout(store) is None
    stop = store.get(RolloutStop, rollout.id)
    assert stop is not None
    assert (stop.by, stop.person) == ("an automation", False)
    assert len(home.events("stopped")) == 1
    champion = home.tracker.champion()
    assert champion is not None
    assert champion.reference == OLD
    assert "said" in home.run(ROLLOUT)  # and there is nothing to look at


def test_a_challenger_that_does_harm_is_aborted_with_nobody_touching_it(
    home: Home, tmp_path: Path
) -> None:
    store, now = home.store, datetime.now(UTC)
    rollout = start_rollout(store, Variant(version=THIRD, share=1.0), PLAN, now=now)
    # as if it had begun two hours ago: what was served since then is in the store
    served = current_routing(store)
    assert served is not None
    earlier = rollout.model_copy(update={"id": "earlier", "created_at": now - 2 * HOUR})
    store.append(RolloutStop(id=rollout.id, created_at=now, by="the test", person=False))
    store.append(earlier)
    routing = served.model_copy(
        update={"id": "earlier", "experiment": "earlier", "created_at": now - 2 * HOUR}
    )
    store.append(routing)
    serve(store, routing, now - 2 * HOUR, hours=1.5, number=1_500, down={"challenger": 0.6})
    assert current_routing(store) == routing
    assert "said abort" in home.run(ROLLOUT)
    assert outcome(store, earlier) == "aborted"
    assert [variant.version for variant in current_routing(store).variants] == [OLD]
    (event,) = home.events("aborted")
    assert "harm: thumbs down" in event["payload"]["reasons"][0]
    found = httpx.post(f"{home.api}/artifacts/latest/filter", json={}).json()
    keys = {item["key"]: item for item in found}
    assert {"rollout", "rollout-looks", "read-out"} <= set(keys)
    assert "**worse**" in keys["rollout"]["data"]
    client = MlflowClient(home.settings.tracking_uri)
    experiment = client.get_experiment_by_name("ratchet")
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    run = runs[f"rollout {THIRD}"]
    assert run.data.tags["ratchet.outcome"] == "aborted"
    words = Path(client.download_artifacts(run.info.run_id, "rollout.md", str(tmp_path)))
    assert "**worse**" in words.read_text("utf-8")


def test_the_gates_decision_starts_a_rollout_once(home: Home) -> None:
    store = home.store
    decision = Decision(
        id="d", cycle_id="c", created_at=datetime.now(UTC), champion=OLD, challenger=NEW,
        verdict="promote", reasons=("better",), primary_metric="exact_match", champion_value=0.1,
        challenger_value=0.8, difference=0.7, interval=(0.6, 0.8), p_value=1e-9, examples=300,
        example_set_id="e", policy={}, evidence={}, rollout=PLAN,
    )  # fmt: skip
    before = len(store.records(Rollout))
    for _ in range(2):
        assert "started id=" in home.run(START, decision.model_dump_json())
    rollouts = store.records(Rollout)
    assert len(rollouts) == before + 1
    assert rollouts[-1].decision_id == "d"
    rejected = decision.model_copy(update={"id": "e", "verdict": "reject"})
    assert "started None" in home.run(START, rejected.model_dump_json())
    assert store.records(Release)[-1].champion == OLD
