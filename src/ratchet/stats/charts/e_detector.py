"""Has a rate gone up? An e-process for one question, an e-detector for standing watch.

Evidence against "the rate is at most p0" is measured by likelihood ratios of batches with `events`
of `trials`, each against a rate with `o` times the odds of p0:
exp(events log(o) - trials log(1 + p0 (o - 1))). Its mean is at most 1 for every rate up to p0, so
it is an e-value; the average over several `o` is one too, and none of them has to be right.

`rate_e_process` multiplies them from the first batch on: one hypothesis, watched from the start.
`update_e_detector` watches for a change at an unknown batch and starts anew at each. While nothing
has changed, its first alarm comes on average no sooner than after 1/alpha batches, by construction:
for any batch sizes, as long as the chance of an event given the past is at most p0. Events may be
fractions: sums of scores in [0, 1] with that mean are treated alike.

For a fall in a rate, pass `trials - events` and the null of the complement.

References:
    Shin, J., Ramdas, A., Rinaldo, A. (2024). E-detectors: a nonparametric framework for sequential
    change detection. New England Journal of Statistics in Data Science 2, 229-260.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.stats.arrays import BoolArray, FloatArray, IntArray
from ratchet.stats.checks import require

DetectorKind = Literal["sr", "cusum"]
ODDS_RATIOS = (1.1, 1.2, 1.35, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 6.0, 10.0)


@dataclass(frozen=True, slots=True)
class RateNull:
    """The hypothesis that a rate is at most `rate`.

    Attributes:
        rate: Largest rate that is no cause for alarm, in (0, 1).
        error: Probability that an estimated `rate` is below the baseline's true one, in [0, 1); 0
            where the rate is agreed and not estimated.
    """

    rate: float
    error: float = 0.0

    def __post_init__(self) -> None:
        require(
            0.0 < self.rate < 1.0,
            f"the rate of a null must be in (0, 1), got {self.rate}; with 0 any event, with 1 "
            "nothing would be evidence",
        )
        require(
            0.0 <= self.error < 1.0,
            f"the error of a null must be in [0, 1), got {self.error}; pass 0 for a known rate",
        )


def estimated_null(events: int, trials: int, *, error: float = 0.1) -> RateNull:
    """Null from a finite baseline: its exact upper bound, with the risk that this is too low.

    The beta quantile B(1 - error; events + 1, trials - events). What uses the null pays for `error`
    out of its own error rate, so that its guarantee includes the estimation.

    Units: counts in.
    Assumptions: independent baseline trials with one common rate, their number fixed in advance;
    independent of what is watched.
    Error rate: the true rate is above the null's with probability at most `error`.
    When not to use: where the baseline is short and small increases matter: the bound lies about
    1.3 standard errors above the estimate, and what lies between is not looked for.

    Args:
        events: Events of the baseline, 0 to `trials`.
        trials: Trials of the baseline, at least 1.
        error: Risk of a bound below the true rate, in (0, 1).

    Raises:
        InsufficientDataError: There are no trials, or every trial had the event.
        InvalidInputError: An argument is out of range.

    Example:
        >>> round(estimated_null(100, 1000).rate, 4)
        0.1133
    """
    if trials < 1 or events == trials:
        raise InsufficientDataError(
            f"a baseline needs trials without the event, got {events} of {trials}; collect more"
        )
    require(
        0 <= events < trials and 0.0 < error < 1.0,
        f"a baseline needs 0 <= events < trials and error in (0, 1), got {events} of {trials} "
        f"and {error}; check their order",
    )
    return RateNull(float(special.betaincinv(events + 1, trials - events, 1.0 - error)), error)


# One hypothesis -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class EProcess:
    """Evidence against a null at successive looks.

    Attributes:
        log_e: Log of the e-process at each look.
        p_values: Anytime-valid p-value at each look, of all evidence up to it; never rises.
    """

    log_e: FloatArray
    p_values: FloatArray


def rate_e_process(
    events: ArrayLike,
    trials: ArrayLike,
    null: RateNull,
    *,
    odds_ratios: tuple[float, ...] = ODDS_RATIOS,
) -> EProcess:
    """E-process against "the rate is at most that of the null", from cumulative counts.

    The average over `odds_ratios` of the likelihood ratios of all data so far. The p-value is the
    null's error plus exp(-max over looks of the log e-process), at most 1.

    Units: cumulative counts in.
    Assumptions: the chance of an event, given the past, is at most the null's rate at every trial.
    Error rate: a p-value of at most `a` at any look has probability at most `a`, for every `a`.
    When not to use: to watch for a change that may come late; evidence gathered before it counts
    against it (take `update_e_detector`). For events that come in groups (many of one user).

    Args:
        events: Events so far at each look, shape (n,) or a number, 0 to trials.
        trials: Trials so far at each look, above 0.
        null: The hypothesis.
        odds_ratios: Odds of the alternatives over those of the null, each above 1.

    Raises:
        InsufficientDataError: There are no looks.
        InvalidInputError: Counts are not cumulative or out of range.

    Example:
        >>> process = rate_e_process([12, 40], [100, 200], RateNull(0.1))
        >>> [round(float(p), 4) for p in process.p_values]
        [1.0, 0.0006]
    """
    done, total = _counts(events, trials)
    new, more = np.diff(done), np.diff(total)
    if ((new < 0.0) | (new > more)).any():
        raise InvalidInputError(
            "counts must be cumulative, got a look with fewer than before or more events than new "
            "trials; pass np.cumsum of the counts of each batch"
        )
    log_ratios = _log_ratios(done, total, null.rate, _checked_odds_ratios(odds_ratios))
    log_e = special.logsumexp(log_ratios, axis=1) - math.log(len(odds_ratios))
    best = np.maximum(np.maximum.accumulate(log_e), 0.0)
    return EProcess(log_e, np.minimum(1.0, null.error + np.exp(-best)))


# Standing watch -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EDetectorState:
    """All that an e-detector remembers; plain numbers, a few per alternative.

    `to_json` and `state_from_json` turn it into a JSON-able mapping and back.

    Attributes:
        rate: Rate of the null.
        error: Error of the null.
        alpha: False alarms per batch, in (0, 1).
        kind: "sr" adds up the evidence of all starts, "cusum" takes the best start.
        odds_ratios: The alternatives.
        batches: Batches seen.
        trials: Trials seen.
        log_sr: Log of 1 + the Shiryaev-Roberts statistic of each alternative.
        log_cusum: Log of the CUSUM statistic of each alternative, not below 0.
        starts: Batch, from 1, at which the CUSUM's current excursion of each alternative began; a
            CUSUM at 0 has the next batch.
        alarm_batch: Batch of the first alarm; it stays.
        change_batch: Estimated first batch of the changed rate, made at the alarm.
    """

    rate: float
    error: float
    alpha: float
    kind: DetectorKind
    odds_ratios: tuple[float, ...]
    batches: int
    trials: float
    log_sr: tuple[float, ...]
    log_cusum: tuple[float, ...]
    starts: tuple[int, ...]
    alarm_batch: int | None = None
    change_batch: int | None = None

    def __post_init__(self) -> None:
        RateNull(self.rate, self.error)
        _checked_odds_ratios(self.odds_ratios)
        _checked_detector(self.alpha, self.kind)
        sizes = {len(self.odds_ratios), len(self.log_sr), len(self.log_cusum), len(self.starts)}
        values = (*self.log_sr, *self.log_cusum, self.trials)
        if len(sizes) != 1 or not all(math.isfinite(v) and v >= 0.0 for v in values):
            raise InvalidInputError(
                "a detector's state needs one finite number of at least 0 per alternative, got "
                f"lengths {sorted(sizes)}; begin anew with start_e_detector"
            )

    @property
    def log_threshold(self) -> float:
        """Log evidence at which it alarms: log(1 / (alpha (1 - error)))."""
        return -math.log(self.alpha) - math.log1p(-self.error)

    def to_json(self) -> dict[str, Any]:
        """The state as a mapping of numbers, strings and lists."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }


