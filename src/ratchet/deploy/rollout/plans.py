"""Fitting a plan to how many users there are: what few users cannot show is not waited for."""

from __future__ import annotations

from ratchet.errors import InsufficientDataError
from ratchet.records import RolloutPlan, RolloutStage
from ratchet.stats.experiments.sample_ratio import BOTH_WAYS, as_groups, finds_imbalance

FEWEST_TIMES = 2
"""A stage is worth its time from so many times the users on that its arm needs."""


def fit_plan(plan: RolloutPlan, users: int) -> tuple[RolloutPlan, tuple[str, ...]]:
    """Fit a plan to the users of a week.

    A stage whose arm would hold too few users to read a rate is left out, as is one in which the
    sample-ratio check could find no imbalance at all; so a small product begins with a larger
    share. Where the check can find a larger imbalance only, the stage asks for that.

    Args:
        plan: The plan.
        users: Distinct users of a week.

    Returns:
        The plan, and what was changed in words.

    Raises:
        InsufficientDataError: No stage is left.

    Example:
        >>> plan, notes = fit_plan(RolloutPlan(), 1_000)
        >>> [stage.share for stage in plan.stages]
        [0.05, 0.25, 0.5]
        >>> notes[0]
        'no stage of 1%: its arm would have 10 of 1,000 users'
    """
    stages: list[RolloutStage] = []
    notes = []
    for stage in plan.stages:
        inside = stage.share * users
        if inside < FEWEST_TIMES * plan.minimum_users:
            notes.append(
                f"no stage of {stage.share:.0%}: its arm would have {inside:.0f} of {users:,} users"
            )
            continue
        imbalance = _findable(stage, users, plan.ratio_error)
        if imbalance is None:
            notes.append(
                f"no stage of {stage.share:.0%}: {users:,} users show no broken assignment in it"
            )
            continue
        if imbalance > stage.imbalance:
            notes.append(
                f"at {stage.share:.0%} the assignment is trusted once odds that are wrong by "
                f"{imbalance:g} would have been found; {stage.imbalance:.3g} takes more users"
            )
        stages.append(stage.model_copy(update={"imbalance": imbalance}))
    if not stages:
        raise InsufficientDataError(
            f"a rollout needs more users than {users:,} a week for any of its stages; compare on "
            "frozen examples alone, or give it stages with larger shares"
        )
    return plan.model_copy(update={"stages": tuple(stages)}), tuple(notes)


def _findable(stage: RolloutStage, users: int, error: float) -> float | None:
    """Return the smallest imbalance from the stage's on that so many users would show."""
    met = as_groups(0, users, stage.share)
    for imbalance in sorted({stage.imbalance, *(r for r in BOTH_WAYS if r > stage.imbalance)}):
        if finds_imbalance(met, imbalance, alpha=error):
            return imbalance
    return None
