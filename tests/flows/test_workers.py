"""Several workers on one store: homes of their own, one PostgreSQL, one Prefect, one MLflow."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import numpy as np
import pytest
import sqlalchemy as sa

from ratchet.records import (
    AlertEvent,
    Baseline,
    BoardState,
    Interaction,
    Message,
    SafetyPass,
    Thumbs,
)
from ratchet.servers import child_environment
from ratchet.store import EVER, EventStore, Window
from tests.flows.prefect_home import ROOT, PrefectHome, new_home, python_process

pytestmark = pytest.mark.slow
GOOD, BAD = "support-router/1", "support-router/2"
PASSES = 36
OPTIONS = {"cycle": False, "watch": {"baseline_days": 1.0}}
IMPORTS = f"""
from ratchet.flows.analyze import AnalyzeOptions, analyze
from ratchet.flows.collect import collect
from ratchet.store.cycles import sole_loop
from ratchet.flows._runtime import workspace

def passes(number):
    for _ in range(number):
        assert analyze(AnalyzeOptions.model_validate({OPTIONS})) == ""
    print("all ended well")
"""


def _fill(store: EventStore, now: datetime) -> None:
    """Thirty hours of a version with 10 % thumbs down, then six of one with 60 %, in two turns."""
    rng, began = np.random.default_rng(5), now - timedelta(hours=36)
    interactions, feedback = [], []
    for number in range(36 * 30):
        at = began + timedelta(minutes=2 * number)
        is_bad = at >= now - timedelta(hours=6)
        said = [Message(role="user", content=f"where is parcel {number}")]
        for turn in range(2):
            key = f"{number}:{turn}"
            interactions.append(
                Interaction(
                    id=key, session_id=str(number), user_id=f"u{number % 50}",
                    created_at=at + timedelta(seconds=20 * turn),
                    model_version=BAD if is_bad else GOOD,
                    messages=tuple(said), response="delivery",
                )
            )  # fmt: skip
            said += [
                Message(role="assistant", content="delivery"),
                Message(role="user", content="that is wrong, I asked where it is"),
            ]
            is_down = rng.random() < (0.6 if is_bad else 0.1)
            value = "down" if is_down else "up"
            soon = at + timedelta(seconds=20 * turn + 5)
            feedback.append(Thumbs(id=f"t{key}", interaction_id=key, created_at=soon, value=value))
    store.add_interactions(interactions)
    store.add_feedback(feedback)


@pytest.fixture
def new_schema(postgresql_server: str) -> Callable[[], str]:
    """Makes the address of one more schema of the PostgreSQL server."""

    def made() -> str:
        schema, server = f"test_{uuid4().hex}", sa.make_url(postgresql_server)
        engine = sa.create_engine(server)
        with engine.begin() as connection:
            connection.execute(sa.schema.CreateSchema(schema))
        engine.dispose()
        own = server.update_query_dict({"options": f"-csearch_path={schema}"})
        return own.render_as_string(False)

    return made


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory, served_once: Path) -> Iterator[PrefectHome]:
    """The first machine, whose Prefect server runs."""
    folder = tmp_path_factory.mktemp("first")
    home = new_home(folder, served_once, PREFECT_WORKER_QUERY_SECONDS="1")
    with home.serving():
        yield home


@pytest.fixture
def machine(tmp_path: Path, prefect: PrefectHome) -> Callable[[str, str], dict[str, str]]:
    """Returns the environment of a machine with a home of its own, by name and store."""

    def environment(name: str, store_url: str) -> dict[str, str]:
        (tmp_path / "nothing").mkdir(exist_ok=True)
        home = new_home(
            tmp_path / name, tmp_path / "nothing", RATCHET_STORE_URL=store_url,
            PREFECT_API_URL=prefect.servers.prefect_api, PREFECT_WORKER_QUERY_SECONDS="1",
            MLFLOW_TRACKING_URI=prefect.settings.tracking_uri,
        )  # fmt: skip
        return child_environment(home.settings, home.environ)

    return environment


def _found(store: EventStore) -> dict[str, Any]:
    """What passes left behind, without what tells when they ran: screening begins a day before."""
    baselines = [one.canonical() for one in store.records(Baseline)]
    boards = store.latest_by_subject(BoardState)
    rows = store.signals(Window(EVER, datetime.now(UTC)), lag=timedelta(days=1))
    return {
        "baselines": [{**one, "id": "", "created_at": ""} for one in baselines],
        "boards": {version: board.opened_at for version, board in boards.items()},
        "alerts": [
            (event.kind, event.severity, event.model_version)
            for event in store.records(AlertEvent)
            if event.change == "opened"
        ],
        "counts": store.counts(),  # derived feedback among them
        "rows": rows.num_rows,
    }


@pytest.mark.timeout(900)
def test_thirty_six_passes_of_two_workers_all_end_well_and_find_what_one_worker_does(
    machine: Callable[[str, str], dict[str, str]], new_schema: Callable[[], str]
) -> None:
    now = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(hours=2)
    found = []
    for workers in (1, 2):
        url = new_schema()
        with closing(EventStore.open(url, assistant="support-router")) as store, ExitStack() as all:
            _fill(store, now)
            homes = [machine(f"{workers}-{number}", url) for number in range(workers)]
            run = [all.enter_context(python_process(home, IMPORTS, seconds=800)) for home in homes]
            with ThreadPoolExecutor(workers) as threads:
                each = PASSES // 2 if workers == 2 else 2
                said = list(threads.map(lambda one: one(f"passes({each})"), run))  # noqa: B023
            run[0]("passes(1)")
            assert all_ended(said), said
            left = "nothing is done in this run: one pass over what is new at a time"
            assert any(left in words for words in said) is (workers == 2), said
            found.append(_found(store))
    assert found[0] == found[1]
    assert ("board", "critical", BAD) in found[0]["alerts"]


def all_ended(said: list[str]) -> bool:
    return all("all ended well" in words for words in said)


@pytest.mark.timeout(600)
def test_two_homes_on_one_store_run_one_loop(
    machine: Callable[[str, str], dict[str, str]], new_schema: Callable[[], str]
) -> None:
    url = new_schema()
    with (
        python_process(machine("one", url), IMPORTS) as one,
        python_process(machine("other", url), IMPORTS) as other,
    ):
        one("entered = sole_loop(workspace().store); entered.__enter__()")
        said = other("from ratchet.flows.loop import main; print('code', main([]))")
        assert "one loop at a time may run over a store, got another (process" in said
        assert "code 2" in said
        one("entered.__exit__(None, None, None)")
        said = other("print('code', main([]))")
        assert "waiting: " in said  # for what a cycle needs, which nobody has given here
        assert "code 0" in said


@contextmanager
def worker(environment: dict[str, str], *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The command `ratchet worker`, which is told to end like by Ctrl-C."""
    command = [sys.executable, "-c", "from ratchet.cli import main; main()", "worker", *arguments]
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.wait(60)


