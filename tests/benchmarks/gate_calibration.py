"""How often the gate is wrong, and how often it finds what is there; writes docs/gate.md.

python -m tests.benchmarks.gate_calibration                # about three minutes on two cores
python -m tests.benchmarks.gate_calibration --gates 500 --out table.md    # a look
python -m tests.benchmarks.gate_calibration --executor ray --store sqlite:///gate.db   # goes on
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import time
import zlib
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np

from ratchet.deploy.gate import run_gate
from ratchet.deploy.gate.directions import with_directions
from ratchet.deploy.gate.policy import default_policy
from ratchet.deploy.gate.scores import GateScores, MetricScores
from ratchet.executors import Executor, executor_of, run_stage
from ratchet.store import EventStore
from tests.benchmarks.gate_truths import Cell, cells
from tests.benchmarks.provenance import commit

LEVEL = 0.05
POWER = 0.8
TIMED_EXAMPLES, TIMED_METRICS, TIMED_GOAL = 100_000, 5, 5.0


@dataclass(frozen=True)
class Share:
    """What came of a cell's gates."""

    cell: Cell
    gates: int
    verdicts: dict[str, int]

    def of(self, verdict: str) -> float:
        """Share of gates that ended so."""
        return self.verdicts.get(verdict, 0) / self.gates

    @property
    def error(self) -> float:
        """Standard error of the share of promotions, at the level or the power."""
        at = {"wrong": LEVEL, "power": POWER, "never": 0.0}[self.cell.kind]
        return math.sqrt(at * (1.0 - at) / self.gates)

    @property
    def holds(self) -> bool:
        """Whether the claim holds, up to three standard errors of the simulation."""
        promoted = self.of("promote")
        if self.cell.kind == "power":
            return promoted >= POWER - 3.0 * self.error
        return promoted <= (LEVEL if self.cell.kind == "wrong" else 0.0) + 3.0 * self.error


def simulate(cell: Cell, gates: int) -> Share:
    """Run a cell's gates, the same ones each time."""
    seed = zlib.crc32(f"{cell.group} {cell.name} {cell.examples}".encode())
    rng = np.random.default_rng(seed)
    verdicts = Counter(_verdict(cell, cell.gate_scores(rng)) for _ in range(gates))
    return Share(cell, gates, dict(verdicts))


def _verdict(cell: Cell, scores: GateScores) -> str:
    if not cell.looks:
        return run_gate(scores, cell.policy, plan=False).verdict
    verdict = "inconclusive"
    for look, size in enumerate(cell.looks):
        seen = GateScores({name: _first(one, size) for name, one in scores.metrics.items()})
        earlier = cell.looks[:look]
        verdict = run_gate(seen, cell.policy, earlier=earlier, plan=False).verdict
        if verdict in ("promote", "reject"):
            break
    return verdict


def _first(scores: MetricScores, size: int) -> MetricScores:
    users = None if scores.users is None else scores.users[:size]
    return replace(
        scores, champion=scores.champion[:size], challenger=scores.challenger[:size], users=users
    )


def timed() -> float:
    """Seconds that the gate takes for many examples with five metrics, users and clusters."""
    rng = np.random.default_rng(0)
    users, clusters = np.arange(TIMED_EXAMPLES) % 20_000, np.arange(TIMED_EXAMPLES) % 20
    metrics = {}
    for number in range(TIMED_METRICS):
        one = rng.normal(size=TIMED_EXAMPLES)
        two = one + rng.normal(0.0, 1.0, TIMED_EXAMPLES)
        metrics[f"m{number}"] = MetricScores(f"m{number}", one, two, users, clusters)
    scores = GateScores(metrics, tuple(map(str, range(20))))
    policy = with_directions(default_policy(list(metrics), has_clusters=True), higher=[*metrics])
    began = time.perf_counter()
    run_gate(scores, policy)
    return time.perf_counter() - began


def table(shares: Sequence[Share]) -> list[str]:
    """Return the tables, one a group."""
    lines: list[str] = []
    for group in dict.fromkeys(share.cell.group for share in shares):
        found = [share for share in shares if share.cell.group == group]
        word = "power" if found[0].cell.kind == "power" else "wrong"
        lines += [f"## {group.capitalize()}", ""]
        lines += [
            f"| truth | examples | {word} | rejected | held | open |",
            "|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {share.cell.name} | {share.cell.examples:,} | {share.of('promote'):.2%}"
            f"{'' if share.holds else ' **(missed)**'} | {share.of('reject'):.2%} "
            f"| {share.of('hold'):.1%} | {share.of('inconclusive'):.1%} |"
            for share in found
        ]
        lines.append("")
    return lines


def _run(gates: int, executor: Executor, store: str | None) -> list[dict[str, int]]:
    """Return the verdicts of each cell; those that a store keeps of this commit are not made anew.

    Cells hold functions, which do not travel between processes: only their place does.
    """
    tasks = [[place, gates] for place in range(len(cells()))]
    run = partial(run_stage, f"gate calibration {commit()}", _counted, tasks, executor=executor)
    if store is None:
        return run()
    with closing(EventStore.open(store)) as manifest:
        return run(manifest=manifest)


def _counted(task: list[int]) -> dict[str, int]:
    place, gates = task
    return simulate(cells()[place], gates).verdicts


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the calibration and write its page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gates", type=int, default=10_000)
    parser.add_argument("--out", type=Path, default=Path("docs/gate.md"))
    parser.add_argument("--executor", default="processes:2", help="as RATCHET_EXECUTOR")
    parser.add_argument("--store", help="URL of a store that keeps what was simulated")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    known = cells()
    shares = [
        Share(cell, options.gates, verdicts)
        for cell, verdicts in zip(
            known, _run(options.gates, executor_of(options.executor), options.store), strict=True
        )
    ]
    seconds = timed()
    template = (Path(__file__).parent / "gate_head.md").read_text("utf-8")
    page = template.format(
        date=datetime.now(UTC).date().isoformat(),
        commit=commit(),
        machine=f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        minutes=max(1, round((time.monotonic() - began) / 60.0)),
        gates=options.gates,
        error=100.0 * math.sqrt(LEVEL * (1.0 - LEVEL) / options.gates),
    )
    lines = [
        "<!-- written by `python -m tests.benchmarks.gate_calibration` -->",
        page,
        *table(shares),
        "## Time",
        "",
        f"{TIMED_EXAMPLES:,} examples with {TIMED_METRICS} metrics, 20,000 users and 20 clusters, "
        f"the default policy: {seconds:.2f} s (goal: {TIMED_GOAL:.0f} s), reading the file apart.",
    ]
    options.out.write_text("\n".join(lines).rstrip() + "\n", "utf-8")
    missed = [share for share in shares if not share.holds]
    print(f"{len(shares)} lines, {len(missed)} missed, in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
