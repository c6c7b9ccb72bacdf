"""Many groups at once: exact tests of groups against the rest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import special

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.stats.arrays import FloatArray, IntArray


def fisher_excess(
    successes: Sequence[int] | IntArray,
    trials: Sequence[int] | IntArray,
    *,
    all_successes: int,
    all_trials: int,
) -> FloatArray:
    """One-sided exact test of each group's rate against that of everything outside it.

    p = P(H >= k) for H hypergeometric: k of the group's n trials succeed where K of all N do.

    Units: counts in, probabilities out.
    Assumptions: independent trials; which trials form the group was not chosen by how they ended.
    Error rate: where the group's rate is at most the rest's, P(p <= alpha) <= alpha for every
    alpha and every sample size; for small groups it is well below.
    When not to use: on groups that were chosen on these very trials; where trials come in clumps
    (many interactions of one user).

    Args:
        successes: Successes of each group, shape (g,).
        trials: Trials of each group, shape (g,).
        all_successes: Successes of all trials, those of the group included.
        all_trials: All trials.

    Returns:
        A p-value a group, shape (g,).

    Raises:
        InvalidInputError: Lengths differ, a count is negative, or a group has more than
            there is.

    Example:
        >>> fisher_excess([3], [4], all_successes=4, all_trials=8).round(4).tolist()
        [0.2429]

    References:
        Fisher, R. A. (1935). The Design of Experiments, chapter II. Oliver and Boyd.
    """
    inside, size = np.asarray(successes, dtype=np.int64), np.asarray(trials, dtype=np.int64)
    if inside.shape != size.shape:
        raise InvalidInputError(
            f"successes and trials must be equally long, got the shapes {inside.shape} and "
            f"{size.shape}; count again, one of each a group"
        )
    failures = size - inside
    broken = (inside < 0) | (failures < 0) | (inside > all_successes)
    broken |= failures > all_trials - all_successes
    if np.any(broken):
        raise InvalidInputError(
            f"successes must be in [0, trials] and no group larger than all, got {inside.tolist()} "
            f"of {size.tolist()} with {all_successes} of {all_trials} in all; count again"
        )
    from scipy import stats

    tail = stats.hypergeom.sf(inside - 1, all_trials, all_successes, size)
    return np.clip(np.asarray(tail, dtype=np.float64), 0.0, 1.0)


def bernoulli_excess(
    successes: FloatArray,
    trials: FloatArray,
    *,
    all_successes: float | FloatArray,
    all_trials: float,
) -> FloatArray:
    """Log likelihood ratio of a higher rate inside each group than outside, 0 where it is lower.

    The statistic of the Bernoulli scan: the likelihood of two rates over that of one.

    Units: counts in, nats out.
    Assumptions: independent trials.
    Error rate: none: it ranks groups. Of the largest of many, take the p-value on other trials.
    When not to use: as a test.

    Args:
        successes: Successes of each group, shape (g,).
        trials: Trials of each group, shape (g,).
        all_successes: Successes of all trials; an array where it differs from group to group.
        all_trials: All trials.

    Returns:
        A ratio a group, shape (g,), at least 0.

    Raises:
        InsufficientDataError: There are no trials.

    Example:
        >>> bernoulli_excess(
        ...     np.array([3.0, 1.0]), np.array([4.0, 4.0]), all_successes=4, all_trials=8
        ... ).round(4).tolist()
        [1.0465, 0.0]

    References:
        Kulldorff, M. (1997). A spatial scan statistic. Communications in Statistics: Theory and
        Methods 26, 1481-1496.
    """
    if all_trials <= 0:
        raise InsufficientDataError("an excess needs trials, got none; collect more")
    outside, rest = all_successes - successes, all_trials - trials
    ratio = (
        _log_likelihood(successes, trials)
        + _log_likelihood(outside, rest)
        - _log_likelihood(np.asarray(all_successes, dtype=np.float64), np.array(all_trials))
    )
    higher = successes * rest > outside * trials
    return np.where(higher, np.maximum(ratio, 0.0), 0.0)


def _log_likelihood(successes: FloatArray, trials: FloatArray) -> FloatArray:
    share = successes / np.maximum(trials, 1.0)
    likelihood = special.xlogy(successes, share) + special.xlogy(trials - successes, 1.0 - share)
    return np.asarray(likelihood, dtype=np.float64)
