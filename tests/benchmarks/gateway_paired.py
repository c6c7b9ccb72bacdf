"""The gateway against an earlier version of it, in turns on the same machine.

    python -m tests.benchmarks.gateway_paired FOLDER_OF_THE_EARLIER_SOURCES [--rounds 10]

Both serve the same mock backend at once, each over a home of its own, and one of them at a time is
asked 32 requests at once. In odd rounds the earlier one is asked first. What counts is the median
of the rounds' ratios, later by earlier: a round lasts seconds, so that what else runs on the
machine is the same for both.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from tests.benchmarks.gateway import ROOT, free_port, load, ours, process, until_up

PATH = "/v1/chat/completions"


def run(earlier: Path, rounds: int, seconds: float, *, stream: bool) -> list[tuple[float, float]]:
    """Return the answers a second of both, a pair a round."""
    pairs: list[tuple[float, float]] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = free_port()
        mock = f"http://127.0.0.1:{port}"
        backend = [sys.executable, str(ROOT / "tests/servers/mock_backend.py"), str(port), "0"]
        stack.enter_context(process(backend, dict(os.environ), folder / "mock.log"))
        urls = []
        for name, sources in (("earlier", earlier / "src"), ("later", ROOT / "src")):
            port = free_port()
            command, environment = ours(folder / name, port, mock)
            environment |= {"PYTHONPATH": str(sources)}
            stack.enter_context(process(command, environment, folder / f"{name}.log"))
            urls.append(f"http://127.0.0.1:{port}{PATH}")
        for url in urls:
            asyncio.run(until_up(url, 240.0))
            asyncio.run(load(url, at_once=32, seconds=1.0, stream=stream))  # warm
        for number in range(rounds):
            order = (0, 1) if number % 2 else (1, 0)
            rates = [0.0, 0.0]
            for which in order:
                found = asyncio.run(load(urls[which], at_once=32, seconds=seconds, stream=stream))
                if found.failed:
                    raise SystemExit(f"{found.failed} answers failed")
                rates[which] = found.rate
            pairs.append((rates[0], rates[1]))
            print(f"{rates[0]:,.0f} {rates[1]:,.0f} {rates[1] / rates[0]:.3f}", flush=True)
    return pairs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("earlier", type=Path)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=3.0)
    given = parser.parse_args()
    for stream in (False, True):
        what = "streams" if stream else "whole answers"
        print(f"{what} a second: earlier, later, ratio", flush=True)
        pairs = np.array(run(given.earlier, given.rounds, given.seconds, stream=stream))
        ratios = pairs[:, 1] / pairs[:, 0]
        low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
        print(f"median ratio {middle:.3f}, quartiles {low:.3f} and {high:.3f}", flush=True)


if __name__ == "__main__":
    main()
