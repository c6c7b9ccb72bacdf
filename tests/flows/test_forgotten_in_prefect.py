"""`ratchet forget` against a real Prefect server and a real MLflow server, both at work."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from ratchet.operate.forgetting import Everywhere
from ratchet.processes import open_environment, python
from ratchet.records import Interaction, Message
from ratchet.settings import load_settings
from ratchet.store import EventStore
from ratchet.tracking import Tracker
from tests.cli.in_process import run_in_process
from tests.flows.prefect_home import ROOT, new_home, run_python

USER = "user-17"
WORD = b"Ramses-the-lost-cat"
PHRASE = f"my {WORD.decode()} was run over and nobody answers me"
OTHER = "where is my parcel of yesterday"
FLOWS = f"""
import os
from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact

PHRASE, OTHER = {PHRASE!r}, {OTHER!r}

@task(persist_result=True, cache_key_fn=lambda *_: "said")
def answer(text):
    return [text, OTHER]

@flow(persist_result=True, log_prints=True)
def asked(text, other=OTHER):
    get_run_logger().info("asked: %s", text)
    print("printed", text)
    create_markdown_artifact(f"| {{text}} |\\n| {{other}} |", key="table")
    create_table_artifact([{{"said": text, "of": other}}], key="rows", description=text)
    create_markdown_artifact(other, key="others")
    return answer(text)

@flow
def fails(text):
    raise ValueError("no answer to " + text)

asked.with_options(flow_run_name="run of " + PHRASE)(PHRASE)
asked(OTHER)
try:
    fails({{"deep": [PHRASE]}})
except Exception:
    pass
try:
    fails(PHRASE)
except ValueError:
    pass
"""


def interaction(user: str, text: str) -> Interaction:
    return Interaction(
        id=f"of-{user}", session_id=user, user_id=user, created_at=datetime.now(UTC) - DAY,
        model_version="m/1", messages=(Message(role="user", content=text),), response="sorry",
    )  # fmt: skip


DAY = timedelta(days=1)


def holding(folder: Path, word: bytes) -> set[str]:
    """Return the files below a folder that hold a word."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)) for path in found if word in path.read_bytes()}


def fill(store: EventStore) -> None:
    store.add_interactions([interaction(USER, PHRASE), interaction("bob", OTHER)])


def in_api(api: str) -> str:
    """Return all that Prefect's API tells of runs, logs and artifacts."""
    kinds = ("flow_runs", "task_runs", "logs", "artifacts")
    answers = [httpx.post(f"{api}/{kind}/filter", json={}, timeout=60.0) for kind in kinds]
    return "\n".join(answer.raise_for_status().text for answer in answers)


def until_logged(api: str) -> None:
    deadline = time.monotonic() + 60
    while "printed " + OTHER not in in_api(api):
        assert time.monotonic() < deadline, "logs of the flows did not arrive"
        time.sleep(0.5)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nothing_of_a_user_stays_in_prefects_database_logs_artifacts_results_and_parameters(
    tmp_path: Path, served_once: Path
) -> None:
    home = new_home(tmp_path, served_once)
    fill(home.store)
    with home.serving() as environment:
        api = home.servers.prefect_api
        (tmp_path / "flows_of_test.py").write_text(FLOWS, "utf-8")
        run_python(environment, str(tmp_path / "flows_of_test.py"))
        until_logged(api)
        told = in_api(api)
        assert told.count(WORD.decode()) >= 8
        planted = holding(home.settings.home, WORD)
        assert any(name.startswith("prefect/storage") for name in planted) or any(
            "storage" in name for name in holding(home.settings.home / "prefect", b"result")
        )
        assert any("prefect.db" in name for name in planted)

        ours = {n: v for n, v in environment.items() if n.startswith(("RATCHET_", "MLFLOW_"))}
        done = run_in_process("forget", USER, "--yes", folder=tmp_path, environment=ours)
        assert done.returncode == 0, done.stderr
        assert "not erased" not in done.stdout, done.stdout
        left = in_api(api)
        assert WORD.decode() not in left
        assert left.count(OTHER) >= 5, "what others said is there"
        while_running = holding(home.settings.home, WORD)
    assert while_running == set(), "also in the write-ahead log and in free pages"
    assert holding(home.settings.home, WORD) == set()


@contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """Serve MLflow over HTTP with a database and artifacts of its own."""
    folder.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = python(
        "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{folder}/mlflow.db",
        "--serve-artifacts", "--artifacts-destination", str(folder / "artifacts"),
    )  # fmt: skip
    environment = open_environment(os.environ) | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log,
            stderr=log, start_new_session=True,
        )  # fmt: skip
        try:
            deadline = time.monotonic() + 240
            while not answers(f"http://127.0.0.1:{port}/health"):
                assert server.poll() is None, (folder / "log").read_text()[-2000:]
                assert time.monotonic() < deadline
                time.sleep(0.5)
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(server.pid, 15)
            server.wait(60)


def answers(address: str) -> bool:
    try:
        return httpx.get(address, timeout=3.0).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_user_is_forgotten_on_servers_elsewhere_over_their_apis_and_what_stays_is_named(
    tmp_path: Path, served_once: Path
) -> None:
    elsewhere = new_home(tmp_path / "prefect", served_once)
    with mlflow_server(tmp_path / "mlflow") as uri, elsewhere.serving() as environment:
        api = elsewhere.servers.prefect_api
        (tmp_path / "flows_of_test.py").write_text(FLOWS, "utf-8")
        run_python(environment, str(tmp_path / "flows_of_test.py"))
        until_logged(api)
        variables = {"RATCHET_HOME": str(tmp_path / "home"), "MLFLOW_TRACKING_URI": uri,
                     "PREFECT_API_URL": api}  # fmt: skip
        settings = load_settings(variables, ROOT)
        settings.make_home()
        store = EventStore.open(settings.store_url)
        fill(store)
        tracker = Tracker(uri, artifacts=settings.artifacts, model_name="m")
        with tracker.run("ratchet", key="k", name="n", tags={"note": f"on {PHRASE}"}) as run:
            run.text(f"<p>{PHRASE}</p><p>{OTHER}</p>", "page.html")
            run.table({"prompt": [PHRASE, OTHER], "score": [1.0, 0.0]}, "answers.json")
        with tracker.run("ratchet", key="p", name="p", tags={}) as other:
            other.params({"question": PHRASE})
        assert of_run(tracker, run.run_id, tmp_path / "before").count(WORD.decode()) >= 3

        done = Everywhere(
            store, settings, now=datetime.now(UTC), prefect=api, tracker=lambda: tracker
        )
        done.forget(USER, None, by="ada")
        store.close()
        left = of_run(tracker, run.run_id, tmp_path / "after")
        assert WORD.decode() not in left
        assert left.count(OTHER) >= 2
        artifacts = httpx.post(f"{api}/artifacts/filter", json={}).json()
        keys = [item["key"] for item in artifacts]
        assert WORD.decode() not in str(artifacts)
        assert keys.count("others") == 2
        assert keys.count("table") == 1, "the one about what others said"
        named = "\n".join(done.swept.left)
        assert f"parameter question of run {other.run_id}: delete the run" in named
        assert "logs and parameters of flow runs lie on a Prefect server elsewhere" in named
        assert holding(settings.home, WORD) == set()


def of_run(tracker: Tracker, run_id: str, folder: Path) -> str:
    """Return what MLflow tells of a run over HTTP: tags, parameters, artifacts."""
    client: Any = tracker._client
    folder.mkdir()
    client.download_artifacts(run_id, "", str(folder))
    files = [path.read_text("utf-8") for path in folder.rglob("*") if path.is_file()]
    data = client.get_run(run_id).data
    return "\n".join([*files, str(data.tags), str(data.params)])
