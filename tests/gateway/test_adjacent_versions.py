"""An upgrade while users are served: gateways of two versions on one home and one store."""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
import tarfile
import time
import zlib
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from ratchet.gateway.drain import Drain
from ratchet.gateway.log_lines import SUFFIX, SUFFIX_0_1, segments
from ratchet.store import EventStore
from tests.gateway.conftest import ALWAYS
from tests.gateway.test_log import interaction
from tests.servers.mock_backend import MockBackend

ROOT = Path(__file__).parents[2]
BEFORE = "3f08483"
"""The last commit whose gateway wrote segments of the first format."""


def old_segment(folder: Path, number: int) -> None:
    """Write a segment as Ratchet 0.1 does: neither header nor numbers."""
    content = b"%d i %b" % (time.time_ns(), interaction(number))
    path = folder / f"{time.time_ns():020d}-1{SUFFIX_0_1}"
    path.write_bytes(b"%08x %b\n" % (zlib.crc32(content), content))


def test_the_log_of_the_version_before_is_drained_unless_that_version_does(tmp_path, store):
    old_segment(tmp_path, 0)
    other = Drain(tmp_path, store)
    assert other._lock_0_1.acquire(timeout=0)  # as a gateway of 0.1 holds it while it runs
    drain = Drain(tmp_path, store, young_seconds=0)
    assert drain.once() == 0
    other._lock_0_1.release()
    assert drain.once() == 1
    drain.once()
    assert segments(tmp_path) == []
    assert store.interactions(ALWAYS)["id"].to_pylist() == ["i-0"]
    drain.close()


def test_the_version_before_does_not_see_the_segments_of_this_one():
    assert not Path(f"1{SUFFIX}").match(f"*{SUFFIX_0_1}")


@pytest.fixture
def version_before(tmp_path):
    """The source of the version before, from the repository's history."""
    archive = subprocess.run(
        ["git", "archive", BEFORE, "src", "flows"], cwd=ROOT, capture_output=True, check=False
    )
    if archive.returncode:
        pytest.skip("needs the repository with its history")
    folder = tmp_path / "before"
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as packed:
        packed.extractall(folder, filter="tar")
    return folder / "src"


@contextmanager
def gateway(home: Path, backend: str, source: Path | None, log: Path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {"RATCHET_HOME": str(home)}
    if source is not None:
        environment["PYTHONPATH"] = str(source)
    command = [sys.executable, "-m", "ratchet.cli", "serve", "--port", str(port)]
    with log.open("ab") as output:
        child = subprocess.Popen(
            [*command, "--backend", backend, "--workers", "2", "--rate", "0"],
            env=environment, stdout=output, stderr=output, cwd=home.parent,
        )  # fmt: skip
        try:
            url = f"http://127.0.0.1:{port}"
            until = time.monotonic() + 120
            while time.monotonic() < until:
                try:
                    if httpx.get(f"{url}/healthz", trust_env=False).status_code == 200:
                        break
                except httpx.TransportError:
                    time.sleep(0.2)
            yield url, child
        finally:
            child.send_signal(signal.SIGTERM)
            child.wait(60)


def ask(url: str, text: str) -> str:
    body = {"model": "m", "user": text, "messages": [{"role": "user", "content": text}]}
    reply = httpx.post(f"{url}/v1/chat/completions", json=body, trust_env=False, timeout=60)
    answer = reply.json()
    event = {
        "id": f"f-{answer['id']}", "interaction_id": answer["id"], "kind": "thumbs",
        "value": "up", "token": answer["ratchet"]["token"],
    }  # fmt: skip
    told = httpx.post(f"{url}/v1/feedback", json=event, trust_env=False, timeout=60)
    assert told.json()["accepted"] == 1
    return answer["id"]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", ["before", "now"])
def test_gateways_of_two_versions_serve_one_home_and_one_may_be_killed(
    tmp_path, version_before, first
):
    """Old and new together, the first one killed in the middle, the other serves on."""
    home, log = tmp_path / "home", tmp_path / "log"
    sources = [version_before, None] if first == "before" else [None, version_before]
    answers = []
    with MockBackend() as mock, ExitStack() as stack:
        one, child = stack.enter_context(gateway(home, mock.url, sources[0], log))
        answers += [ask(one, f"alone {number}") for number in range(20)]
        two, _ = stack.enter_context(gateway(home, mock.url, sources[1], log))
        for number in range(60):
            answers += [ask(one, f"first {number}"), ask(two, f"second {number}")]
        child.kill()
        answers += [ask(two, f"after {number}") for number in range(20)]
    store = EventStore.open(f"sqlite:///{home / 'store.db'}")
    drain = Drain(
        home / "gateway" / "wal", store, young_seconds=0
    )  # the newer one is started again
    while drain.once():
        pass
    drain.once()
    drain.close()
    kept = store.interactions(ALWAYS)["id"].to_pylist()
    rated = store.feedback(ALWAYS)["id"].to_pylist()
    assert set(answers) - set(kept) == set()
    assert {f"f-{key}" for key in answers} - set(rated) == set()
    assert (len(kept), len(rated)) == (len(answers), len(answers))
    assert (store.counts()["set_aside"], drain.backlog().lost) == (0, 0)
    assert [path for path in segments(home / "gateway" / "wal") if path.stat().st_size] == []
    store.close()
