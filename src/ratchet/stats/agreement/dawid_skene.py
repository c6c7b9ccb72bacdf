"""Several judges on the same items: majority vote, and Dawid and Skene's model of their errors.

Votes are an integer array of shape (items, judges): 0 to classes - 1, or `MISSING` where a judge
gave no verdict, which is counted and is no vote for anything.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.stats.arrays import FloatArray, IntArray

MISSING = -1
TIE = -2
FEWEST_JUDGES = 3


@dataclass(frozen=True, slots=True)
class MajorityVote:
    """The most frequent vote on each item.

    Attributes:
        winners: Class of each item, `TIE` if several classes have most votes, `MISSING` if it has
            no vote, shape (items,).
        counts: Votes for each class, shape (items, classes).
        ties: Items with a tie.
        unvoted: Items without a vote.
        missing_votes: Votes missing over all items and judges.
    """

    winners: IntArray
    counts: IntArray
    ties: int
    unvoted: int
    missing_votes: int


@dataclass(frozen=True, slots=True)
class DawidSkene:
    """Dawid and Skene's model at its maximum of likelihood.

    Attributes:
        probabilities: Probability of each class for each item, shape (items, classes); NaN for an
            item without a vote.
        confusion: Chance that a judge votes for a class given the true class, shape (judges,
            classes, classes), the true class in the middle; NaN where no item has that class.
        prevalence: Share of each class, shape (classes,).
        log_likelihoods: Log-likelihood after each iteration, never decreasing.
        converged: Whether the last gain was below the tolerance.
        relabelled: Whether on most items the likeliest class differs from the majority's, a sign
            that the model has swapped classes or that most judges err together.
        unvoted: Items without a vote; they are not used.
        missing_votes: Votes missing over all items and judges.
    """

    probabilities: FloatArray
    confusion: FloatArray
    prevalence: FloatArray
    log_likelihoods: FloatArray
    converged: bool
    relabelled: bool
    unvoted: int
    missing_votes: int

    @property
    def accuracies(self) -> FloatArray:
        """Chance that each judge votes for the true class, shape (judges,)."""
        diagonal = np.diagonal(self.confusion, axis1=1, axis2=2)
        return np.asarray(np.nansum(diagonal * self.prevalence, axis=1))


def majority_vote(votes: ArrayLike, *, classes: int) -> MajorityVote:
    """Most frequent class of each item; a tie is a tie, not the lower class.

    Units: classes.
    Assumptions: none to compute it. As an estimate of the truth: judges that err independently and
    are right more often than wrong in each class, with like accuracy.
    Error rate: with m independent judges (odd m, two classes) of accuracy a it is wrong with the
    binomial probability P(Bin(m, a) < m / 2): 0.028 for three of 0.9. Judges of one family err
    together and gain far less.
    When not to use: judges of different quality (`dawid_skene`); two judges.

    Args:
        votes: Class of each item by each judge, `MISSING` for none, shape (items, judges).
        classes: Number of classes, at least 2.

    Raises:
        InsufficientDataError: There are no votes.
        InvalidInputError: Votes are no integers, out of range, or not of two dimensions.

    Example:
        >>> majority_vote([[0, 0, 1], [1, 0, MISSING]], classes=2).winners.tolist()
        [0, -2]

    References:
        Condorcet, M. de (1785). Essai sur l'application de l'analyse a la probabilite des
        decisions rendues a la pluralite des voix.
    """
    table = _votes(votes, classes)
    counts = _one_hot(table, classes).sum(axis=1).astype(np.int64)
    most = counts.max(axis=1)
    winners = counts.argmax(axis=1)
    winners[(counts == most[:, np.newaxis]).sum(axis=1) > 1] = TIE
    winners[most == 0] = MISSING
    return MajorityVote(
        winners=winners,
        counts=counts,
        ties=int((winners == TIE).sum()),
        unvoted=int((most == 0).sum()),
        missing_votes=int((table == MISSING).sum()),
    )


def dawid_skene(
    votes: ArrayLike, *, classes: int, tolerance: float = 1e-9, max_iterations: int = 2_000
) -> DawidSkene:
    """What is true of each item and how each judge errs, without any label of a person.

    Maximum likelihood by EM of P(votes) = prod over items of sum_k p_k prod_j c_j(k, vote), c_j the
    confusion matrix of judge j. The start is the share of votes for each class of each item, so
    that the classes keep the meaning that most judges give them; it needs no random numbers.

    Units: probabilities.
    Assumptions: given the true class, judges err independently and alike on all items of the class;
    votes are missing without regard to the truth; the majority is better than chance in each class.
    At least three judges (two leave the model undetermined).
    Error rate: none is stated; it gives no intervals. In 200 simulated panels of five judges
    (accuracy 0.6 to 0.9) on 400 items of two classes it recovers accuracies with a mean absolute
    error of 0.02 and is right on 0.2 points more items than the majority; the gain is larger where
    judges differ more.
    When not to use: judges that share a model, a prompt or a bias; their agreement is taken for
    accuracy and probabilities come out near 0 and 1. Check it with labels
    (`ratchet.stats.judges.corrected_rate`). With few items a class, estimates lie on the boundary.

    Args:
        votes: Class of each item by each judge, `MISSING` for none, shape (items, judges).
        classes: Number of classes, at least 2.
        tolerance: Stop when the log-likelihood per item gains less.
        max_iterations: Stop after as many; `converged` is then False.

    Raises:
        InsufficientDataError: Fewer than three judges with a vote, or no item that two judges
            rated.
        InvalidInputError: Votes are no integers, out of range, or not of two dimensions, or an
            argument is not positive.

    Example:
        >>> votes = [[1, 1, 1]] * 6 + [[0, 0, 0]] * 5 + [[1, 1, 0]] * 2 + [[0, 0, 1]] * 2
        >>> result = dawid_skene(votes, classes=2)
        >>> result.accuracies.round(2).tolist()
        [1.0, 1.0, 0.73]

    References:
        Dawid, A. P., Skene, A. M. (1979). Maximum likelihood estimation of observer error-rates
        using the EM algorithm. Applied Statistics 28, 20-28.
    """
    table = _votes(votes, classes)
    _checked_panel(table, tolerance, max_iterations)
    voted = (table != MISSING).any(axis=1)
    hot = _one_hot(table[voted], classes)
    start = hot.sum(axis=1)
    posterior = start / start.sum(axis=1, keepdims=True)
    log_likelihoods: list[float] = []
    converged = False
    while not converged and len(log_likelihoods) < max_iterations:
        prevalence, confusion = _maximize(posterior, hot)
        posterior, likelihood = _expect(prevalence, confusion, hot)
        converged = bool(log_likelihoods) and likelihood - log_likelihoods[-1] < tolerance * len(
            hot
        )
        log_likelihoods.append(likelihood)
    majority, clear = start.argmax(axis=1), (start == start.max(axis=1, keepdims=True)).sum(1) == 1
    differs = posterior.argmax(axis=1)[clear] != majority[clear]
    probabilities = np.full((len(table), classes), np.nan)
    probabilities[voted] = posterior
    return DawidSkene(
        probabilities=probabilities,
        confusion=np.where((prevalence > 0.0)[:, np.newaxis], confusion, np.nan),
        prevalence=prevalence,
        log_likelihoods=np.array(log_likelihoods),
        converged=converged,
        relabelled=bool(differs.size and differs.mean() > 0.5),
        unvoted=int((~voted).sum()),
        missing_votes=int((table == MISSING).sum()),
    )


def _maximize(posterior: FloatArray, hot: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Prevalence and confusion matrices given the probabilities of the classes."""
    judges, classes = hot.shape[1:]
    weight = (posterior.T @ hot.reshape(len(hot), -1)).reshape(classes, judges, classes)
    confusion = weight.transpose(1, 0, 2)
    total = confusion.sum(axis=2, keepdims=True)
    even = np.full_like(confusion, 1.0 / classes)  # a judge without votes on a class
    return posterior.mean(axis=0), np.divide(confusion, total, out=even, where=total > 0.0)