@dataclass(frozen=True, slots=True, eq=False)
class EDetectorUpdate:
    """What a call of `update_e_detector` found.

    Attributes:
        state: To be kept for the next call.
        log_evidence: Log of the detector's statistic after each new batch.
        alarms: Whether each new batch is at or above the threshold.
    """

    state: EDetectorState
    log_evidence: FloatArray
    alarms: BoolArray


def start_e_detector(
    null: RateNull,
    *,
    alpha: float,
    kind: DetectorKind = "sr",
    odds_ratios: tuple[float, ...] = ODDS_RATIOS,
) -> EDetectorState:
    """State of a detector that has seen nothing.

    Args:
        null: What counts as unchanged.
        alpha: False alarms per batch, in (0, 1): 1/alpha batches between them on average at least.
        kind: "sr" has the shorter delay; "cusum" is never above it, so alarms later and less often.
        odds_ratios: Odds of the alternatives over those of the null, each above 1.

    Raises:
        InvalidInputError: An argument is out of range.

    Example:
        >>> start_e_detector(RateNull(0.1), alpha=0.001).batches
        0
    """
    size = len(_checked_odds_ratios(odds_ratios))
    nothing = (0.0,) * size
    return EDetectorState(
        rate=null.rate,
        error=null.error,
        alpha=alpha,
        kind=kind,
        odds_ratios=tuple(float(ratio) for ratio in odds_ratios),
        batches=0,
        trials=0.0,
        log_sr=nothing,
        log_cusum=nothing,
        starts=(1,) * size,
    )


