"""The whole product as a user runs it: `ratchet up`, then the loop started over Prefect's API.

Prefect, MLflow, the worker and the model (SmolLM2-135M) are the real ones; sizes are small: half a
gate, since 40 examples show the difference of a model that learned from one that did not.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from ratchet.servers import free_port
from ratchet.store import EventStore
from tests.simulated_traffic import record_traffic

ROOT = Path(__file__).parents[2]
RATCHET = [sys.executable, "-m", "ratchet.cli"]
DEPLOYMENTS = {
    "loop", "collect", "analyze", "improve", "deploy", "approve", "rollout", "rollback", "prune",
    "remind", "weekly",
}  # fmt: skip
TRAFFIC: dict[str, Any] = {
    "messages_limit": 48,
    "held_out": 40,
    "generated_messages": 800,
    "reactions": {"correction_wrong": 1.0},
}
SMALL: dict[str, Any] = {
    "improve": {
        "curation": {"maximum_examples": 40},
        "finetune": {"batch_size": 4, "epochs": 1.5},
    },
    "deploy": {"policy": {"primary": {"metric": "exact_match"}, "minimum_examples": 40}},
}


@dataclass(frozen=True)
class Home:
    """A served home folder."""

    environment: dict[str, str]
    prefect: str
    mlflow: str
    process: subprocess.Popen[str]
    printed: str

    def ratchet(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*RATCHET, *arguments],
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def status(self) -> dict[str, Any]:
        return json.loads(self.ratchet("status", "--json").stdout)

    def start(self, deployment: str, options: dict[str, Any]) -> str:
        found = httpx.get(f"{self.prefect}/deployments/name/{deployment}/{deployment}").json()
        body = {"parameters": {"options": options}, "state": {"type": "SCHEDULED"}}
        address = f"{self.prefect}/deployments/{found['id']}/create_flow_run"
        made = httpx.post(address, json=body)
        while made.status_code == 503:  # its database is busy; clients of Prefect try again too
            time.sleep(1)
            made = httpx.post(address, json=body)
        assert made.status_code in (200, 201), made.text
        return str(made.json()["id"])

    def wait(self, flow_run: str, seconds: float) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            run = httpx.get(f"{self.prefect}/flow_runs/{flow_run}").json()
            if run["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
                return run
            time.sleep(1)
        raise AssertionError(f"flow run {flow_run} did not end in {seconds} s")

    def artifacts(self) -> dict[str, dict[str, Any]]:
        found = httpx.post(f"{self.prefect}/artifacts/latest/filter", json={}).json()
        return {item["key"]: item for item in found if item["key"]}

    def champion(self) -> str:
        found = httpx.get(
            f"{self.mlflow}/api/2.0/mlflow/registered-models/alias",
            params={"name": "support-router", "alias": "champion"},
        )
        return str(found.json()["model_version"]["version"])

    def mlflow_runs(self) -> list[dict[str, Any]]:
        experiment = httpx.get(
            f"{self.mlflow}/api/2.0/mlflow/experiments/get-by-name",
            params={"experiment_name": "ratchet"},
        ).json()["experiment"]["experiment_id"]
        body = {"experiment_ids": [experiment], "max_results": 100}
        found = httpx.post(f"{self.mlflow}/api/2.0/mlflow/runs/search", json=body).json()
        return list(found.get("runs", []))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PREFECT_", "MLFLOW_", "RATCHET_")) or name == "RATCHET_CACHE"
    }
    environment["RATCHET_HOME"] = str(tmp_path_factory.mktemp("home") / "ratchet")
    with _TakenPort() as taken:
        process = subprocess.Popen(
            [*RATCHET, "up", "--prefect-port", str(taken), "--mlflow-port", str(taken + 1)],
            env={**environment, "PYTHONUNBUFFERED": "1"},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        printed = _read_until(process, "Ctrl-C stops all of them")
    addresses = json.loads((Path(environment["RATCHET_HOME"]) / "servers.json").read_text())
    made = Home(environment, addresses["prefect_api"], addresses["mlflow"], process, printed)
    try:
        yield made
        _assert_that_ctrl_c_stops_all_three_and_frees_the_ports(made)
    finally:
        process.kill()


def _assert_that_ctrl_c_stops_all_three_and_frees_the_ports(home: Home) -> None:
    home.process.send_signal(signal.SIGINT)
    assert home.process.wait(60) == 130 or home.process.returncode == 0
    for address in (home.prefect, home.mlflow):
        with pytest.raises(httpx.ConnectError):
            httpx.get(address)
    assert not (Path(home.environment["RATCHET_HOME"]) / "servers.json").exists()


class _TakenPort:
    """A port that somebody else listens on, so that `ratchet up` has to take the next."""

    def __enter__(self) -> int:
        self._socket = socket.socket()
        # below the ports that the system gives to connections: one of those could be the next
        first = int(np.random.default_rng().integers(15_000, 30_000))
        self._socket.bind(("127.0.0.1", free_port(first)))
        self._socket.listen()
        return int(self._socket.getsockname()[1])

    def __exit__(self, *_error: object) -> None:
        self._socket.close()


def _read_until(process: subprocess.Popen[str], text: str) -> str:
    printed = ""
    assert process.stdout is not None
    late = threading.Timer(300, process.kill)
    late.start()
    for line in process.stdout:
        printed += line
        if text in line:
            late.cancel()
            return printed
    raise AssertionError(f"`ratchet up` ended before it printed {text!r}:\n{printed}")


def test_up_prints_both_addresses_and_says_which_port_was_taken(home: Home) -> None:
    assert home.prefect.removesuffix("/api") in home.printed
    assert home.mlflow in home.printed
    assert "is taken; Prefect gets" in home.printed
    assert httpx.get(home.prefect.removesuffix("/api")).status_code == 200
    assert httpx.get(home.mlflow).status_code == 200


def test_every_deployment_is_served_with_its_schedule_tags_and_typed_parameters(
    home: Home,
) -> None:
    found = httpx.post(f"{home.prefect}/deployments/filter", json={}).json()
    assert {item["name"] for item in found} == DEPLOYMENTS
    for item in found:
        pool = "ratchet-training" if item["name"] == "improve" else "ratchet"
        assert item["work_pool_name"] == pool
        assert {"ratchet", item["name"]} <= set(item["tags"])
        assert len(item["schedules"]) == (0 if item["name"] in ("approve", "rollback") else 1)
        assert item["enforce_parameter_schema"]
        if item["name"] != "remind":  # what it does is said in the policy of alerts
            assert "options" in item["parameter_openapi_schema"]["properties"]
            assert item["parameter_openapi_schema"]["definitions"]


def test_the_worker_starts_a_run_with_the_command_that_runs_it(home: Home) -> None:
    pool = httpx.get(f"{home.prefect}/work_pools/ratchet").json()
    command = pool["base_job_template"]["variables"]["properties"]["command"]["default"]
    shell, flag, words = shlex.split(command)
    assert (shell, flag) == ("sh", "-c")
    # which Python that is each worker says, so that one command fits every machine
    own = ["-P", "-m", "ratchet.processes", "prefect.engine"]
    assert shlex.split(words)[-len(own) - 2 :] == ["exec", "${RATCHET_PYTHON:-python3}", *own]


def test_monitoring_runs_every_five_minutes_and_a_run_that_would_overlap_is_cancelled(
    home: Home,
) -> None:
    item = httpx.get(f"{home.prefect}/deployments/name/analyze/analyze").json()
    (schedule,) = item["schedules"]
    assert schedule["schedule"]["cron"] == "*/5 * * * *"
    assert schedule["active"]
    assert item["parameters"] == {"options": {"cycle": False}}
    assert item["global_concurrency_limit"]["limit"] == 1
    assert item["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"


def test_the_schedules_make_runs(home: Home) -> None:
    deadline = time.monotonic() + 60
    scheduled: set[str] = set()
    wanted = {
        "analyze",
        "loop",
        "rollout",
        "prune",
        "remind",
        "weekly",
    }  # the schedules that are active
    while not scheduled >= wanted and time.monotonic() < deadline:
        found = httpx.post(f"{home.prefect}/flow_runs/filter", json={}).json()
        ids = {run["deployment_id"] for run in found if run["auto_scheduled"]}
        known = httpx.post(f"{home.prefect}/deployments/filter", json={}).json()
        scheduled = {item["name"] for item in known if item["id"] in ids}
        time.sleep(1)
    assert scheduled == wanted
    assert "Traceback" not in (
        Path(home.environment["RATCHET_HOME"]) / "logs" / "prefect.log"
    ).read_text("utf-8")


def test_an_alert_may_roll_back_once_a_person_enables_it(home: Home) -> None:
    found = httpx.post(f"{home.prefect}/automations/filter", json={}).json()
    automations = {item["name"]: item for item in found}
    assert not any(item["enabled"] for item in found)
    automation = automations["rollback__automation_1"]
    rollback = httpx.get(f"{home.prefect}/deployments/name/rollback/rollback").json()
    (action,) = automation["actions"]
    assert (action["type"], action["deployment_id"]) == ("run-deployment", rollback["id"])


def test_a_second_up_on_the_same_home_is_refused(home: Home) -> None:
    refused = home.ratchet("up")
    assert refused.returncode == 2
    assert "a home folder is served once" in refused.stdout + refused.stderr


def test_parameters_that_do_not_fit_the_schema_are_refused_by_the_api(home: Home) -> None:
    found = httpx.get(f"{home.prefect}/deployments/name/loop/loop").json()
    body = {"parameters": {"options": {"collect": {"max_new_tokens": "many"}}}}
    answer = httpx.post(f"{home.prefect}/deployments/{found['id']}/create_flow_run", json=body)
    assert answer.status_code in (409, 422)
    assert "max_new_tokens" in answer.text or "valid" in answer.text


@pytest.mark.timeout(1500)
@pytest.mark.slow
def test_a_loop_started_over_the_api_promotes_a_trained_model_that_can_be_rolled_back_once(
    home: Home,
) -> None:
    folder = Path(home.environment["RATCHET_HOME"])
    with closing(EventStore.open(f"sqlite:///{folder / 'store.db'}")) as store:
        collect = record_traffic(store, folder, **TRAFFIC)
    run = home.wait(home.start("loop", SMALL | {"collect": collect}), 1200)
    assert run["state"]["type"] == "COMPLETED", run["state"]
    status = home.status()
    decision = status["last_decision"]
    assert decision["champion_value"] <= 0.05  # the untrained model is right on almost none
    assert decision["verdict"] == "promote", decision
    assert status["champion"] == "support-router/2"
    assert status["previous"] == "support-router/1"
    assert status["interactions"] == 48
    assert status["cycle"] == {"number": 1, "state": "finished"}
    assert home.champion() == "2"
    tags = [{t["key"]: t["value"] for t in r["data"]["tags"]} for r in home.mlflow_runs()]
    assert {tag["ratchet.stage"] for tag in tags} == {"analyze", "improve", "deploy", "loop"}
    assert {"report", "analysis", "decision", "gate", "loss"} <= set(home.artifacts())
    logs = httpx.post(f"{home.prefect}/logs/filter", json={"limit": 200}).json()
    assert any("opened cycle 1" in line["message"] for line in logs)
    trained = next(r for r in home.mlflow_runs() if "improve" in r["info"]["run_name"])
    assert {"loss", "training_seconds"} <= {m["key"] for m in trained["data"]["metrics"]}
    assert trained["inputs"]["dataset_inputs"][0]["dataset"]["name"] == "training-set"
    assert "support-router/1" in home.ratchet("rollback").stdout
    assert home.champion() == "1"
    assert home.status()["champion"] == "support-router/1"
    again = home.ratchet("rollback")
    assert again.returncode == 2
    assert "nothing was promoted" in again.stderr


def test_a_pass_of_monitoring_begins_by_its_schedule(home: Home) -> None:
    item = httpx.get(f"{home.prefect}/deployments/name/analyze/analyze").json()
    address = f"{home.prefect}/deployments/{item['id']}/schedules"
    often = {"active": True, "schedule": {"interval": 20.0, "timezone": "UTC"}}
    (made,) = httpx.post(address, json=[often]).json()
    deadline = time.monotonic() + 180
    passes: list[dict[str, Any]] = []
    while not passes and time.monotonic() < deadline:
        found = httpx.post(f"{home.prefect}/flow_runs/filter", json={}).json()
        passes = [
            run for run in found
            if run["deployment_id"] == item["id"]
            and run["auto_scheduled"]
            and run["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED")
        ]  # fmt: skip
        time.sleep(1)
    httpx.delete(f"{address}/{made['id']}")
    assert {run["state"]["type"] for run in passes} == {"COMPLETED"}
