"""Which raters agree with the truth, and which groups hold too many of one sort."""

from __future__ import annotations

import numpy as np

from ratchet.errors import InvalidInputError
from ratchet.stats.arrays import FloatArray, IntArray
from ratchet.stats.checks import require

_STEPS = 200
_FEWEST_HONEST, _MOST_HONEST = 0.2, 0.995
_SPREAD = 20.0


def honest_probabilities(
    agreements: FloatArray, checked: FloatArray, *, prior_honest: float = 0.9
) -> FloatArray:
    """Return the probability that each rater means what they say, from how often they were right.

    Formula:
        Two groups. An honest rater agrees with a rate from Beta(20 m, 20 (1 - m)); a hostile one
        with a rate that is uniform on [0, m / 2], less than half as often. The mean m and the size
        of the groups are found by expectation maximisation. The probability is the posterior one.

    Assumptions:
        What is checked of a rater is a random part of what they said, checks are independent given
        the group, and most raters are honest: where most are hostile and agree with each other,
        hostile and honest are called the wrong way round if the checks rest on what raters say.

    Error rate:
        Without hostile raters the share of honest ones below 1/2 is under 1 % for means from 0.4
        and any number of checks; measured in `tests/stats/agreement/test_trusted_raters.py`.

    When not to use:
        For hostile raters who tell the truth mostly: they count as honest.

    Args:
        agreements: Checks in which each rater was right, shape (n,); parts of a check may count.
        checked: Checks of each, shape (n,).
        prior_honest: Share of honest raters to start from; it is worth ten raters.

    Returns:
        Shape (n,); nan for a rater without checks.

    Raises:
        InvalidInputError: More agreements than checks, or a share outside (0, 1).
    """
    require(
        0.0 < prior_honest < 1.0,
        f"prior_honest must be in (0, 1), got {prior_honest}; pass 0.9",
    )
    if (agreements < 0).any() or (agreements > checked).any():
        raise InvalidInputError(
            "agreements must be in [0, checked], got more or fewer; count each check once"
        )
    from scipy.special import betainc, betaln, expit, logit

    honest = np.full(len(checked), np.nan)
    seen = checked > 0
    if not seen.any():
        return honest
    right, wrong = agreements[seen], (checked - agreements)[seen]
    share, mean = prior_honest, _mean(float(right.sum() / (right + wrong).sum()))
    for _ in range(_STEPS):
        alpha, beta = _SPREAD * mean, _SPREAD * (1.0 - mean)
        # both up to the same factor, the number of orders
        fair = betaln(right + alpha, wrong + beta) - betaln(alpha, beta)
        hostile = np.log(betainc(right + 1.0, wrong + 1.0, 0.5 * mean) / (0.5 * mean) + 1e-300)
        hostile += betaln(right + 1.0, wrong + 1.0)
        posterior = expit(logit(share) + fair - hostile)
        new_share = (10.0 * prior_honest + posterior.sum()) / (10.0 + len(posterior))
        rate = float((posterior * right).sum() / max((posterior * (right + wrong)).sum(), 1e-12))
        new_mean = _mean(rate)
        settled = abs(new_share - share) + abs(new_mean - mean) < 1e-9
        share, mean = new_share, new_mean
        if settled:
            break
    honest[seen] = posterior
    return honest


def _mean(rate: float) -> float:
    return min(_MOST_HONEST, max(_FEWEST_HONEST, rate))


def excess_p_values(found: IntArray, trials: IntArray, rates: FloatArray) -> FloatArray:
    """Return the chance of at least so many in each group at its rate: exact binomial, one-sided.

    Assumptions:
        Members of a group are independent, and the rate is known.

    Error rate:
        A p-value below alpha comes up in at most the share alpha of groups at their rate.

    Args:
        found: Members of the sort that is counted, shape (n,).
        trials: Members, shape (n,).
        rates: Chance of each member to be of the sort, shape (n,).

    Example:
        >>> excess_p_values(np.array([3]), np.array([3]), np.array([0.5])).tolist()
        [0.125]
    """
    from scipy.stats import binom

    return np.asarray(binom.sf(found - 1, trials, rates), dtype=np.float64)
