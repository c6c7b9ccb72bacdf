"""What the gateway costs: added latency, requests a second, feedback events a second.

    python -m tests.benchmarks.gateway [--litellm FOLDER_OF_ITS_VENV] [--seconds 8] [--write]

A mock backend, the proxy and the load share the machine's cores, as they are. Every proxy answers
the same requests in the same run: first nobody (the load asks the mock itself), then Ratchet with
every interaction recorded, then the LiteLLM proxy without recording, where it is given. Added
latency is the proxy's percentile less the mock's own at the same load of one request at a time;
throughput is at 32 requests at a time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import numpy as np

from ratchet.store import EventStore
from tests.benchmarks.provenance import commit

ROOT = Path(__file__).parents[2]
TARGET = ROOT / "docs" / "gateway.md"
START, END = "<!-- measured -->", "<!-- /measured -->"
PROMPT = "Where is my card? I ordered it two weeks ago and it has not come. " * 4
BATCH = 1_000


@dataclass(frozen=True, slots=True)
class Load:
    """What a load saw.

    Attributes:
        rate: Answers a second.
        p50: Median wait, milliseconds.
        p99: 99th percentile.
        failed: Answers that were none.
    """

    rate: float
    p50: float
    p99: float
    failed: int


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def process(command: list[str], environment: dict[str, str], log: Path) -> Iterator[int]:
    with log.open("wb") as output:
        child = subprocess.Popen(
            command, env=environment, stdout=output, stderr=output, start_new_session=True
        )
        try:
            yield child.pid
        finally:
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()


async def until_up(url: str, seconds: float = 90.0) -> None:
    async with aiohttp.ClientSession() as session:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                async with session.post(url, json=body(0), headers=HEADERS) as reply:
                    if reply.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.2)
    raise SystemExit(f"nothing answers at {url}")


HEADERS = {"authorization": "Bearer sk-bench"}


def body(number: int, *, stream: bool = False) -> dict[str, object]:
    return {
        "model": "mock",
        "messages": [{"role": "user", "content": f"{number} {PROMPT}"}],
        "user": f"user-{number % 997}",
        "stream": stream,
    }


async def load(url: str, *, at_once: int, seconds: float, stream: bool = False) -> Load:
    """Ask for `seconds`, so many at once, and say what was seen."""
    waits: list[float] = []
    failed = 0
    until = time.perf_counter() + seconds
    numbers = iter(range(10**9))

    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), headers=HEADERS
    ) as session:

        async def ask() -> None:
            nonlocal failed
            while (begun := time.perf_counter()) < until:
                async with session.post(url, json=body(next(numbers), stream=stream)) as reply:
                    content = await reply.read()
                failed += reply.status != 200 or (stream and b"[DONE]" not in content)
                waits.append(time.perf_counter() - begun)

        begun = time.perf_counter()
        await asyncio.gather(*[ask() for _ in range(at_once)])
        spent = time.perf_counter() - begun
    p50, p99 = np.percentile(np.array(waits) * 1e3, [50, 99])
    return Load(len(waits) / spent, float(p50), float(p99), failed)


async def feedback_load(url: str, *, seconds: float, senders: int = 2) -> tuple[float, int]:
    """Send batches of a thousand events; return events a second and how many were accepted."""
    accepted = 0
    until = time.perf_counter() + seconds
    kinds = (("thumbs", "up"), ("copy", True), ("stars", 4), ("session_end", 12.5))

    async with aiohttp.ClientSession() as session:

        async def send(sender: int) -> None:
            nonlocal accepted
            number = 0
            while time.perf_counter() < until:
                events = []
                for _ in range(BATCH):
                    kind, value = kinds[number % 4]
                    events.append(
                        {
                            "id": f"f-{sender}-{number}",
                            "interaction_id": f"i-{number % 5000}",
                            "kind": kind,
                            "value": value,
                        }
                    )
                    number += 1
                async with session.post(url, json={"events": events}) as reply:
                    accepted += json.loads(await reply.read())["accepted"]

        begun = time.perf_counter()
        await asyncio.gather(*[send(sender) for sender in range(senders)])
        return accepted / (time.perf_counter() - begun), accepted


def into_store(home: Path, accepted: int, seconds: float) -> float:
    """Wait until all events are in SQLite; return how many a second that makes from the start."""
    store = EventStore.open(f"sqlite:///{home / 'store.db'}")
    begun = time.perf_counter()
    while sum(store.counts().values()) - store.counts()["interactions"] < accepted:
        time.sleep(0.2)
    store.close()
    return accepted / (seconds + time.perf_counter() - begun)


def litellm_config(folder: Path, mock: str) -> Path:
    path = folder / "litellm.yaml"
    path.write_text(
        "model_list:\n"
        "  - model_name: mock\n"
        f"    litellm_params: {{model: openai/mock, api_base: {mock}/v1, api_key: sk-x}}\n"
        "litellm_settings: {telemetry: false, drop_params: true}\n"
    )
    return path


@dataclass(frozen=True, slots=True)
class Row:
    """One proxy: alone at a time, 32 at a time, 32 streams at a time."""

    name: str
    alone: Load
    many: Load
    streams: Load


async def measure(name: str, url: str, seconds: float) -> Row:
    await until_up(url)
    await load(url, at_once=8, seconds=1.5)  # warm
    return Row(
        name,
        await load(url, at_once=1, seconds=seconds / 2),
        await load(url, at_once=32, seconds=seconds),
        await load(url, at_once=32, seconds=seconds, stream=True),
    )


def ours(home: Path, port: int, mock: str, *extra: str) -> tuple[list[str], dict[str, str]]:
    command = [sys.executable, "-m", "ratchet.cli", "serve", "--port", str(port), "--rate", "0"]
    return [*command, "--backend", mock, *extra], os.environ | {"RATCHET_HOME": str(home)}


def run(litellm: Path | None, seconds: float) -> tuple[list[Row], dict[str, float]]:
    path, facts = "/v1/chat/completions", {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = free_port()
        mock = f"http://127.0.0.1:{port}"
        backend = [sys.executable, str(ROOT / "tests/servers/mock_backend.py"), str(port), "0"]
        stack.enter_context(process(backend, dict(os.environ), folder / "mock.log"))
        rows = [asyncio.run(measure("the mock itself", mock + path, seconds))]
        for name, extra in (("Ratchet, recording", ()), ("Ratchet, --sync", ("--sync",))):
            port, home = free_port(), folder / name.replace(" ", "-")
            url = f"http://127.0.0.1:{port}"
            with process(*ours(home, port, mock, *extra), folder / "ours.log"):
                rows.append(asyncio.run(measure(name, url + path, seconds)))
                if not extra:
                    rate, accepted = asyncio.run(
                        feedback_load(f"{url}/v1/feedback", seconds=seconds)
                    )
                    facts["feedback events accepted a second"] = rate
                    facts["feedback events a second until stored in SQLite"] = into_store(
                        home, accepted, accepted / rate
                    )
            if not extra:
                store = EventStore.open(f"sqlite:///{home / 'store.db'}")
                facts["interactions stored"] = float(store.counts()["interactions"])
                store.close()
        if litellm is not None:
            print(table(rows, facts), flush=True)  # stands, should the other proxy not start
            rows.append(_litellm(litellm, folder, mock, seconds))
    return rows, facts


def _litellm(litellm: Path, folder: Path, mock: str, seconds: float) -> Row:
    port = free_port()
    config = litellm_config(folder, mock)
    command = [str(litellm / "bin" / "litellm"), "--config", str(config), "--port", str(port)]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= {
        "LITELLM_LOG": "ERROR",
        "DO_NOT_TRACK": "1",
        "LITELLM_LOCAL_MODEL_COST_MAP": "true",
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",  # checks no key, as ours
    }
    log = folder / "litellm.log"
    with process([*command, "--host", "127.0.0.1", "--num_workers", "1"], environment, log):
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        try:
            return asyncio.run(measure("LiteLLM proxy, not recording", url, seconds))
        except BaseException:
            sys.stderr.write(log.read_text("utf-8", "replace")[-3_000:])
            raise


def table(rows: list[Row], facts: dict[str, float]) -> str:
    mock = rows[0]
    lines = [
        "| proxy | added latency p50, p99 | requests/s | their p50, p99 | streams/s | failed |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        added = (
            ""
            if row is mock
            else (
                f"{row.alone.p50 - mock.alone.p50:.2f} ms, {row.alone.p99 - mock.alone.p99:.2f} ms"
            )
        )
        failed = row.alone.failed + row.many.failed + row.streams.failed
        lines.append(
            f"| {row.name} | {added} | {row.many.rate:,.0f} | {row.many.p50:.1f} ms, "
            f"{row.many.p99:.1f} ms | {row.streams.rate:,.0f} | {failed} |"
        )
    lines += ["", *(f"- {key}: {value:,.0f}" for key, value in facts.items())]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--litellm", type=Path)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--write", action="store_true", help="into docs/gateway.md")
    given = parser.parse_args()
    rows, facts = run(given.litellm, given.seconds)
    text = table(rows, facts)
    print(text)
    stamp = (
        f"By `python -m tests.benchmarks.gateway` on {time.strftime('%Y-%m-%d')} at {commit()}, "
        f"{os.cpu_count()} cores, Python {platform.python_version()}."
    )
    if given.write:
        page = TARGET.read_text("utf-8")
        before, _, rest = page.partition(START)
        after = rest.partition(END)[2]
        TARGET.write_text(f"{before}{START}\n{text}\n\n{stamp}\n{END}{after}", "utf-8")


if __name__ == "__main__":
    main()
