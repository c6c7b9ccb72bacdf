"""How fast a bad release is noticed, and how often the board cries wolf; writes docs/detection.md.

    python -m tests.benchmarks.detection            # about half an hour on two cores
    python -m tests.benchmarks.detection --boards 20 --days 10 --out table.md    # a look

Each simulated board has its own users and freezes its own baseline on two weeks of traffic. From
there it runs for a month in control, right after a release that changed nothing, and through
several releases that are worse. All detectors see the same batches.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ratchet.analyze.monitoring.baselines import (
    CAUTION,
    alternatives,
    baseline_from_counts,
    expected_rates,
)
from ratchet.analyze.monitoring.batches import Counts
from ratchet.analyze.monitoring.board import MEMORY, Budget, next_state
from ratchet.records import Baseline
from ratchet.stats.charts.change_detection import (
    Alternatives,
    begin,
    log_evidence,
    log_likelihood_ratios,
)
from ratchet.stats.charts.yardsticks import bernoulli_divergence, lorden_bound
from tests.benchmarks.other_detectors import Streams, other_detectors
from tests.benchmarks.provenance import commit
from tests.benchmarks.release_simulation import BATCH, BATCHES_A_DAY, SIGNALS, Boards, Rates, World

FloatArray = NDArray[np.float64]
TRAFFIC = (200.0, 2_000.0, 20_000.0)
SHARES = (0.02, 0.10)
NORMAL = Rates()
DROPS = {
    "8 → 10 %, 10 → 11 %": Rates(thumbs_down=0.10, regenerated=0.11),
    "8 → 12 %, 10 → 12.5 %": Rates(thumbs_down=0.12, regenerated=0.125),
    "8 → 16 %, 10 → 15 %": Rates(thumbs_down=0.16, regenerated=0.15),
    "8 → 24 %, 10 → 20 %": Rates(thumbs_down=0.24, regenerated=0.20),
}
HEADLINE = (2_000.0, 0.10, "8 → 16 %, 10 → 15 %")
BASELINE_DAYS = 14
START = datetime(2026, 3, 2, tzinfo=UTC)
WATCHED_HOURS = 48.0


@dataclass(frozen=True)
class Cell:
    """One line of the table: delays in minutes, infinite where not found in 48 hours.

    The bounds count the run length in batches and in interactions.
    """

    hourly: float
    share: float
    drop: str
    delays: FloatArray
    bounds: tuple[float, float]


@dataclass(frozen=True)
class Quiet:
    """In-control running of one traffic and feedback share."""

    hourly: float
    share: float
    days: float
    alarms: int
    releases: int
    release_alarms: int


class Detector:
    """Many boards with baselines of their own, advanced together by the package's functions."""

    def __init__(
        self, baselines: Sequence[Baseline], caution: float, signals: Sequence[str] = SIGNALS
    ) -> None:
        self.baselines, self.caution = baselines, caution
        stated = alternatives(baselines[0])
        self.plain = Alternatives(stated.shifts, stated.weights, np.ones(stated.weights.size))
        self.tempers = np.array([baseline.tempers for baseline in baselines])
        self.limit = Budget().limit(int(BATCH))
        names = [signal.name for signal in baselines[0].signals]
        assert all([s.name for s in item.signals] == names for item in baselines)
        self.places = [list(signals).index(name) for name in names]

    def start(self) -> None:
        """Begin anew, as a release does."""
        self.state = begin(self.plain, self.limit, (len(self.baselines),))

    def expect(self, starts: FloatArray) -> FloatArray:
        """Return expected rates for batches, shape (batches, boards, signals)."""
        rates = [
            expected_rates(baseline, starts[:, board], caution=self.caution)[:, :, 0]
            for board, baseline in enumerate(self.baselines)
        ]
        return np.stack(rates, axis=1)

    def advance(self, events: FloatArray, trials: FloatArray, expected: FloatArray) -> FloatArray:
        """Take in a batch and return each board's log evidence."""
        events, trials = events[:, self.places], trials[:, self.places]
        ratios = self.tempers * log_likelihood_ratios(events, trials, expected, self.plain)
        threshold = self.limit.log_threshold
        self.state = next_state(self.state, ratios, trials, self.plain, threshold)
        return log_evidence(self.state, self.plain)


