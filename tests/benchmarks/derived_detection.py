"""How much sooner is a bad release noticed by what is derived from the traffic?

    python -m tests.benchmarks.derived_detection [--page docs/derived.md]     # minutes

No application sends anything but thumbs on 2 % of answers. The same simulated users are watched by
two boards: one has thumbs and what the gateway measures, the other one has what is derived from the
traffic too. First conversations are put through the product (store, `derive_signals`, the store's
reading within the lag), which tells how much of what users did it sees; the simulation of weeks
then draws by these shares. Both boards have the same budget of false alarms.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ratchet.analyze.monitoring.baselines import CAUTION, baseline_from_counts
from ratchet.analyze.monitoring.batches import Counts
from ratchet.analyze.monitoring.board import MEMORY
from ratchet.collect.derived import derive_signals
from ratchet.records import Baseline, Interaction, Message
from ratchet.store import EventStore, Window
from tests.benchmarks.detection import BASELINE_DAYS, START, Detector
from tests.benchmarks.provenance import commit
from tests.benchmarks.release_simulation import BATCH, BATCHES_A_DAY, Boards, Rates, World
from tests.benchmarks.release_simulation import SIGNALS as ALL

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BEGIN, END = "<!-- derived-detection:begin -->", "<!-- derived-detection:end -->"
SIGNALS = (
    "thumbs_down", "regenerated", "edited", "failed", "slower_than_median", "slower_than_p99",
    "longer_than_usual", "shorter_than_usual", "no_feedback",
)  # fmt: skip
DERIVED = ("regenerated", "edited")
EDITED = 0.05
"""Share of answers whose question is edited and asked again, while in control."""
DROPS = {
    "8 → 12 %, 10 → 12.5 %": (Rates(thumbs_down=0.12, regenerated=0.125), EDITED * 1.25),
    "8 → 16 %, 10 → 15 %": (Rates(thumbs_down=0.16, regenerated=0.15), EDITED * 1.5),
    "8 → 24 %, 10 → 20 %": (Rates(thumbs_down=0.24, regenerated=0.20), EDITED * 2.0),
}
NORMAL = (Rates(), EDITED)
WATCHED_HOURS, HOSTILE_AN_HOUR = 48.0, (10, 20, 40)


@dataclass(frozen=True)
class Channel:
    """What the product sees of what users did, by signal: shares of yes where it was, was not."""

    seen: dict[str, float]
    invented: dict[str, float]


def channel(rng: np.random.Generator, conversations: int) -> Channel:
    """Put conversations through the product and compare what it derives with what was done."""
    rows, done = made_conversations(rng, conversations)
    last = max(row.created_at for row in rows)
    with tempfile.TemporaryDirectory() as folder:
        now = last + timedelta(hours=1)
        store = EventStore.open(f"sqlite:///{folder}/store.db", clock=lambda: now)
        store.add_interactions(rows)
        derive_signals(store, now=now)
        window = Window(START, now)
        table = store.signals(window, lag=timedelta(seconds=World().lag))
        store.close()
    columns = {"regenerated": "regenerate", "edited": "edited"}
    ids = [row.id for row in sorted(rows, key=lambda row: row.created_at)]
    seen, invented = {}, {}
    for name, column in columns.items():
        said = np.nan_to_num(table[column].to_numpy())
        truth = np.array([done[key] == name for key in ids])
        seen[name], invented[name] = float(said[truth].mean()), float(said[~truth].mean())
    return Channel(seen, invented)


def made_conversations(
    rng: np.random.Generator, conversations: int
) -> tuple[list[Interaction], dict[str, str]]:
    """Return conversations of users who do one thing after each answer, a minute later on average.

    Returns:
        The interactions, and what was done after each.
    """
    rows: list[Interaction] = []
    done: dict[str, str] = {}
    for number in range(conversations):
        said: list[str] = []
        words = f"Question {rng.integers(10**6)} about my card {rng.integers(10**6)}"
        at = START + timedelta(seconds=float(rng.uniform(0.0, 86_400.0)))
        for turn in range(8):
            key, answer = f"{number}-{turn}", f"Answer {rng.integers(10**9)}"
            messages = [
                Message.model_validate({"role": ("user", "assistant")[place % 2], "content": text})
                for place, text in enumerate([*said, words])
            ]
            rows.append(
                Interaction(
                    id=key,
                    session_id=f"s{number}",
                    user_id=f"u{number}",
                    created_at=at,
                    model_version="m/1",
                    messages=tuple(messages),
                    response=answer,
                    latency_seconds=2.0,
                )
            )
            doing = str(rng.choice(["regenerated", "edited", "on", "left"], p=[0.1, 0.1, 0.5, 0.3]))
            done[key] = "left" if turn == 7 else doing
            if done[key] == "left":
                break
            at += timedelta(seconds=2.0 + float(rng.exponential(60.0)))
            if doing == "on":
                said += [words, answer]
                words = f"Next {rng.integers(10**9)}"
            elif doing == "edited":
                words += f" please, number {rng.integers(10**6)}"
    return rows, done


class Traffic(Boards):
    """Boards of users whose conversations are seen through a channel."""

    def __init__(self, world: World, boards: int, rng: np.random.Generator, seen: Channel) -> None:
        super().__init__(world, boards, rng)
        self.channel = seen

    def conversations(
        self, seconds: FloatArray, rates: tuple[Rates, float], part: FloatArray | float = 1.0
    ) -> tuple[IntArray, IntArray]:
        """Return events and trials of one batch by `SIGNALS`, each of shape (boards, signals)."""
        answers, bad = self._answers(seconds, self.load(seconds) * part)
        drawn, of = self._signals(answers, bad, rates[0])
        events = np.zeros((self.boards, len(SIGNALS)), np.int64)
        trials = np.zeros_like(events)
        for place, name in enumerate(SIGNALS):
            if name in ALL:
                source = ALL.index(name)
                events[:, place], trials[:, place] = drawn[:, source], of[:, source]
        good = answers - bad
        if_good, if_bad = rates[0].given(rates[1], self.world.bad)
        edited = self.rng.binomial(good, if_good) + self.rng.binomial(bad, if_bad)
        place = SIGNALS.index("edited")
        events[:, place], trials[:, place] = edited, answers
        for name in DERIVED:
            place = SIGNALS.index(name)
            did, not_done = events[:, place], trials[:, place] - events[:, place]
            events[:, place] = self.rng.binomial(did, self.channel.seen[name])
            events[:, place] += self.rng.binomial(not_done, self.channel.invented[name])
        return events, trials


def only(trials: IntArray, derived: bool) -> IntArray:
    """Return trials without those of derived signals, unless they are there."""
    kept = trials.copy()
    if not derived:
        for name in DERIVED:
            kept[..., SIGNALS.index(name)] = 0
    return kept


def freeze(boards: Traffic) -> dict[bool, list[Baseline]]:
    """Let every board run for two weeks; freeze baselines without and with what is derived."""
    batches = BASELINE_DAYS * BATCHES_A_DAY
    shape = (batches, boards.boards, len(SIGNALS))
    events, trials = np.empty(shape, np.int32), np.empty(shape, np.int32)
    starts = START.timestamp() + BATCH * np.arange(batches)
    for batch, start in enumerate(starts):
        drawn = boards.conversations(np.full(boards.boards, start), NORMAL)
        events[batch], trials[batch] = drawn
    end = START + timedelta(days=BASELINE_DAYS)
    return {
        derived: [
            baseline_from_counts(
                Counts(
                    starts, ("other",), SIGNALS,
                    np.minimum(events[:, b], only(trials[:, b], derived))[:, :, None],
                    only(trials[:, b], derived)[:, :, None],
                ),
                cuts={}, model_version="model/1", start=START, end=end, now=end,
            )
            for b in range(boards.boards)
        ]
        for derived in (False, True)
    }  # fmt: skip


def releases(
    boards: Traffic,
    detectors: dict[bool, Detector],
    rates: tuple[Rates, float],
    rng: np.random.Generator,
    hostile: tuple[str, int] | None = None,
) -> dict[bool, FloatArray]:
    """Release once on every board, or let hostile users begin; return delays in minutes.

    Args:
        boards: Users.
        detectors: Without and with what is derived; both see the same batches.
        rates: After the release.
        rng: Draws the moments.
        hostile: A signal, and how many bad events an hour a hostile user adds of it.
    """
    after = START.timestamp() + 86_400.0 * BASELINE_DAYS
    moments = after + rng.uniform(0.0, 7 * 86_400.0, boards.boards)
    first = np.floor(moments / BATCH) * BATCH
    steps = int(WATCHED_HOURS * 3_600.0 / BATCH)
    starts = first + BATCH * np.arange(steps)[:, np.newaxis]
    expected = {derived: detector.expect(starts) for derived, detector in detectors.items()}
    part = 1.0 - (moments - first) / BATCH
    delays = {derived: np.full(boards.boards, np.inf) for derived in detectors}
    for detector in detectors.values():
        detector.start()
    for step in range(steps):
        share = part if step == 0 else 1.0
        events, trials = boards.conversations(starts[step], rates, share)
        if hostile is not None:
            added = rng.poisson(hostile[1] / 12.0, boards.boards)
            events[:, SIGNALS.index(hostile[0])] += added
            trials[:, SIGNALS.index(hostile[0])] += added
        ready = (starts[step] + BATCH + boards.world.lag - moments) / 60.0
        for derived, detector in detectors.items():
            seen = only(trials, derived)
            evidence = detector.advance(np.minimum(events, seen), seen, expected[derived][step])
            over = evidence >= detector.limit.log_threshold
            delays[derived] = np.where(over & np.isinf(delays[derived]), ready, delays[derived])
        if all(np.isfinite(found).all() for found in delays.values()):
            break
    return delays


def quiet(boards: Traffic, detectors: dict[bool, Detector], days: int) -> dict[bool, int]:
    """Run all boards in control; return false alarms without and with what is derived."""
    first = START.timestamp() + 86_400.0 * BASELINE_DAYS
    alarmed = {derived: np.zeros(boards.boards, bool) for derived in detectors}
    alarms = dict.fromkeys(detectors, 0)
    for detector in detectors.values():
        detector.start()
    for day in range(days):
        starts = first + 86_400.0 * day + BATCH * np.arange(BATCHES_A_DAY)
        grid = np.repeat(starts[:, np.newaxis], boards.boards, axis=1)
        expected = {derived: detector.expect(grid) for derived, detector in detectors.items()}
        for step in range(BATCHES_A_DAY):
            events, trials = boards.conversations(grid[step], NORMAL)
            for derived, detector in detectors.items():
                seen = only(trials, derived)
                found = detector.advance(np.minimum(events, seen), seen, expected[derived][step])
                threshold = detector.limit.log_threshold
                fresh = ~alarmed[derived] & (found >= threshold)
                alarms[derived] += int(fresh.sum())
                alarmed[derived] = (alarmed[derived] | fresh) & (found >= threshold - MEMORY)
    return alarms


def _median(delays: FloatArray) -> str:
    value = float(np.quantile(delays, 0.5, method="higher"))
    return f"{value:,.0f} min" if np.isfinite(value) else "> 2,880 min"


def _ratio(delays: dict[bool, FloatArray]) -> str:
    without, having = (float(np.median(delays[derived])) for derived in (False, True))
    return f"{having / without:.2f}" if np.isfinite(without) else "–"


def report(options: argparse.Namespace) -> list[str]:
    """Return both tables, with when and where they were measured."""
    rng, began = np.random.default_rng(2026), time.monotonic()
    seen = channel(rng, options.conversations)
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    lines = [
        f"Of what users did, the product saw within five minutes: {seen.seen['regenerated']:.1%} "
        f"of answers asked for again, {seen.seen['edited']:.1%} of edits; it held "
        f"{seen.invented['regenerated']:.2%} and {seen.invented['edited']:.2%} of other answers "
        f"for such ({options.conversations:,} conversations).",
        "",
        "| interactions an hour | thumbs down, asked again (edited alike) | thumbs alone, median "
        "| with derived signals | ratio | false alarms in 30 days, without and with |",
        "|---|---|---|---|---|---|",
    ]
    attacks = []
    for hourly in options.traffic:
        boards = Traffic(World(hourly=hourly, thumbs=0.02), options.boards, rng, seen)
        frozen = freeze(boards)
        detectors = {key: Detector(found, CAUTION, SIGNALS) for key, found in frozen.items()}
        calm = quiet(boards, detectors, options.days)
        watched = options.days * options.boards / 30.0
        false = [f"{calm[key] / watched:.2f}" for key in (False, True)]
        for drop, rates in DROPS.items():
            delays = releases(boards, detectors, rates, rng)
            lines.append(
                f"| {hourly:,.0f} | {drop} | {_median(delays[False])} | {_median(delays[True])} "
                f"| {_ratio(delays)} | {', '.join(false)} |"
            )
        for count in HOSTILE_AN_HOUR:
            by = {
                name: releases(boards, detectors, NORMAL, rng, (name, count))[True]
                for name in ("thumbs_down", *DERIVED)
            }
            cells = " | ".join(_median(found) for found in by.values())
            attacks.append(f"| {hourly:,.0f} | {count} | {cells} |")
        sys.stderr.write(f"{hourly:g}/h: {time.monotonic() - began:.0f} s\n")
    return [
        f"Measured on {datetime.now(UTC).date()} at commit {commit()}, {machine}, by",
        f"`python -m tests.benchmarks.derived_detection`, {options.boards} boards, "
        f"{options.days} days in control each.",
        "",
        *lines,
        "",
        "Minutes until hostile users alone have the board with derived signals raise an alarm:",
        "",
        "| interactions an hour | hostile acts an hour | by thumbs down | by asking again "
        "| by editing |",
        "|---|---|---|---|---|",
        *attacks,
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark; print the tables, or write them into a page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--boards", type=int, default=100)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--traffic", type=float, nargs="*", default=(2_000.0,))
    parser.add_argument("--conversations", type=int, default=2_000)
    parser.add_argument("--page", type=Path, help="a page with the marks of these tables")
    options = parser.parse_args(arguments)
    lines = report(options)
    sys.stdout.write("\n".join(lines) + "\n")
    if options.page is not None:
        page = options.page.read_text("utf-8")
        head, _, rest = page.partition(BEGIN)
        text = "\n".join([f"{head}{BEGIN}", *lines, f"{END}{rest.partition(END)[2]}"])
        options.page.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
