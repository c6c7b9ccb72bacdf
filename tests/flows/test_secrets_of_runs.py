"""What `ratchet up` is told in secret shows in the environment of no flow run and no server."""

from __future__ import annotations

import base64
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest

from ratchet.settings import loose
from tests.flows.prefect_home import new_home
from tests.notify.conftest import alert

SECRET = "s3cr3t-of-this-test"
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


@dataclass
class Seen:
    """What was asked with which password, and the environments of the home's processes then."""

    home: str
    passwords: list[str] = field(default_factory=list)
    environments: dict[str, str] = field(default_factory=dict)


def processes(home: str) -> Iterator[tuple[str, str]]:
    """Yield command and environment of every process over a home but this one."""
    for place in Path("/proc").glob("[0-9]*"):
        try:
            environment = place.joinpath("environ").read_text("utf-8", "replace")
            command = place.joinpath("cmdline").read_text("utf-8", "replace")
        except OSError:
            continue
        if f"RATCHET_HOME={home}\0" in environment:
            yield command.replace("\0", " "), environment


@contextmanager
def inbox(seen: Seen) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            given = self.headers.get("Authorization", "").removeprefix("Basic ")
            seen.passwords.append(base64.b64decode(given).decode())
            seen.environments.update(processes(seen.home))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_flow_run_uses_secrets_that_no_environment_shows_and_the_home_is_the_owners_alone(
    tmp_path: Path, served_once: Path
) -> None:
    if not Path("/proc/self/environ").exists():
        pytest.skip("reads /proc, which this system does not have")
    seen = Seen(str(tmp_path / "home"))
    with inbox(seen) as port:
        home = new_home(
            tmp_path, served_once,
            RATCHET_NOTIFY=f"json://user:{SECRET}@127.0.0.1:{port}/alerts",
            RATCHET_BACKEND_KEY=SECRET, HF_TOKEN=SECRET, PREFECT_WORKER_QUERY_SECONDS="1",
        )  # fmt: skip
        home.store.append(alert(created_at=datetime.now(UTC)))
        servers = home.servers
        try:
            servers.start(prefect_port=free(), mlflow_port=free(), environ=home.environ)
            told = servers._told
            assert told is not None
            assert stat.S_IMODE(told.stat().st_mode) == 0o600
            assert stat.S_IMODE(told.parent.stat().st_mode) == 0o700
            api = servers.prefect_api
            found = httpx.get(f"{api}/deployments/name/analyze/analyze").json()
            body = {"parameters": {}, "state": {"type": "SCHEDULED"}}
            made = httpx.post(f"{api}/deployments/{found['id']}/create_flow_run", json=body).json()
            deadline = time.monotonic() + 240
            while (run := httpx.get(f"{api}/flow_runs/{made['id']}").json())[
                "state_type"
            ] not in ENDED:
                assert time.monotonic() < deadline, run["state"]
                time.sleep(0.5)
            log = (home.settings.home / "logs" / "worker.log").read_text("utf-8")[-3000:]
            assert run["state_type"] == "COMPLETED", (run["state"], log)
        finally:
            servers.stop()
    assert seen.passwords[:1] == [f"user:{SECRET}"], "the flow used the secret"
    commands = list(seen.environments)
    for what in ("prefect.engine", "worker start", "prefect server", "mlflow server"):
        assert any(what in command for command in commands), (what, commands)
    assert [command for command in commands if SECRET in command] == []
    shown = [command for command, told in seen.environments.items() if SECRET in told]
    assert shown == []
    assert not told.parent.exists(), "what children were told goes with the servers"
    assert list(loose(home.settings.home)) == [], "made by Prefect and MLflow too"
    written = [path for path in home.settings.home.rglob("*") if path.is_file()]
    assert [path for path in written if SECRET.encode() in path.read_bytes()] == []
