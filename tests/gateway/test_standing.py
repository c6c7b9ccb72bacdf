"""`ratchet serve` in a process of its own: what it stands in front of, and what it says of that."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from ratchet.records import Release
from ratchet.store import EventStore
from tests.cli.in_process import run_in_process
from tests.servers.vllm_server import VllmServer

OURS = ("RATCHET_", "MLFLOW_", "PREFECT_")


@pytest.fixture
def server():
    with VllmServer("org/base") as started:
        yield started


class Serving:
    """`ratchet serve` in a folder: the lines that it said so far, and its address."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process, self.said = process, ""

    def until(self, text: str) -> str:
        assert self._process.stdout is not None
        while text not in self.said:
            line = self._process.stdout.readline()
            assert line, f"it ended before it said {text!r}: {self.said}"
            self.said += line
        return self.said

    @property
    def url(self) -> str:
        return self.until("gateway  http").partition("gateway  ")[2].split()[0]

    def health(self) -> dict[str, object]:
        with httpx.Client(transport=httpx.HTTPTransport(retries=8), trust_env=False) as client:
            return client.get(f"{self.url}/healthz", timeout=30).json()


@contextmanager
def serving(folder: Path, *words: str):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    process = subprocess.Popen(
        [sys.executable, "-m", "ratchet.cli", "serve", "--port", "0", *words],
        cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    try:
        yield Serving(process)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_the_backend_is_remembered_and_the_lack_of_a_champion_said_in_one_line(tmp_path, server):
    with serving(tmp_path, "--backend", server.url) as first:
        said = first.until("no champion yet")
        assert f"(in front of {server.url})" in said
        line = next(line for line in said.splitlines() if line.startswith("no champion yet"))
        assert line.endswith("ratchet adopt --backend URL")
    with serving(tmp_path) as second:
        assert f"(in front of {server.url})" in second.until("no champion yet")
        health = second.health()
        assert (health["champion"], "ratchet adopt" in health["advice"][0]) == (None, True)


@pytest.mark.slow
def test_a_version_that_a_replica_lacks_is_said_at_the_start(tmp_path, server):
    store = EventStore.open(f"sqlite:///{tmp_path / '.ratchet' / 'store.db'}")
    now = datetime.now(UTC)
    store.append(
        Release(
            id="r", created_at=now, action="start", champion="support-router/1", previous=None
        )
    )  # fmt: skip
    with (
        VllmServer("org/base", aliases=["support-router/1"]) as second,
        serving(tmp_path, "--backend", server.url, "--backend", second.url) as gateway,
    ):
        said = gateway.until("does not list")
        assert f"{server.url} does not list support-router/1; it lists org/base" in said
        assert second.url + " does not" not in said
        assert gateway.health()["lacking"] == {"backend": ["support-router/1"]}

    store.close()


@pytest.mark.slow
def test_the_default_model_does_not_answer_as_one_that_a_server_has(tmp_path, server):
    done = run_in_process("adopt", "--backend", server.url, folder=tmp_path, environment={})
    assert done.returncode == 0, done.stderr
    for words, why in [
        (("--local",), "a server answers; name it by --backend"),
        (("--local", "--backend", server.url), "--local must stand without --backend"),
    ]:
        refused = run_in_process("serve", *words, folder=tmp_path, environment={})
        assert (refused.returncode, why in refused.stderr) == (2, True), refused.stderr
