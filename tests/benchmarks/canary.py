"""How often rollouts stop what they should and let pass what they should; writes docs/rollouts.md.

    python -m tests.benchmarks.canary                       # about two hours on two cores
    python -m tests.benchmarks.canary --rollouts 100 --only harmful --out table.md    # a look

Chunks that are done are kept in a folder (`--keep`), so that a run that was stopped, also by
`--minutes`, goes on from there.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ratchet.deploy.rollout.plans import fit_plan
from ratchet.records import RolloutPlan
from ratchet.stats.experiments.sample_ratio import Groups, finds_imbalance, share_log_e
from ratchet.stats.intervals import clopper_pearson
from tests.benchmarks.provenance import commit
from tests.benchmarks.release_simulation import World
from tests.benchmarks.rollout_simulation import OUTCOMES, Rollouts, Scenario

FloatArray = NDArray[np.float64]
HARM = {"thumbs_down": 0.12}
BROKEN = 11 / 9


@dataclass(frozen=True)
class Cell:
    """A line of the table: a challenger under some traffic.

    Attributes:
        group: Which table it is in.
        says: The challenger in words.
        chunk: Rollouts simulated together; fewer where there are more users.
    """

    key: str
    group: str
    says: str
    hourly: float = 2_000.0
    thumbs: float = 0.10
    rates: dict[str, float] = field(default_factory=dict)
    odds: float = 1.0
    spread: float = 0.5
    visits: float = 10.0
    chunk: int = 100

    @property
    def world(self) -> World:
        """Traffic and users."""
        return World(
            hourly=self.hourly, thumbs=self.thumbs, user_spread=self.spread, visits=self.visits
        )

    @property
    def users(self) -> int:
        """Users of the product."""
        return max(20, round(self.hourly * 24.0 / self.visits))


CELLS = (
    Cell("harmful", "harm", "thumbs down 8 → 12 %", rates=HARM),
    Cell("harmless", "none", "the same as the champion"),
    Cell("harmful-20000", "harm", "thumbs down 8 → 12 %", 20_000.0, rates=HARM, chunk=25),
    Cell("harmful-200", "harm", "thumbs down 8 → 12 %", 200.0, rates=HARM, chunk=250),
    Cell("harmless-200", "none", "the same as the champion", 200.0, chunk=250),
    Cell("margin", "margin", "thumbs down 8 → 10 %, the margin", rates={"thumbs_down": 0.10}),
    Cell("regulars", "none", "the same; users differ strongly and come 30 times a day",
         spread=1.5, visits=30.0),
    Cell("failing", "harm", "failed answers 0.2 → 2 %", rates={"failed": 0.02}),
    Cell("worse", "harm", "thumbs down 8 → 12, regenerated 10 → 12.5 %",
         rates={**HARM, "regenerated": 0.125}),
    Cell("broken", "broken", "the same; odds of assignment × 11/9", odds=BROKEN),
    Cell("harmful-2", "harm", "thumbs down 8 → 12 %", thumbs=0.02, rates=HARM),
    Cell("harmless-2", "none", "the same as the champion", thumbs=0.02),
    Cell("harmless-20000", "none", "the same as the champion", 20_000.0, chunk=25),
    Cell("better", "none", "thumbs down 8 → 6 %", rates={"thumbs_down": 0.06}),
)  # fmt: skip


def run_chunk(task: tuple[Cell, int, int, Path]) -> None:
    """Simulate one chunk of a cell and keep how each rollout ended."""
    cell, number, size, folder = task
    path = folder / f"{cell.key}-{number}.json"
    if path.exists():
        return
    rng = np.random.default_rng([2026, CELLS.index(cell), number])
    plan, _ = fit_plan(RolloutPlan(), cell.users)
    scenario = Scenario(cell.world, cell.rates, odds=cell.odds)
    began = time.monotonic()
    found = Rollouts(scenario, size, rng, plan).run()
    rows = {
        "outcome": [OUTCOMES[item] for item in found.outcome],
        "stage": (found.stage + 4 - len(plan.stages)).tolist(),
        "hours": found.hours.tolist(),
        "exposed": found.exposed.tolist(),
        "read": found.read.tolist(),
        "half": [hours if math.isfinite(hours) else None for hours in found.half.tolist()],
        "seconds": time.monotonic() - began,
    }
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(rows), "utf-8")
    draft.rename(path)


def even_test(odds: float, rng: np.random.Generator, tests: int) -> tuple[int, int, FloatArray]:
    """Run 50/50 tests whose users arrive one by one; look after every 25 up to 20,000.

    Returns:
        How many were called broken, how many of those before a rate could be read, and after how
        many users.
    """
    most, step, error = 20_000, 25, 0.01
    share = 0.5 * odds / (1.0 + 0.5 * (odds - 1.0))
    looks = np.arange(step, most + 1, step)
    ready = finds_imbalance(
        Groups(np.zeros((looks.size, 1), int), looks[:, np.newaxis], np.array([0.5])),
        BROKEN, alpha=error,
    )  # fmt: skip
    first_read = int(looks[np.argmax(ready)])
    found = np.full(tests, np.inf)
    for start in range(0, tests, 100):
        inside = rng.random((min(100, tests - start), most)) < share
        counts = np.cumsum(inside, axis=1)[:, step - 1 :: step]
        groups = Groups(
            counts[..., np.newaxis], np.broadcast_to(looks, counts.shape)[..., np.newaxis],
            np.array([0.5]),
        )  # fmt: skip
        over = share_log_e(groups) >= -math.log(error)
        hit = over.any(axis=1)
        found[start : start + len(hit)] = np.where(hit, looks[np.argmax(over, axis=1)], np.inf)
    return int(np.isfinite(found).sum()), int((found <= first_read).sum()), found


def collect(cell: Cell, folder: Path) -> dict[str, list[object]] | None:
    """Return a cell's kept rows; None where there are none."""
    rows: dict[str, list[object]] = {}
    for path in sorted(folder.glob(f"{cell.key}-*.json")):
        if not path.stem.removeprefix(f"{cell.key}-").isdigit():
            continue
        for name, values in json.loads(path.read_text("utf-8")).items():
            if isinstance(values, list):
                rows.setdefault(name, []).extend(values)
    return rows or None


