"""What people are told when a rollout is aborted: one alert, sent as all others are."""

from __future__ import annotations

from datetime import datetime

from ratchet.records import AlertEvent, Readout, Rollout, RolloutLook, derive_id
from ratchet.records.signals import words_of
from ratchet.stats.intervals import wilson


def abort_alert(rollout: Rollout, look: RolloutLook, now: datetime) -> AlertEvent:
    """Return the alert about an aborted rollout: harm, or a broken assignment.

    Args:
        rollout: The rollout.
        look: The look that aborts it.
        now: The time.
    """
    harm = next((item for item in look.readouts if item.says == "harm"), None)
    signal, events, trials, expected = _figures(look, harm)
    interval = wilson(events, trials) if trials else None
    value = events / trials if trials else 0.0
    level = rollout.plan.harm_error if harm else rollout.plan.ratio_error
    why = "a release that does no harm" if harm else "a sound assignment"
    advice = (
        "read the answers that were thumbed down, mend it and register a new version"
        if harm
        else "find out why users or their answers are missing from an arm before the next rollout"
    )
    return AlertEvent(
        id=derive_id("alert event", look.id),
        alert_id=derive_id("alert", look.id),
        created_at=now,
        change="opened",
        kind="rollout",
        severity="warning",
        model_version=rollout.challenger.version,
        signal=signal,
        since=rollout.created_at,
        value=value,
        lower=interval.lower if interval else 0.0,
        upper=interval.upper if interval else 1.0,
        expected=expected,
        observations=trials,
        certainty=f"{why} is stopped in at most {level:.0%} of rollouts, however often one looks",
        message=(
            f"The rollout of {rollout.challenger.version} was aborted at {look.share:.0%} of "
            f"users: {'; '.join(look.reasons)}."
        ),
        action=f"Everybody has {rollout.champion.version} again; {advice}.",
    )


def _figures(look: RolloutLook, harm: Readout | None) -> tuple[str, int, int, float]:
    if harm is not None:
        events, trials, _ = harm.variant
        expected = harm.control[0] / harm.control[1] if harm.control[1] else 0.0
        return words_of(harm.signal), events, trials, expected
    users = look.sample_ratio.users
    return "sample ratio", list(users.values())[-1], sum(users.values()), look.share
