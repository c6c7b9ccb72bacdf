"""Simulated rollouts, look by look, many side by side: users who come back, differ and rate late.

Each rollout has users of its own. A user has an activity and a tendency to get bad answers; a bad
answer makes thumbs down, regenerations and unfinished tasks more likely, so that signals move
together and answers to one user resemble each other. Traffic has a daily wave and quieter
weekends, answers are worse in the evening. Arms are uniform hashes. Every look asks the functions
that `ratchet.deploy.rollout.canary.judge` asks, on sums that are carried along; a test compares the
decisions with those of `judge` itself on the same counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from ratchet.deploy.rollout.evidence import Errors, bounds
from ratchet.deploy.rollout.exposure_counts import Tally
from ratchet.records import SIGNAL_NAMES, RolloutPlan, SignalName, WatchedSignal
from ratchet.stats.experiments.clustered_difference import Moments, stratified_difference
from ratchet.stats.experiments.sample_ratio import UPWARD, Groups, finds_imbalance, share_log_e
from tests.benchmarks.release_simulation import World

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
OBSERVED: tuple[SignalName, ...] = (
    "thumbs_down", "regenerated", "not_completed", "failed", "slow",
)  # fmt: skip
NORMAL = {
    "thumbs_down": 0.08, "regenerated": 0.10, "not_completed": 0.30, "failed": 0.002, "slow": 0.05,
}  # fmt: skip
KNOWN_COMPLETION = 0.5
GAP = 4.0
"""How many times more often a bad answer shows a signal of quality than a good one."""
ACTIVITY_SPREAD = 1.0
START = datetime(2026, 3, 2, 9, tzinfo=UTC)
OUTCOMES = ("running", "promoted", "harm", "ratio", "expired")
RUNNING, PROMOTED, HARM, RATIO, EXPIRED = range(5)


@dataclass(frozen=True)
class Scenario:
    """What the challenger does.

    Attributes:
        world: Traffic and users.
        rates: What differs from the champion's rates, by signal.
        odds: Factor on the odds of assignment; 1 is sound, 11/9 makes 50/50 into 55/45.
        look_hours: Hours between looks.
    """

    world: World
    rates: dict[str, float] = field(default_factory=dict)
    odds: float = 1.0
    look_hours: float = 1.0


@dataclass(frozen=True)
class Results:
    """How rollouts ended: one row each.

    Attributes:
        outcome: Index into `OUTCOMES`.
        stage: Stage in which it ended, from 1 on; one above the last for a promotion.
        hours: Until it ended.
        exposed: The challenger's share of all answers until then.
        read: Whether a rate was ever read.
        half: Hours until the stage of 50 % began, nan where it did not.
    """

    outcome: IntArray
    stage: IntArray
    hours: FloatArray
    exposed: FloatArray
    read: BoolArray
    half: FloatArray


def plan_of(plan: RolloutPlan | None = None) -> tuple[RolloutPlan, tuple[WatchedSignal, ...]]:
    """Return the plan and those of its signals that the simulated application reports."""
    chosen = plan or RolloutPlan()
    return chosen, tuple(signal for signal in chosen.signals if signal.name in OBSERVED)


class Rollouts:
    """Many rollouts of one scenario, advanced together."""

    def __init__(
        self, scenario: Scenario, number: int, rng: np.random.Generator, plan: RolloutPlan
    ) -> None:
        self.scenario, self.number, self.rng = scenario, number, rng
        self.plan, self.signals = plan_of(plan)
        world = scenario.world
        self.users = max(20, round(world.hourly * 24.0 / world.visits))
        shape = (number, self.users)
        activity = rng.lognormal(sigma=ACTIVITY_SPREAD, size=shape)
        self.activity = activity / activity.sum(axis=1, keepdims=True)
        self.points = rng.random(shape)
        base = math.log(world.bad / (1.0 - world.bad)) * math.sqrt(
            1.0 + 0.346 * world.user_spread**2
        )
        self.tendency = base + rng.normal(0.0, world.user_spread, size=shape)
        stages, signals = len(self.plan.stages), len(self.signals)
        self.shares = np.array([stage.share for stage in self.plan.stages])
        self.cells = 2 * stages
        # counts by signal, rollout, user and cell (stage and arm): events, then trials
        self.counts = np.zeros((signals, *shape, 2, self.cells), np.int16)
        self.seen = np.zeros((*shape, self.cells), np.bool_)
        size = (signals, number, self.cells)
        self.successes, self.totals, self.met = np.zeros(size), np.zeros(size), np.zeros(size)
        self.squares = np.zeros((3, *size))  # of dy dy, dn dn and dy dn, in one cell
        self.by_events = np.zeros((*size, 2, self.cells))  # dy times the user's y and n before
        self.by_trials = np.zeros((*size, 2, self.cells))
        self.users_told = np.zeros((signals, number, 2))
        self.told = np.zeros((signals, *shape, 2), np.bool_)
        self.assigned = _Sticky(shape, self.shares)
        self.hit = [_Sticky(shape, self.shares) for _ in range(signals)]
        self.stage = np.zeros(number, np.int64)
        self.stage_hours = np.zeros(number)
        self.outcome = np.zeros(number, np.int64)
        self.hours = np.zeros(number)
        self.answers = np.zeros((number, 2))
        self.read = np.zeros(number, np.bool_)
        self.half = np.full(number, np.nan)
        self.clock = 0.0

    # Traffic ----------------------------------------------------------------------------------

    def advance(self) -> None:
        """Let the users of the rollouts that still run have their answers until the next look."""
        step, world, rng = self.scenario.look_hours, self.scenario.world, self.rng
        seconds = START.timestamp() + 3_600.0 * self.clock
        load = world.hourly * step * _wave(world, seconds)
        live = np.flatnonzero(self.outcome == RUNNING)
        sessions = rng.poisson(load / world.session * self.activity[live])
        row, user = np.nonzero(sessions)
        count = sessions[row, user]
        row = live[row]
        size = count + rng.poisson((world.session - 1.0) * count)
        share = self.shares[self.stage[row]]
        if self.scenario.odds != 1.0:
            share = share * self.scenario.odds / (1.0 + share * (self.scenario.odds - 1.0))
        arm = (self.points[row, user] < share).astype(np.int64)
        evening = world.evening * math.sin(2.0 * math.pi * (seconds / 86_400.0 - 0.625))
        bad = rng.binomial(size, 1.0 / (1.0 + np.exp(-(self.tendency[row, user] + evening))))
        cell = 2 * self.stage[row] + arm
        self.seen[row, user, cell] = True
        self.assigned.meet(row, user, self.stage[row], arm)
        np.add.at(self.answers, (row, arm), size)
        for place, signal in enumerate(self.signals):
            events, trials = self._signal(signal.name, arm, size, bad)
            self._add(place, row, user, arm, events, trials)
        self.clock += step
        self.stage_hours[live] += step
        self.hours[live] = self.clock

    def _signal(
        self, name: str, arm: IntArray, size: IntArray, bad: IntArray
    ) -> tuple[IntArray, IntArray]:
        rng, world = self.rng, self.scenario.world
        rates = np.array([NORMAL[name], self.scenario.rates.get(name, NORMAL[name])])[arm]
        if name in ("failed", "slow"):
            return rng.binomial(size, rates), size
        known = {"thumbs_down": world.thumbs_in_time, "not_completed": KNOWN_COMPLETION}.get(name)
        good = size - bad
        if known is not None:
            good, bad = rng.binomial(good, known), rng.binomial(bad, known)
        if_good = rates / (1.0 - world.bad + world.bad * GAP)
        if_bad = np.minimum(0.95, if_good * GAP)
        if_good = (rates - world.bad * if_bad) / (1.0 - world.bad)
        return rng.binomial(good, if_good) + rng.binomial(bad, if_bad), good + bad

    def _add(
        self,
        place: int,
        row: IntArray,
        user: IntArray,
        arm: IntArray,
        events: IntArray,
        trials: IntArray,
    ) -> None:
        """Carry the sums along: each user occurs once, in one cell."""
        told = trials > 0
        row, user, arm, events, trials = (item[told] for item in (row, user, arm, events, trials))
        if not row.size:
            return
        stage = self.stage[row]
        fresh = ~self.told[place, row, user, arm]
        self.told[place, row, user, arm] = True
        np.add.at(self.users_told[place], (row[fresh], arm[fresh]), 1.0)
        bad = events > 0
        self.hit[place].meet(row[bad], user[bad], stage[bad], arm[bad])
        cell = 2 * stage + arm
        order = np.argsort(row * self.cells + cell, kind="stable")
        row, user, cell, events, trials = (i[order] for i in (row, user, cell, events, trials))
        dy, dn = events.astype(np.float64), trials.astype(np.float64)
        width = 2 * (int(self.stage[self.outcome == RUNNING].max()) + 1)  # later cells are empty
        counts = self.counts[place]
        before = counts[..., :width][row, user].astype(np.float64)
        first_time = before[np.arange(row.size), 1, cell] == 0.0
        at = row * self.cells + cell
        for target, values in (
            (self.totals[place], dn), (self.met[place], first_time.astype(np.float64)),
            (self.squares[1, place], dn * dn),
        ):  # fmt: skip
            _add_runs(target.reshape(-1), at, values)
        crossed = self.by_trials[place].reshape(-1, 2, self.cells)[..., :width]
        _add_runs(crossed, at, dn[:, np.newaxis, np.newaxis] * before)
        bad = dy > 0.0
        at, some = at[bad], dy[bad]
        for target, values in (
            (self.successes[place], some), (self.squares[0, place], some * some),
            (self.squares[2, place], some * dn[bad]),
        ):  # fmt: skip
            _add_runs(target.reshape(-1), at, values)
        crossed = self.by_events[place].reshape(-1, 2, self.cells)[..., :width]
        _add_runs(crossed, at, some[:, np.newaxis, np.newaxis] * before[bad])
        counts[row, user, 0, cell] += events.astype(np.int16)
        counts[row, user, 1, cell] += trials.astype(np.int16)

    def moments(self, place: int) -> Moments:
        """Return a signal's sums over users, of all rollouts."""
        y_y, y_n = self.by_events[place][..., 0, :], self.by_events[place][..., 1, :]
        n_y, n_n = self.by_trials[place][..., 0, :], self.by_trials[place][..., 1, :]
        own = np.eye(self.cells) * self.squares[:, place][..., np.newaxis]

        def turned(matrix: FloatArray) -> FloatArray:
            return np.swapaxes(matrix, -1, -2)

        return Moments(
            self.successes[place], self.totals[place], self.met[place],
            y_y + turned(y_y) + own[0], y_n + turned(n_y) + own[2], n_n + turned(n_n) + own[1],
        )  # fmt: skip

    # Looking ----------------------------------------------------------------------------------

    def look(self) -> None:
        """Look at every rollout that still runs, and act."""
        plan = self.plan
        live = self.outcome == RUNNING
        assigned = self.assigned.groups()
        broken = share_log_e(assigned) >= -math.log(plan.ratio_error)
        ready = np.zeros(self.number, np.bool_)
        for number, stage in enumerate(plan.stages):
            here = self.stage == number
            ready |= here & finds_imbalance(assigned, stage.imbalance, alpha=plan.ratio_error)
        errors = Errors.shared(plan.harm_error, plan.pass_error, len(self.signals))
        harm, passes = np.zeros(self.number, np.bool_), np.ones(self.number, np.bool_)
        at = np.minimum(self.stage, len(plan.stages) - 1)  # a promoted one is past the last
        slack = np.array([stage.slack for stage in plan.stages])[at]
        for place, signal in enumerate(self.signals):
            harm |= share_log_e(self.hit[place].groups(), odds_ratios=UPWARD) >= -math.log(
                errors.alarm
            )
            moments = self.moments(place)
            found = stratified_difference(moments, range(0, self.cells, 2), range(1, self.cells, 2))
            lower, upper = bounds(found, signal, errors, slack=slack)
            known = ready & (self.users_told[place].min(axis=1) >= plan.minimum_users)
            self.read |= live & known & ~broken
            harm |= known & (lower > 0.0)
            passes &= known & (upper < slack * signal.margin)
        passes &= self.stage_hours >= np.array([stage.hours for stage in plan.stages])[at]
        self._act(live, broken, harm, passes)

    def _act(self, live: BoolArray, broken: BoolArray, harm: BoolArray, passes: BoolArray) -> None:
        self.outcome[live & broken] = RATIO
        live = live & ~broken
        self.outcome[live & harm] = HARM
        live = live & ~harm
        gone = live & passes
        self.stage[gone] += 1
        self.stage_hours[gone] = 0.0
        self.half[gone & (self.stage == len(self.shares) - 1)] = self.clock
        self.outcome[self.stage == len(self.shares)] = PROMOTED
        late = self.clock >= 24.0 * self.plan.maximum_days
        self.outcome[live & ~passes & late] = EXPIRED

    def run(self) -> Results:
        """Run all rollouts to their ends."""
        while (self.outcome == RUNNING).any():
            self.advance()
            self.look()
        exposed = self.answers[:, 1] / np.maximum(self.answers.sum(axis=1), 1.0)
        return Results(self.outcome, self.stage + 1, self.hours, exposed, self.read, self.half)

    # For comparison with the product ----------------------------------------------------------

    def tally(self, row: int) -> Tally:
        """Return one rollout's counts as the product would read them."""
        stages = int(self.stage[row]) + 1
        shape = (self.users, stages, 2, len(SIGNAL_NAMES))
        events, trials = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for place, signal in enumerate(self.signals):
            at = SIGNAL_NAMES.index(signal.name)
            counts = self.counts[place, row].reshape(self.users, 2, -1, 2)
            events[..., at], trials[..., at] = counts[:, 0, :stages], counts[:, 1, :stages]
        seen = self.seen[row].reshape(self.users, -1, 2)[:, :stages]
        known = seen.any(axis=(1, 2))
        latest = START + timedelta(hours=self.clock)
        return Tally(
            ("champion", "challenger"), events[known], trials[known], seen[known],
            int(self.answers[row].sum()), (latest, latest),
        )  # fmt: skip


