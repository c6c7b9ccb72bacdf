"""Time-uniform boundaries: lines that a random walk crosses at any time with probability alpha.

A walk `s` (a sum of centered observations) with intrinsic time `v` (its accumulated variance, or
variance proxy) stays below `bound(v)` at all times at once with probability at least 1 - alpha. One
may therefore look after every observation and stop for any reason. Each mixture boundary is where a
mixture of exponential supermartingales, whose logarithm is the function `..._log_mixture`, reaches
1/alpha (Ville's inequality): exp(log mixture) is an e-value.

Which one fits the walk: bounded steps centered by a known rate, beta-binomial; counts, or values
bounded above with known variance, gamma-Poisson; bounded values with the variance from the data,
gamma-exponential; normal or bounded values with a known variance proxy, normal. All hold exactly
for their class; none needs a large sample.

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
from numpy.typing import ArrayLike, NDArray
from scipy import special

from ratchet.errors import InvalidInputError

FloatArray = NDArray[np.float64]
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


def gamma_exponential_log_mixture(
    s: ArrayLike, v: ArrayLike, *, v_opt: float, c: float, alpha_opt: float = 0.05
) -> FloatArray:
    """Logarithm of the gamma-exponential mixture of a sub-exponential walk (one-sided).

    With a = (v + rho) / c^2, b = (c s + v + rho) / c^2, r = rho / c^2 and P the regularized lower
    incomplete gamma function: r log r - log G(r) - log P(r, r) + log G(a) + log P(a, b) - a log b
    + (c s + v) / c^2.

    Units: a log e-value.
    Assumptions: E exp(l s - v (-log(1 - c l) - c l) / c^2) <= 1 for 0 <= l < 1/c; sums of
    centered values of range c, with the sum of squared prediction errors as `v`, are such walks.
    Error rate: the mixture reaches 1/alpha at any time with probability at most alpha.
    When not to use: for walks known to be sub-Gaussian, where the normal boundary is lower.

    Raises:
        InvalidInputError: An argument is out of range, or c s <= -(v + rho).

    Example:
        >>> round(float(gamma_exponential_log_mixture(10.0, 100.0, v_opt=100.0, c=2.0)), 7)
        -0.2490165
    """
    s, v = _walk(s, v)
    _positive("c", c)
    r = normal_mixture_rho(v_opt, alpha=alpha_opt, one_sided=True) / c**2
    a, b = v / c**2 + r, (c * s + v) / c**2 + r
    _inside("c s", np.all(b > 0.0), "above -(v + rho)")
    constant = r * math.log(r) - special.gammaln(r) - np.log(special.gammainc(r, r))
    with np.errstate(divide="ignore"):
        tail = np.log(special.gammainc(a, b))
    return np.asarray(constant + special.gammaln(a) + tail - a * np.log(b) + b - r)


def gamma_exponential_bound(
    v: ArrayLike, *, alpha: float, v_opt: float, c: float, alpha_opt: float | None = None
) -> FloatArray:
    """Boundary of a sub-exponential walk, where its log mixture reaches log(1 / alpha).

    Units: those of `s`.
    Assumptions: as `gamma_exponential_log_mixture`.
    Error rate: crossed from below at any time with probability at most `alpha`.
    When not to use: as `gamma_exponential_log_mixture`.

    Raises:
        InvalidInputError: An argument is out of range.

    Example:
        >>> round(float(gamma_exponential_bound(100.0, alpha=0.05, v_opt=100.0, c=2.0)), 5)
        33.02017
    """
    alpha = _checked_alpha(alpha, one_sided=True)
    tuned = alpha if alpha_opt is None else alpha_opt
    v = _times(v)
    return _crossing(
        lambda s: gamma_exponential_log_mixture(s, v, v_opt=v_opt, c=c, alpha_opt=tuned),
        v,
        alpha,
    )


def gamma_poisson_log_mixture(
    s: ArrayLike, v: ArrayLike, *, v_opt: float, c: float, alpha_opt: float = 0.05
) -> FloatArray:
    """Logarithm of the gamma-Poisson mixture of a sub-Poisson walk (one-sided).

    With a = (v + rho) / c^2, b = s / c + a, r = rho / c^2 and Q the regularized upper incomplete
    gamma function: r log r - log G(r) - log Q(r, r) + log G(b) + log Q(b, a) - b log a + v / c^2.

    Units: a log e-value.
    Assumptions: E exp(l s - v (exp(c l) - c l - 1) / c^2) <= 1 for l >= 0; centered counts, and
    sums of centered values at most c above their mean, with their variance as `v`, are such walks.
    Error rate: the mixture reaches 1/alpha at any time with probability at most alpha.
    When not to use: with `v` estimated from the same values; take the gamma-exponential mixture.

    Raises:
        InvalidInputError: An argument is out of range, or c s <= -(v + rho).

    Example:
        >>> round(float(gamma_poisson_log_mixture(10.0, 100.0, v_opt=100.0, c=2.0)), 7)
        -0.0699122
    """
    s, v = _walk(s, v)
    _positive("c", c)
    r = normal_mixture_rho(v_opt, alpha=alpha_opt, one_sided=True) / c**2
    a = v / c**2 + r
    b = s / c + a
    _inside("c s", np.all(b > 0.0), "above -(v + rho)")
    constant = r * math.log(r) - special.gammaln(r) - np.log(special.gammaincc(r, r))
    with np.errstate(divide="ignore"):
        tail = np.log(special.gammaincc(b, a))
    return np.asarray(constant + special.gammaln(b) + tail - b * np.log(a) + a - r)


def gamma_poisson_bound(
    v: ArrayLike, *, alpha: float, v_opt: float, c: float, alpha_opt: float | None = None
) -> FloatArray:
    """Boundary of a sub-Poisson walk, where its log mixture reaches log(1 / alpha).

    Units: those of `s`.
    Assumptions: as `gamma_poisson_log_mixture`.
    Error rate: crossed from below at any time with probability at most `alpha`.
    When not to use: as `gamma_poisson_log_mixture`.

    Raises:
        InvalidInputError: An argument is out of range.

    Example:
        >>> round(float(gamma_poisson_bound(100.0, alpha=0.05, v_opt=100.0, c=2.0)), 4)
        30.1949
    """
    alpha = _checked_alpha(alpha, one_sided=True)
    tuned = alpha if alpha_opt is None else alpha_opt
    v = _times(v)
    return _crossing(
        lambda s: gamma_poisson_log_mixture(s, v, v_opt=v_opt, c=c, alpha_opt=tuned),
        v,
        alpha,
    )


def beta_binomial_log_mixture(
    s: ArrayLike,
    v: ArrayLike,
    *,
    v_opt: float,
    g: float,
    h: float,
    alpha_opt: float = 0.05,
    one_sided: bool = False,
) -> FloatArray:
    """Logarithm of the beta-binomial mixture of a walk with steps in [-g, h].

    For a Bernoulli(p) walk s = successes - p trials, g = p, h = 1 - p, v = p (1 - p) trials it is
    the beta-binomial marginal likelihood over the likelihood at p, the beta centered on p;
    one-sided the beta is cut to rates above p.

    Units: a log e-value.
    Assumptions: steps with mean 0 given the past, in [-g, h]; v = g h times the number of steps.
    Error rate: the mixture reaches 1/alpha at any time with probability at most alpha.
    When not to use: for steps whose variance is far below g h (take `empirical_bernstein_sequence`
    of `ratchet.stats.experiments.confidence_sequences`).

    Raises:
        InvalidInputError: An argument is out of range, or s is outside [-v / h, v / g].

    Example:
        >>> round(float(beta_binomial_log_mixture(10.0, 100.0, v_opt=100.0, g=0.2, h=0.8)), 7)
        -0.6941012
    """
    s, v = _walk(s, v)
    _positive("g", g)
    _positive("h", h)
    slack = 1e-9 * (1.0 + v)
    _inside("s", np.all((h * s >= -v - slack) & (g * s <= v + slack)), "in [-v / h, v / g]")
    rho = normal_mixture_rho(v_opt, alpha=alpha_opt, one_sided=one_sided)
    r = max(rho - g * h, 1e-3 * g * h)
    width = g + h
    cut = h / width if one_sided else 1.0
    above, below = (v + h * s) / (h * width), (v - g * s) / (g * width)
    return np.asarray(
        v / (g * h) * math.log(width)
        - above * math.log(g)
        - below * math.log(h)
        + _log_incomplete_beta(r / (g * width) + below, r / (h * width) + above, cut)
        - _log_incomplete_beta(np.asarray(r / (g * width)), np.asarray(r / (h * width)), cut)
    )


def beta_binomial_bound(
    v: ArrayLike,
    *,
    alpha: float,
    v_opt: float,
    g: float,
    h: float,
    alpha_opt: float | None = None,
    one_sided: bool = False,
) -> FloatArray:
    """Boundary of a walk with steps in [-g, h], where its log mixture reaches log(1 / alpha).

    Where even the highest possible walk, v / g, does not reach it, the boundary is v / g.

    Units: those of `s`.
    Assumptions: as `beta_binomial_log_mixture`.
    Error rate: crossed from below at any time with probability at most `alpha`; two-sided, that
    and the mirrored boundary (g and h swapped, of -s) together.
    When not to use: for a confidence sequence of a rate, which `bernoulli_sequence` gives.

    Raises:
        InvalidInputError: An argument is out of range.

    Example:
        >>> round(float(beta_binomial_bound(100.0, alpha=0.05, v_opt=100.0, g=0.2, h=0.8)), 4)
        31.4308
    """
    alpha = _checked_alpha(alpha, one_sided)
    tuned = alpha if alpha_opt is None else alpha_opt
    v = _times(v)
    _positive("g", g)
    return _crossing(
        lambda s: beta_binomial_log_mixture(
            s, v, v_opt=v_opt, g=g, h=h, alpha_opt=tuned, one_sided=one_sided
        ),
        v,
        alpha,
        highest=v / g,
    )


def poly_stitching_bound(
    v: ArrayLike, *, alpha: float, v_min: float, c: float = 0.0, s: float = 1.4, eta: float = 2.0
) -> FloatArray:
    """Polynomially stitched boundary of a sub-gamma walk, at the rate of the iterated logarithm.

    With V = max(v, v_min), l = s log log(eta V / v_min) + log(zeta(s) / (alpha log(eta)^s)),
    k1 = (eta^(1/4) + eta^(-1/4)) / sqrt(2), k2 = (sqrt(eta) + 1) / 2:
    sqrt(k1^2 V l + (k2 c l)^2) + k2 c l.

    Units: those of the walk.
    Assumptions: a sub-gamma walk with scale `c`; c = 0 is sub-Gaussian.
    Error rate: crossed from below at any time with probability at most `alpha`.
    When not to use: where a time of interest is known; a mixture boundary is lower around it.

    Args:
        v: Intrinsic times, above 0.
        alpha: Crossing probability in (0, 1).
        v_min: Time from which the boundary is tight, above 0.
        c: Scale of the sub-gamma tail; negative for lighter tails than the normal's.
        s: How crossing probability is spread over epochs, above 1.
        eta: Ratio of successive epochs, above 1.

    Raises:
        InvalidInputError: An argument is out of range.

    Example:
        >>> round(float(poly_stitching_bound(100.0, alpha=0.05, v_min=10.0, c=3.0)), 5)
        64.48755
    """
    alpha = _checked_alpha(alpha, one_sided=False)
    _positive("v_min", v_min)
    if not (s > 1.0 and eta > 1.0 and math.isfinite(c)):
        raise InvalidInputError(
            f"s and eta must be above 1 and c finite, got s {s}, eta {eta}, c {c}; "
            "the usual ones are s=1.4, eta=2.0"
        )
    time = np.maximum(_times(v), v_min)
    k1 = (eta**0.25 + eta**-0.25) / math.sqrt(2.0)
    k2 = (math.sqrt(eta) + 1.0) / 2.0
    constant = math.log(float(special.zeta(s))) - s * math.log(math.log(eta)) - math.log(alpha)
    spent = s * np.log(np.log(eta * time / v_min)) + constant
    linear = k2 * c * spent
    return np.asarray(np.sqrt(k1**2 * time * spent + linear**2) + linear)


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


def _log_incomplete_beta(a: FloatArray, b: FloatArray, x: float) -> FloatArray:
    if x == 1.0:
        return np.asarray(special.betaln(a, b))
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(special.betainc(a, b, x)) + special.betaln(a, b))


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
    if not (math.isfinite(value) and value > 0.0):
        raise InvalidInputError(f"{name} must be above 0, got {value}; see the docstring")


def _inside(name: str, condition: np.bool_ | bool, rule: str) -> None:
    if not condition:
        raise InvalidInputError(
            f"{name} must be {rule}, got a value beyond it; no such walk has it, check s and v"
        )


def _checked_alpha(alpha: float, one_sided: bool) -> float:
    largest = 0.5 if one_sided else 1.0
    if not 0.0 < alpha < largest:
        raise InvalidInputError(
            f"alpha must be in (0, {largest:g}), got {alpha}; pass 0.05 for a 5 % level"
        )
    return alpha
