"""The gateway against an earlier version of it, in turns on the same machine.

    python -m tests.benchmarks.gateway_paired FOLDER_OF_THE_EARLIER_SOURCES [--rounds 10]

Both serve the same mock backend at once, each over a home of its own, and one of them at a time is
asked 32 requests at once. In odd rounds the earlier one is asked first. What counts is the median
of the rounds' ratios, later by earlier, of answers a second and of answers a second of processor
time, its drain included: what else runs on a busy machine takes from the first alone.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from tests.benchmarks.gateway import ROOT, free_port, load, ours, process, until_up

PATH = "/v1/chat/completions"
DRAINED_SECONDS = 0.6


def run(earlier: Path, rounds: int, seconds: float, *, stream: bool) -> list[list[float]]:
    """Return the answers a second and a second of processor time, earlier and later, by round."""
    found: list[list[float]] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = free_port()
        mock = f"http://127.0.0.1:{port}"
        backend = [sys.executable, str(ROOT / "tests/servers/mock_backend.py"), str(port), "0"]
        stack.enter_context(process(backend, dict(os.environ), folder / "mock.log"))
        urls, pids = [], []
        for name, sources in (("earlier", earlier / "src"), ("later", ROOT / "src")):
            port = free_port()
            command, environment = ours(folder / name, port, mock)
            environment |= {"PYTHONPATH": str(sources)}
            pids.append(stack.enter_context(process(command, environment, folder / f"{name}.log")))
            urls.append(f"http://127.0.0.1:{port}{PATH}")
        for url in urls:
            asyncio.run(until_up(url, 240.0))
            asyncio.run(load(url, at_once=32, seconds=1.0, stream=stream))  # warm
        for number in range(rounds):
            rates = [0.0] * 4
            for which in (0, 1) if number % 2 else (1, 0):
                before = spent(pids[which])
                seen = asyncio.run(load(urls[which], at_once=32, seconds=seconds, stream=stream))
                time.sleep(DRAINED_SECONDS)
                if seen.failed:
                    raise SystemExit(f"{seen.failed} answers failed")
                rates[which] = seen.rate
                rates[2 + which] = seen.rate * seconds / (spent(pids[which]) - before)
            found.append(rates)
            print(*(f"{rate:,.0f}" for rate in rates), flush=True)
    return found


def spent(pid: int) -> float:
    """Return the processor time of a gateway: of its parent and its workers, as Linux counts it."""
    place = Path(f"/proc/{pid}")
    fields = (place / "stat").read_text().rpartition(")")[2].split()
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    tasks = [(task / "children").read_text().split() for task in (place / "task").iterdir()]
    return own + sum(spent(int(child)) for children in tasks for child in children)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("earlier", type=Path)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--streams", action="store_true", help="streams alone")
    given = parser.parse_args()
    for stream in (True,) if given.streams else (False, True):
        kind = "streams" if stream else "whole answers"
        print(f"{kind} a second: earlier, later; of processor time: earlier, later", flush=True)
        rates = np.array(run(given.earlier, given.rounds, given.seconds, stream=stream))
        for place, what in ((0, "a second"), (2, "a second of processor time")):
            ratios = rates[:, place + 1] / rates[:, place]
            low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
            print(f"{kind} {what}: median ratio {middle:.3f}, quartiles {low:.3f}, {high:.3f}")


if __name__ == "__main__":
    main()
