"""Time-uniform boundaries: lines that a random walk crosses at any time with probability alpha.

A walk `s` (a sum of centered observations) with intrinsic time `v` (its accumulated variance, or
variance proxy) stays below `bound(v)` at all times at once with probability at least 1 - alpha. One
may therefore look after every observation and stop for any reason. The boundary is where a mixture
of exponential supermartingales, whose logarithm is `normal_log_mixture`, reaches 1/alpha (Ville's
inequality): exp(log mixture) is an e-value.

The normal mixture is for walks of normal or bounded values with a known variance proxy. It holds
exactly for them and needs no large sample.

Conventions of every function here. `s` and `v` are arrays of one shape or numbers; the result has
their shape. `v_opt` is the intrinsic time at which the boundary is tightest; it and everything else
but `s` and `v` must be fixed before the data are seen. `alpha_opt` is the error rate that `v_opt`
refers to, by default `alpha` itself.

References:
    Howard, S. R., Ramdas, A., McAuliffe, J., Sekhon, J. (2021). Time-uniform, nonparametric,
    nonasymptotic confidence sequences. Annals of Statistics 49, 1055-1080; the parametrization is
    that of their library confseq.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from ratchet.errors import InvalidInputError
from ratchet.stats.arrays import FloatArray
from ratchet.stats.checks import require

BISECTIONS = 100


def normal_mixture_rho(v_opt: float, *, alpha: float = 0.05, one_sided: bool = False) -> float:
    """Precision of the normal mixture that makes its boundary tightest at `v_opt`.

    v_opt / (2 log(1/a) + log(1 + 2 log(1/a))), a = alpha two-sided and 2 alpha one-sided.

    Units: those of `v`.
    Assumptions: none; it tunes, and any value keeps the error rate.

    Args:
        v_opt: Intrinsic time, above 0.
        alpha: Crossing probability in (0, 1), one-sided in (0, 0.5).
        one_sided: Tune the one-sided boundary.

    Raises:
        InvalidInputError: An argument is out of range.

    Example:
        >>> round(normal_mixture_rho(100.0), 5)
        12.60056
    """
    _positive("v_opt", v_opt)
    share = _checked_alpha(alpha, one_sided) * (2.0 if one_sided else 1.0)
    surprise = 2.0 * math.log(1.0 / share)
    return v_opt / (surprise + math.log1p(surprise))


def normal_log_mixture(
    s: ArrayLike, v: ArrayLike, *, v_opt: float, alpha_opt: float = 0.05, one_sided: bool = False
) -> FloatArray:
    """Logarithm of the normal mixture of a sub-Gaussian walk.

    log(rho / (v + rho)) / 2 + s^2 / (2 (v + rho)); one-sided, with the mixing distribution cut to
    positive tilts, plus log(2 Phi(s / sqrt(v + rho))).

    Units: a log e-value.
    Assumptions: E exp(l s - l^2 v / 2) <= 1 for all l (two-sided) or all l >= 0 (one-sided).
    Error rate: the mixture reaches 1/alpha at any time with probability at most alpha.
    When not to use: with `v` estimated by plugging in the sample variance; that holds only for
    large samples.

    Raises:
        InvalidInputError: An argument is out of range.

    Example:
        >>> round(float(normal_log_mixture(10.0, 100.0, v_opt=100.0)), 7)
        -0.6510052
    """
    s, v = _walk(s, v)
    rho = normal_mixture_rho(v_opt, alpha=alpha_opt, one_sided=one_sided)
    two_sided = 0.5 * np.log(rho / (v + rho)) + s**2 / (2.0 * (v + rho))
    if not one_sided:
        return np.asarray(two_sided)
    return np.asarray(two_sided + math.log(2.0) + special.log_ndtr(s / np.sqrt(v + rho)))


def normal_mixture_bound(
    v: ArrayLike,
    *,
    alpha: float,
    v_opt: float,
    alpha_opt: float | None = None,
    one_sided: bool = False,
) -> FloatArray:
    """Boundary of a sub-Gaussian walk.

    Two-sided, of |s|: sqrt((v + rho) (log(1 + v / rho) + 2 log(1 / alpha))); one-sided, where
    `normal_log_mixture` reaches log(1 / alpha).

    Units: those of `s`.
    Assumptions: as `normal_log_mixture`.
    Error rate: crossed at any time with probability at most `alpha`.
    When not to use: as `normal_log_mixture`.

    Raises:
        InvalidInputError: An argument is out of range.

    Example:
        >>> round(float(normal_mixture_bound(100.0, alpha=0.05, v_opt=100.0)), 5)
        30.35209
    """
    alpha = _checked_alpha(alpha, one_sided)
    tuned = alpha if alpha_opt is None else alpha_opt
    v = _times(v)
    if one_sided:
        return _crossing(
            lambda s: normal_log_mixture(s, v, v_opt=v_opt, alpha_opt=tuned, one_sided=True),
            v,
            alpha,
        )
    rho = normal_mixture_rho(v_opt, alpha=tuned)
    return np.asarray(np.sqrt((v + rho) * (np.log1p(v / rho) - 2.0 * math.log(alpha))))


def _crossing(
    log_mixture: Callable[[FloatArray], FloatArray],
    v: FloatArray,
    alpha: float,
    highest: FloatArray | None = None,
) -> FloatArray:
    """Smallest s at which an increasing log mixture reaches log(1 / alpha), else `highest`."""
    threshold = -math.log(alpha)
    low = np.zeros_like(v)
    high = _above_crossing(log_mixture, v, threshold) if highest is None else highest
    for _ in range(BISECTIONS):
        middle = (low + high) / 2.0
        below = log_mixture(middle) < threshold
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return np.asarray((low + high) / 2.0)


def _above_crossing(
    log_mixture: Callable[[FloatArray], FloatArray], v: FloatArray, threshold: float
) -> FloatArray:
    upper = np.maximum(v, 1.0)
    while (below := log_mixture(upper) < threshold).any():
        upper = np.where(below, 2.0 * upper, upper)
    return upper


def _walk(s: ArrayLike, v: ArrayLike) -> tuple[FloatArray, FloatArray]:
    walk, times = np.broadcast_arrays(np.asarray(s, dtype=np.float64), _times(v))
    if not np.isfinite(walk).all():
        raise InvalidInputError(
            f"s must be finite, got {np.count_nonzero(~np.isfinite(walk))} that are not; "
            "leave out what was not observed"
        )
    return walk, times


def _times(v: ArrayLike) -> FloatArray:
    times = np.asarray(v, dtype=np.float64)
    if not (np.isfinite(times) & (times > 0.0)).all():
        raise InvalidInputError(
            f"v must be finite and above 0, got {times.min() if times.size else 'nothing'}; "
            "look after the first observation"
        )
    return times


def _positive(name: str, value: float) -> None:
    require(
        math.isfinite(value) and value > 0.0,
        f"{name} must be above 0, got {value}; see the docstring",
    )


def _checked_alpha(alpha: float, one_sided: bool) -> float:
    largest = 0.5 if one_sided else 1.0
    require(
        0.0 < alpha < largest,
        f"alpha must be in (0, {largest:g}), got {alpha}; pass 0.05 for a 5 % level",
    )
    return alpha
