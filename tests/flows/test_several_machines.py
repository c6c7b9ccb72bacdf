"""A whole cycle on three machines that share no disk, of which two are lost on the way.

They share one PostgreSQL, one Prefect server, one MLflow server and one object storage, as
`docs/elsewhere.md` has several machines. Where Linux allows it each process of a machine has a
space of process numbers of its own, so that no machine sees whether a process of another lives.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import s3fs

from ratchet.processes import kill_with_parent
from ratchet.records import (
    Candidate,
    Cycle,
    CycleEnd,
    Decision,
    LabelledMessage,
    Release,
    TrainingSet,
)
from ratchet.servers import child_environment, free_port
from ratchet.simulation.live import Ask, LiveUsers
from ratchet.simulation.messages import support_messages
from ratchet.simulation.routing import conversation
from ratchet.simulation.users import ReactionRates
from ratchet.store import EventStore
from ratchet.tracking import Tracker
from tests.flows.prefect_home import PrefectHome, new_home
from tests.store.s3_server import BUCKET, s3_server

pytestmark = pytest.mark.slow
QUEUES = ("billing", "delivery")
USERS, HELD_OUT = 120, 40
SECONDS, CYCLE_SECONDS = 240.0, 900.0  # on two cores that others use as well
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
RATCHET = ("-P", "-m", "ratchet.cli")
SPACE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c",
         'mount -t tmpfs none /dev/shm && exec "$@"', "sh")  # fmt: skip


def _own_space() -> tuple[str, ...]:
    """What starts a process on a machine of its own; nothing where Linux does not let us."""
    with suppress(OSError):
        if subprocess.run([*SPACE, "true"], capture_output=True).returncode == 0:
            return SPACE
    return ()


@dataclass
class Machine:
    """A home of its own, and processes that are lost together."""

    home: PrefectHome
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.home.settings.home

    @property
    def environment(self) -> dict[str, str]:
        return child_environment(self.home.settings, self.home.environ)

    @property
    def log(self) -> Path:
        return self.folder.parent / "machine.log"

    def run(self, *arguments: str) -> str:
        """Run a command to its end; it has to succeed."""
        done = subprocess.run(
            [*_own_space(), sys.executable, *arguments],
            cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=SECONDS,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [*_own_space(), sys.executable, *arguments],
                cwd=self.folder, env=self.environment, stdout=log, stderr=log,
                start_new_session=True, preexec_fn=kill_with_parent,
            )  # fmt: skip
        self.started.append(process)
        return process

    def is_lost(self) -> None:
        """Kill whatever runs over this home, as a loss of power does; nothing of it goes on."""
        until = time.monotonic() + 60.0
        while alive := self._processes():
            assert time.monotonic() < until, f"{alive} outlive a SIGKILL"
            for pid in alive:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for process in self.started:
                process.poll()
            time.sleep(0.05)
        for process in self.started:
            process.wait(60)
        self.started.clear()

    def _processes(self) -> list[int]:
        mark, found = f"\0RATCHET_HOME={self.folder}\0".encode(), []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                if mark in b"\0" + path.read_bytes():
                    found.append(int(path.parent.name))
        return found

    def until(self, says: Callable[[], Any], seconds: float = SECONDS) -> Any:
        """Wait for a condition, while everything that was started here runs."""
        deadline = time.monotonic() + seconds
        while not (found := says()):
            ended = [one for one in self.started if one.poll() is not None]
            assert not ended, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.2)
        return found

    def said(self) -> str:
        logs = [self.log, *sorted((self.folder / "logs").glob("*.log"))]
        return "\n".join(f"{p.name}: {p.read_text()[-20_000:]}" for p in logs if p.exists())


@dataclass(frozen=True)
class Site:
    """The servers that all machines share, and the machines."""

    prefect: str
    mlflow: str
    store_url: str
    machines: Mapping[str, Machine]

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Return what Prefect replies; ask again while its database is busy, as its clients do."""
        until = time.monotonic() + SECONDS
        while True:
            reply = httpx.request(method, f"{self.prefect}/{path}", json=body, timeout=60)
            if reply.status_code != 503 or time.monotonic() > until:
                return reply.raise_for_status().json()
            time.sleep(0.5)

    def start_loop(self, options: Mapping[str, Any]) -> str:
        loop = self.ask("GET", "deployments/name/loop/loop")["id"]
        body = {
            "parameters": {"options": options}, "state": {"type": "SCHEDULED"},
            "idempotency_key": str(time.time_ns()),
        }  # fmt: skip
        return str(self.ask("POST", f"deployments/{loop}/create_flow_run", body)["id"])

    def run(self, key: str) -> dict[str, Any]:
        return dict(self.ask("GET", f"flow_runs/{key}"))

    def give_up(self, key: str) -> None:
        """Tell Prefect what nobody else can know: that the machine of a run is lost."""
        state = {"type": "CRASHED", "message": "its machine was lost"}
        self.ask("POST", f"flow_runs/{key}/set_state", {"state": state, "force": True})

    def trainings(self) -> list[str]:
        """States of the runs that train, in order."""
        body = {"sort": "EXPECTED_START_TIME_ASC", "flows": {"name": {"any_": ["improve"]}}}
        return [run["state_type"] for run in self.ask("POST", "flow_runs/filter", body)]

    def most_task_runs(self) -> int:
        """Task runs of the flow run that has most of them."""
        runs = self.ask("POST", "flow_runs/filter", {"limit": 200})
        return max(
            int(self.ask("POST", "task_runs/count", {"flow_runs": {"id": {"any_": [run["id"]]}}}))
            for run in runs
        )

    def is_training(self) -> bool:
        """Whether a task trains just now."""
        body = {
            "task_runs": {"name": {"like_": "finetune"}, "state": {"type": {"any_": ["RUNNING"]}}},
            "flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}},
        }
        return bool(self.ask("POST", "task_runs/filter", body))


