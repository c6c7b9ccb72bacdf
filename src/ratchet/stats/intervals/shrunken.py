"""How good something is at least, from a few weighed scores in [0, 1]."""

from __future__ import annotations

import numpy as np

from ratchet.stats.arrays import FloatArray
from ratchet.stats.checks import require


def shrunken_mean(values: FloatArray, weights: FloatArray) -> float:
    """Return the weighted mean of scores, with one more observation of 0.5 among them.

    Never 0 or 1, so that it can be the mean of a prior.

    Example:
        >>> shrunken_mean(np.array([1.0, 1.0, 1.0]), np.ones(3))
        0.875
    """
    observed = weights > 0.0
    return float(
        (0.5 + (values[observed] * weights[observed]).sum()) / (1.0 + weights[observed].sum())
    )


def score_lower_bounds(
    values: FloatArray,
    weights: FloatArray,
    *,
    prior_mean: float,
    prior_strength: float = 1.0,
    confidence: float = 0.8,
) -> FloatArray:
    """Return what scores are worth at least, given how much they rest on.

    Formula:
        The (1 - confidence) quantile of Beta(k m + w v, k (1 - m) + w (1 - v)): a Beta prior with
        mean m that is worth k observations, updated by w observations of mean v. With k = 1 it is
        the unit-information prior.

    Units:
        Scores and bounds in [0, 1].

    Assumptions:
        A score v of weight w says as much as w independent yes-or-no observations of which the
        share v was yes, and what is scored is drawn from a population with mean m.

    Error rate:
        Where rates are drawn from the prior, a share `confidence` of them lies above their bound.
        An answer that was right is "good" with the chance that its raters were right, which is
        not this bound: what share of the answers above it is right has to be measured.

    When not to use:
        For a rate from many independent observations: `ratchet.stats.intervals.wilson_lower`
        needs no prior. For several scores that one rater gave, which are not independent.

    Args:
        values: Scores, shape (n,).
        weights: Observations that each is worth, shape (n,); 0 where nothing was observed.
        prior_mean: Mean of the population, in (0, 1).
        prior_strength: Observations that the prior is worth, above 0.
        confidence: Posterior probability that the rate lies above the bound, in (0, 1).

    Returns:
        Shape (n,); nan where the weight is 0.

    Raises:
        InvalidInputError: A setting is out of its range.

    Example:
        >>> score_lower_bounds(np.array([1.0]), np.ones(1), prior_mean=0.5).round(3)
        array([0.528])

    References:
        Kass, R. E. and Wasserman, L. (1995). A reference Bayesian test for nested hypotheses and
        its relationship to the Schwarz criterion. JASA 90, 928-934.
    """
    for name, value in (("prior_mean", prior_mean), ("confidence", confidence)):
        require(
            0.0 < value < 1.0,
            f"{name} must be in (0, 1), got {value}; pass 0.8, for example",
        )
    require(
        prior_strength > 0.0,
        f"prior_strength must be above 0, got {prior_strength}; pass 1",
    )
    from scipy.special import betaincinv

    bounds = np.full(len(values), np.nan)
    observed = (weights > 0.0) & ~np.isnan(values)
    mean, weight = values[observed], weights[observed]
    alpha = prior_strength * prior_mean + weight * mean
    beta = prior_strength * (1.0 - prior_mean) + weight * (1.0 - mean)
    # few distinct ones, however many rows there are
    pairs, places = np.unique(alpha + 1j * beta, return_inverse=True)
    bounds[observed] = betaincinv(pairs.real, pairs.imag, 1.0 - confidence)[places]
    return bounds
