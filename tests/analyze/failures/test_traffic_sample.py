"""The held-out sample of a cycle's traffic."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ratchet.analyze.failures.regression_sets import Known, user_digest
from ratchet.analyze.failures.traffic_sample import (
    HELD_OUT,
    freeze_traffic,
    sample_users,
    traffic_set,
)
from ratchet.outcomes.quality import QualityWeights, quality
from ratchet.records import Cycle, ExampleSet, Interaction, Message
from ratchet.store import EventStore
from ratchet.store.history import History
from tests.outcomes.made_outcomes import outcomes

NOW = datetime(2026, 11, 2, tzinfo=UTC)
CYCLE = Cycle(
    id="cycle", number=1, created_at=NOW, champion="m/1", options_digest="o", seed=0,
    window_start=NOW, window_end=NOW, example_set_id="e",
)  # fmt: skip
USERS, EACH = 40, 5
NO_HISTORY = History.open("no-history")


def freeze(store: EventStore, most: int = 1_000, **given: Any) -> ExampleSet | None:
    rows: list[dict[str, Any]] = [
        {
            "interaction_ids": f"i{n}",
            "user_ids": f"u{n % USERS}",
            "prompts": f"message {n}",
            "corrections": f"queue {n % 3}" if n % 2 else None,
        }
        for n in range(USERS * EACH)
    ]
    metadata = given.pop("metadata", {})
    store.add_interactions(
        [
            Interaction(
                id=row["interaction_ids"], session_id="s", user_id=row["user_ids"],
                created_at=NOW, model_version="m/1", response="no",
                metadata=metadata.get(row["user_ids"], {}),
                messages=(
                    Message(role="system", content="be brief"),
                    Message(role="user", content=row["prompts"]),
                ),
            )
            for row in rows
        ]
    )  # fmt: skip
    found = outcomes(rows)
    explicit = quality(found, QualityWeights()).explicit
    return freeze_traffic(
        store,
        CYCLE,
        found,
        explicit,
        most=most,
        withheld={"i1"},
        history=NO_HISTORY,
        now=NOW,
        **given,
    )


def test_what_some_users_asked_is_frozen_with_whose_it_is(store: EventStore) -> None:
    frozen = freeze(store)
    assert frozen is not None
    assert traffic_set(store, CYCLE) == frozen
    users = {example.user_id for example in frozen.examples}
    # corrections are on odd rows, so of odd users alone
    assert len(users) == HELD_OUT * USERS / 2
    assert len(frozen.examples) in (EACH * len(users), EACH * len(users) - 1)
    assert users < {user_digest(f"u{n}") for n in range(USERS)}
    assert all(len(example.messages) == 2 for example in frozen.examples)


def test_what_a_user_refuses_or_limits_is_never_frozen(store: EventStore) -> None:
    refusing = {f"u{n}": {"training_consent": "no"} for n in range(0, USERS, 3)}
    limited = {f"u{n}": {"retain_until": "2030-01-01T00:00:00Z"} for n in range(1, USERS, 3)}
    frozen = freeze(store, metadata=refusing | limited)
    assert frozen is not None
    allowed = {user_digest(f"u{n}") for n in range(2, USERS, 3)}
    assert {example.user_id for example in frozen.examples} < allowed


def test_the_texts_of_the_newest_alone_are_read_of_those_whose_right_answer_is_known(
    store: EventStore,
) -> None:
    asked: list[list[str]] = []

    def texts(part: Any) -> Any:
        asked.append([str(key) for key in part.interaction_ids])
        return part

    frozen = freeze(store, texts=texts, looked_at=50)
    # corrections are on odd rows: the last 50 of them
    assert asked == [[f"i{n}" for n in range(101, 200, 2)]]
    assert frozen is not None
    # a fifth of 20 odd users, each with two or three of the 50
    assert 4 * 2 <= len(frozen.examples) <= 4 * 3


def test_a_cycle_has_one_sample(store: EventStore) -> None:
    first = freeze(store, most=10)
    assert first is not None
    assert len(first.examples) == 10
    assert freeze(store, most=20) == first
    assert traffic_set(store, CYCLE.model_copy(update={"id": "another"})) is None


def test_nothing_known_and_nothing_asked_for_give_none(store: EventStore) -> None:
    assert freeze(store, most=0) is None
    nothing = outcomes([{"prompts": "a"}])
    explicit = quality(nothing, QualityWeights()).explicit
    made = freeze_traffic(
        store, CYCLE, nothing, explicit, most=9, withheld=(), history=NO_HISTORY, now=NOW
    )
    assert made is None


def test_only_a_digest_decides_who_is_held_out() -> None:
    known = tuple(Known(f"i{n}", f"u{n % 50}", f"m{n}", "t") for n in range(200))
    held = sample_users(known, "c", most=1_000)
    assert {item.user for item in held} == {
        item.user for item in sample_users(known[::-1], "c", most=1_000)
    }
    assert len({item.user for item in held}) == 10
    assert {item.user for item in sample_users(known, "d", most=1_000)} != {
        item.user for item in held
    }