@contextmanager
def mlflow_server(folder: Path, database: Path) -> Iterator[str]:
    """MLflow, which artifacts go through into the object storage."""
    shutil.copyfile(database, folder / "mlflow.db")
    port = free_port(int(np.random.default_rng().integers(15_000, 30_000)))
    with (folder / "mlflow.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "mlflow", "server", "--port", str(port), "--workers", "1",
             "--serve-artifacts", "--artifacts-destination", f"s3://{BUCKET}/mlflow",
             "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"],
            cwd=folder, stdout=log, stderr=log, start_new_session=True,
            env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            preexec_fn=kill_with_parent,
        )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + SECONDS
        while not _answers(f"{address}/health"):
            assert process.poll() is None, (folder / "mlflow.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(address: str) -> bool:
    with suppress(httpx.HTTPError):
        return httpx.get(address).status_code == 200
    return False


@pytest.fixture
def site(
    tmp_path: Path, served_once: Path, tiny_model: Path, mlflow_database: Path, postgresql_url: str
) -> Iterator[Site]:
    (tmp_path / "nothing").mkdir()
    (tmp_path / "servers").mkdir()
    with ExitStack() as stack:
        stack.enter_context(s3_server())
        mlflow = stack.enter_context(mlflow_server(tmp_path / "servers", mlflow_database))
        servers = new_home(tmp_path / "prefect", served_once)
        stack.enter_context(servers.serving())
        machines = {}
        for name in ("first", "second", "third"):
            shutil.copytree(tiny_model, tmp_path / name / "model")
            home = new_home(
                tmp_path / name, tmp_path / "nothing",
                RATCHET_STORE_URL=postgresql_url, RATCHET_HISTORY=f"s3://{BUCKET}/history",
                RATCHET_BASE_MODEL=str(tmp_path / name / "model"),
                RATCHET_CACHE=str(tmp_path / name / "cache"),
                PREFECT_API_URL=servers.servers.prefect_api, MLFLOW_TRACKING_URI=mlflow,
                PREFECT_WORKER_QUERY_SECONDS="1",
            )  # fmt: skip
            machines[name] = Machine(home)
            stack.callback(machines[name].is_lost)
        yield Site(servers.servers.prefect_api, mlflow, postgresql_url, machines)


def _messages() -> list[LabelledMessage]:
    made = support_messages(np.random.default_rng(7), 1_000)
    return [message for message in made if message.label in QUEUES][: USERS + HELD_OUT]


def _users_ask(address: str, messages: list[LabelledMessage]) -> LiveUsers:
    """Have users ask the gateway, and say at once what would have been right."""
    users = LiveUsers(
        address, keys={}, labels=QUEUES, seed=1, hurry=float("inf"), max_tokens=8,
        rates=ReactionRates(correction_wrong=1.0),
    )  # fmt: skip
    asks = [Ask("desk", f"u{n}", message) for n, message in enumerate(messages)]
    asyncio.run(users.run(iter(asks), until=lambda: False))
    return users


def _options(folder: Path, held_out: list[LabelledMessage]) -> dict[str, Any]:
    rows = [
        {
            "id": str(number),
            "messages": [turn.canonical() for turn in conversation(QUEUES, message.text)],
            "target": message.label,
        }
        for number, message in enumerate(held_out)
    ]
    file = folder / "examples.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "collect": {"examples": str(file)},
        "improve": {"finetune": {"epochs": 60.0, "rank": 4, "batch_size": 4}},
        "deploy": {"policy": {"primary": {"metric": "exact_match"}, "minimum_examples": 20}},
    }


