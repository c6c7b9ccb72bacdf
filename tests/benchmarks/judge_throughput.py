"""How fast verdicts are collected, and what a stop costs; prints Markdown.

    python -m tests.benchmarks.judge_throughput [--questions 10000] [--repeats 1]

An endpoint with a latency of 100 ms in a process of its own, 32 requests in flight, every verdict
saved into a SQLite store. The ideal is questions x latency / concurrency. Then runs are ended half
way (SIGKILL, SIGTERM) and started again; the endpoint counts what it was sent twice.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from ratchet.models.asking import ask_endpoint
from ratchet.models.endpoint import Endpoint, Question, Reply
from ratchet.models.limits import Limits
from ratchet.records import JudgeVerdict, Message, digest
from ratchet.store import EventStore
from tests.benchmarks.provenance import commit
from tests.servers.judge_endpoint import EndpointProcess, endpoint_process

LATENCY = 0.1
CONCURRENCY = 32
GOAL = 1.2
PROMPT = "Is the answer right, complete and polite? Answer with JSON. " * 20
VERSION = digest("judge-1")


def questions(count: int) -> dict[str, Question]:
    """Return the questions by key: a prompt of about 1,200 characters each."""
    made = {}
    for number in range(count):
        conversation = (
            Message(role="system", content="You are a strict judge."),
            Message(role="user", content=f"{PROMPT} Case {number}."),
        )
        key = digest([VERSION, number])
        made[key] = Question(key, conversation)
    return made


def verdict(question: Question, reply: Reply) -> JudgeVerdict:
    """Return the record of a reply."""
    return JudgeVerdict(
        id=reply.key,
        created_at=datetime.now(UTC),
        judge="correctness",
        judge_version=VERSION,
        dimension="correctness",
        mode="pointwise",
        model=reply.model,
        prompt=question.conversation,
        reply=reply.text,
        outcome=reply.text,
        score=1.0,
        input_tokens=reply.input_tokens,
        output_tokens=reply.output_tokens,
        cost=reply.cost,
        latency_seconds=reply.latency_seconds,
        attempts=reply.attempts,
    )


def collect(url: str, store_url: str, count: int) -> None:
    """Ask what the store does not hold; what is run in a process of its own."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    store = EventStore.open(store_url)
    by_key = questions(count)
    known = store.verdicts(list(by_key))
    print("ready", flush=True)
    began, cpu = time.perf_counter(), time.process_time()

    def save(replies: Sequence[Reply]) -> None:
        store.add_verdicts([verdict(by_key[reply.key], reply) for reply in replies])

    asked = ask_endpoint(
        [question for key, question in by_key.items() if key not in known],
        Endpoint(url=url, model="judge"),
        Limits(concurrency=CONCURRENCY),
        api_key=None,
        save=save,
        stop=stop,
    )
    print(
        f"{time.perf_counter() - began:.2f} {time.process_time() - cpu:.2f} {asked.answered}",
        flush=True,
    )
    store.close()


def started(server: EndpointProcess, folder: Path, count: int) -> subprocess.Popen[str]:
    """Start to collect; return when it begins to ask."""
    arguments = ["--collect", server.url, f"sqlite:///{folder / 'store.db'}"]
    command = [sys.executable, "-m", "tests.benchmarks.judge_throughput", *arguments]
    process = subprocess.Popen(
        [*command, "--questions", str(count)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def finished(process: subprocess.Popen[str]) -> tuple[float, float, int]:
    """Wait for the end; return seconds, CPU seconds and verdicts."""
    output, _ = process.communicate()
    assert process.returncode == 0, output
    seconds, cpu, answered = output.split()
    return float(seconds), float(cpu), int(answered)


def throughput(server: EndpointProcess, count: int) -> None:
    """Time one run and print it."""
    server.reset()
    with tempfile.TemporaryDirectory() as folder:
        seconds, cpu, answered = finished(started(server, Path(folder), count))
    ideal = count * LATENCY / CONCURRENCY
    stats = server.stats()
    assert answered == count == len(stats["hits"])
    assert stats["most_in_flight"] <= CONCURRENCY
    print(
        f"| {answered:,} | {seconds:.2f} | {ideal:.2f} | {seconds / ideal:.3f} | {cpu:.1f} "
        f"| {os.getloadavg()[0]:.1f} |",
        flush=True,
    )


def interrupted(server: EndpointProcess, count: int, sent: signal.Signals) -> None:
    """End a run half way, start it again and print what was sent or billed twice."""
    server.reset()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        process = started(server, folder, count)
        while len(server.stats()["hits"]) < count // 2:
            time.sleep(0.05)
        process.send_signal(sent)
        process.communicate()
        before = len(server.stats()["hits"])
        _, _, answered = finished(started(server, folder, count))
        store = EventStore.open(f"sqlite:///{folder / 'store.db'}")
        kept = len(store.verdicts_of(VERSION))
        store.close()
    stats = server.stats()
    assert kept == count == len(stats["hits"])
    twice = sum(hits - 1 for hits in stats["hits"].values())
    with_key = sum(billed - 1 for billed in stats["billed"].values())
    print(
        f"| {sent.name} | {before:,} | {answered:,} | {twice} | {with_key} |",
        flush=True,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--questions", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--collect", nargs=2, metavar=("URL", "STORE"))
    options = parser.parse_args()
    if options.collect:
        collect(*options.collect, options.questions)
        return
    print(
        f"Measured on {datetime.now(UTC).date()} at commit {commit()}, {os.cpu_count()} cores, "
        f"{platform.machine()}, Python {platform.python_version()}; latency {LATENCY} s, "
        f"{CONCURRENCY} in flight. Goal: a ratio of at most {GOAL}.\n"
    )
    with endpoint_process(LATENCY) as server:
        print(
            "| verdicts | seconds | ideal | ratio | CPU seconds | load |\n|---|---|---|---|---|---|"
        )
        for _ in range(options.repeats):
            throughput(server, options.questions)
        print(
            "\n| ended by | sent before | answered after | sent twice "
            "| billed twice where Idempotency-Key is honoured |\n|---|---|---|---|---|"
        )
        for sent in (signal.SIGKILL, signal.SIGTERM):
            interrupted(server, options.questions, sent)


if __name__ == "__main__":
    main()
