"""Every flow killed at each task boundary and at each commit within: done once all the same."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from pyarrow import parquet

from ratchet.deploy.approval import say
from ratchet.deploy.rollout.canary import start_rollout, take_look
from ratchet.deploy.routing import current_routing, looks_of, running_rollout, switch
from ratchet.records import (
    Analysis,
    Approval,
    Candidate,
    Cycle,
    CycleEnd,
    Decision,
    Delivery,
    Interaction,
    Message,
    Release,
    Routing,
    TrainingSet,
)
from ratchet.settings import load_settings
from ratchet.store import EventStore
from ratchet.store.history import History
from ratchet.tracking import Tracker
from tests.conftest import MODEL_NAME
from tests.deploy.rollout import served as traffic
from tests.deploy.rollout.served import NEW, NEW_VARIANT, OLD, PLAN, serve
from tests.faults.crashing import ROOT, Crashes, crashes
from tests.faults.ledger import Row
from tests.flows.prefect_home import PrefectHome, new_home
from tests.simulated_traffic import record_traffic

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
MESSAGES = 96
TRAFFIC = {
    "messages_limit": MESSAGES, "held_out": 40, "generated_messages": 400,
    "reactions": {"correction_wrong": 1.0},
}  # fmt: skip
OPTIONS = {
    "improve": {
        "finetune": {"epochs": 6.0, "rank": 4, "batch_size": 8, "learning_rate": 0.02},
        "training": {"samples": 1},
    },
    "deploy": {
        "policy": {  # it learns to name one queue instead of chatting, and is promoted for it
            "primary": {"metric": "length", "higher_is_better": False},
            "minimum_examples": 20,
        },
    },
}  # fmt: skip
STAGE = """
from ratchet.flows.{name} import {name}, {options}
print("{name} gave", {name}({options}.model_validate_json('''{given}''')))
"""
BOUNDARIES = r": begins #"
"""Where a task begins, the one before has ended."""
IN_STORE = (
    r"begins|renames into (adapters|datasets)|"
    r"(finetune|deploy|improve|collect|analyze|approve|rollback): has ended|"
    r"(commits|has committed) (journal|interactions|feedback|store_facts|answers) #|"
    r"finetune: commits latest_metrics #"
)
"""Boundaries, what is done within a task that another process sees, and the midst of training."""
LASTING = IN_STORE + (
    r"|(commits|has committed) (model_versions|model_version_tags|registered_model_aliases) #|"
    r"commits runs #"
)
"""The same, and what MLflow keeps, in a database of its own beside either store."""


def stage(name: str, options: dict[str, Any]) -> str:
    given = json.dumps(options if name == "loop" else options.get(name, {}))
    return STAGE.format(name=name, options=f"{name.capitalize()}Options", given=given)


@pytest.fixture(scope="module")
def served(tmp_path_factory, served_once, tiny_model) -> Iterator[tuple[PrefectHome, Crashes]]:
    folder = tmp_path_factory.mktemp("crashing")
    made = new_home(folder, served_once, RATCHET_BASE_MODEL=str(tiny_model))
    with made.serving() as environment, crashes(environment, folder / "runs") as run:
        yield made, run


@pytest.fixture
def world(served, tmp_path, store_url, mlflow_database, tiny_model):
    """A home of its own on a database of its own, beside the one Prefect server."""
    _, run = served
    home = tmp_path / "home"
    (home / "mlflow").mkdir(parents=True)
    (home / "mlflow" / "mlflow.db").write_bytes(mlflow_database.read_bytes())
    run.folder = tmp_path / "runs"
    run.folder.mkdir()
    run.kills = []
    return World(home, store_url, run, tiny_model)


class World:
    def __init__(self, home: Path, url: str, run: Crashes, model: Path | None = None) -> None:
        self.home, self.url, self.run = home, url, run
        given = {"RATCHET_HOME": str(home), "RATCHET_STORE_URL": url}
        if model is not None:
            given["RATCHET_BASE_MODEL"] = str(model)
        # all of it: the process that forks has the settings of the home beside the Prefect server
        self.environment = load_settings(given, ROOT).environment()

    @property
    def store(self) -> EventStore:
        return EventStore.open(self.url)

    def answered(self) -> dict[str, Any]:
        """Record what users did before the first cycle; return the options of the loop about it."""
        with closing(self.store) as store:
            return OPTIONS | {"collect": record_traffic(store, self.home, **TRAFFIC)}

    @property
    def tracker(self) -> Tracker:
        settings = load_settings(self.environment, ROOT)
        return Tracker(
            settings.tracking_uri, artifacts=settings.artifacts, model_name=settings.model_name
        )


def database_of(world: World) -> str:
    return world.url.partition(":")[0].partition("+")[0]


def check_cycle(world: World) -> tuple[int, int]:
    """See that a whole cycle left each thing once; return how many things, and how many twice."""
    store, run = world.store, world.run
    counts = store.counts()
    assert counts["interactions"] == MESSAGES
    assert counts["copy"] == counts["regenerate"] == MESSAGES
    for kind in (Cycle, CycleEnd, TrainingSet, Candidate, Decision, Analysis):
        assert len(store.records(kind)) == 1, kind
    (candidate,), (decision,) = store.records(Candidate), store.records(Decision)
    promotions = [item for item in store.records(Release) if item.action == "promote"]
    assert decision.verdict == "promote", decision.reasons
    assert [item.decision_id for item in promotions] == [decision.id]
    assert run.passed("finetune: renames into adapters folder") == 1  # trained to its end once
    assert len(list((world.home / "adapters").iterdir())) == 1
    client = MlflowClient(f"sqlite:///{world.home / 'mlflow' / 'mlflow.db'}")
    versions = client.search_model_versions(f"name='{MODEL_NAME}'")
    assert sorted(int(one.version) for one in versions) == [1, 2]
    assert f"{MODEL_NAME}/{candidate.version}" == f"{MODEL_NAME}/2"
    champion = world.tracker.champion()
    assert champion is not None
    assert champion.reference == store.records(Release)[-1].champion
    experiment = client.get_experiment_by_name("ratchet")
    runs = Counter(one.info.run_name for one in client.search_runs([experiment.experiment_id]))
    assert max(runs.values()) == 1, runs
    things = sum(counts.values())
    store.close()
    return things, 0


def test_stages_killed_at_every_commit_do_everything_once(world: World, row: Row) -> None:
    row.database = database_of(world)
    points, options = LASTING if row.database == "sqlite" else IN_STORE, world.answered()
    for name in ("collect", "analyze", "improve", "deploy"):
        began = time.monotonic()
        killed = world.run.until_done(stage(name, options), world.environment, deadly=points)
        print(f"{name}: {killed} kills, {time.monotonic() - began:.0f} s", flush=True)
    things, doubled = check_cycle(world)
    row.name = "collect, analyze, improve, deploy"
    row.faults = "killed at every task and commit" + ("" if points == LASTING else " of the store")
    row.kills = len(world.run.kills)
    row.acknowledged = row.stored = things
    row.doubled = doubled


def test_a_loop_killed_at_every_task_does_everything_once(world: World, row: Row) -> None:
    loop = stage("loop", world.answered())
    world.run.until_done(loop, world.environment, deadly=BOUNDARIES)
    things, doubled = check_cycle(world)
    row.name, row.faults = "loop", "killed at every task boundary"
    row.database = database_of(world)
    row.kills = len(world.run.kills)
    row.acknowledged = row.stored = things
    row.doubled = doubled


# Flows about what users get -----------------------------------------------------------------------


def note(row: Row, world: World, name: str, records: int) -> None:
    row.name, row.faults = name, "killed at every task and commit"
    row.database, row.kills = database_of(world), len(world.run.kills)
    row.acknowledged = row.stored = records
    assert row.kills >= 2


def released(world: World, now: datetime, champion: str, previous: str | None) -> None:
    """Three registered versions, one of them in front of users."""
    for name in ("first", "second", "third"):
        world.tracker.register_base(name, digest=name)
    world.tracker.move_champion(champion, previous)
    first = Release(id="r", created_at=now, action="start", champion=champion, previous=previous)
    switch(world.store, first, by="test", told=True)


def decided(now: datetime, **changes: Any) -> Decision:
    """A decision that promotes the second version over the first."""
    return Decision(
        id="d", cycle_id="c", created_at=now, champion=OLD, challenger=NEW,
        verdict="promote", reasons=("better",), primary_metric="exact_match", champion_value=0.1,
        challenger_value=0.8, difference=0.7, interval=(0.6, 0.8), p_value=1e-9, examples=300,
        example_set_id="e", policy={}, evidence={}, **changes,
    )  # fmt: skip


def test_a_rollback_killed_at_every_commit_is_one_move(world: World, row: Row) -> None:
    now = datetime.now(UTC) - timedelta(hours=1)
    released(world, now, NEW, OLD)
    code = (
        "from ratchet.flows.rollback import RollbackOptions, rollback\n"
        f"rollback(RollbackOptions(model_version={NEW!r}, by='ann'))"
    )
    world.run.until_done(code, world.environment, deadly=LASTING)
    assert world.run.once(code, world.environment) == 0  # and once more changes nothing
    world.run.once("from ratchet.flows.rollout import rollout\nrollout()", world.environment)
    moves = [item for item in world.store.records(Release) if item.action == "rollback"]
    assert [(item.champion, item.by) for item in moves] == [(OLD, "ann")]
    champion = world.tracker.champion()
    assert champion is not None
    assert champion.reference == OLD
    assert [one.version for one in current_routing(world.store).variants] == [OLD]
    assert len(world.store.records(Routing)) == 2
    note(row, world, "rollback", 2)


def test_a_rollout_killed_at_every_commit_acts_once_on_each_look(world: World, row: Row) -> None:
    now = datetime.now(UTC)
    released(world, now - timedelta(days=7), OLD, None)
    store = world.store
    traffic.released(store, now - timedelta(hours=3))  # from its answers a plan takes numbers
    rollout = start_rollout(store, NEW_VARIANT, PLAN, now=now - timedelta(hours=3))
    routing = current_routing(store)
    assert routing is not None
    serve(store, routing, now - timedelta(hours=3), hours=1.5, number=1_500)
    look = take_look(store, rollout, now - timedelta(hours=1))
    assert look.decision == "advance", look.reasons
    code = "from ratchet.flows.rollout import rollout\nprint('said', rollout())"
    world.run.until_done(code, world.environment, deadly=LASTING)
    looks = looks_of(store, rollout)
    assert looks[0].decision == "advance"
    assert {one.decision for one in looks[1:]} == {"wait"}
    assert len({one.id for one in looks}) == len(looks)
    assert current_routing(store).variants[0].share == 0.5
    shares = [one.variants[0].share for one in store.records(Routing)]
    assert shares == [1.0, 0.2, 0.5]  # the release, the first stage, the second, and no more
    told = [one for one in store.records(Delivery) if one.event_id == look.id]
    assert len(told) == 1
    assert running_rollout(store) == rollout
    note(row, world, "rollout", len(looks) + len(shares))


def test_an_approval_killed_at_every_commit_promotes_once(world: World, row: Row) -> None:
    now = datetime.now(UTC) - timedelta(minutes=30)
    released(world, now - timedelta(hours=1), OLD, None)
    store, decision = world.store, decided(now, approval="always")
    store.append(decision)
    say(store, decision, approved=True, by="ann", reason="read it", via="command", now=now)
    code = (
        "from ratchet.flows.approve import ApproveOptions, approve\n"
        "print('said', approve(ApproveOptions(decision='d')))"
    )
    world.run.until_done(code, world.environment, deadly=LASTING)
    assert world.run.once(code, world.environment) == 0
    promotions = [item for item in store.records(Release) if item.action == "promote"]
    assert [(item.champion, item.decision_id) for item in promotions] == [(NEW, "d")]
    assert len(store.records(Approval)) == 1
    champion, previous = world.tracker.champion(), world.tracker.previous()
    assert champion is not None
    assert previous is not None
    assert (champion.reference, previous.reference) == (NEW, OLD)
    note(row, world, "approve", 3)


def test_pruning_killed_at_every_commit_loses_nothing_that_is_not_in_history(
    world: World, row: Row
) -> None:
    now, store = datetime.now(UTC), world.store
    ages = {f"old{n}": timedelta(days=120, hours=n) for n in range(40)}
    ages |= {f"new{n}": timedelta(hours=1, minutes=n) for n in range(40)}
    store.add_interactions(
        [
            Interaction(
                id=key, session_id=key, user_id="u", created_at=now - age, model_version=OLD,
                messages=(Message(role="user", content="where is it"),), response="delivery",
            )
            for key, age in ages.items()
        ]
    )  # fmt: skip
    code = "from ratchet.flows.prune import prune\nprint('rules', prune())"
    anything = LASTING + "|renames|commit"
    world.run.until_done(code, world.environment, deadly=anything)
    assert set(store.stored_interactions(list(ages))) == {key for key in ages if key[:3] == "new"}
    history = History.open(load_settings(world.environment, ROOT).history)
    rows = [
        key
        for file in history.files("interactions")
        for key in parquet.read_table(file, columns=["id"])["id"].to_pylist()
    ]
    assert Counter(rows) == Counter(ages.keys())
    note(row, world, "prune", len(ages))
