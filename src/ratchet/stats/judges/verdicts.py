"""Whether verdicts are missing alike with and without labels, as corrected rates need it."""

from __future__ import annotations

from ratchet.errors import UnequalMissingError
from ratchet.stats.arrays import BoolArray

UNEQUAL_MISSING = 0.001  # p below which shares of missing verdicts count as different


def equal_missing(first: BoolArray, second: BoolArray, one: str, two: str) -> None:
    """Refuse shares of missing verdicts that differ (two-sided Fisher test).

    Args:
        first: Whether each verdict of one group is missing.
        second: The same of the other group.
        one: What the first group is, for the message.
        two: What the second group is.

    Raises:
        UnequalMissingError: They differ by more than chance, p < 0.001.
    """
    from scipy import stats

    lost = (int(first.sum()), int(second.sum()))
    table = [[lost[0], first.size - lost[0]], [lost[1], second.size - lost[1]]]
    if sum(lost) and stats.fisher_exact(table).pvalue < UNEQUAL_MISSING:
        raise UnequalMissingError(
            f"verdicts must be missing as often on {one} as on {two}, got {lost[0]} of "
            f"{first.size} and {lost[1]} of {second.size}; have the judge rate what is missing"
        )