def update_e_detector(
    state: EDetectorState, events: ArrayLike, trials: ArrayLike
) -> EDetectorUpdate:
    """Add batches to an e-detector.

    With L the likelihood ratio of a batch against one alternative, the Shiryaev-Roberts statistic
    is M <- L (M + 1) and the CUSUM M <- L max(M, 1); the detector averages M over the alternatives
    and alarms at 1 / (alpha (1 - error)). The change point is where the best alternative's CUSUM
    last left 1. Cost and memory follow the new batches alone.

    Units: counts of each batch in (not cumulative).
    Assumptions: while nothing has changed, the chance of an event given the past is at most the
    null's rate at every trial; the size of a batch is settled before its events are seen.
    Error rate: the mean number of batches to the first alarm is at least 1/alpha for every rate up
    to the null's, averaged over baselines where the null is estimated. In practice it is longer:
    at rate 0.1 and alpha 1/200 about 1.6, 2.7 and 6 times for batches of 5, 50 and 500, since a
    statistic that jumps overshoots its threshold. The delay after a change to rate p is about
    log(alternatives / alpha) / (trials per batch x KL(p, null)) batches and one more.
    When not to use: where the run length must be met closely rather than at least (take a CUSUM
    from `ratchet.stats.charts.run_lengths`); for events that come in groups (many of one user). An
    alarm does not reset it: after one, find out, then start a new detector on purpose.

    Args:
        state: From `start_e_detector`, an earlier call or `state_from_json`.
        events: Events of each new batch in time order, shape (n,) or a number, 0 to its trials.
        trials: Trials of each new batch, above 0.

    Returns:
        The new state, with the evidence and the alarms of the new batches.

    Raises:
        InsufficientDataError: There are no batches.
        InvalidInputError: A count is out of range.

    Example:
        >>> state = start_e_detector(RateNull(0.1), alpha=0.001)
        >>> update = update_e_detector(state, [9, 11, 10, 24, 27, 25], [100] * 6)
        >>> update.state.alarm_batch, update.state.change_batch
        (5, 4)
    """
    done, total = _counts(events, trials)
    log_ratios = _log_ratios(done, total, state.rate, state.odds_ratios)
    log_sr = _recursion(log_ratios, np.asarray(state.log_sr), np.logaddexp)
    log_cusum = _recursion(log_ratios, np.asarray(state.log_cusum), np.maximum)
    starts = _excursion_starts(log_ratios, state)
    evidence = log_sr if state.kind == "sr" else log_cusum
    log_evidence = special.logsumexp(evidence, axis=1) - math.log(len(state.odds_ratios))
    alarms = log_evidence >= state.log_threshold
    alarm, change = state.alarm_batch, state.change_batch
    if alarm is None and alarms.any():
        first = int(np.argmax(alarms))
        alarm = state.batches + first + 1
        change = int(starts[first, np.argmax(log_cusum[first])])
    at_rest = log_cusum[-1] <= 0.0
    batches = state.batches + done.size
    following = replace(
        state,
        batches=batches,
        trials=state.trials + float(total.sum()),
        log_sr=tuple(np.logaddexp(0.0, log_sr[-1]).tolist()),
        log_cusum=tuple(np.maximum(0.0, log_cusum[-1]).tolist()),
        starts=tuple(np.where(at_rest, batches + 1, starts[-1]).tolist()),
        alarm_batch=alarm,
        change_batch=change,
    )
    return EDetectorUpdate(following, log_evidence, alarms)


