"""Open questions drawn from traffic: by user, by segment and time, and held out for good."""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from ratchet.analyze.failures.traffic_sample import (
    SampleRules,
    UserTurns,
    draw_users,
    freeze_questions,
    questions_set,
)
from ratchet.analyze.window import read_outcomes
from ratchet.errors import WaitingError
from ratchet.records import ExampleSet, Interaction, Message, user_digest
from ratchet.store import EventStore
from ratchet.store.cycles import held_out_users, recorded_so_far
from ratchet.store.history import History
from tests.calls import looked_up, turn, with_picture

NOW = datetime(2026, 11, 2, tzinfo=UTC)
USERS, EACH = 400, 3
RULES = SampleRules(examples=60, minimum=30)
NO_HISTORY = History.open("no-history")


def interaction(number: int, **changes: Any) -> Interaction:
    values: dict[str, Any] = {
        "id": f"i{number}",
        "session_id": f"s{number % USERS}",
        "user_id": f"u{number % USERS}",
        "created_at": NOW + timedelta(minutes=number),
        "model_version": "m/1",
        "segment": "shop" if number % USERS < 100 else "desk",
        "messages": (
            Message(role="system", content="Mail help@example.com"),
            Message(role="user", content=f"question {number}, I am ana{number}@example.com"),
        ),
        "response": "x" * 600,
    }
    return Interaction(**(values | changes))


def freeze(
    store: EventStore,
    rules: SampleRules = RULES,
    count: int = USERS * EACH,
    refusing: int | None = None,
    **given: Any,
) -> ExampleSet:
    """Let users write in, those of odd or even numbers refusing, and draw."""
    failed = {"error": "timed out", "response": ""}
    refused = {"metadata": {"training_consent": "no"}}
    store.add_interactions(
        interaction(
            number,
            **(failed if number % 50 == 0 else {}),
            **(refused if number % 2 == refusing else {}),
        )
        for number in range(count)
    )
    return drawn(store, rules, **given)


def drawn(store: EventStore, rules: SampleRules = RULES, **given: Any) -> ExampleSet:
    usual: dict[str, Any] = {
        "redact": lambda texts: [text.replace("@", " at ") for text in texts],
        "history": NO_HISTORY,
        "now": NOW,
        "max_new_tokens": 256,
    }
    everything = read_outcomes(store, recorded_so_far(store, NOW + timedelta(days=9)))
    return freeze_questions(store, everything, rules, **(usual | given))


def test_what_a_random_part_of_users_asked_is_frozen_without_targets_and_without_names(store):
    frozen = freeze(store)
    assert 57 <= len(frozen.examples) <= 62  # 60 wanted
    users = Counter(example.user_id for example in frozen.examples)
    assert max(users.values()) <= RULES.per_user
    assert users.keys() <= {user_digest(f"u{n}") for n in range(USERS)}
    assert held_out_users(store) == users.keys()
    for example in frozen.examples:
        assert example.target is None
        assert example.messages[0].content == "Mail help@example.com"  # the application's own
        assert "@" not in example.prompt
    failed = {f"question {number}, " for number in range(0, USERS * EACH, 50)}
    assert not any(example.prompt.startswith(tuple(failed)) for example in frozen.examples)


def test_the_frozen_set_serves_until_another_edition_is_asked_for(store):
    first = freeze(store)
    assert freeze(store, count=20) == first == questions_set(store, RULES)
    second = freeze(store, RULES.model_copy(update={"edition": 2}))
    assert second.id != first.id
    assert {e.user_id for e in second.examples} != {e.user_id for e in first.examples}
    both = {e.user_id for item in (first, second) for e in item.examples}
    assert held_out_users(store) == both


def test_who_refused_who_was_trained_on_and_what_is_flagged_is_not_asked_again(store):
    trained = {f"i{number}" for number in range(100)}
    withheld = {f"i{number}" for number in range(400, 800)}
    frozen = freeze(store, refusing=1, trained=trained, withheld=withheld)
    assert len(frozen.examples) > 45  # 60 wanted: half were refused, and more were drawn
    numbers = [int(e.prompt.split()[1].rstrip(",")) for e in frozen.examples]
    assert all(number % 2 == 0 for number in numbers)  # odd users refuse
    assert not set(numbers) & set(range(400, 800))
    assert all(number % USERS >= 100 for number in numbers)