def freeze(boards: Boards) -> list[Baseline]:
    """Let every board run for two weeks and freeze its baseline."""
    batches = BASELINE_DAYS * BATCHES_A_DAY
    shape = (batches, boards.boards, len(SIGNALS))
    events, trials = np.empty(shape, np.int32), np.empty(shape, np.int32)
    starts = START.timestamp() + BATCH * np.arange(batches)
    for batch, start in enumerate(starts):
        events[batch], trials[batch] = boards.draw(np.full(boards.boards, start), NORMAL)
    end = START + timedelta(days=BASELINE_DAYS)
    return [
        baseline_from_counts(
            Counts(starts, ("other",), SIGNALS, events[:, b, :, None], trials[:, b, :, None]),
            cuts={}, model_version="model/1", start=START, end=end, now=end,
        )
        for b in range(boards.boards)
    ]  # fmt: skip


def releases(
    boards: Boards, detector: Detector, rates: Rates, rng: np.random.Generator
) -> tuple[FloatArray, Streams]:
    """Release once on every board, at a random moment of a week; return delays in minutes."""
    after = START.timestamp() + 86_400.0 * BASELINE_DAYS
    moments = after + rng.uniform(0.0, 7 * 86_400.0, boards.boards)
    first = np.floor(moments / BATCH) * BATCH
    steps = int(WATCHED_HOURS * 3_600.0 / BATCH)
    starts = first + BATCH * np.arange(steps)[:, np.newaxis]
    expected = detector.expect(starts)
    part = 1.0 - (moments - first) / BATCH
    delays = np.full(boards.boards, np.inf)
    seen = Streams.empty(steps, boards.boards)
    detector.start()
    for step in range(steps):
        events, trials = boards.draw(starts[step], rates, part if step == 0 else 1.0)
        seen.put(step, events, trials)
        over = detector.advance(events, trials, expected[step]) >= detector.limit.log_threshold
        ready = (starts[step] + BATCH + boards.world.lag - moments) / 60.0
        delays = np.where(over & np.isinf(delays), ready, delays)
        if step > 24 and np.isfinite(delays).all():
            seen = seen.first(step + 1)
            break
    return delays, seen.beginning(moments, boards.world.lag)


def quiet(boards: Boards, detector: Detector, days: int) -> tuple[Quiet, Streams]:
    """Run all boards in control from a release that changed nothing."""
    first = START.timestamp() + 86_400.0 * BASELINE_DAYS
    alarmed = np.zeros(boards.boards, bool)
    alarms = early = 0
    seen = Streams.empty(days * BATCHES_A_DAY, boards.boards)
    detector.start()
    for day in range(days):
        starts = first + 86_400.0 * day + BATCH * np.arange(BATCHES_A_DAY)
        grid = np.repeat(starts[:, np.newaxis], boards.boards, axis=1)
        expected = detector.expect(grid)
        for step in range(BATCHES_A_DAY):
            events, trials = boards.draw(grid[step], NORMAL)
            seen.put(day * BATCHES_A_DAY + step, events, trials)
            evidence = detector.advance(events, trials, expected[step])
            fresh = ~alarmed & (evidence >= detector.limit.log_threshold)
            alarms += int(fresh.sum())
            early += int(fresh.sum()) if day == 0 else 0
            alarmed = (alarmed | fresh) & (evidence >= detector.limit.log_threshold - MEMORY)
    world = boards.world
    result = Quiet(
        world.hourly, world.thumbs, float(days * boards.boards), alarms, boards.boards, early
    )
    return result, seen


def bounds(world: World, rates: Rates) -> tuple[float, float]:
    """Return Lorden's bound in minutes: log of 30 days' observations over the divergence an hour.

    The bound is asymptotic, and whether an observation is a batch or an interaction makes a
    difference at a finite run length: both are returned, the tighter one first.

    The information that the two signals hold in all feedback that is given; what comes after the
    lag counts too, so that waiting for it is no excuse.
    """
    per_hour = world.hourly * (
        world.thumbs * bernoulli_divergence(rates.thumbs_down, NORMAL.thumbs_down)
        + bernoulli_divergence(rates.regenerated, NORMAL.regenerated)
    )
    batches, interactions = 30.0 * BATCHES_A_DAY, 30.0 * 24.0 * world.hourly
    return 60.0 * lorden_bound(batches, per_hour), 60.0 * lorden_bound(interactions, per_hour)