def state_from_json(mapping: Mapping[str, Any]) -> EDetectorState:
    """The state that `EDetectorState.to_json` wrote.

    Raises:
        InvalidInputError: A field is missing, unknown or out of range.

    Example:
        >>> state = start_e_detector(RateNull(0.1), alpha=0.001)
        >>> state_from_json(state.to_json()) == state
        True
    """
    known = {field.name for field in fields(EDetectorState)}
    if set(mapping) != known:
        raise InvalidInputError(
            f"a detector's state needs exactly {sorted(known)}, got {sorted(mapping)}; pass what "
            "to_json gave"
        )
    plain: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in mapping.items()
    }
    return EDetectorState(**plain)


def _recursion(log_ratios: FloatArray, before: FloatArray, joined: np.ufunc) -> FloatArray:
    """Log of M <- L join(M, 1) for all batches at once; `before` is the log of join(M, 1)."""
    total = np.cumsum(log_ratios, axis=0)
    terms = np.vstack((before, -total[:-1]))
    return np.asarray(total + joined.accumulate(terms, axis=0))


def _excursion_starts(log_ratios: FloatArray, state: EDetectorState) -> IntArray:
    total = np.cumsum(log_ratios, axis=0)
    terms = np.vstack((np.asarray(state.log_cusum), -total[:-1]))
    highest = np.maximum.accumulate(terms, axis=0)
    is_new = np.vstack((np.zeros((1, terms.shape[1]), dtype=bool), terms[1:] >= highest[:-1]))
    numbers = state.batches + 1 + np.arange(terms.shape[0])[:, np.newaxis]
    begun = np.where(is_new, numbers, np.asarray(state.starts))
    return np.asarray(np.maximum.accumulate(begun, axis=0), dtype=np.int64)


def _log_ratios(
    events: FloatArray, trials: FloatArray, rate: float, odds_ratios: tuple[float, ...]
) -> FloatArray:
    """Log likelihood ratio of each batch (rows) against each alternative (columns)."""
    ratios = np.asarray(odds_ratios)
    cost = np.log1p(rate * (ratios - 1.0))
    return np.asarray(events[:, np.newaxis] * np.log(ratios) - trials[:, np.newaxis] * cost)


def _counts(events: ArrayLike, trials: ArrayLike) -> tuple[FloatArray, FloatArray]:
    done = np.atleast_1d(np.asarray(events, dtype=np.float64))
    total = np.atleast_1d(np.asarray(trials, dtype=np.float64))
    if done.shape != total.shape or done.ndim != 1:
        raise InvalidInputError(
            f"events and trials must have one number a batch, got shapes {done.shape} and "
            f"{total.shape}; pass both for every batch"
        )
    if done.size == 0:
        raise InsufficientDataError("evidence needs at least 1 batch, got 0; wait for data")
    wrong = ~(np.isfinite(total) & (total > 0.0) & (done >= 0.0) & (done <= total))
    if wrong.any():
        place = int(np.argmax(wrong))
        raise InvalidInputError(
            f"each batch needs 0 <= events <= trials and trials above 0, got {done[place]:g} of "
            f"{total[place]:g}; leave out batches without trials"
        )
    return done, total


def _checked_odds_ratios(odds_ratios: tuple[float, ...]) -> tuple[float, ...]:
    if not odds_ratios or not all(math.isfinite(o) and o > 1.0 for o in odds_ratios):
        raise InvalidInputError(
            f"odds_ratios must be above 1, got {odds_ratios}; (1.5, 2.0, 3.0) looks for increases "
            "of the odds by half and more"
        )
    return odds_ratios


def _checked_detector(alpha: float, kind: str) -> None:
    require(
        0.0 < alpha < 1.0,
        f"alpha must be in (0, 1), got {alpha}; pass 0.001 for 1,000 batches between alarms",
    )
    if kind not in get_args(DetectorKind):
        raise InvalidInputError(f"kind must be one of {get_args(DetectorKind)}, got {kind!r}")
