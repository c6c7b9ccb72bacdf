"""How good can a detector be, and how good was it? Bounds, delays and false alarms.

A detector is judged by two numbers together: how long it takes after a change, and how often it
alarms without one. Either alone can be made as good as one likes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.stats.arrays import FloatArray
from ratchet.stats.checks import require
from ratchet.stats.intervals import Interval


@dataclass(frozen=True, slots=True)
class DelaySummary:
    """Delays of a detector over many changes, in the unit of the delays.

    Attributes:
        median: Half of the changes were found by then; inf where fewer were found.
        percentile_95: 95 % were found by then; inf where fewer were.
        found_within: Share found within the limit.
        changes: How many changes.
    """

    median: float
    percentile_95: float
    found_within: float
    changes: int


def bernoulli_divergence(rate: float, baseline: float) -> float:
    """Kullback-Leibler divergence of two Bernoulli rates, in nats a trial.

    rate log(rate / baseline) + (1 - rate) log((1 - rate) / (1 - baseline)): how much one trial
    tells on average that the rate is the first and not the second.

    Raises:
        InvalidInputError: A rate is out of range; the baseline must be inside (0, 1).

    Example:
        >>> round(bernoulli_divergence(0.16, 0.08), 4)
        0.0345
    """
    require(
        0.0 <= rate <= 1.0 and 0.0 < baseline < 1.0,
        f"rate must be in [0, 1] and baseline in (0, 1), got {rate} and {baseline}; "
        "pass shares, not percentages",
    )
    return float(special.rel_entr(rate, baseline) + special.rel_entr(1.0 - rate, 1.0 - baseline))


def lorden_bound(run_length: float, divergence: float) -> float:
    """Asymptotically shortest worst-case mean delay for a run length: log(run_length) / divergence.

    No detector whose mean time to a false alarm is at least `run_length` has, as that grows, a
    smaller worst-case mean delay, also where it knows both rates (Lorden 1971; the CUSUM attains
    it). A detector that knows when a change is likely, such as at a release, may do better there.

    Units: `run_length` in observations, `divergence` in nats an observation or a unit of time; the
    bound is in that unit.

    Args:
        run_length: Mean number of observations to a false alarm, above 1.
        divergence: Information on the change that an observation (an hour) brings, above 0.

    Raises:
        InvalidInputError: A number is out of range.

    Example:
        >>> round(lorden_bound(1_440_000, 0.0157), 0)
        903.0

    References:
        Lorden, G. (1971). Procedures for reacting to a change in distribution. Annals of
        Mathematical Statistics 42, 1897-1908.
    """
    require(
        run_length > 1.0 and divergence > 0.0,
        f"run_length must be above 1 and divergence above 0, got {run_length} and "
        f"{divergence}; without a difference there is nothing to find",
    )
    return math.log(run_length) / divergence


def detection_delays(alarms: ArrayLike, changes: ArrayLike) -> FloatArray:
    """Return the delay of each change: alarm minus change; inf where there was no alarm (nan).

    Args:
        alarms: When the alarm came, nan for never, shape (n,).
        changes: When the change happened, shape (n,).

    Raises:
        InvalidInputError: Shapes differ, or an alarm came before its change, which is a false one.

    Example:
        >>> detection_delays([30.0, float("nan")], [10.0, 10.0]).tolist()
        [20.0, inf]
    """
    came, changed = np.asarray(alarms, dtype=np.float64), np.asarray(changes, dtype=np.float64)
    if came.shape != changed.shape or came.ndim != 1:
        raise InvalidInputError(
            f"alarms and changes must be equally long, got shapes {came.shape} and "
            f"{changed.shape}; pass nan where no alarm came"
        )
    delays = np.where(np.isnan(came), np.inf, came - changed)
    if (delays < 0.0).any():
        raise InvalidInputError(
            f"an alarm must not come before its change, got one {-delays.min():g} before; "
            "count it as a false alarm"
        )
    return np.asarray(delays, dtype=np.float64)


def summarise_delays(delays: ArrayLike, *, limit: float) -> DelaySummary:
    """Return median, 95th percentile and the share found within a limit.

    Args:
        delays: One a change, inf where it was not found.
        limit: The limit, in the unit of the delays.

    Raises:
        InsufficientDataError: There are no changes.

    Example:
        >>> summarise_delays([10.0, 20.0, 90.0, float("inf")], limit=60.0).found_within
        0.5
    """
    values = np.sort(np.asarray(delays, dtype=np.float64))
    if values.size == 0:
        raise InsufficientDataError("a delay needs at least 1 change, got none; simulate some")
    return DelaySummary(
        median=float(np.quantile(values, 0.5, method="higher")),
        percentile_95=float(np.quantile(values, 0.95, method="higher")),
        found_within=float((values <= limit).mean()),
        changes=int(values.size),
    )


def false_alarm_rate(alarms: int, time: float, *, level: float = 0.95) -> tuple[float, Interval]:
    """Return false alarms per unit of time with their exact Poisson interval.

    Garwood's limits: half the chi-square quantiles with 2 k and 2 k + 2 degrees of freedom.

    Args:
        alarms: How many came while in control, at least 0.
        time: How long that was watched, above 0.
        level: Coverage of the interval, in (0, 1).

    Raises:
        InvalidInputError: A number is out of range.

    Example:
        >>> rate, interval = false_alarm_rate(0, 10.0)
        >>> rate, interval.lower, round(interval.upper, 4)
        (0.0, 0.0, 0.3689)

    References:
        Garwood, F. (1936). Fiducial limits for the Poisson distribution. Biometrika 28, 437-442.
    """
    require(
        alarms >= 0 and time > 0.0 and 0.0 < level < 1.0,
        f"alarms must be at least 0, time above 0 and level in (0, 1), got {alarms}, {time} "
        f"and {level}; pass the time that was watched while in control",
    )
    tail = (1.0 - level) / 2.0
    lower = 0.0 if alarms == 0 else float(special.gammaincinv(alarms, tail))
    upper = float(special.gammaincinv(alarms + 1, 1.0 - tail))
    return alarms / time, Interval(lower / time, upper / time, level)


def mean_run_length(alarms: int, time: float) -> float:
    """Return the mean time between false alarms, a maximum-likelihood estimate.

    Raises:
        InsufficientDataError: No alarm came: the run length is longer than can be said.

    Example:
        >>> mean_run_length(4, 120.0)
        30.0
    """
    if alarms < 1:
        raise InsufficientDataError(
            f"a mean run length needs at least 1 alarm, got none in {time:g}; watch for longer, or "
            "state the upper limit of false_alarm_rate"
        )
    return time / alarms
