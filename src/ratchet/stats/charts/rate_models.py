"""What a rate is expected to be, by time of day, day of the week and kind of traffic.

A logistic regression on counts, fitted by iteratively reweighted least squares with a weak ridge
penalty, and frozen: `expected_log_odds` then says what the rate of a later batch should be and how
well that is known. Daily and weekly cycles and shifts between segments move the expectation, so
that they do not look like a change of the model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ratchet.errors import InsufficientDataError
from ratchet.stats.arrays import FloatArray
from ratchet.stats.checks import require

HARMONICS = 2
RIDGE = 1e-3
_DAY, _WEEK = 86_400.0, 604_800.0
_ROUNDS = 50


@dataclass(frozen=True, slots=True)
class RateModel:
    """A frozen expectation.

    Attributes:
        coefficients: Log odds per column of the design, shape (columns,).
        covariance: Of the coefficients, widened by the dispersion, shape (columns, columns).
        dispersion: Pearson chi-square per degree of freedom, at least 1: how much more counts vary
            than independent trials would.
        trials: Trials that it rests on.
        events: Bad events among them.
    """

    coefficients: FloatArray
    covariance: FloatArray
    dispersion: float
    trials: int
    events: int


def cycle_columns(seconds: ArrayLike, *, harmonics: int = HARMONICS) -> FloatArray:
    """Return intercept, daily waves and a weekend indicator for points in time.

    Args:
        seconds: Seconds since 1970 in UTC, shape (n,).
        harmonics: Waves a day; 2 follow one peak and one trough of any shape near enough.

    Returns:
        Shape (n, 2 + 2 harmonics).
    """
    time = np.asarray(seconds, dtype=np.float64)
    angles = 2.0 * np.pi * np.outer(time / _DAY, np.arange(1, harmonics + 1))
    # 1970-01-01 was a Thursday: Saturday begins two days later
    weekend = (((time - 2.0 * _DAY) % _WEEK) < 2.0 * _DAY).astype(np.float64)
    return np.column_stack([np.ones_like(time), np.sin(angles), np.cos(angles), weekend])


def fit_rate_model(events: ArrayLike, trials: ArrayLike, design: ArrayLike) -> RateModel:
    """Fit log odds = design x coefficients to counts, and freeze it.

    Units: counts in, log odds out.
    Assumptions: batches are in control; events are binomial given the design, up to a common
    dispersion that is estimated and widens the covariance.
    Error rate: asymptotic; with few events the ridge penalty keeps the coefficients finite and the
    covariance says how little is known.
    When not to use: with less than a week of data, a weekly cycle cannot be told from a trend.

    Args:
        events: Bad events of each batch, shape (batches,).
        trials: Trials of each batch, shape (batches,); batches without trials are passed over.
        design: Shape (batches, columns).

    Raises:
        InvalidInputError: Shapes differ or a count is out of range.
        InsufficientDataError: There are no trials.

    Example:
        >>> model = fit_rate_model([10, 20], [100, 100], [[1.0, 0.0], [1.0, 1.0]])
        >>> np.round(1 / (1 + np.exp(-model.coefficients[0])), 3).item()
        0.1
    """
    bad, seen, columns = _checked(events, trials, design)
    start = (bad.sum() + 0.5) / (seen.sum() + 1.0)
    beta = np.zeros(columns.shape[1])
    beta[0] = np.log(start / (1.0 - start))
    for _ in range(_ROUNDS):
        step = np.linalg.solve(
            _information(beta, seen, columns), _score(beta, bad, seen, columns) - RIDGE * beta
        )
        beta = beta + np.clip(step, -2.0, 2.0)
        if np.abs(step).max() < 1e-9:
            break
    dispersion = _dispersion(beta, bad, seen, columns)
    return RateModel(
        coefficients=beta,
        covariance=np.asarray(dispersion * np.linalg.inv(_information(beta, seen, columns))),
        dispersion=dispersion,
        trials=int(seen.sum()),
        events=int(bad.sum()),
    )


def expected_log_odds(model: RateModel, design: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return expected log odds and their standard errors, each of shape (n,).

    Args:
        model: The frozen expectation.
        design: Shape (n, columns), built as for the fit.
    """
    columns = np.asarray(design, dtype=np.float64)
    variances = np.einsum("ij,jk,ik->i", columns, model.covariance, columns)
    return columns @ model.coefficients, np.sqrt(np.maximum(variances, 0.0))


def _rates(beta: FloatArray, columns: FloatArray) -> FloatArray:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(columns @ beta, -30.0, 30.0))))


def _information(beta: FloatArray, seen: FloatArray, columns: FloatArray) -> FloatArray:
    rates = _rates(beta, columns)
    weighted = columns * (seen * rates * (1.0 - rates))[:, np.newaxis]
    return np.asarray(columns.T @ weighted + RIDGE * np.eye(columns.shape[1]))


def _score(beta: FloatArray, bad: FloatArray, seen: FloatArray, columns: FloatArray) -> FloatArray:
    return np.asarray(columns.T @ (bad - seen * _rates(beta, columns)))


def _dispersion(beta: FloatArray, bad: FloatArray, seen: FloatArray, columns: FloatArray) -> float:
    rates = _rates(beta, columns)
    freedom = bad.size - columns.shape[1]
    if freedom < 1:
        return 1.0
    variance = np.maximum(seen * rates * (1.0 - rates), 1e-12)
    return max(1.0, float(((bad - seen * rates) ** 2 / variance).sum() / freedom))


def _checked(
    events: ArrayLike, trials: ArrayLike, design: ArrayLike
) -> tuple[FloatArray, FloatArray, FloatArray]:
    bad = np.asarray(events, dtype=np.float64)
    seen = np.asarray(trials, dtype=np.float64)
    columns = np.asarray(design, dtype=np.float64)
    require(
        bad.ndim == 1 and bad.shape == seen.shape and columns.shape[:1] == bad.shape,
        "events, trials and design must be equally long, got shapes "
        f"{bad.shape}, {seen.shape} and {columns.shape}; pass one row a batch",
    )
    require(
        bool(((bad >= 0.0) & (bad <= seen)).all()),
        "events must be from 0 to the trials of their batch, got a batch with more events "
        "than trials; check the order of the arguments",
    )
    has_trials = seen > 0.0
    if not has_trials.any():
        raise InsufficientDataError(
            "an expected rate needs at least one trial, got none; collect the signal first"
        )
    return bad[has_trials], seen[has_trials], columns[has_trials]
