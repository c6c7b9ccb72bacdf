"""Simulated releases, batch by batch: daily and weekly cycle, repeated users, late feedback.

Many boards run side by side, each with its own users, its own baseline and its own release. An
answer is bad with a probability that depends on its user and on the hour; a bad answer makes
thumbs down, regenerations, answers that are not copied and tasks that are not completed more
likely, so that the signals move together also while in control. Feedback that comes later than the
lag is lost to the charts, as it is in use.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BATCH = 300.0
BATCHES_A_DAY = 288
SIGNALS = (
    "thumbs_down", "regenerated", "not_copied", "not_completed", "failed", "slower_than_median",
    "slower_than_p99", "longer_than_usual", "shorter_than_usual", "no_feedback", "no_signals",
)  # fmt: skip
SERVICE = {"failed": 0.002, "slower_than_median": 0.5, "slower_than_p99": 0.01,
           "longer_than_usual": 0.05, "shorter_than_usual": 0.05}  # fmt: skip


@dataclass(frozen=True)
class World:
    """Traffic and users.

    Attributes:
        hourly: Mean interactions an hour.
        thumbs: Share of answers that get a thumb.
        bad: Share of bad answers while in control.
        amplitude: Of the daily wave of traffic, as a share of its mean.
        weekend: Traffic at weekends as a share of that on other days.
        evening: Log odds by which answers are worse at the worst hour than on average.
        user_spread: Standard deviation of users' log odds of a bad answer.
        session: Mean answers of one user in a batch.
        visits: Mean answers of a user a day.
        lag: Seconds after which an answer is charted.
        thumb_delay: Mean seconds until a thumb comes, exponential.
    """

    hourly: float = 2_000.0
    thumbs: float = 0.10
    bad: float = 0.20
    amplitude: float = 0.4
    weekend: float = 0.7
    evening: float = 0.15
    user_spread: float = 0.5
    session: float = 3.0
    visits: float = 10.0
    lag: float = 300.0
    thumb_delay: float = 120.0

    @property
    def thumbs_in_time(self) -> float:
        """Share of answers whose thumb comes within the lag."""
        return self.thumbs * float(-np.expm1(-self.lag / self.thumb_delay))


@dataclass(frozen=True)
class Rates:
    """Overall rates of the signals; what they are given a good and a bad answer follows.

    `gap` is how many times more likely a bad answer shows each of them than a good one.
    """

    thumbs_down: float = 0.08
    regenerated: float = 0.10
    not_copied: float = 0.60
    not_completed: float = 0.30
    gap: float = 4.0

    def given(self, rate: float, bad: float) -> tuple[float, float]:
        """Return the rate given a good and given a bad answer, such that `rate` is the whole."""
        good = rate / (1.0 - bad + bad * self.gap)
        worse = good * self.gap
        if worse > 0.95:  # a common signal cannot differ as much
            worse = 0.95
            good = (rate - bad * worse) / (1.0 - bad)
        return good, worse


class Boards:
    """Users of many boards; draws what happens batch by batch."""

    def __init__(self, world: World, boards: int, rng: np.random.Generator) -> None:
        self.world, self.boards, self.rng = world, boards, rng
        self.users = max(20, round(world.hourly * 24.0 / world.visits))
        self.offsets = rng.normal(0.0, world.user_spread, size=(boards, self.users))
        # with users spread around it the mean log odds lies below that of the mean rate
        self.base = np.log(world.bad / (1.0 - world.bad)) * np.sqrt(
            1.0 + 0.346 * world.user_spread**2
        )

    def load(self, seconds: FloatArray) -> FloatArray:
        """Return the mean interactions of a batch that begins then."""
        world = self.world
        wave = 1.0 + world.amplitude * np.sin(2.0 * np.pi * (seconds / 86_400.0 - 0.375))
        weekend = ((seconds - 172_800.0) % 604_800.0) < 172_800.0
        scale = np.where(weekend, world.weekend, 1.0) * 7.0 / (5.0 + 2.0 * world.weekend)
        return world.hourly / 12.0 * wave * scale

    def draw(
        self, seconds: FloatArray, rates: Rates, shares: FloatArray | float = 1.0
    ) -> tuple[IntArray, IntArray]:
        """Return events and trials of one batch, each of shape (boards, signals).

        Args:
            seconds: When each board's batch begins, shape (boards,).
            rates: Rates of the signals, overall.
            shares: Part of the batch that the version sees, shape (boards,).
        """
        answers, bad = self._answers(seconds, self.load(seconds) * shares)
        return self._signals(answers, bad, rates)

    def _answers(self, seconds: FloatArray, load: FloatArray) -> tuple[IntArray, IntArray]:
        rng, world = self.rng, self.world
        sessions = rng.poisson(load / world.session)
        board = np.repeat(np.arange(self.boards), sessions)
        user = rng.integers(0, self.users, size=board.size)
        size = 1 + rng.poisson(world.session - 1.0, size=board.size)
        wave = world.evening * np.sin(2.0 * np.pi * (seconds / 86_400.0 - 0.625))
        odds = self.base + self.offsets[board, user] + wave[board]
        bad = rng.binomial(size, 1.0 / (1.0 + np.exp(-odds)))
        return (
            np.bincount(board, weights=size, minlength=self.boards).astype(np.int64),
            np.bincount(board, weights=bad, minlength=self.boards).astype(np.int64),
        )

    def _signals(self, answers: IntArray, bad: IntArray, rates: Rates) -> tuple[IntArray, IntArray]:
        rng, world = self.rng, self.world
        good = answers - bad
        events = np.zeros((self.boards, len(SIGNALS)), np.int64)
        trials = np.zeros_like(events)

        def put(name: str, seen_good: IntArray, seen_bad: IntArray, rate: float) -> None:
            place = SIGNALS.index(name)
            if_good, if_bad = rates.given(rate, world.bad)
            trials[:, place] = seen_good + seen_bad
            events[:, place] = rng.binomial(seen_good, if_good) + rng.binomial(seen_bad, if_bad)

        in_time = world.thumbs_in_time
        thumbs_good, thumbs_bad = rng.binomial(good, in_time), rng.binomial(bad, in_time)
        put("thumbs_down", thumbs_good, thumbs_bad, rates.thumbs_down)
        put("regenerated", good, bad, rates.regenerated)
        put("not_copied", good, bad, rates.not_copied)
        put("not_completed", rng.binomial(good, 0.5), rng.binomial(bad, 0.5), rates.not_completed)
        for name, rate in SERVICE.items():
            place = SIGNALS.index(name)
            trials[:, place] = answers
            events[:, place] = rng.binomial(answers, rate)
        trials[:, -2] = trials[:, -1] = answers
        events[:, -2] = answers - thumbs_good - thumbs_bad
        events[:, -1] = rng.binomial(answers, 0.02)
        return events, trials
