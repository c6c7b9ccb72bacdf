"""Routings and keys as records."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ratchet.records import ApiKey, Routing, Variant

AT = datetime(2026, 11, 24, tzinfo=UTC)
USERS = [f"user-{number}" for number in range(4_000)]


def routing(*shares: float, experiment: str = "e") -> Routing:
    arms = tuple(Variant(version=f"m/{n}", share=share) for n, share in enumerate(shares))
    return Routing(id="r", created_at=AT, experiment=experiment, variants=arms)


def users_of(version: str, found: Routing) -> set[str]:
    return {user for user in USERS if found.choose(user).version == version}


def test_an_arm_that_grows_keeps_the_users_it_had() -> None:
    stages = [users_of("m/0", routing(share, 1 - share)) for share in (0.01, 0.05, 0.25, 0.5, 1.0)]
    assert all(early <= late for early, late in pairwise(stages))
    assert len(stages[-1]) == len(USERS)


def test_shares_are_kept_within_four_standard_errors() -> None:
    # binomial: sqrt(0.25 * 0.75 / 4000) = 0.0068
    assert abs(len(users_of("m/0", routing(0.25, 0.75))) / 4_000 - 0.25) < 4 * 0.0068


def test_another_experiment_draws_its_users_anew() -> None:
    first = users_of("m/0", routing(0.5, 0.5))
    second = users_of("m/0", routing(0.5, 0.5, experiment="f"))
    # independent halves: a quarter of the users is in both, sqrt(0.25 * 0.75 / 4000) = 0.0068
    assert abs(len(first & second) / 4_000 - 0.25) < 4 * 0.0068


@given(st.text(max_size=50), st.integers(0, 100))
def test_everybody_has_one_arm_and_never_one_without_a_share(user: str, percent: int) -> None:
    found = routing(percent / 100, 1 - percent / 100, 0.0)
    chosen = found.choose(user)
    assert chosen == found.choose(user)
    assert chosen.share > 0.0


def test_shares_that_do_not_sum_to_one_and_arms_of_one_name_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"shares must sum to 1, got 0\.9"):
        routing(0.4, 0.5)
    arms = (Variant(version="m/1", share=0.5), Variant(version="m/1", share=0.5))
    with pytest.raises(ValidationError, match="names of their own"):
        Routing(id="r", created_at=AT, experiment="e", variants=arms)


def test_a_key_has_a_role_and_a_hash() -> None:
    fields = {"id": "k", "created_at": AT, "application": "a", "secret_hash": "0" * 64}
    assert ApiKey.model_validate(fields | {"roles": ["ingest"]}).roles == ("ingest",)
    for wrong in ({"roles": []}, {"roles": ["king"]}, {"roles": ["read"], "secret_hash": "s"}):
        with pytest.raises(ValidationError):
            ApiKey.model_validate(fields | wrong)
