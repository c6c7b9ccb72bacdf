"""The loop hands training to the deployment `improve`: real Prefect, real workers, a tiny model."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from ratchet.records import Candidate, Cycle, CycleEnd, Decision, TrainingSet
from tests.flows.prefect_home import PrefectHome, new_home, python_process
from tests.simulated_traffic import record_traffic

# who holds a home while a training was handed over is tested in tests/store/test_cycles.py
pytestmark = pytest.mark.slow
PARTS = """
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from prefect.client.orchestration import get_client
from prefect.states import Completed, Running
from ratchet.errors import RatchetError, WaitingError
from ratchet.flows import _handover
from ratchet.flows._runtime import workspace
from ratchet.flows._waiting import raise_if_waiting
from ratchet.flows.improve import ImproveOptions
from ratchet.store.cycles import sole_training

_handover.POLL_SECONDS = 0.1
cycle, options = SimpleNamespace(id="cycle-1", number=1), ImproveOptions()
client = get_client(sync_client=True).__enter__()

def handed(options=options):
    return _handover._handed_over(client, cycle, options)

def state_of(run):
    return client.read_flow_run(run.id).state
"""
TOY: dict[str, Any] = {
    "improve": {"finetune": {"epochs": 60.0, "rank": 4, "batch_size": 4}},
    "deploy": {"policy": {"primary": {"metric": "exact_match"}, "minimum_examples": 20}},
}


def toy(home: PrefectHome) -> dict[str, Any]:
    """Record what users did before the first cycle; return the options of a loop about it."""
    collect = record_traffic(
        home.store, home.settings.home, messages_limit=96, held_out=30, generated_messages=400,
        reactions={"correction_wrong": 1.0},
    )  # fmt: skip
    return TOY | {"collect": collect}


@contextmanager
def served(folder: Path, template: Path, model: Path) -> Iterator[tuple[PrefectHome, Any]]:
    """A home whose Prefect server knows the deployments, and the environment of its flows."""
    home = new_home(
        folder, template, RATCHET_BASE_MODEL=str(model), PREFECT_WORKER_QUERY_SECONDS="1"
    )
    with home.serving() as environment:
        home.servers.register_deployments()
        yield home, environment


# The parts ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def python(
    tmp_path_factory: pytest.TempPathFactory, served_once: Path, tiny_model: Path
) -> Iterator[Callable[[str], str]]:
    """Runs statements in a process over a home whose pools no worker serves."""
    folder = tmp_path_factory.mktemp("parts")
    with (
        served(folder, served_once, tiny_model) as (_, environment),
        python_process(environment, PARTS) as run,
    ):
        yield run


def test_the_same_cycle_and_options_are_one_run_and_others_are_another(
    python: Callable[[str], str],
) -> None:
    said = python(
        "first, again = handed(), handed()\n"
        "other = handed(ImproveOptions(sources={'per_cluster': 3}))\n"
        "print(first.id == again.id, first.id == other.id, first.work_pool_name)\n"
        "print(first.parameters['handed_over'], first.tags)"
    )
    assert "True False ratchet-training" in said
    assert "cycle-1 [" in said
    assert "'handed-over'" in said


def test_without_a_worker_the_loop_says_so_and_cancels_what_it_handed_over(
    python: Callable[[str], str],
) -> None:
    said = python(
        "run = handed()\n"
        "try:\n"
        "    _handover._ended(client, run, 'ratchet-training', timedelta(seconds=1))\n"
        "except RatchetError as error:\n"
        "    print(error, state_of(run).type.value)\n"
        "print('anew', handed().id != run.id)"
    )
    assert "training needs a worker of the pool 'ratchet-training', got none" in said
    assert "ratchet worker --pool ratchet-training" in said
    assert "CANCELLED" in said
    assert "anew True" in said


def test_a_run_whose_process_is_gone_is_ended_and_another_one_trains(
    python: Callable[[str], str],
) -> None:
    said = python(
        "run = handed()\n"
        "client.set_flow_run_state(run.id, Running(), force=True)\n"
        "print('elsewhere', handed().id == run.id)\n"  # nobody says that it trains
        "with sole_training(workspace().store, str(run.id)): pass\n"  # as its process left it
        "print('anew', handed().id != run.id, state_of(run).type.value)"
    )
    assert "elsewhere True" in said
    assert "anew True CRASHED" in said


def test_a_training_that_has_ended_is_found_and_its_reason_too(
    python: Callable[[str], str],
) -> None:
    said = python(
        "run = handed()\n"
        "client.set_flow_run_state(run.id, Completed(name='WaitingForFeedback', message='more'),"
        " force=True)\n"
        "print('found', handed().id == run.id)\n"
        "try:\n"
        "    raise_if_waiting(_handover._ended(client, run, 'ratchet-training', timedelta(0)))\n"
        "except WaitingError as error:\n"
        "    print(error.what, error)"
    )
    assert "found True" in said
    assert "feedback more" in said


def test_a_loop_that_is_cancelled_cancels_what_it_or_an_earlier_run_handed_over(
    python: Callable[[str], str],
) -> None:
    said = python(
        "run = handed(ImproveOptions(sources={'per_cluster': 5}))\n"
        "loop = SimpleNamespace(name='loop')\n"
        "_handover.cancel_handed_over(loop, run, SimpleNamespace(name='Cancelling'))\n"
        "print('now', state_of(run).type.value)"
    )
    assert "now CANCELLED" in said


# The whole ----------------------------------------------------------------------------------------


class _Api:
    """What the test asks of Prefect."""

    def __init__(self, home: PrefectHome) -> None:
        self.url = home.servers.prefect_api

    def start(self, options: dict[str, Any]) -> str:
        found = httpx.get(f"{self.url}/deployments/name/loop/loop").json()
        body = {"parameters": {"options": options}, "state": {"type": "SCHEDULED"}}
        made = httpx.post(f"{self.url}/deployments/{found['id']}/create_flow_run", json=body)
        assert made.status_code in (200, 201), made.text
        return str(made.json()["id"])

    def run(self, key: str) -> dict[str, Any]:
        return dict(httpx.get(f"{self.url}/flow_runs/{key}").json())

    def trainings(self) -> list[dict[str, Any]]:
        body = {"flows": {"name": {"any_": ["improve"]}}}
        return list(httpx.post(f"{self.url}/flow_runs/filter", json=body).json())

    def tasks(self, name: str) -> list[str]:
        body = {"task_runs": {"name": {"like_": name}}}
        found = httpx.post(f"{self.url}/task_runs/filter", json=body).json()
        return [item["state_type"] for item in found]


def _until(says: Callable[[], Any], seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := says()):
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.3)
    return found


ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_loop_killed_in_mid_training_goes_on_with_the_training_that_it_handed_over(
    tmp_path: Path, served_once: Path, tiny_model: Path
) -> None:
    with served(tmp_path, served_once, tiny_model) as (home, _):
        home.servers.start_workers(("ratchet", "ratchet-training"))
        api, options = _Api(home), toy(home)
        first = api.start(options)
        _until(lambda: "RUNNING" in api.tasks("finetune"), 240)
        os.kill(int(api.run(first)["infrastructure_pid"]), signal.SIGKILL)
        _until(lambda: api.run(first)["state_type"] == "CRASHED", 60)
        second = api.start(options)
        ended = _until(lambda: (run := api.run(second))["state_type"] in ENDED and run, 400)
        (training,) = api.trainings()
        log = (home.settings.home / "logs" / "worker.log").read_text()[-3000:]
        states = ended["state_type"], training["state_type"]
        assert states == ("COMPLETED", "COMPLETED"), (ended["state"]["message"], log)
        assert training["work_pool_name"] == "ratchet-training"
        assert ended["work_pool_name"] == "ratchet"
        store = home.store
        for kind in (Cycle, CycleEnd, TrainingSet, Candidate, Decision):
            assert len(store.records(kind)) == 1, kind
        assert api.tasks("finetune") == ["COMPLETED"]
        assert len(list((home.settings.home / "adapters").iterdir())) == 1
        assert training["parameters"]["handed_over"] == store.records(Cycle)[0].id


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_cancelling_the_loop_cancels_its_training_and_a_failed_one_fails_the_loop(
    tmp_path: Path, served_once: Path, tiny_model: Path
) -> None:
    with served(tmp_path, served_once, tiny_model) as (home, _):
        home.servers.start_workers(("ratchet", "ratchet-training"))
        api, options = _Api(home), toy(home)
        loop = api.start(options)
        _until(lambda: "RUNNING" in api.tasks("finetune"), 240)
        httpx.post(
            f"{api.url}/flow_runs/{loop}/set_state", json={"state": {"type": "CANCELLING"}}
        ).raise_for_status()
        _until(lambda: api.trainings()[0]["state_type"] == "CANCELLED", 120)
        broken = options | {"improve": {"finetune": {"targets": ["no_such_layer"], "rank": 4}}}
        failed = api.start(broken)
        ended = _until(lambda: (run := api.run(failed))["state_type"] in ENDED and run, 240)
        assert ended["state_type"] == "FAILED"
        assert (
            "training was handed over to improve/improve and must end well"
            in (ended["state"]["message"])
        )