def _expect(
    prevalence: FloatArray, confusion: FloatArray, hot: FloatArray
) -> tuple[FloatArray, float]:
    """Probabilities of the classes, and the log-likelihood, given the parameters."""
    with np.errstate(divide="ignore"):
        logs = np.maximum(np.log(confusion), -1e300)  # 0 * -inf would be NaN
        prior = np.log(prevalence)
    by_vote = logs.transpose(0, 2, 1).reshape(-1, len(prevalence))
    joint = prior + hot.reshape(len(hot), -1) @ by_vote
    evidence = special.logsumexp(joint, axis=1, keepdims=True)
    return np.exp(joint - evidence), math.fsum(evidence.ravel())


def _one_hot(table: IntArray, classes: int) -> FloatArray:
    """Shape (items, judges, classes); all 0 for a missing vote."""
    return np.asarray(table[:, :, np.newaxis] == np.arange(classes), dtype=np.float64)


def _checked_panel(table: IntArray, tolerance: float, max_iterations: int) -> None:
    if tolerance <= 0.0 or max_iterations < 1:
        raise InvalidInputError(
            "tolerance and max_iterations must be positive, got "
            f"{tolerance} and {max_iterations}; pass 1e-9 and 2000"
        )
    cast = table != MISSING
    judges, shared = int(cast.any(axis=0).sum()), int((cast.sum(axis=1) > 1).sum())
    if judges < max(FEWEST_JUDGES, table.shape[1]) or shared == 0:
        raise InsufficientDataError(
            f"the model needs {FEWEST_JUDGES} judges, each with a vote, and items that several "
            f"rated, got {judges} of {table.shape[1]} judges with votes and {shared} shared items; "
            "add judges, leave out those without votes, or take majority_vote"
        )


def _votes(votes: ArrayLike, classes: int) -> IntArray:
    table = np.asarray(votes)
    if classes < 2:
        raise InvalidInputError(f"classes must be at least 2, got {classes}; pass 2 for pass, fail")
    if table.size == 0:
        raise InsufficientDataError("a vote needs items and judges, got none; pass one row an item")
    if table.ndim != 2 or table.dtype.kind not in "iu":
        raise InvalidInputError(
            "votes must be integers of shape (items, judges), got "
            f"{table.dtype} of shape {table.shape}; pass MISSING (-1) for no vote"
        )
    wrong = (table < MISSING) | (table >= classes)
    if wrong.any():
        raise InvalidInputError(
            f"votes must be 0 to {classes - 1} or MISSING (-1), got {table[wrong][0]}; map "
            "verdicts to classes first"
        )
    if (table == MISSING).all():
        raise InsufficientDataError("a vote needs verdicts, got none; have judges rate the items")
    return table.astype(np.int64)