def test_flagged_questions_are_drawn_where_that_is_asked_for(store):
    everything = {f"i{number}" for number in range(USERS * EACH)}
    with pytest.raises(WaitingError):
        freeze(store, withheld=everything)
    assert freeze(store, RULES.model_copy(update={"flagged": True}), withheld=everything).examples


def test_too_little_traffic_says_how_many_users_it_takes_and_freezes_nothing(store):
    with pytest.raises(WaitingError) as caught:
        freeze(store, SampleRules(), count=200)
    assert "at least 100 questions of at most 20% of users" in str(caught.value)
    told = re.search(r"that takes about (\d+) users", str(caught.value))
    assert told is not None
    # 100 questions, one each of 20 % of users: 500, and up to a whole user more in the draw
    assert int(told[1]) == pytest.approx(500, rel=0.03)
    assert caught.value.what == "traffic"
    assert questions_set(store, SampleRules()) is None


def test_the_same_question_is_asked_once_whoever_asks_it(store):
    store.add_interactions(
        [
            interaction(
                number, id=f"same{number}", messages=(Message(role="user", content="Hello?"),)
            )
            for number in range(USERS)
        ]
    )
    with pytest.raises(WaitingError, match="got 1 of 400 users"):
        drawn(store)


@pytest.mark.slow
def test_each_segment_and_each_half_of_the_time_has_its_share_and_each_user_the_same_chance():
    # systematic sampling: counts in any run of the order are within one of what is expected
    start = np.datetime64("2026-11-01")
    users = [
        UserTurns(f"u{n}", "shop" if n % 4 == 0 else "desk", start + np.timedelta64(n, "h"), (n,))
        for n in range(1_000)
    ]
    drawn_often: Counter[str] = Counter()
    for edition in range(1, 201):
        rules = SampleRules(examples=100, minimum=30, per_user=1, edition=edition)
        drawn = draw_users(users, rules, rules.examples)
        assert len(drawn) in (100, 101)
        assert abs(sum(one.segment == "shop" for one in drawn) - 25) <= 1
        assert abs(sum(one.first < users[500].first for one in drawn) - 50) <= 2
        drawn_often.update(one.user for one in drawn)
    # each is drawn with chance 0.1: of 200 editions 20, standard deviation 4.2
    assert max(drawn_often.values()) < 20 + 5 * 4.3
    assert min(drawn_often[one.user] for one in users) > 20 - 4.7 * 4.3


def test_no_more_than_their_share_of_users_is_held_out():
    start = np.datetime64("2026-11-01")
    users = [UserTurns(f"u{n}", "all", start, (n,)) for n in range(200)]
    assert len(draw_users(users, SampleRules(), 300)) in (40, 41)
    assert draw_users([], SampleRules(), 300) == []


def test_simulated_users_are_never_asked_for(store):
    with store.simulating():
        store.add_interactions(interaction(number) for number in range(USERS))
    with pytest.raises(WaitingError, match="got 0 of 0 users"):
        drawn(store)


def test_calls_are_kept_and_redacted_and_pictures_are_not_asked_about_again(store):
    talk = looked_up("question {}, I am ana@example.com", '{"at": "ana@example.com"}', at="a@b.c")

    def asked(number: int) -> tuple[Message, ...]:
        words = f"question {number}, I am ana{number}@example.com"
        if number % 3 == 0:
            return (with_picture(words),)
        return (*talk[:1], turn("user", words), *talk[2:4], turn("user", f"and {words}"))

    store.add_interactions(interaction(n, messages=asked(n)) for n in range(USERS * EACH))
    frozen = drawn(store)
    assert len(frozen.examples) >= RULES.minimum
    for example in frozen.examples:
        assert [one.role for one in example.messages][2:4] == ["assistant", "tool"]
        assert example.messages[0].text == "Mail help@example.com if in doubt."
        assert example.messages[2].tool_calls[0].arguments == {"at": "a at b.c"}
        assert "@" not in json.dumps([one.canonical() for one in example.messages[1:]])
