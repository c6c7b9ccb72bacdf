"""What a gateway of this version costs beside one of another commit, in alternating rounds.

    make bench PART=gateway_versions ARGS="--before 3f08483"

Both have one worker and record every interaction into a home of their own; mock backend, load and
gateway share the machine's cores. A round asks one version and then the other, the first of them
in turn, so that whatever else the machine does meets both. Per request it counts wall time and the
CPU time of the gateway's processes, which other load changes least. The ratio is the geometric mean
over rounds, with the interval of Student's t for the mean of the logarithms.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import subprocess
import tarfile
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from tests.benchmarks.gateway import ROOT, free_port, load, ours, process, until_up
from tests.benchmarks.provenance import commit
from tests.servers.mock_backend import MockBackend

AT_ONCE = 32
PATH = "/v1/chat/completions"
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Round:
    """What a request took in one round, in milliseconds."""

    wall: float
    cpu: float


def source_of(revision: str, folder: Path) -> Path:
    """Unpack the source of a commit; return what goes on the path of modules."""
    packed = subprocess.run(
        ["git", "archive", revision, "src", "flows"], cwd=ROOT, capture_output=True, check=True
    )
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(folder, filter="tar")
    return folder / "src"


def cpu_seconds(group: int) -> float:
    """Return the CPU time that the living processes of a group have used."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        if int(fields[2]) == group:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS


async def one_round(url: str, group: int, seconds: float) -> Round:
    """Load one gateway for a while."""
    before = cpu_seconds(group)
    seen = await load(url, at_once=AT_ONCE, seconds=seconds)
    if seen.failed:
        raise SystemExit(f"every request must be answered, got {seen.failed} that were not")
    requests = seen.rate * seconds
    return Round(1e3 / seen.rate, (cpu_seconds(group) - before) / requests * 1e3)


def run(before: str, rounds: int, seconds: float) -> dict[str, list[Round]]:
    """Return each version's rounds, in pairs."""
    results: dict[str, list[Round]] = {"before": [], "now": []}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ratchet-versions-")))
        mock = stack.enter_context(MockBackend())
        running = {}
        for name in results:
            port = free_port()
            command, environment = ours(folder / name, port, mock.url)
            source = source_of(before if name == "before" else "HEAD", folder / f"{name}-source")
            environment |= {"PYTHONPATH": str(source)}
            group = stack.enter_context(process(command, environment, folder / f"{name}.log"))
            url = f"http://127.0.0.1:{port}{PATH}"
            asyncio.run(until_up(url))
            asyncio.run(load(url, at_once=8, seconds=2.0))  # warm
            running[name] = url, group
        for number in range(rounds):
            for name in sorted(results, reverse=bool(number % 2)):
                results[name].append(asyncio.run(one_round(*running[name], seconds)))
    return results


def table(results: dict[str, list[Round]]) -> str:
    """Return the medians of both versions and the ratios with their intervals."""
    lines = [
        "| a request | before, median | now, median | now / before (95 %) |",
        "|---|---:|---:|---:|",
    ]
    for what, name in (("wall", "wall time at 32 at once"), ("cpu", "CPU time of the gateway")):
        first, second = (
            np.array([getattr(one, what) for one in results[key]]) for key in ("before", "now")
        )
        logs = np.log(second / first)
        low, high = stats.t.interval(0.95, len(logs) - 1, logs.mean(), stats.sem(logs))
        lines.append(
            f"| {name} | {np.median(first):.2f} ms | {np.median(second):.2f} ms | "
            f"{np.exp(logs.mean()):.2f} ({np.exp(low):.2f} to {np.exp(high):.2f}) |"
        )
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", required=True, help="the other commit")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=4.0, help="of a round and version")
    given = parser.parse_args()
    print(f"{commit()} against {given.before}, {given.rounds} rounds, {os.cpu_count()} cores")
    print(table(run(given.before, given.rounds, given.seconds)))


if __name__ == "__main__":
    main()
