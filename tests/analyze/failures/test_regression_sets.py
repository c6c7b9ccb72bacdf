"""What training and gate get of a failure cluster: frozen examples, and the rest to train on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.analyze.failures.regression_sets import (
    FEWEST,
    MOST,
    Known,
    hand_over,
    hold_out,
    known_answers,
    safety_related,
    user_digest,
)
from ratchet.evaluation.metrics import normalise_answer
from ratchet.outcomes.quality import QualityWeights, quality
from ratchet.records import (
    ExampleSet,
    FailureCluster,
    Interaction,
    Message,
    RegressionSet,
    TrainingRequest,
)
from ratchet.store import EventStore
from tests.outcomes.made_outcomes import outcomes

NOW = datetime(2026, 11, 2, tzinfo=UTC)


def cluster(**changes: Any) -> FailureCluster:
    values = {
        "id": "cluster-seven",
        "name": "cards",
        "size": 20,
        "failure_rate": 0.5,
        "lift": 2.0,
        "interval": (0.3, 0.7),
        "examples": ("my card",),
    }
    return FailureCluster.model_validate(values | changes)


def known(count: int, users: int) -> tuple[Known, ...]:
    return tuple(Known(f"i{n}", f"u{n % users}", f"message {n}", "cards") for n in range(count))


def ask(store: EventStore, items: tuple[Known, ...]) -> tuple[Known, ...]:
    """Store the interactions that the items are of."""
    found = [
        Interaction(
            id=item.interaction_id,
            session_id="s",
            user_id=item.user,
            created_at=NOW,
            model_version="m/1",
            messages=(Message(role="user", content=item.prompt),),
            response="no",
            latency_seconds=0.1,
        )
        for item in items
    ]
    store.add_interactions(found)
    return items


def test_corrections_and_well_rated_answers_are_known() -> None:
    rows: list[dict[str, Any]] = [
        {"prompts": "a", "thumbs": 1.0, "responses": "right"},
        {"prompts": "b", "thumbs": 0.0, "responses": "wrong"},
        {"prompts": "c", "corrections": "better", "responses": "wrong"},
        {"prompts": "d", "thumbs": 1.0, "responses": "  "},
        {"prompts": "e", "thumbs": 1.0, "responses": "leak", "unsafe": 1.0},
        {"prompts": "f", "thumbs": 1.0, "responses": "waits"},
        {"prompts": "g", "copied": 1.0, "responses": "copied only"},
    ]
    found = outcomes(rows)
    explicit = quality(found, QualityWeights()).explicit
    kept = known_answers(range(len(rows)), found, explicit, withheld={"i5"})
    assert [(item.prompt, item.target) for item in kept] == [("a", "right"), ("c", "better")]


def test_of_one_prompt_the_newest_counts_and_contradictions_count_for_nothing() -> None:
    rows: list[dict[str, Any]] = [
        {"prompts": "a?", "corrections": "x"},
        {"prompts": "A", "corrections": "X."},
        {"prompts": "b", "corrections": "x"},
        {"prompts": "b", "corrections": "y"},
    ]
    found = outcomes(rows)
    explicit = quality(found, QualityWeights()).explicit
    kept = known_answers(range(4), found, explicit, withheld=())
    assert [item.interaction_id for item in kept] == ["i1"]


@given(st.integers(0, 200), st.integers(1, 60))
def test_held_out_users_are_some_of_all(count: int, users: int) -> None:
    items = known(count, users)
    held, digests = hold_out(items, "c")
    if not held:
        assert digests == ()
        return
    assert FEWEST <= len(held) <= MOST
    everybody = {user_digest(item.user) for item in items}
    assert set(digests) < everybody  # somebody is left to train on
    assert {user_digest(item.user) for item in held} <= set(digests)


def test_one_user_alone_gives_no_set() -> None:
    assert hold_out(known(100, 1), "c") == ((), ())


def test_a_set_is_frozen_once(store: EventStore) -> None:
    items = ask(store, known(60, 30))
    first = hand_over(store, cluster(), items, cycle_id="one", blocked=None, now=NOW)
    more = ask(store, known(90, 45))
    second = hand_over(
        store,
        cluster(name="cards again"),
        more,
        cycle_id="two",
        blocked=None,
        now=NOW + timedelta(days=1),
    )
    assert first.regression_set_id == second.regression_set_id is not None
    assert len(store.records(ExampleSet)) == len(store.records(RegressionSet)) == 1
    examples = store.records(ExampleSet)[0].examples
    held = {normalise_answer(example.prompt) for example in examples}
    frozen = store.records(RegressionSet)[0]
    for request, offered in ((first, items), (second, more)):
        chosen = [item for item in offered if item.interaction_id in request.interaction_ids]
        assert chosen
        assert not held & {normalise_answer(item.prompt) for item in chosen}
        assert not set(frozen.users) & {user_digest(item.user) for item in chosen}


def test_the_same_again_is_stored_once(store: EventStore) -> None:
    items = ask(store, known(60, 30))
    for hour in range(2):
        hand_over(
            store,
            cluster(),
            items,
            cycle_id="one",
            blocked=None,
            now=NOW + timedelta(hours=hour),
        )
    assert len(store.records(TrainingRequest)) == 1


def test_too_few_known_answers_are_said_and_offered_for_training(store: EventStore) -> None:
    items = ask(store, known(FEWEST - 1, 4))
    request = hand_over(store, cluster(), items, cycle_id="one", blocked=None, now=NOW)
    assert request.regression_set_id is None
    assert request.reason is not None
    assert f"got {FEWEST - 1} of 4 users" in request.reason
    assert len(request.interaction_ids) == FEWEST - 1


def test_nothing_is_made_of_a_blocked_cluster(store: EventStore) -> None:
    items = ask(store, known(60, 30))
    request = hand_over(store, cluster(), items, cycle_id="one", blocked="people look", now=NOW)
    assert (request.interaction_ids, request.regression_set_id) == ((), None)
    assert request.blocked == request.reason == "people look"
    assert store.records(ExampleSet) == ()


@pytest.mark.parametrize(
    ("size", "safety", "expected"),
    [(100, 0, False), (100, 1, False), (100, 2, True), (8, 1, True), (1_000, 2, True)],
)
def test_two_flags_or_a_tenth_make_a_cluster_one_about_safety(
    size: int, safety: int, expected: bool
) -> None:
    assert safety_related(cluster(size=size, safety=safety)) is expected