def _share(part: int, whole: int) -> str:
    interval = clopper_pearson(part, whole)
    return f"{part / whole:.1%} ({interval.lower:.1%} to {interval.upper:.1%})"


def _line(cell: Cell, rows: dict[str, list[object]]) -> str:
    outcome, number = rows["outcome"], len(rows["outcome"])
    hours = np.array(rows["hours"], dtype=float)
    half = np.array([item is not None for item in rows["half"]])
    aborted = np.array([item in ("harm", "ratio") for item in outcome])
    before = int((aborted & ~half).sum())
    cells = [
        cell.says, f"{cell.hourly:,.0f}", f"{cell.users:,}", f"{cell.thumbs:.0%}", f"{number:,}",
        _share(before, number), _share(int(aborted.sum()), number),
        f"{outcome.count('ratio') / number:.1%}", f"{half.mean():.1%}",
        f"{outcome.count('promoted') / number:.1%}", f"{outcome.count('expired') / number:.1%}",
        f"{np.quantile(hours, 0.5):.0f}, {np.quantile(hours, 0.95):.0f}",
        f"{np.median(np.array(rows['exposed'], dtype=float)):.1%}",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


HEAD = (
    "| challenger | answers an hour | users | thumbs on | rollouts | aborted before half of users "
    "| aborted in all | for the sample ratio | got half of users | promoted | expired "
    "| hours to the end (median, 95 %) | answers by the challenger |"
)


def tables(folder: Path) -> list[str]:
    """Return the results as Markdown."""
    groups = {
        "harm": "## Harm", "none": "## No harm", "margin": "## Harm of exactly the margin",
        "broken": "## A broken assignment in a rollout",
    }  # fmt: skip
    lines = []
    for group, title in groups.items():
        found = [(cell, collect(cell, folder)) for cell in CELLS if cell.group == group]
        lines += [title, "", HEAD, "|" + "---|" * 13]
        lines += [_line(cell, rows) for cell, rows in found if rows]
        lines.append("")
    return lines


def even_lines(tests: int) -> list[str]:
    """Return what became of 50/50 tests."""
    lines = [
        "## A broken assignment in a 50/50 test",
        "",
        "| assignment | tests | called broken | before a rate could be read "
        "| users when called broken (median, 95 %) |",
        "|---|---|---|---|---|",
    ]
    for says, odds in (("55/45", BROKEN), ("45/55", 1 / BROKEN), ("50/50", 1.0)):
        called, before, users = even_test(
            odds, np.random.default_rng([2026, round(odds * 9)]), tests
        )
        seen = users[np.isfinite(users)]
        when = "–"
        if seen.size:
            when = f"{np.quantile(seen, 0.5):,.0f}, {np.quantile(seen, 0.95):,.0f}"
        lines.append(
            f"| {says} | {tests:,} | {_share(called, tests)} | {_share(before, tests)} | {when} |"
        )
    return [*lines, ""]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and write its page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rollouts", type=int, default=2_000, help="in each cell")
    parser.add_argument("--only", nargs="*", default=[cell.key for cell in CELLS])
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "ratchet-canary")
    parser.add_argument("--minutes", type=float, default=math.inf, help="then stop")
    parser.add_argument("--out", type=Path, default=Path("docs/rollouts.md"))
    options = parser.parse_args(arguments)
    options.keep.mkdir(parents=True, exist_ok=True)
    began, deadline = time.monotonic(), time.monotonic() + 60.0 * options.minutes
    waiting = [
        (cell, number, cell.chunk, options.keep)
        for cell in CELLS
        if cell.key in options.only
        for number in range(-(-options.rollouts // cell.chunk))
        if not (options.keep / f"{cell.key}-{number}.json").exists()
    ]
    with multiprocessing.Pool(min(2, os.cpu_count() or 1)) as pool:
        for done, _ in enumerate(pool.imap(run_chunk, waiting), start=1):
            spent = time.monotonic() - began
            sys.stderr.write(f"{done} of {len(waiting)} chunks, {spent / 60:.1f} minutes\n")
            if time.monotonic() > deadline:
                pool.terminate()
                sys.stderr.write("stopped; the same command goes on from here\n")
                return
    page = [*_head(options.keep), *tables(options.keep), *even_lines(options.rollouts)]
    options.out.write_text("\n".join(page).rstrip() + "\n", "utf-8")


def _head(folder: Path) -> list[str]:
    seconds = sum(json.loads(path.read_text("utf-8"))["seconds"] for path in folder.glob("*.json"))
    template = (Path(__file__).parent / "canary_head.md").read_text("utf-8")
    return template.format(
        date=datetime.now(UTC).date().isoformat(),
        commit=commit(),
        machine=f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        minutes=round(seconds / 60.0),
    ).splitlines()


if __name__ == "__main__":
    main()
