"""Which direction of each metric of a policy is better: stated, known by the name, or asked for.

    policy = with_directions(policy, higher=[], lower=["m7"])

A gate does not guess: of a metric whose direction nobody states and no name tells, it would promote
what is worse as readily as what is better.
"""

from __future__ import annotations

from collections.abc import Sequence

from ratchet.deploy.gate.policy import GatePolicy, parse_policy
from ratchet.errors import InvalidInputError
from ratchet.evaluation.directions import direction_of, may_be_turned
from ratchet.records import direction_words

HIGHER_OPTION, LOWER_OPTION = "--higher-is-better", "--lower-is-better"


def with_directions(
    policy: GatePolicy, *, higher: Sequence[str] = (), lower: Sequence[str] = ()
) -> GatePolicy:
    """Return a policy with the directions that its caller states.

    Args:
        policy: What must be shown.
        higher: Metrics of which more is better, as the option says.
        lower: Metrics of which less is better.

    Raises:
        InvalidInputError: A metric has no direction, or what is stated contradicts the policy, a
            name that leaves nothing open (`accuracy`, `wer`) or itself, or names no metric of the
            policy.
    """
    for name in higher:
        _check(policy, name, True, also=lower)
    for name in lower:
        _check(policy, name, False, also=higher)
    if higher or lower:
        stated = policy.model_dump(exclude_unset=True) | {
            "higher_is_better": tuple(dict.fromkeys((*policy.higher_is_better, *higher))),
            "lower_is_better": tuple(dict.fromkeys((*policy.lower_is_better, *lower))),
        }
        policy = parse_policy(stated, "the policy with these directions")
    if policy.undirected:
        names = ", ".join(policy.undirected)
        first = policy.undirected[0]
        raise InvalidInputError(
            f"the direction of each metric must be known, got none for {names}; say "
            f"{HIGHER_OPTION} {first} or {LOWER_OPTION} {first}, once for each, or write "
            "higher_is_better into the policy"
        )
    return policy


def surprising_directions(policy: GatePolicy) -> tuple[str, ...]:
    """Say where a policy turns a name that leaves nothing open, one line a metric."""
    return tuple(
        f"the policy says that {direction_words(policy.direction(name))} of {name}, of which "
        f"usually {direction_words(not policy.direction(name))}"
        for name in policy.metrics
        if not may_be_turned(name) and direction_of(name) != policy.direction(name)
    )


def _check(policy: GatePolicy, name: str, is_higher: bool, *, also: Sequence[str]) -> None:
    option = HIGHER_OPTION if is_higher else LOWER_OPTION
    other = LOWER_OPTION if is_higher else HIGHER_OPTION
    if name not in policy.metrics:
        raise InvalidInputError(
            f"{option} must name a metric that is decided on, got {name}; there are "
            f"{', '.join(policy.metrics)}"
        )
    if name in also:
        raise InvalidInputError(f"{name} must have one direction, got {option} and {other}")
    if policy.stated.get(name, is_higher) != is_higher:
        raise InvalidInputError(
            f"{option} {name} contradicts the policy, which says that "
            f"{direction_words(not is_higher)}; correct one of the two"
        )
    if name not in policy.stated and not may_be_turned(name) and direction_of(name) != is_higher:
        raise InvalidInputError(
            f"{option} {name} contradicts its name: of {name} {direction_words(not is_higher)}; "
            "leave the option out, or give the metric another name"
        )