def _run(api: str, deployment: str, options: dict[str, Any]) -> dict[str, Any]:
    """Start a deployment and wait until its run has ended."""
    found = httpx.get(f"{api}/deployments/name/{deployment}").raise_for_status().json()
    body = {"parameters": {"options": options}, "state": {"type": "SCHEDULED"}}
    made = httpx.post(f"{api}/deployments/{found['id']}/create_flow_run", json=body).json()
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        run = httpx.get(f"{api}/flow_runs/{made['id']}").json()
        if run["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
            return dict(run)
        time.sleep(0.5)
    raise AssertionError(f"{deployment} did not end: {run['state_type']}")


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.timeout(900)
def test_a_worker_serves_the_store_of_its_deployments_and_refuses_every_other(
    prefect: PrefectHome, machine: Callable[[str, str], dict[str, str]],
    new_schema: Callable[[], str], tmp_path: Path,
) -> None:  # fmt: skip
    url, api = new_schema(), prefect.servers.prefect_api
    with closing(EventStore.open(url, assistant="support-router")) as store:
        prefect.servers.store_id = store.identity
        prefect.servers.register_deployments()
        options = {"cycle": False}
        with worker(machine("second", url), "--pool", "ratchet") as process:
            assert process.stdout is not None
            said = "".join(process.stdout.readline() for _ in range(4))
            assert f"Store    {store.identity}" in said, said + process.stdout.read()
            assert "Workers serve the pools ratchet." in said
            run = _run(api, "analyze/analyze", options)
            assert (run["state_type"], len(store.records(SafetyPass))) == ("COMPLETED", 1), run
            log = tmp_path / "second" / "home" / "logs" / "worker.log"
            assert "Worker" in log.read_text()
            children = _children(process.pid)
            assert children
        assert process.returncode == 0
        assert not any(map(_lives, children))  # nothing goes on behind it

        another = f"sqlite:///{tmp_path / 'third' / 'home' / 'store.db'}"
        elsewhere = machine("third", another)
        with worker(elsewhere) as process:
            said = process.communicate(timeout=120)[0]
            assert process.returncode == 2
        assert f"was started for the store {store.identity}, got no store at {another}" in said
        assert not (tmp_path / "third" / "home" / "store.db").exists()

        # Prefect's own command checks nothing: each run does
        run, _ = _by_prefects_worker(api, elsewhere | {"RATCHET_PYTHON": sys.executable}, tmp_path)
        assert run["state_type"] == "FAILED", run
        assert f"started for the store {store.identity}, got no store" in run["state"]["message"]
        assert not (tmp_path / "third" / "home" / "store.db").exists()


@pytest.mark.timeout(300)
def test_a_worker_outside_of_ratchets_environment_says_what_to_do(
    prefect: PrefectHome, machine: Callable[[str, str], dict[str, str]],
    new_schema: Callable[[], str], tmp_path: Path,
) -> None:  # fmt: skip
    prefect.servers.register_deployments()
    environment = machine("bare", new_schema())
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python3"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')  # without packages
    python.chmod(0o755)
    environment["PATH"] = f"{tmp_path / 'bin'}:{environment['PATH']}"
    run, said = _by_prefects_worker(prefect.servers.prefect_api, environment, tmp_path)
    assert run["state_type"] == "CRASHED", run
    assert "this worker has no Ratchet: start it by ratchet worker, or set RATCHET_PYTHON" in said


def _by_prefects_worker(
    api: str, environment: dict[str, str], folder: Path
) -> tuple[dict[str, Any], str]:
    """Run `analyze` by a worker that was started by hand; return the run and what that printed."""
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "ratchet"]
    with (folder / "by-hand.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        run = _run(api, "analyze/analyze", {"cycle": False})
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(60)
    return run, (folder / "by-hand.log").read_text()


def _children(pid: int) -> list[int]:
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    return [int(word) for word in listed.stdout.split()]


@pytest.mark.timeout(600)
def test_a_pool_that_was_edited_stays_as_it_is_and_one_that_is_missing_is_made(
    prefect: PrefectHome,
) -> None:
    api = prefect.servers.prefect_api
    prefect.servers.register_deployments()
    pool = httpx.get(f"{api}/work_pools/ratchet").json()
    properties = pool["base_job_template"]["variables"]["properties"]
    command = properties["command"]["default"]
    assert "RATCHET_PYTHON" in command
    properties["env"]["default"] = {"OURS": "1"}
    # as a version wrote it that named this machine's Python
    properties["command"]["default"] = f"{sys.executable} -P -m ratchet.processes prefect.engine"
    edited = {"base_job_template": pool["base_job_template"], "concurrency_limit": 7}
    httpx.patch(f"{api}/work_pools/ratchet", json=edited).raise_for_status()
    httpx.delete(f"{api}/work_pools/ratchet-training").raise_for_status()
    kind = {"name": "ratchet-training", "type": "kubernetes", "base_job_template": {}}
    httpx.post(f"{api}/work_pools/", json=kind).raise_for_status()
    prefect.servers.register_deployments()
    pool = httpx.get(f"{api}/work_pools/ratchet").json()
    properties = pool["base_job_template"]["variables"]["properties"]
    assert (pool["concurrency_limit"], properties["env"]["default"]) == (7, {"OURS": "1"})
    assert properties["command"]["default"] == command
    assert httpx.get(f"{api}/work_pools/ratchet-training").json()["type"] == "kubernetes"