@pytest.mark.timeout(2_400)
def test_three_machines_play_a_cycle_though_two_of_them_are_lost_in_the_middle(site: Site) -> None:
    first, second, third = (site.machines[name] for name in ("first", "second", "third"))

    def first_begins() -> None:
        (first.folder / "pages.json").unlink(missing_ok=True)  # of a machine that was lost
        served = first.said().count("Workers serve the pools ratchet.")
        first.start(*RATCHET, "worker", "--pool", "ratchet")
        first.start("-P", "-m", "ratchet.web", "--port", "0")
        first.until(lambda: first.said().count("Workers serve the pools ratchet.") > served)
        pages = first.until(lambda: (first.folder / "pages.json").exists()
                            and json.loads((first.folder / "pages.json").read_text()))  # fmt: skip
        first.until(lambda: _answers(f"{pages['address']}/health"))

    def second_begins() -> None:
        second.start(*RATCHET, "worker", "--pool", "ratchet-training")

    assert "are registered" in first.run(*RATCHET, "register")
    first_begins()
    second_begins()
    port = free_port(int(np.random.default_rng().integers(15_000, 30_000)))
    third.start(*RATCHET, "serve", "--local", "--rate", "0", "--port", str(port))
    gateway = f"http://127.0.0.1:{port}"
    third.until(lambda: _answers(f"{gateway}/healthz"))
    messages = _messages()
    users = _users_ask(gateway, messages[:USERS])
    assert (users.failed, sum(users.asked.values())) == (0, USERS)

    with closing(EventStore.open(site.store_url)) as store:
        third.until(lambda: store.counts()["interactions"] == USERS)
        loop = site.start_loop(_options(first.folder, messages[USERS:]))
        first.until(site.is_training)
        second.is_lost()
        second_begins()  # the loop finds out, and hands the training over again
        first.until(lambda: site.trainings()[:1] == ["CRASHED"] and site.is_training())
        first.is_lost()
        first_begins()
        site.give_up(loop)  # else Prefect has the next one wait for five minutes at most
        loop = site.start_loop(_options(first.folder, messages[USERS:]))
        ended = first.until(
            lambda: (run := site.run(loop))["state_type"] in ENDED and run, CYCLE_SECONDS
        )
        assert ended["state_type"] == "COMPLETED", (ended["state"]["message"], first.said())
        assert site.trainings() == ["CRASHED", "COMPLETED"]
        for kind in (Cycle, CycleEnd, TrainingSet, Candidate, Decision):
            assert len(store.records(kind)) == 1, kind
        (candidate,), (decision,) = store.records(Candidate), store.records(Decision)
        release = store.latest(Release)
        assert decision.verdict == "promote", decision
        assert release is not None
        version = f"{candidate.model_name}/{candidate.version}"
        assert release.champion == version

    def answering() -> str:
        body = {"model": "any", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
        reply = httpx.post(f"{gateway}/v1/chat/completions", json=body, timeout=60)
        return str(reply.raise_for_status().json()["model"])

    third.until(lambda: answering() == version)
    assert 10 <= site.most_task_runs() <= 60  # however many rows: see test_task_runs.py
    _check_disks(site, candidate)


def _check_disks(site: Site, candidate: Candidate) -> None:
    """Each machine has what it made, or what came by the artifact store; history lies in S3."""
    first, second, third = (site.machines[name] for name in ("first", "second", "third"))
    assert (second.folder / candidate.path).is_dir()
    assert not (first.folder / candidate.path).exists()
    (served,) = (third.folder / "adapters").iterdir()
    assert served.name.endswith(candidate.adapter_digest[:12])
    tracker = Tracker(site.mlflow, artifacts=third.folder, model_name=candidate.model_name)
    champion = tracker.champion()
    assert champion is not None
    assert champion.version == candidate.version
    first.run(*RATCHET, "prune")
    kept = s3fs.S3FileSystem(skip_instance_cache=True)
    assert [path for path in kept.find(f"{BUCKET}/history") if path.endswith(".parquet")]
    assert [path for path in kept.find(f"{BUCKET}/mlflow") if path.endswith(".safetensors")]
    for machine in site.machines.values():
        assert not (machine.folder / "history").exists()
        assert not (machine.folder / "mlflow").exists()
        assert not (machine.folder / "store.db").exists()