def run_world(
    task: tuple[float, float, int, int, int, float],
) -> tuple[list[Cell], Quiet, list[str]]:
    """Run every cell of one traffic and feedback share."""
    hourly, share, number, days, per_cell, caution = task
    rng = np.random.default_rng([2026, int(hourly), int(1000 * share)])
    world = World(hourly=hourly, thumbs=share)
    began = time.monotonic()
    boards = Boards(world, number, rng)
    detector = Detector(freeze(boards), caution)
    cells, compared = [], {}
    for drop, rates in DROPS.items():
        parts = [releases(boards, detector, rates, rng) for _ in range(-(-per_cell // number))]
        delays = np.concatenate([part[0] for part in parts])
        cells.append(Cell(hourly, share, drop, delays, bounds(world, rates)))
        compared[drop] = parts[0][1]
    calm, seen = quiet(boards, detector, days)
    lines: list[str] = []
    if (hourly, share) == HEADLINE[:2]:
        wanted = max(calm.alarms, 1) / calm.days * 30.0
        lines = other_detectors(compared[HEADLINE[2]], seen, wanted, world)
    sys.stderr.write(f"{hourly:g}/h, {share:.0%}: {time.monotonic() - began:.0f} s\n")
    return cells, calm, lines


def _tail(delays: FloatArray, share: float) -> str:
    value = float(np.quantile(delays, share, method="higher"))
    return f"{value:.0f}" if np.isfinite(value) else "> 2,880"


def table(cells: Iterable[Cell]) -> list[str]:
    """Return the delays as a Markdown table."""
    lines = [
        "| interactions an hour | thumbs on | thumbs down, regenerated | median | 95th percentile "
        "| within 60 min | Lorden bound (batches, interactions) | median / bound |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for cell in cells:
        median = float(np.median(cell.delays))
        ratios = [f"{median / each:.2f}" if np.isfinite(median) else "–" for each in cell.bounds]
        lines.append(
            f"| {cell.hourly:,.0f} | {cell.share:.0%} | {cell.drop} "
            f"| {_tail(cell.delays, 0.5)} min | {_tail(cell.delays, 0.95)} min "
            f"| {np.mean(cell.delays <= 60.0):.1%} "
            f"| {cell.bounds[0]:.0f}, {cell.bounds[1]:.0f} min | {', '.join(ratios)} |"
        )
    return lines


def quiet_table(found: Iterable[Quiet]) -> list[str]:
    """Return the false alarms as a Markdown table."""
    lines = [
        "| interactions an hour | thumbs on | in-control days | false alarms | in 30 days "
        "| on the day of a harmless release |",
        "|---|---|---|---|---|---|",
    ]
    for item in found:
        lines.append(
            f"| {item.hourly:,.0f} | {item.share:.0%} | {item.days:,.0f} | {item.alarms} "
            f"| {item.alarms / item.days * 30.0:.2f} | {item.release_alarms / item.releases:.1%} |"
        )
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and write its page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--boards", type=int, default=334)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--releases", type=int, default=1_000)
    parser.add_argument("--traffic", type=float, nargs="*", default=TRAFFIC)
    parser.add_argument("--caution", type=float, default=CAUTION)
    parser.add_argument("--out", type=Path, default=Path("docs/detection.md"))
    options = parser.parse_args(arguments)
    tasks = [
        (hourly, share, options.boards, options.days, options.releases, options.caution)
        for hourly in sorted(options.traffic, reverse=True)
        for share in SHARES
    ]
    began = time.monotonic()
    with multiprocessing.Pool(min(2, os.cpu_count() or 1)) as pool:
        found = pool.map(run_world, tasks, chunksize=1)
    found.sort(key=lambda item: (item[1].hourly, item[1].share))
    page = [
        "<!-- written by `python -m tests.benchmarks.detection` -->",
        *_head(time.monotonic() - began),
        *table(cell for cells, _, _ in found for cell in cells),
        "",
        "## How often it cries wolf",
        "",
        *quiet_table(calm for _, calm, _ in found),
        "",
        *[line for _, _, lines in found for line in lines],
    ]
    options.out.write_text("\n".join(page).rstrip() + "\n", "utf-8")


def _head(seconds: float) -> list[str]:
    template = (Path(__file__).parent / "detection_head.md").read_text("utf-8")
    return template.format(
        date=datetime.now(UTC).date().isoformat(),
        commit=commit(),
        machine=f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        minutes=round(seconds / 60.0),
    ).splitlines()


if __name__ == "__main__":
    main()
