"""Prefect or MLflow goes away in mid-flow, and two workers serve one deployment."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from ratchet.deploy.routing import current_routing
from ratchet.records import Cycle, Release
from ratchet.servers import Servers
from tests.deploy.rollout.served import NEW, OLD
from tests.faults.crashing import crashes
from tests.faults.ledger import Row
from tests.faults.test_flow_kills import MESSAGES, TRAFFIC, World, released, stage
from tests.flows.prefect_home import PrefectHome, new_home
from tests.simulated_traffic import record_traffic

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
NOBODY = "http://127.0.0.1:9"  # the port of discard, on which nothing listens
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


def _until(says: Callable[[], Any], seconds: float = 240.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := says()):
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)
    return found


def _world(home: PrefectHome, run: Any, model: Path) -> World:
    return World(home.settings.home, home.settings.store_url, run, model)


def _server_process(home: PrefectHome) -> Any:
    (server,) = [child for name, child in home.servers._children if name == "prefect"]
    return server


def test_a_flow_whose_prefect_server_dies_goes_on_when_it_is_back(
    tmp_path: Path, served_once: Path, tiny_model: Path, row: Row
) -> None:
    home = new_home(tmp_path, served_once, RATCHET_BASE_MODEL=str(tiny_model))
    with home.serving() as environment, crashes(environment, tmp_path / "runs") as run:
        world = _world(home, run, tiny_model)
        collect = stage("collect", world.answered())
        port = int(home.servers.prefect_api.rpartition(":")[2].partition("/")[0])

        def die() -> None:
            _until(lambda: any("open-recorded-cycle: begins" in point for point in run.trace))
            _server_process(home).send_signal(signal.SIGKILL)

        killer = threading.Thread(target=die)
        killer.start()
        given = world.environment | {"PREFECT_CLIENT_MAX_RETRIES": "1"}
        ended = run.once(collect, given, seconds=90.0)
        killer.join()
        print(f"without a server the flow ended with {ended}")
        home.servers.stop()
        back = Servers(settings=home.settings, say=print)
        try:
            back.start_prefect(port=port, environ=home.environ)
            assert run.once(collect, world.environment) == 0, run.printed[-3000:]
        finally:
            back.stop()
        counts = world.store.counts()
        assert counts["interactions"] == counts["copy"] == MESSAGES
        assert len(world.store.records(Cycle)) == 1
    row.name, row.faults, row.database = "collect", "Prefect's server killed in mid-task", "sqlite"
    row.kills, row.acknowledged, row.stored = 1, MESSAGES, MESSAGES


def test_without_mlflow_a_rollback_takes_effect_and_a_cycle_fails_and_goes_on(
    tmp_path: Path, served_once: Path, tiny_model: Path, row: Row
) -> None:
    home = new_home(tmp_path, served_once, RATCHET_BASE_MODEL=str(tiny_model))
    with home.serving() as environment, crashes(environment, tmp_path / "runs") as run:
        world = _world(home, run, tiny_model)
        collect = stage("collect", world.answered())
        down = world.environment | {
            "MLFLOW_TRACKING_URI": NOBODY,
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        }
        assert run.once(collect, down, seconds=120.0) not in (0, -signal.SIGABRT)
        assert world.store.records(Cycle) == ()
        assert run.once(collect, world.environment) == 0, run.printed[-3000:]
        counts = world.store.counts()
        assert counts["interactions"] == counts["copy"] == MESSAGES
        assert len(world.store.records(Cycle)) == 1

    other = new_home(tmp_path / "other", served_once)
    with other.serving() as environment, crashes(environment, tmp_path / "more") as run:
        world = _world(other, run, tiny_model)
        down = world.environment | {"MLFLOW_TRACKING_URI": NOBODY}
        released(world, datetime.now(UTC) - timedelta(hours=1), NEW, OLD)
        code = (
            "from ratchet.flows.rollback import RollbackOptions, rollback\n"
            f"rollback(RollbackOptions(model_version={NEW!r}, by='ann'))"
        )
        assert run.once(code, down, seconds=120.0) == 0, run.printed[-3000:]
        assert [one.version for one in current_routing(world.store).variants] == [OLD]
        back = "from ratchet.flows.rollout import rollout\nrollout()"
        assert run.once(back, world.environment) == 0, run.printed[-3000:]
        champion = world.tracker.champion()
        assert champion is not None
        assert champion.reference == OLD
        moves = [item for item in world.store.records(Release) if item.action == "rollback"]
        assert len(moves) == 1
    row.name, row.faults, row.database = "collect, rollback", "MLflow down, then back", "sqlite"
    row.acknowledged = row.stored = MESSAGES + 1


def test_two_workers_of_one_pool_run_each_flow_run_once(
    tmp_path: Path, served_once: Path, tiny_model: Path, row: Row
) -> None:
    home = new_home(
        tmp_path, served_once, RATCHET_BASE_MODEL=str(tiny_model), PREFECT_WORKER_QUERY_SECONDS="1"
    )
    collect = record_traffic(home.store, tmp_path, **TRAFFIC)
    with home.serving():
        home.servers.register_deployments()
        home.servers.start_workers(("ratchet", "ratchet"))
        api = home.servers.prefect_api
        found = httpx.get(f"{api}/deployments/name/collect/collect").json()
        body = {
            "parameters": {"options": collect},
            "state": {"type": "SCHEDULED"},
        }
        keys = [
            httpx.post(f"{api}/deployments/{found['id']}/create_flow_run", json=body).json()["id"]
            for _ in range(3)
        ]

        def ended() -> list[dict[str, Any]]:
            runs = [httpx.get(f"{api}/flow_runs/{key}").json() for key in keys]
            return runs if all(run["state_type"] in ENDED for run in runs) else []

        runs = _until(ended, 400.0)
        said = json.dumps([run["state"]["message"] for run in runs])
        assert [run["run_count"] for run in runs] == [1, 1, 1], said
        assert any(run["state_type"] == "COMPLETED" for run in runs), said
        for run in runs:
            refused = "one loop at a time" in (run["state"]["message"] or "")
            assert run["state_type"] == "COMPLETED" or refused, said
        store = home.store
        counts = store.counts()
        assert counts["interactions"] == counts["copy"] == MESSAGES
        assert len(store.records(Cycle)) == 1
        store.close()
    row.name, row.faults, row.database = "collect", "two workers, three runs at once", "sqlite"
    row.acknowledged = row.stored = MESSAGES
