"""Detect a change in many rates at once, with one false-alarm budget for all of them.

Each stream counts bad events among trials, batch by batch. An alternative says which streams are
worse, and by how much on the log odds. For each alternative the likelihood ratios of the batches
feed a Shiryaev-Roberts statistic, which sums the evidence over every possible time of change; the
board's statistic is their mixture. Being a sum of e-processes, its mean grows by at most one a
batch while all is in control, so that a threshold of A gives an average run length of at least
A - r batches, r being the head start. Looking after every batch is what the bound is about: it
costs nothing. Under an average run length of 30 days a board cries wolf at most once in 30 days,
however many streams, segments and alternatives it holds.

A head start of r = risk A concentrates evidence at the first batch, where a new release is most
likely to have gone wrong: the chance that it alone makes a false alarm, ever, is at most `risk`.

    alternatives = Alternatives(shifts=..., weights=..., tempers=...)
    state = begin(alternatives, limit)
    ratios = log_likelihood_ratios(events, trials, expected, alternatives)
    state = update(state, ratios)
    if log_evidence(state, alternatives) >= limit.log_threshold: ...

Arrays may carry leading axes (many boards at once); the last axis is the stream or alternative.

References:
    Shin, J., Ramdas, A., Rinaldo, A. (2024). E-detectors: a nonparametric framework for sequential
    change detection. New England Journal of Statistics in Data Science 2, 229-260.
    Pollak, M. (1985). Optimal detection of a change in distribution. Annals of Statistics 13,
    206-227 (the head start).
    Grunwald, P. (2012). The safe Bayesian. ALT 2012, LNCS 7568, 169-183 (tempered likelihoods).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.stats.arrays import FloatArray, IntArray
from ratchet.stats.checks import require

LOWEST_TEMPER = 0.05


@dataclass(frozen=True, slots=True)
class Alternatives:
    """Ways in which the streams may have got worse.

    Attributes:
        shifts: Log odds added to each stream's rate, shape (alternatives, streams); 0 leaves a
            stream as it is.
        weights: Prior weight of each alternative, shape (alternatives,); they sum to one.
        tempers: Power in (0, 1] that each likelihood ratio is raised to, shape (alternatives,):
            1 for independent trials, less where counts vary by more than chance.
    """

    shifts: FloatArray
    weights: FloatArray
    tempers: FloatArray

    def __post_init__(self) -> None:
        alternatives = self.shifts.shape[0] if self.shifts.ndim == 2 else -1
        require(
            self.weights.shape == self.tempers.shape == (alternatives,),
            "shifts must have shape (alternatives, streams), weights and tempers "
            f"(alternatives,), got {self.shifts.shape}, {self.weights.shape} and "
            f"{self.tempers.shape}; pass one weight and one temper an alternative",
        )
        total = float(self.weights.sum())
        if not (self.weights > 0.0).all() or abs(total - 1.0) > 1e-9:
            raise InvalidInputError(
                f"weights must be above 0 and sum to 1, got a sum of {total:g}; divide by the sum"
            )
        if not ((self.tempers > 0.0) & (self.tempers <= 1.0)).all():
            raise InvalidInputError(
                f"tempers must be in (0, 1], got {self.tempers.min():g} to "
                f"{self.tempers.max():g}; 1 is for independent trials"
            )


@dataclass(frozen=True, slots=True)
class Limit:
    """When a board alarms.

    Attributes:
        log_threshold: The board's log evidence from which on it is an alarm.
        log_head_start: Log evidence that a fresh board starts with.
    """

    log_threshold: float
    log_head_start: float


@dataclass(frozen=True, slots=True)
class DetectorState:
    """What a board has seen, enough to go on from: nothing older is read again.

    Attributes:
        log_statistics: Log Shiryaev-Roberts statistic of each alternative, shape (..., a).
        cusums: Log likelihood ratio since the most likely time of change, shape (..., a).
        starts: That time, as the number of batches before it, shape (..., a).
        batches: Batches seen.
    """

    log_statistics: FloatArray
    cusums: FloatArray
    starts: IntArray
    batches: int


def alarm_limit(run_length: float, *, release_risk: float = 0.01) -> Limit:
    """Return threshold and head start for a wanted run length and a risk at the release.

    With threshold A and head start r = release_risk A the average run length to a false alarm is
    at least A - r; A is chosen such that this is `run_length`.

    Units: `run_length` in batches.
    Assumptions: the ratios are e-values: their mean while in control is at most one.
    Error rate: guaranteed, not approximate; the real run length is somewhat longer.

    Args:
        run_length: Wanted mean number of batches up to a false alarm, above 1.
        release_risk: Greatest chance that the head start makes a false alarm, in [0, 1).

    Raises:
        InvalidInputError: A number is out of range.

    Example:
        >>> limit = alarm_limit(8640)
        >>> round(limit.log_threshold, 3), round(limit.log_head_start, 3)
        (9.074, 4.469)
    """
    require(
        run_length > 1.0,
        f"run_length must be above 1 batch, got {run_length}; 30 days of five minutes are 8640",
    )
    require(
        0.0 <= release_risk < 1.0,
        f"release_risk must be in [0, 1), got {release_risk}; pass 0.01 for one release in 100",
    )
    threshold = run_length / (1.0 - release_risk)
    head_start = -np.inf if release_risk == 0.0 else np.log(release_risk * threshold)
    return Limit(float(np.log(threshold)), float(head_start))


def log_likelihood_ratios(
    events: ArrayLike, trials: ArrayLike, expected: ArrayLike, alternatives: Alternatives
) -> FloatArray:
    """Return one batch's tempered log likelihood ratio for each alternative.

    temper * sum over streams of (events shift - trials log(1 + expected (exp(shift) - 1))).

    Units: counts in, nats out.
    Assumptions: given the batch's expected rates, events are binomial and streams independent;
    tempers make up for what is not.

    Args:
        events: Bad events, shape (..., streams).
        trials: Trials, shape (..., streams); 0 where a stream saw nothing.
        expected: Rate of each stream in this batch while in control, shape (streams,), or
            (..., streams) where boards have baselines of their own.
        alternatives: What may have changed.

    Returns:
        Shape (..., alternatives).
    """
    rates = np.asarray(expected, dtype=np.float64)
    cost = np.log1p(rates[..., np.newaxis, :] * np.expm1(alternatives.shifts))
    gain = np.asarray(events, dtype=np.float64) @ alternatives.shifts.T
    lost = np.einsum("...s,...ks->...k", np.asarray(trials, dtype=np.float64), cost)
    return np.asarray(alternatives.tempers * (gain - lost), dtype=np.float64)


def begin(alternatives: Alternatives, limit: Limit, shape: tuple[int, ...] = ()) -> DetectorState:
    """Return the state of boards that have seen nothing, for `shape` boards at once."""
    full = (*shape, alternatives.weights.size)
    return DetectorState(
        log_statistics=np.full(full, limit.log_head_start),
        cusums=np.zeros(full),
        starts=np.zeros(full, dtype=np.int64),
        batches=0,
    )


def update(state: DetectorState, ratios: FloatArray) -> DetectorState:
    """Take in one batch: R <- (1 + R) ratio, and the CUSUM with its start.

    Args:
        state: The state so far.
        ratios: Log likelihood ratios of the batch, shape (..., alternatives).
    """
    grown = np.logaddexp(0.0, state.log_statistics) + ratios
    reset = state.cusums <= 0.0
    return DetectorState(
        log_statistics=grown,
        cusums=np.where(reset, 0.0, state.cusums) + ratios,
        starts=np.where(reset, state.batches, state.starts),
        batches=state.batches + 1,
    )


def log_evidence(state: DetectorState, alternatives: Alternatives) -> FloatArray:
    """Return the log of the mixture over alternatives, shape (...)."""
    mixed = special.logsumexp(state.log_statistics, b=alternatives.weights, axis=-1)
    return np.asarray(mixed, dtype=np.float64)


def posterior(state: DetectorState, alternatives: Alternatives) -> FloatArray:
    """Return each alternative's share of the evidence, shape (..., alternatives), summing to 1."""
    scores = state.log_statistics + np.log(alternatives.weights)
    return np.asarray(special.softmax(scores, axis=-1), dtype=np.float64)


