"""The difference of a rate between two arms, where users repeat and the share of an arm grows.

While an arm grows from 1 % to 50 %, the hours that it is compared on change: pooled over all of
them, a rate that drifts looks like an effect (Simpson's paradox). So each period of constant share
is a stratum of its own. And ten answers to one user are not ten observations: what is independent
is the user, over all strata and both arms.

A confidence sequence puts up with looking at any time. This one is asymptotic: the error of the
estimate is taken as normal with the estimated variance, at all looks jointly.

References:
    Waudby-Smith, I., Arbour, D., Sinha, R., Kennedy, E. H., Ramdas, A. (2024). Time-uniform central
    limit theory and asymptotic confidence sequences. Annals of Statistics 52, 2613-2640.
    Greenland, S., Robins, J. M. (1985). Estimation of a common effect parameter from sparse
    follow-up data. Biometrics 41, 55-68 (the Mantel-Haenszel risk difference).
    Liang, K.-Y., Zeger, S. L. (1986). Longitudinal data analysis using generalized linear models.
    Biometrika 73, 13-22 (the variance over clusters).
    Jennison, C., Turnbull, B. W. (1997). Group-sequential analysis incorporating covariate
    information. JASA 92, 1330-1341 (increments of information).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ratchet.errors import InvalidInputError
from ratchet.stats.arrays import FloatArray
from ratchet.stats.checks import require
from ratchet.stats.experiments.boundaries import normal_mixture_bound

TYPICAL_WIDTH = 3.0
"""About so many standard errors wide is a sequence where it is tightest."""


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """All that a difference and its variance need: sums over users, by cell.

    A cell is an arm in a stratum. With y successes and n trials of a user in a cell:

    Attributes:
        successes: Sum of y, shape (..., cells).
        trials: Sum of n, same shape.
        clusters: Users with trials, same shape.
        yy: Sum of y_c y_d, shape (..., cells, cells).
        yn: Sum of y_c n_d, same shape.
        nn: Sum of n_c n_d, same shape.
    """

    successes: FloatArray
    trials: FloatArray
    clusters: FloatArray
    yy: FloatArray
    yn: FloatArray
    nn: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class StratifiedDifference:
    """A difference of rates, second arm minus first, with its variance; arrays of one shape.

    Attributes:
        difference: Mantel-Haenszel estimate; nan where no stratum holds both arms.
        variance: Its variance; infinite there.
        first: Rate of the first arm in the same mix of strata.
        second: Rate of the second arm.
        design_effect: The variance over that of independent trials.
    """

    difference: FloatArray
    variance: FloatArray
    first: FloatArray
    second: FloatArray
    design_effect: FloatArray


def moments_of(successes: ArrayLike, trials: ArrayLike) -> Moments:
    """Sum over users.

    Args:
        successes: Of each user in each cell, shape (..., users, cells).
        trials: Same shape.

    Raises:
        InvalidInputError: The shapes differ, or a user has more successes than trials.

    Example:
        >>> moments_of([[1, 0], [2, 1]], [[1, 0], [3, 4]]).yn.tolist()
        [[7.0, 8.0], [3.0, 4.0]]
    """
    done = np.asarray(successes, dtype=np.float64)
    total = np.asarray(trials, dtype=np.float64)
    if done.shape != total.shape or done.ndim < 2 or ((done < 0.0) | (done > total)).any():
        raise InvalidInputError(
            "each user needs 0 <= successes <= trials in each cell, got shapes "
            f"{done.shape} and {total.shape}; pass arrays of shape (users, cells)"
        )
    turned = np.swapaxes(done, -1, -2)
    return Moments(
        successes=done.sum(axis=-2),
        trials=total.sum(axis=-2),
        clusters=(total > 0.0).sum(axis=-2).astype(np.float64),
        yy=turned @ done,
        yn=turned @ total,
        nn=np.swapaxes(total, -1, -2) @ total,
    )


def stratified_difference(
    moments: Moments, first: Sequence[int], second: Sequence[int]
) -> StratifiedDifference:
    """Difference of two arms over strata, with a variance over users.

    With N1 and N2 trials of the arms in a stratum and its weight h = N1 N2 / (N1 + N2):
    D = sum h (r2 - r1) / sum h. Its variance is the sum over users of (sum over cells of
    a (y - r n))^2, a = h / (N sum h) with the sign of the arm, times m / (m - 1), m the users of
    the smaller arm. It is not taken below that of independent trials with rates
    (Y + 1) / (N + 2), times the first arm's design effect where that is above 1: a rate of 0 of 30
    is no proof.

    Units: shares; the variance in their square.
    Assumptions: independent users; within a user anything may depend on anything, also between
    strata and arms. In each stratum both arms were open at the same times.
    Error rate: none of its own; see `difference_bounds`.
    When not to use: with fewer than about 30 users in an arm.

    Args:
        moments: Sums over users.
        first: The first arm's cell in each stratum.
        second: The second arm's cell in each stratum.

    Raises:
        InvalidInputError: The arms do not have one cell a stratum each.

    Example:
        >>> users = np.zeros((40, 2)), np.zeros((40, 2))
        >>> users[1][:20, 0] = users[1][20:, 1] = 5  # five trials a user, twenty users an arm
        >>> users[0][:4, 0] = users[0][20:28, 1] = 5  # all or nothing
        >>> found = stratified_difference(moments_of(*users), [0], [1])
        >>> round(float(found.difference), 3), round(float(found.variance) ** 0.5, 3)
        (0.2, 0.145)
        >>> round(float(found.design_effect), 1)
        5.2
    """
    if len(first) != len(second) or not len(first):
        raise InvalidInputError(
            f"both arms need one cell a stratum, got {len(first)} and {len(second)}"
        )
    ones, twos = list(first), list(second)
    done, total = moments.successes, moments.trials
    sizes = total[..., ones], total[..., twos]
    both = np.where((sizes[0] > 0.0) & (sizes[1] > 0.0), sizes[0] * sizes[1], 0.0)
    weights = both / np.maximum(sizes[0] + sizes[1], 1.0)
    whole = weights.sum(axis=-1, keepdims=True)
    known = whole[..., 0] > 0.0
    relative = weights / np.where(whole > 0.0, whole, 1.0)
    rates = done / np.maximum(total, 1.0)
    factors = np.zeros_like(total)
    for cells, size, sign in zip((ones, twos), sizes, (-1.0, 1.0), strict=True):
        factors[..., cells] = sign * relative / np.maximum(size, 1.0)
    of_first = np.zeros_like(factors)
    of_first[..., ones] = factors[..., ones]
    smallest = np.minimum(
        moments.clusters[..., ones].sum(axis=-1), moments.clusters[..., twos].sum(axis=-1)
    )
    correction = smallest / np.maximum(smallest - 1.0, 0.5)
    over_users = _over_users(moments, rates, factors) * correction
    smoothed = (done + 1.0) / (total + 2.0)
    independent = _independent(smoothed, total, factors)
    plain = _independent(rates, total, of_first)
    spread = _over_users(moments, rates, of_first)
    dispersion = np.where(plain > 0.0, spread / np.where(plain > 0.0, plain, 1.0), 1.0)
    variance = np.maximum(over_users, independent * np.maximum(dispersion, 1.0))
    means = [(relative * rates[..., cells]).sum(axis=-1) for cells in (ones, twos)]
    return StratifiedDifference(
        difference=np.where(known, means[1] - means[0], np.nan),
        variance=np.where(known, variance, np.inf),
        first=np.where(known, means[0], np.nan),
        second=np.where(known, means[1], np.nan),
        design_effect=np.where(known, variance / np.where(known, independent, 1.0), np.nan),
    )


def difference_bounds(
    found: StratifiedDifference,
    *,
    lower_error: float,
    upper_error: float,
    lower_scale: float,
    upper_scale: float,
) -> tuple[FloatArray, FloatArray]:
    """Asymptotic confidence sequence of a difference: one look's ends, as often as one likes.

    With information I = 1 / variance each end is D minus or plus bound(I) / I, bound the one-sided
    normal mixture boundary that is tightest at I = (3 / scale)^2, where it is about as wide as the
    scale.

    Units: shares.
    Assumptions: at all looks jointly D is normal with independent increments of information, and
    its variance is known; both hold better and better as users grow. The difference itself stays.
    Error rate: the lower end is ever above the true difference with probability at most
    `lower_error`, the upper end ever below it with at most `upper_error`, in the limit; measured in
    `docs/rollouts.md`.
    When not to use: with fewer than about 30 users in an arm; for a difference that changes.

    Args:
        found: The estimate at this look.
        lower_error: For the lower end, in (0, 0.5).
        upper_error: For the upper end, in (0, 0.5).
        lower_scale: The difference that matters for the lower end, above 0; fixed before the data
            are seen.
        upper_scale: The same for the upper end.

    Returns:
        Lower and upper ends, -1 and 1 where nothing is known.

    Raises:
        InvalidInputError: An argument is out of range.

    Example:
        >>> known = [np.array(v) for v in (0.04, 0.0001, 0.08, 0.12, 1.0)]
        >>> ends = difference_bounds(
        ...     StratifiedDifference(*known), lower_error=0.025, upper_error=0.025,
        ...     lower_scale=0.03, upper_scale=0.03,
        ... )
        >>> [round(float(end), 3) for end in ends]
        [0.01, 0.07]

    References:
        Waudby-Smith et al. (2024), as the module, one-sided.
    """
    require(
        lower_scale > 0.0 and upper_scale > 0.0,
        f"scales must be above 0, got {lower_scale} and {upper_scale}; pass the margin",
    )
    known = np.isfinite(found.variance) & (found.variance > 0.0)
    information = 1.0 / np.where(known, found.variance, 1.0)

    def half_width(error: float, scale: float) -> FloatArray:
        tuned = (TYPICAL_WIDTH / scale) ** 2
        bound = normal_mixture_bound(information, alpha=error, v_opt=tuned, one_sided=True)
        return np.asarray(bound / information)

    lower = found.difference - half_width(lower_error, lower_scale)
    upper = found.difference + half_width(upper_error, upper_scale)
    return (
        np.where(known, np.maximum(lower, -1.0), -1.0),
        np.where(known, np.minimum(upper, 1.0), 1.0),
    )


def _over_users(moments: Moments, rates: FloatArray, factors: FloatArray) -> FloatArray:
    """Sum over users of (sum over cells of factor (y - rate n))^2."""
    down, along = rates[..., :, np.newaxis], rates[..., np.newaxis, :]
    crossed = np.swapaxes(moments.yn, -1, -2)
    residuals = moments.yy - along * moments.yn - down * crossed + down * along * moments.nn
    product = factors[..., np.newaxis, :] @ residuals @ factors[..., :, np.newaxis]
    return np.maximum(product[..., 0, 0], 0.0)


def _independent(rates: FloatArray, trials: FloatArray, factors: FloatArray) -> FloatArray:
    return np.asarray((factors**2 * trials * rates * (1.0 - rates)).sum(axis=-1))