class _Sticky:
    """What `sticky_groups` counts, carried along from meeting to meeting."""

    def __init__(self, shape: tuple[int, int], shares: FloatArray) -> None:
        self.shares = shares
        self.last = np.full(shape, -1, np.int8)  # the last stage in the control
        self.settled = np.zeros(shape, np.bool_)
        pairs = [(stage, before) for stage in range(len(shares)) for before in range(-1, stage)]
        self.place = np.zeros((len(shares), len(shares) + 1), np.int64)
        for number, (stage, before) in enumerate(pairs):
            self.place[stage, before + 1] = number
        starts = np.array([0.0 if before < 0 else shares[before] for _, before in pairs])
        ends = np.array([shares[stage] for stage, _ in pairs])
        self.rates = (ends - starts) / (1.0 - starts)
        self.trials = np.zeros((shape[0], len(pairs)), np.int64)
        self.successes = np.zeros_like(self.trials)

    def meet(self, row: IntArray, user: IntArray, stage: IntArray, arm: IntArray) -> None:
        before = self.last[row, user].astype(np.int64)
        new = ~self.settled[row, user] & (before < stage)
        row, user, stage, arm, before = (a[new] for a in (row, user, stage, arm, before))
        group = self.place[stage, before + 1]
        np.add.at(self.trials, (row, group), 1)
        np.add.at(self.successes, (row, group), arm)
        self.settled[row, user] = arm == 1
        self.last[row, user] = stage

    def groups(self) -> Groups:
        return Groups(self.successes, self.trials, self.rates)


def _add_runs(target: FloatArray, at: IntArray, values: FloatArray) -> None:
    """Add values to their places; equal places follow on each other."""
    if at.size:
        starts = np.flatnonzero(np.diff(at, prepend=-1))
        target[at[starts]] += np.add.reduceat(values, starts, axis=0)


def _wave(world: World, seconds: float) -> float:
    daily = 1.0 + world.amplitude * math.sin(2.0 * math.pi * (seconds / 86_400.0 - 0.375))
    weekend = ((seconds - 172_800.0) % 604_800.0) < 172_800.0
    return daily * (world.weekend if weekend else 1.0) * 7.0 / (5.0 + 2.0 * world.weekend)