def fit_tempers(
    events: ArrayLike, trials: ArrayLike, expected: ArrayLike, shifts: ArrayLike, *, block: int = 12
) -> FloatArray:
    """Return the power that makes each alternative's ratios e-values on in-control batches.

    An alternative's score is the sum over streams of shift (events - trials expected). Independent
    trials in independent streams give it the variance shift^2 trials expected (1 - expected),
    summed. The power is that variance over the observed one, at most 1: users who come back,
    sessions that span batches and signals that move together make the observed one larger. It is
    taken from single batches as well as from blocks of them, and the smaller power counts.

    Units: counts in, powers in (0, 1] out.
    Assumptions: the batches are in control and in time order.
    Error rate: the power has a relative standard error of about sqrt(2 / blocks).
    When not to use: on fewer than 30 blocks.

    Args:
        events: Bad events of the baseline's batches, shape (batches, streams).
        trials: Trials, same shape.
        expected: Rates that the baseline expects, same shape.
        shifts: Log odds of the alternatives, shape (alternatives, streams).
        block: Batches to a block; 12 of five minutes are an hour.

    Raises:
        InsufficientDataError: There are fewer than 30 blocks.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> doubled = 2 * rng.binomial(50, 0.1, size=(12_000, 1))  # each event counted twice
        >>> trials, rates = np.full((12_000, 1), 100), np.full((12_000, 1), 0.1)
        >>> fit_tempers(doubled, trials, rates, [[0.5]]).round(1).tolist()
        [0.5]
    """
    bad, seen = np.asarray(events, dtype=np.float64), np.asarray(trials, dtype=np.float64)
    rates, moves = np.asarray(expected, dtype=np.float64), np.asarray(shifts, dtype=np.float64)
    blocks = bad.shape[0] // block
    if blocks < 30:
        raise InsufficientDataError(
            f"tempers need at least 30 blocks of {block} batches, got {bad.shape[0]} batches; "
            "freeze the baseline later"
        )
    scores = (bad - seen * rates) @ moves.T
    variances = (seen * rates * (1.0 - rates)) @ (moves.T**2)
    whole = blocks * block
    summed = scores[:whole].reshape(blocks, block, -1).sum(axis=1)
    binomial = np.maximum(variances[:whole].sum(axis=0), 1e-12)
    observed = np.maximum((scores[:whole] ** 2).sum(axis=0), (summed**2).sum(axis=0))
    powers = binomial / np.maximum(observed, binomial)
    return np.asarray(np.maximum(powers, LOWEST_TEMPER), dtype=np.float64)
