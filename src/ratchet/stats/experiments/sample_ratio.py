"""Do the arms of an experiment hold the users that they should?

`share_log_e` answers however often one looks; `one_look_p_value` does at the final read-out, where
it finds imbalances that are too small for the other.

Each user falls into an arm with a known probability `p`, by a hash. Against "that is so" stand
alternatives that multiply the odds p / (1 - p) by `o`: n users of whom m are in the arm have the
likelihood ratio exp(m log(o) - n log(1 + p (o - 1))). Ratios of groups with different p multiply,
and the average over several `o` is an e-process: however often one looks, it reaches 1/alpha with
probability at most alpha.

Two questions have this form. Is the assignment as agreed (all users, odds in both directions)? And
does a variant do harm (users to whom something bad happened, odds upward)? If the variant does
nothing, users to whom something bad happened fall into its arm as often as any others, whatever
they are like, whatever the hour, and however often it happens to each: the randomness is that of
the hash alone, so that the test is exact for any number of users.

References:
    Lindon, M., Malek, A. (2022). Anytime-valid inference for multinomial count data. NeurIPS 35.
    Fabijan, A. et al. (2019). Diagnosing sample ratio mismatch in online controlled experiments.
    KDD 2019, 2156-2164.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from ratchet.errors import InvalidInputError
from ratchet.stats.arrays import BoolArray, FloatArray, IntArray
from ratchet.stats.checks import require

UPWARD: tuple[float, ...] = (1.25, 1.5, 2.0, 3.0, 6.0, 16.0, 64.0)
"""Alternatives to "does no harm"."""
FEWEST_EXPECTED = 5.0
"""Users expected in a cell from which on the chi-square distribution is near enough."""
_BOTH = (1.1, 11 / 9, 1.5, 2.0, 4.0, 16.0)
BOTH_WAYS: tuple[float, ...] = (*_BOTH, *(1.0 / ratio for ratio in _BOTH))
"""Alternatives to "as agreed"; 11/9 is what makes 50/50 into 55/45."""


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """Users by the probability with which they fall into an arm.

    Attributes:
        successes: Users in the arm, shape (..., groups).
        trials: Users, same shape.
        shares: The probability, shape (groups,).
    """

    successes: IntArray
    trials: IntArray
    shares: FloatArray


def share_log_e(groups: Groups, *, odds_ratios: Sequence[float] = BOTH_WAYS) -> FloatArray:
    """Log e-value against "each user falls into the arm with the stated probability".

    log of the mean over `odds_ratios` of exp(sum over groups of m log(o) - n log(1 + p (o - 1))).

    Units: cumulative counts in, log e-values out.
    Assumptions: users fall into the arm independently of each other, given what was known before
    with the stated probabilities (`odds_ratios` above 1: with at most these).
    Error rate: reaches log(1 / a) at any look with probability at most a, for every a, exactly.
    When not to use: for a count that may fall, such as active users of the last hour.

    Returns:
        Shape (...); 0 where there are no users.

    Raises:
        InvalidInputError: A count or an odds ratio is out of range.

    Example:
        >>> even = Groups(np.array([550]), np.array([1000]), np.array([0.5]))
        >>> round(float(share_log_e(even)), 3)
        2.753

    References:
        Lindon and Malek (2022), as the module, with a finite mixture.
    """
    _check(groups)
    ratios = np.asarray(odds_ratios, dtype=np.float64)
    require(
        bool(ratios.size and np.isfinite(ratios).all() and (ratios > 0.0).all()),
        f"odds ratios must be finite and above 0, got {odds_ratios}",
    )
    cost = np.log1p(groups.shares[:, np.newaxis] * (ratios - 1.0))
    inside = groups.successes.sum(axis=-1)[..., np.newaxis] * np.log(ratios)
    return np.asarray(special.logsumexp(inside - groups.trials @ cost, axis=-1)) - math.log(
        ratios.size
    )


def one_look_p_value(groups: Groups) -> float:
    """p-value of "each user falls into the arm with the stated probability", for one look.

    Pearson's chi-square: sum over groups of (m - n p)^2 / (n p (1 - p)), with a degree of freedom
    for each group. Groups in which fewer than 5 users are expected in either cell are left out.

    Units: counts in, a probability out.
    Assumptions: as `share_log_e`; all users were counted before anybody looked.
    Error rate: a sound assignment gives a p-value of at most a with probability about a, at one
    look. At several it errs more often: then take `share_log_e`, which finds less.
    When not to use: again and again on growing counts.

    Returns:
        1 where no group is large enough.

    Raises:
        InvalidInputError: A count is out of range.

    Example:
        >>> round(one_look_p_value(as_groups(44_700, 44_700 + 45_489, 0.5)), 4)
        0.0086

    References:
        Fabijan et al. (2019), as the module.
    """
    _check(groups)
    expected = groups.trials * groups.shares
    large = np.minimum(expected, groups.trials - expected) >= FEWEST_EXPECTED
    expected, shares = expected[large], groups.shares[large]
    squares = (groups.successes[large] - expected) ** 2 / (expected * (1.0 - shares))
    from scipy import stats

    return float(stats.chi2.sf(squares.sum(), squares.size)) if squares.size else 1.0


def one_look_p_value_of_arms(users: Sequence[int], shares: Sequence[float]) -> float:
    """As `one_look_p_value`, for several arms whose shares did not change.

    sum over arms of (users - expected)^2 / expected, with one degree of freedom less than arms.

    Args:
        users: Users of each arm.
        shares: Share of each arm, above 0, with a sum of 1.

    Returns:
        1 where fewer than 5 users are expected in an arm.

    Raises:
        InvalidInputError: There are not as many shares as arms, or they do not add up.

    Example:
        >>> round(one_look_p_value_of_arms([300, 340, 360], [0.3, 0.3, 0.4]), 4)
        0.0094
    """
    if len(users) != len(shares) or min(shares) <= 0.0 or abs(sum(shares) - 1.0) > 1e-6:
        raise InvalidInputError(
            f"each arm needs a share above 0, all together 1, got {list(shares)} for {len(users)} "
            "arms; pass the shares of all arms, the control's too"
        )
    expected = np.asarray(shares, dtype=np.float64) * (sum(users) / sum(shares))
    if expected.min() < FEWEST_EXPECTED:
        return 1.0
    from scipy import stats

    return float(stats.chisquare(users, expected).pvalue)


def finds_imbalance(
    groups: Groups,
    odds_ratio: float,
    *,
    alpha: float,
    power: float = 0.99,
    odds_ratios: Sequence[float] = BOTH_WAYS,
) -> BoolArray:
    """Whether so many users are enough to have found such an imbalance, in either direction.

    The mean of the alternative's log likelihood ratio minus z standard deviations, z the normal
    quantile of `power`, reaches log(number of alternatives / alpha).

    Units: counts in (only `trials` and `shares` are used), flags out.
    Assumptions: those of `share_log_e`; a normal sum of log likelihood ratios.
    Error rate: where it says yes, `share_log_e` reached log(1 / alpha) with probability about
    `power` or more if the odds were multiplied by `odds_ratio`, one of `odds_ratios`, or by its
    inverse.
    When not to use: below about 20 users expected in the arm.

    Raises:
        InvalidInputError: An argument is out of range.

    Example:
        >>> def even(users):
        ...     return Groups(np.array([0]), np.array([users]), np.array([0.5]))
        >>> [bool(finds_imbalance(even(n), 11 / 9, alpha=0.01)) for n in (3_000, 5_000)]
        [False, True]
    """
    require(
        odds_ratio > 1.0 and 0.0 < alpha < 1.0 and 0.5 <= power < 1.0,
        "an imbalance needs odds_ratio above 1, alpha in (0, 1) and power in [0.5, 1), got "
        f"{odds_ratio}, {alpha} and {power}; 11/9 makes 50/50 into 55/45",
    )
    _check(groups)
    from scipy import stats

    needed = math.log(len(odds_ratios) / alpha)
    is_found = np.ones(groups.trials.shape[:-1], dtype=np.bool_)
    for ratio in (odds_ratio, 1.0 / odds_ratio):
        log_ratio = math.log(ratio)
        then = groups.shares * ratio / (1.0 + groups.shares * (ratio - 1.0))
        gain = then * log_ratio - np.log1p(groups.shares * (ratio - 1.0))
        mean = groups.trials @ gain
        spread = np.sqrt(groups.trials @ (then * (1.0 - then) * log_ratio**2))
        is_found &= mean - float(stats.norm.ppf(power)) * spread >= needed
    return is_found


def sticky_groups(in_first: BoolArray, in_second: BoolArray, shares: Sequence[float]) -> Groups:
    """Group users of an arm that grows by what is known of them before each stage.

    A user is a point in [0, 1) and belongs to the second arm where the point is below its share.
    Who was in the first arm at share s is in the second one at share t with probability
    (t - s) / (1 - s); who was in the second one stays, which tells nothing.

    Units: flags in, counts out.
    Assumptions: points are uniform and independent; shares never fall.
    Error rate: none; `share_log_e` of the groups has one.
    When not to use: for three arms or more.

    Args:
        in_first: Whether each user was met in the first arm in each stage, shape
            (..., users, stages).
        in_second: The same of the second arm.
        shares: Share of the second arm in each stage.

    Raises:
        InvalidInputError: A share is out of range or below the one before.

    Example:
        >>> first = np.array([[True, True], [True, False], [False, False]])
        >>> second = np.array([[False, False], [False, True], [True, True]])
        >>> groups = sticky_groups(first, second, [0.05, 0.25])
        >>> groups.trials.tolist(), groups.successes.tolist(), groups.shares.round(3).tolist()
        ([3, 0, 2], [1, 0, 1], [0.05, 0.25, 0.211])
    """
    known = np.asarray(shares, dtype=np.float64)
    if known.size and not (
        (known > 0.0).all() and (known < 1.0).all() and (np.diff(known) >= 0.0).all()
    ):
        raise InvalidInputError(
            f"shares must be in (0, 1) and never fall, got {list(shares)}; an arm that shrinks "
            "needs a new experiment"
        )
    never = -1
    last = np.full(in_first.shape[:-1], never)
    settled = np.zeros(in_first.shape[:-1], dtype=np.bool_)
    successes, trials, rates = [], [], []
    for stage, share in enumerate(known):
        met = (in_first[..., stage] | in_second[..., stage]) & ~settled
        inside = in_second[..., stage] & met
        for before in range(never, stage):
            from_there = met & (last == before)
            successes.append((from_there & inside).sum(axis=-1))
            trials.append(from_there.sum(axis=-1))
            start = 0.0 if before == never else known[before]
            rates.append((share - start) / (1.0 - start))
        last = np.where(met & ~inside, stage, last)
        settled |= inside
    return Groups(
        np.stack(successes, axis=-1).astype(np.int64),
        np.stack(trials, axis=-1).astype(np.int64),
        np.array(rates),
    )


def _check(groups: Groups) -> None:
    counts, users, shares = groups.successes, groups.trials, groups.shares
    if counts.shape != users.shape or users.shape[-1:] != shares.shape:
        raise InvalidInputError(
            "groups need one count of users and one share each, got shapes "
            f"{counts.shape}, {users.shape} and {shares.shape}"
        )
    if ((counts < 0) | (counts > users)).any():
        raise InvalidInputError(
            f"users in the arm must be in [0, users], got {counts.tolist()} of {users.tolist()}"
        )
    if not ((shares >= 0.0) & (shares < 1.0)).all():
        raise InvalidInputError(f"shares must be in [0, 1), got {shares.tolist()}")


def as_groups(successes: ArrayLike, trials: ArrayLike, share: float) -> Groups:
    """Return one group: so many of so many users fell into an arm with this share.

    Example:
        >>> as_groups(45, 100, 0.5).trials.tolist()
        [100]
    """
    return Groups(
        np.asarray(successes, dtype=np.int64)[..., np.newaxis],
        np.asarray(trials, dtype=np.int64)[..., np.newaxis],
        np.array([share]),
    )
