"""How good a source of flags is: precision, recall and false-positive rate from a part reviewed.

People cannot read everything. What was flagged is reviewed, and a random sample of what was not;
interactions fall into strata of known size, and within each stratum the reviewed ones are a random
part. A violation found in a sample of one in fifty then stands for fifty.

| question | function |
|---|---|
| of what is flagged, how much is a violation | `flag_precision` |
| of all violations, how many are flagged | `flag_recall` |
| of all that is fine, how much is flagged | `false_positive_rate` |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scipy import special

from ratchet.errors import InsufficientDataError
from ratchet.stats.checks import checked_level, normal_quantile, require
from ratchet.stats.intervals import Interval, wilson


@dataclass(frozen=True, slots=True)
class Stratum:
    """Interactions of one kind, e.g. flagged by this source and by no other.

    Attributes:
        size: How many there are.
        reviewed: How many of them people decided, a random part or all.
        violations: How many of those are violations.
    """

    size: int
    reviewed: int
    violations: int

    def __post_init__(self) -> None:
        require(
            0 <= self.violations <= self.reviewed <= self.size,
            "a stratum needs 0 <= violations <= reviewed <= size, got "
            f"{self.violations}, {self.reviewed} and {self.size}; check their order",
        )


@dataclass(frozen=True, slots=True)
class FlagRate:
    """A rate with its interval.

    Attributes:
        value: The estimate.
        interval: Its confidence interval.
        reviewed: Reviewed interactions that it rests on.
    """

    value: float
    interval: Interval
    reviewed: int


def flag_precision(flagged: Sequence[Stratum], *, level: float = 0.95) -> FlagRate:
    """Share of flagged interactions that are violations.

    Where all flags are reviewed, or there is one stratum: Wilson's interval. Else the estimate is
    p = sum W_h p_h, W_h the stratum's share of all N flags and p_h its reviewed share; with Wilson
    limits (l_h, u_h) of each p_h the limits are those of Zou's MOVER, p minus
    sqrt(sum W_h^2 (p_h - l_h)^2 + z^2 sum W_h (p_h - p)^2 / N) and alike above. The last term is
    the chance by which flags fall into strata.

    Units: counts in, shares in [0, 1] out.
    Assumptions: independent interactions; in each stratum the reviewed ones are a random part.
    Error rate: coverage was 0.936 to 0.996 at level 0.95 in simulation, mostly near the level
    (`tests/calibration/test_flag_rates_coverage.py`); for few flags it may be lower.
    When not to use: where reviewers took the flags that looked worst first and stopped half-way.

    Args:
        flagged: Strata of flagged interactions; empty ones count for nothing.
        level: Nominal coverage in (0, 1).

    Raises:
        InsufficientDataError: Nothing is flagged, or a stratum has no review.

    Example:
        >>> rate = flag_precision([Stratum(40, 40, 36)])
        >>> rate.value, round(rate.interval.lower, 4), round(rate.interval.upper, 4)
        (0.9, 0.7695, 0.9604)

    References:
        Wilson (1927), as `ratchet.stats.intervals.wilson`. Zou, G. Y., Donner, A. (2008).
        Construction of confidence limits about effect measures: a general approach. Statistics in
        Medicine 27, 1693-1702.
    """
    strata = _filled(flagged, "flagged")
    total = sum(stratum.size for stratum in strata)
    if total == 0:
        raise InsufficientDataError("precision needs a flagged interaction, got none")
    if all(stratum.reviewed == stratum.size for stratum in strata):
        strata = [Stratum(total, total, sum(stratum.violations for stratum in strata))]
    weights = [stratum.size / total for stratum in strata]
    shares = [stratum.violations / stratum.reviewed for stratum in strata]
    limits = [wilson(stratum.violations, stratum.reviewed, level=level) for stratum in strata]
    value = sum(w * p for w, p in zip(weights, shares, strict=True))
    spread = sum(w * (p - value) ** 2 for w, p in zip(weights, shares, strict=True)) / total
    between = normal_quantile(level) ** 2 * spread
    parts = list(zip(weights, shares, limits, strict=True))
    below = math.sqrt(between + sum((w * (p - x.lower)) ** 2 for w, p, x in parts))
    above = math.sqrt(between + sum((w * (x.upper - p)) ** 2 for w, p, x in parts))
    interval = Interval(max(0.0, value - below), min(1.0, value + above), level)
    return FlagRate(value, interval, _reviewed(strata))


def flag_recall(
    flagged: Sequence[Stratum], unflagged: Sequence[Stratum], *, level: float = 0.95
) -> FlagRate:
    """Share of all violations that are flagged, from a sample of what is not flagged.

    With x_h violations among n_h reviewed of N_h, stratum h holds about w_h x_h of them,
    w_h = N_h / n_h. F and U are those sums over flagged and unflagged strata; recall is
    F / (F + U).

    Interval: each violation that exists is reviewed with chance 1 / w_h, so that, given how many
    were found, how many of them are flagged ones is binomial. With one flagged and one unflagged
    stratum the limits are Clopper and Pearson's of that share, moved by the weights:
    odds(recall) = odds(share) w_flagged / w_unflagged. With more strata the counts are replaced by
    effective ones, (sum w x)^2 / sum w^2 x, and the side that a limit guards against gets one more
    event of its largest weight, as Fay does for ratios of directly standardised rates. So no
    violation in the sample still leaves room for some.

    Units: counts in, shares in [0, 1] out.
    Assumptions: independent interactions; in each stratum the reviewed ones are a random part; what
    reviewers decide is the truth.
    Error rate: coverage is at least the level with one stratum on each side, up to the fixed size
    of the sample; in simulation it was 0.950 to 1 with one and 0.968 to 1 with two strata a side
    (`tests/calibration/test_flag_rates_coverage.py`).
    When not to use: where the unflagged reviewed were chosen for looking bad.

    Args:
        flagged: Strata of flagged interactions; empty ones count for nothing.
        unflagged: Strata of the others.
        level: Nominal coverage in (0, 1).

    Raises:
        InsufficientDataError: No violation was found, or a stratum has no review.

    Example:
        >>> rate = flag_recall([Stratum(30, 30, 24)], [Stratum(4_970, 497, 1)])
        >>> round(rate.value, 3), round(rate.interval.lower, 3), round(rate.interval.upper, 3)
        (0.706, 0.281, 0.99)

    References:
        Clopper, Pearson (1934). Fay, M. P. (1999). Approximate confidence intervals for rate ratios
        from directly standardized rates with sparse data. Communications in Statistics - Theory
        and Methods 28, 2141-2160.
    """
    needs = "recall needs a violation"
    return _share_flagged(flagged, unflagged, lambda s: s.violations, needs, level)


def false_positive_rate(
    flagged: Sequence[Stratum], unflagged: Sequence[Stratum], *, level: float = 0.95
) -> FlagRate:
    """Share of all interactions that are fine and flagged nevertheless.

    As `flag_recall`, of what reviewers found fine. That most unflagged interactions are fine is
    treated as uncertain as a count of rare events is, so that the interval is wider than need be.

    Units: counts in, shares in [0, 1] out.
    Assumptions: as `flag_recall`.
    Error rate: as `flag_recall`, mostly above the level.
    When not to use: as `flag_recall`.

    Args:
        flagged: Strata of flagged interactions; empty ones count for nothing.
        unflagged: Strata of the others.
        level: Nominal coverage in (0, 1).

    Raises:
        InsufficientDataError: Nothing reviewed is fine, or a stratum has no review.

    Example:
        >>> rate = false_positive_rate([Stratum(30, 30, 24)], [Stratum(4_970, 497, 1)])
        >>> f"{rate.value:.5f} {rate.interval.lower:.5f} {rate.interval.upper:.5f}"
        '0.00121 0.00044 0.00264'

    References:
        As `flag_recall`.
    """
    needs = "a false-positive rate needs an interaction that is fine"
    return _share_flagged(flagged, unflagged, lambda s: s.reviewed - s.violations, needs, level)


Weighted = Sequence[tuple[float, int]]


def _share_flagged(
    flagged: Sequence[Stratum],
    unflagged: Sequence[Stratum],
    count: Callable[[Stratum], int],
    needs: str,
    level: float,
) -> FlagRate:
    """Share of what is counted in the strata that lies in the flagged ones."""
    strata = _filled(flagged, "flagged"), _filled(unflagged, "unflagged")
    ones, others = ([(s.size / s.reviewed, count(s)) for s in part] for part in strata)
    reviewed = _reviewed([*strata[0], *strata[1]])
    if not any(events for _, events in (*ones, *others)):
        raise InsufficientDataError(
            f"{needs} among the {reviewed} reviewed interactions, got none; review more"
        )
    return _share(ones, others, level, reviewed)


def _share(ones: Weighted, others: Weighted, level: float, reviewed: int) -> FlagRate:
    """Share of the weighted events `ones` of all. See `flag_recall`."""
    tail = (1.0 - checked_level(level)) / 2.0
    first, second = _total(ones), _total(others)
    value = first / (first + second)
    lower = 0.0 if first == 0.0 else _limit(_effective(ones), _effective(others, 1), tail)
    upper = 1.0 if second == 0.0 else _limit(_effective(ones, 1), _effective(others), 1.0 - tail)
    return FlagRate(value, Interval(min(lower, value), max(upper, value), level), reviewed)


def _limit(ones: tuple[float, float], others: tuple[float, float], quantile: float) -> float:
    (first, first_weight), (second, second_weight) = ones, others
    share = float(special.betaincinv(first, second, quantile))
    weighted = share * first_weight
    return weighted / (weighted + (1.0 - share) * second_weight)


def _effective(events: Weighted, added: int = 0) -> tuple[float, float]:
    """Return the number of events of one weight that stand for these, and that weight."""
    largest = max((weight for weight, _ in events), default=1.0)
    total = _total(events) + added * largest
    squares = sum(weight**2 * count for weight, count in events) + added * largest**2
    return total**2 / squares, squares / total


def _total(events: Weighted) -> float:
    return sum(weight * count for weight, count in events)


def _filled(strata: Sequence[Stratum], name: str) -> list[Stratum]:
    filled = [stratum for stratum in strata if stratum.size]
    waiting = [stratum.size for stratum in filled if not stratum.reviewed]
    if waiting:
        raise InsufficientDataError(
            f"each stratum needs a review, got none of {waiting[0]} {name} interactions; "
            "review some of them"
        )
    return filled


def _reviewed(strata: Sequence[Stratum]) -> int:
    return sum(stratum.reviewed for stratum in strata)
