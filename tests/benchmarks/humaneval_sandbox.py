"""All HumanEval problems with a good, a wrong, a hanging and a hostile solution each, in a box.

    python -m tests.benchmarks.humaneval_sandbox [--workers 4] [--seconds 2] [--problems 164]

Prints how they ended, what escaped (nothing may) and how long it took, as Markdown.
"""

from __future__ import annotations

import argparse
import os
import platform
import socket
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ratchet.evaluation.code_execution import humaneval_program, run_programs
from ratchet.evaluation.code_execution.sandbox import Execution, SandboxLimits
from tests.benchmarks.provenance import commit
from tests.conftest import SHARED_DATA
from tests.evaluation.code_execution.planted_code import planted, read_problems

GOAL_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Run:
    """What came of all planted solutions.

    Attributes:
        ends: Number of solutions by kind and outcome.
        misjudged: Kind, task and execution of each that ended as it should not.
        escapes: What reached the machine.
        seconds: Wall time of all.
    """

    ends: dict[tuple[str, str], int]
    misjudged: list[tuple[str, str, Execution]]
    escapes: list[str]
    seconds: float


def run_all(
    shared_data: Path, limits: SandboxLimits, workers: int | None = None, most: int | None = None
) -> Run:
    """Run every planted solution of all or the first problems; only the good ones may pass."""
    problems = read_problems(shared_data)[:most]
    with tempfile.TemporaryDirectory() as name, socket.create_server(("127.0.0.1", 0)) as server:
        marker = Path(name) / "marker"
        marker.write_text("here")
        port = server.getsockname()[1]
        jobs = [
            (kind, problem["task_id"], humaneval_program(problem, completion))
            for place, problem in enumerate(problems)
            for kind, completion in planted(problem, place, marker, port).items()
        ]
        before = _processes()
        began = time.perf_counter()
        executions = run_programs([program for *_, program in jobs], limits, workers=workers)
        seconds = time.perf_counter() - began
        escapes = _escapes(marker, server, before)
    ended = [(kind, task, found) for (kind, task, _), found in zip(jobs, executions, strict=True)]
    return Run(
        ends=dict(Counter((kind, found.outcome) for kind, _, found in ended)),
        misjudged=[
            (kind, task, found)
            for kind, task, found in ended
            if (found.outcome == "passed") != (kind == "good")
        ],
        escapes=escapes,
        seconds=seconds,
    )


def _escapes(marker: Path, server: socket.socket, before: set[str]) -> list[str]:
    found = []
    if not marker.exists() or marker.read_text() != "here":
        found.append("a file of the machine was changed")
    if len(list(marker.parent.iterdir())) != 1:
        found.append("a file was written to the machine")
    server.settimeout(0.2)
    try:
        server.accept()
        found.append("a socket reached the machine")
    except TimeoutError:
        pass
    left = _processes() - before
    for _ in range(100):  # boxes of other tests end meanwhile
        left &= _processes()
        if not left:
            break
        time.sleep(0.1)
    return [*found, *(f"process {pid} is still there" for pid in sorted(left))]


def _processes() -> set[str]:
    """Processes of users that nobody is, as those of root's boxes, and every bwrap."""
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            is_box = (path / "comm").read_text().strip() == "bwrap"
            found |= {path.name} if is_box or path.stat().st_uid > 100_000 else set()
        except OSError:
            continue
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--cpu-seconds", type=int, default=1)
    parser.add_argument("--problems", type=int, help="the first so many; all where not given")
    options = parser.parse_args()
    limits = SandboxLimits(seconds=options.seconds, cpu_seconds=options.cpu_seconds)
    run = run_all(SHARED_DATA, limits, options.workers, options.problems)
    print(
        f"Measured on {datetime.now(UTC).date()} at commit {commit()}, {os.cpu_count()} cores, "
        f"{platform.machine()}, Python {platform.python_version()}; {limits}, {options.workers} "
        f"boxes at a time. Goal: at most {GOAL_SECONDS:.0f} s.\n\n| solution | ended | number |\n"
        "|---|---|---|"
    )
    for (kind, outcome), number in sorted(run.ends.items()):
        print(f"| {kind} | {outcome} | {number} |")
    print(
        f"\n{sum(run.ends.values())} programs in {run.seconds:.0f} s; misjudged: "
        f"{len(run.misjudged)}; escaped: {run.escapes or 'nothing'}."
    )
    for kind, task, execution in run.misjudged[:10]:
        print(f"- {kind}, {task}: {execution}")


if __name__ == "__main__":
    main()
