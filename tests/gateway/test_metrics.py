"""`/metrics` of a gateway: right, valid, the same from every process, and never going back."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from ratchet.gateway.access import new_key
from ratchet.gateway.metrics import Metrics, path_of
from tests.gateway.conftest import routing
from tests.gateway.killing import free_port, gateway, workers
from tests.gateway.test_adapters import until
from tests.servers.mock_backend import MockBackend

NOW = datetime(2026, 12, 1, 9, tzinfo=UTC)
PROMTOOL = shutil.which("promtool")


def samples(text: str) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """What a scrape says, read by the official parser, which refuses what is no such text."""
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for one in family.samples:
            series = found.setdefault(one.name, {})
            labels = tuple(sorted(one.labels.items()))
            assert labels not in series, f"{one.name} comes twice with {labels}"
            series[labels] = one.value
    return found


def value(text: str, name: str, **labels: str) -> float:
    wanted = labels.items()
    series = samples(text).get(name, {})
    return sum(v for key, v in series.items() if wanted <= dict(key).items())


def check(text: str) -> None:
    """Hold a scrape to promtool, which also knows how metrics are named."""
    if PROMTOOL is None:
        pytest.skip("promtool is not installed: Debian's package `prometheus` has it")
    done = subprocess.run(
        [PROMTOOL, "check", "metrics"], input=text, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


def test_requests_answers_and_feedback_are_counted(serve, mock):
    gate = serve(backend=mock.url)
    gate.store.append(routing(("support/2", 0.25), ("support/1", 0.75)))
    until(lambda: gate.app.state.gateway.router.state.routing is not None)
    answers = [gate.ask(f"hello {n}", user=f"u{n}") for n in range(12)]
    token = answers[0]["ratchet"]["token"]
    good = {"id": "f1", "interaction_id": answers[0]["id"], "kind": "thumbs", "value": "up"}
    gate.post("/v1/feedback", {"events": [good | {"token": token}, good | {"token": "no"}]})
    gate.post("/v1/chat/completions", {"messages": []})
    gate.get("/v1/nothing")
    text = gate.get("/metrics").text
    by_version = {v: sum(a["ratchet"]["version"] == v for a in answers) for v in SUPPORT}
    for version, count in by_version.items():
        said = {"version": version, "outcome": "answered"}
        assert value(text, "ratchet_gateway_answers_total", **said) == count
        assert value(text, "ratchet_gateway_answer_duration_seconds_count", version=version) == (
            count
        )
    path = "/v1/chat/completions"
    assert value(text, "ratchet_gateway_requests_total", path=path, status="200") == 12
    assert value(text, "ratchet_gateway_requests_total", path=path, status="400") == 1
    assert value(text, "ratchet_gateway_requests_total", path="other", status="404") == 1
    assert value(text, "ratchet_gateway_request_duration_seconds_count", path=path) == 13
    assert value(text, "ratchet_gateway_requests_in_progress") == 1  # the scrape itself
    for outcome in ("accepted", "rejected"):
        assert value(text, "ratchet_gateway_feedback_events_total", outcome=outcome) == 1
    usage = sum(a["usage"]["completion_tokens"] for a in answers)
    assert value(text, "ratchet_gateway_tokens_total", kind="completion") == usage > 0
    assert value(text, "ratchet_gateway_routed_share", version="support/2") == 0.25
    assert value(text, "ratchet_gateway_recording") == 1
    check(text)


SUPPORT = ("support/1", "support/2")


def test_the_backlog_is_told_until_the_log_is_drained(serve, mock):
    gate = serve(backend=mock.url)
    gate.ask()
    drain = gate.drain
    assert drain._is_mine()
    drain.tell()
    text = gate.get("/metrics").text
    assert value(text, "ratchet_gateway_backlog_lines") == 1
    assert value(text, "ratchet_gateway_backlog_bytes") > 100
    assert value(text, "ratchet_gateway_drain_lag_seconds") > 0
    drain.once()
    drain.tell()
    drain.close()
    assert value(gate.get("/metrics").text, "ratchet_gateway_backlog_lines") == 0


def test_failures_and_streams_are_told_apart(serve):
    body = {"model": "any", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    with MockBackend() as mock:
        gate = serve(backend=mock.url)
        assert gate.post("/v1/chat/completions", body).status_code == 200
    assert gate.post("/v1/chat/completions", body).status_code in (502, 503)
    text = gate.get("/metrics").text
    assert value(text, "ratchet_gateway_first_token_seconds_count") == 1
    assert value(text, "ratchet_gateway_answers_total", outcome="answered") == 1
    assert value(text, "ratchet_gateway_answers_total", outcome="failed") == 1
    failed = {"path": "/v1/chat/completions", "status": "503"}
    assert value(text, "ratchet_gateway_requests_total", **failed) == 1


def test_keys_guard_it_once_there_are_some(serve, mock):
    gate = serve(backend=mock.url)
    assert gate.get("/metrics").status_code == 200
    record, key = new_key("prometheus", ["read"], now=NOW)
    asks, asking = new_key("shop", ["ingest"], now=NOW)
    gate.store.append(record)
    gate.store.append(asks)
    until(lambda: gate.get("/metrics").status_code == 401)
    of = {"authorization": f"Bearer {key}"}
    assert gate.get("/metrics", headers=of).status_code == 200
    of = {"authorization": f"Bearer {asking}"}
    assert gate.get("/metrics", headers=of).status_code == 403


def test_names_that_somebody_sends_make_no_series(serve, mock):
    gate = serve(backend=mock.url)
    for number in range(30):
        gate.ask(model=f"made-up-{number}")
        gate.get(f"/made/up/{number}")
    series = samples(gate.get("/metrics").text)
    assert {dict(key)["version"] for key in series["ratchet_gateway_answers_total"]} <= {
        "other", "mock-model"
    }  # fmt: skip
    assert path_of("/v1/models/a/b") == "/v1/models"
    assert {dict(key)["path"] for key in series["ratchet_gateway_requests_total"]} <= {
        "other", "/v1/chat/completions", "/metrics"
    }  # fmt: skip


def test_processes_add_up_and_who_takes_a_place_goes_on(tmp_path: Path):
    first, second = (Metrics(folder=tmp_path, number=number) for number in range(2))
    name, seen = "ratchet_gateway_requests_total", []
    for metrics in (first, second, second, first):
        metrics.request("/metrics", "200", 0.1)
        seen.append(value(metrics.text([]).decode(), name))
    again = Metrics(folder=tmp_path, number=0)  # in the place of the first, which died
    seen.append(value(again.text([]).decode(), name))
    again.request("/metrics", "200", 3.0)
    again.write()
    text = second.text([]).decode()
    seen.append(value(text, name))
    assert seen == [1, 2, 3, 4, 4, 5]
    buckets = samples(text)["ratchet_gateway_request_duration_seconds_bucket"]
    by_bound = {dict(key)["le"]: count for key, count in buckets.items()}
    assert (by_bound["0.1"], by_bound["2.5"], by_bound["5.0"], by_bound["+Inf"]) == (4, 4, 5, 5)
    check(text)


@pytest.mark.slow
def test_several_processes_add_up_and_a_restart_takes_nothing_away(tmp_path: Path):
    port, home = free_port(), tmp_path / "home"
    address, seen = f"http://127.0.0.1:{port}", []
    with MockBackend() as mock, gateway(home, mock.url, port, tmp_path / "log", workers=3) as child:
        with httpx.Client(trust_env=False) as client:
            until(lambda: _up(client, address), 60)
        for _ in range(20):  # connections of their own meet all workers
            with httpx.Client(trust_env=False) as client:
                for _ in range(3):
                    body = {"model": "any", "messages": [{"role": "user", "content": "hi"}]}
                    client.post(f"{address}/v1/chat/completions", json=body).raise_for_status()
                seen.append(_answered(client, address))
        time.sleep(2.5)  # every process has written
        folders = list((home / "gateway" / "metrics").iterdir())
        counted = [json.loads(p.read_bytes()) for p in sorted(folders[0].glob("worker-*.json"))]
        assert len(counted) == 3
        assert sum(_requests(one) > 0 for one in counted) >= 2, "one process answered everything"
        os.kill(workers(child.pid)[0], signal.SIGKILL)
        for _ in range(10):
            time.sleep(0.2)
            with httpx.Client(trust_env=False) as client:
                seen.append(_answered(client, address))
        until(lambda: len(workers(child.pid)) == 3, 30)
        assert seen[-1] == 60, seen
        with httpx.Client(trust_env=False) as client:
            text = client.get(f"{address}/metrics").text
        check(text)
        assert value(text, "ratchet_gateway_workers") == 3
    assert seen == sorted(seen), "a count went back"


def _up(client: httpx.Client, address: str) -> bool:
    try:
        return client.get(f"{address}/healthz").status_code == 200
    except httpx.TransportError:
        return False


def _answered(client: httpx.Client, address: str) -> float:
    for _ in range(20):
        try:
            text = client.get(f"{address}/metrics").text
            return value(text, "ratchet_gateway_answers_total", outcome="answered")
        except httpx.TransportError:  # of the process that was killed
            time.sleep(0.1)
    raise AssertionError("no worker answers")


def _requests(rows: list[tuple[str, list[list[str]], float]]) -> float:
    return sum(v for name, _, v in rows if name == "ratchet_gateway_answers_total")


def test_a_full_disk_stops_counts_and_neither_gauges_nor_answers(tmp_path: Path):
    metrics = Metrics(folder=tmp_path, number=0)
    metrics.request("/metrics", "200", 0.1)
    assert value(metrics.text([]).decode(), "ratchet_gateway_requests_total") == 1
    metrics.request("/metrics", "200", 0.1)
    live: Mapping[tuple[tuple[str, str], ...], float] = {(): 0.0}
    with nothing_written():
        text = metrics.text([("ratchet_gateway_recording", "Says so.", live)]).decode()
    assert value(text, "ratchet_gateway_requests_total") == 1
    assert "ratchet_gateway_recording 0.0" in text
    assert value(metrics.text([]).decode(), "ratchet_gateway_requests_total") == 2


@contextmanager
def nothing_written() -> Iterator[None]:
    """Have the kernel refuse every byte that is written to a file, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_writing_goes_on_beside_the_event_loop(tmp_path: Path):
    metrics = Metrics(folder=tmp_path, number=4)
    metrics.request("/metrics", "200", 0.1)

    async def run() -> None:
        task = asyncio.create_task(metrics.follow())
        await asyncio.sleep(1.3)
        task.cancel()

    asyncio.run(run())
    again = Metrics(folder=tmp_path, number=4)
    again.request("/metrics", "200", 0.1)
    assert value(again.text([]).decode(), "ratchet_gateway_requests_total") == 2


@pytest.mark.slow
def test_every_line_of_a_gateway_that_logs_json_is_json_and_names_the_answer(tmp_path: Path):
    port, log = free_port(), tmp_path / "log"
    said = {"RATCHET_LOG_FORMAT": "json", "RATCHET_LOG_LEVEL": "info"}
    with MockBackend() as mock, gateway(tmp_path / "home", mock.url, port, log, **said):
        address = f"http://127.0.0.1:{port}"
        with httpx.Client(trust_env=False) as client:
            until(lambda: _up(client, address), 60)
            body = {"model": "any", "messages": [{"role": "user", "content": "a secret"}]}
            answer = client.post(f"{address}/v1/chat/completions", json=body).json()
            until(lambda: answer["id"] in log.read_text(), 10)
    lines = log.read_text().splitlines()
    records = [json.loads(line) for line in lines if line.startswith("{")]
    people = [line for line in lines if not line.startswith("{")]
    assert all(line.startswith(("gateway  ", "no keys", "no champion")) for line in people), people
    (asked,) = [one for one in records if one.get("interaction") == answer["id"]]
    assert (asked["path"], asked["status"]) == ("/v1/chat/completions", 200)
    assert asked["seconds"] > 0
    assert "a secret" not in log.read_text()
