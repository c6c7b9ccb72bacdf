"""How often and how each model answers, where options add to what a policy says of it."""

from __future__ import annotations

from ratchet.deploy.gate.policy import GatePolicy, parse_policy
from ratchet.errors import InvalidInputError


def with_sampling(
    policy: GatePolicy,
    *,
    samples: int | None = None,
    temperature: float | None = None,
    seed: int | None = None,
) -> GatePolicy:
    """Return a policy with what its caller says of sampling.

    Raises:
        InvalidInputError: It contradicts the policy.
        PolicyError: There are fewer samples than a metric needs, or a number is out of range.
    """
    stated = {"samples": samples, "temperature": temperature, "seed": seed}
    given = {name: value for name, value in stated.items() if value is not None}
    for name, value in given.items():
        if getattr(policy, name) not in (None, value):
            raise InvalidInputError(
                f"--{name} {value:g} contradicts the policy, which says {getattr(policy, name):g}; "
                "correct one of the two"
            )
    if not given:
        return policy
    return parse_policy(policy.model_dump(exclude_unset=True) | given, "the policy with options")
