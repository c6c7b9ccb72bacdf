"""What users write next counts only where people's labels show that it is read rightly."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from ratchet.collect.derived import derive_signals
from ratchet.errors import InvalidInputError
from ratchet.judges.judge import Judge, asker
from ratchet.judges.next_turn import (
    DISSATISFIED,
    RULES,
    in_words,
    read_by_judge,
    reads_next_turns,
    validate_next_turns,
)
from ratchet.judges.rubrics import JudgeSpec
from ratchet.judges.usable import usable_versions
from ratchet.models import ScriptedModel
from ratchet.records import HumanLabel, Interaction, Message
from ratchet.records.events import NextTurn
from ratchet.store import EventStore, Window
from ratchet.store.erasure import erase_interactions
from ratchet.store.next_turns import next_turns
from ratchet.store.vectors import text_key
from tests.collect.conversations import START, asked

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
ENGLISH, GERMAN = "next-turn-rules-1/en", "next-turn-rules-1/de"
ALL = Window(NOW - timedelta(days=1), NOW + timedelta(days=1))


def fill(store: EventStore, version: str, right: float, count: int = 80) -> None:
    """Store readings, every other one dissatisfied, of which people agree with a share."""
    for n in range(count):
        key, bad = f"{version}-{n}", n % 2 == 0
        row = {
            "id": key, "session_id": key, "user_id": "ana", "created_at": NOW,
            "model_version": "m/1", "messages": [{"role": "user", "content": "Hello?"}],
            "response": "Hi.",
        }  # fmt: skip
        store.add_interactions([Interaction.model_validate(row)])
        reading = NextTurn(
            id=f"r-{key}", interaction_id=key, created_at=NOW, value=2 if bad else 4,
            judge_version=version,
        )  # fmt: skip
        store.add_feedback([reading])
        agrees = n / count < right
        label = HumanLabel(
            id=f"l-{key}", created_at=NOW, item_id=key, dimension="dissatisfied",
            label="yes" if bad is agrees else "no", reviewer="ben",
        )  # fmt: skip
        store.append(label)


def shares(store: EventStore) -> set[float]:
    values = store.signals(ALL, lag=timedelta(hours=1), judges=usable_versions(store))["next_turn"]
    return {value for value in values.to_pylist() if value is not None}


def validate(store: EventStore) -> str:
    records = validate_next_turns(store, rng=np.random.default_rng(0), now=NOW)
    return in_words(records)


def test_readings_count_in_a_language_in_which_people_agree_with_them(store: EventStore) -> None:
    fill(store, ENGLISH, right=0.99)
    assert shares(store) == set()
    assert validate(store) == f"of what users write next {ENGLISH} counts"
    assert shares(store) == {2.0, 4.0}


def test_each_language_is_validated_by_itself(store: EventStore) -> None:
    fill(store, ENGLISH, right=0.99)
    fill(store, GERMAN, right=0.5)
    words = validate(store)
    assert words.startswith(f"of what users write next {ENGLISH} counts: {GERMAN} (")
    assert usable_versions(store) == {ENGLISH}


def test_without_labels_nothing_counts_and_the_way_out_is_said(store: EventStore) -> None:
    assert validate(store).endswith(
        "nothing counts: label answers on dissatisfied with `ratchet judge label`"
    )


def test_the_same_labels_are_decided_once(store: EventStore) -> None:
    fill(store, ENGLISH, right=0.99)
    first, second = (
        validate_next_turns(store, rng=np.random.default_rng(0), now=NOW + timedelta(days=day))
        for day in range(2)
    )
    assert first == second
    assert first[0].items == 80
    assert first[0].figure("kappa") is not None


@pytest.mark.parametrize("label", ["yes", "no"])
def test_labels_of_other_dimensions_say_nothing(store: EventStore, label: str) -> None:
    other = HumanLabel(
        id="l", created_at=NOW, item_id="a", dimension="tone", label=label, reviewer="ben"
    )
    store.append(other)
    assert validate_next_turns(store, rng=np.random.default_rng(0), now=NOW) == ()


YES_NO = JudgeSpec(name="next-judge", dimension=DISSATISFIED, local="smollm2", explain=False)


def grumbles(conversation: Sequence[Message]) -> str:
    """Answer as a judge that finds the user's next turn in what it is shown."""
    return "yes" if "hmpf" in conversation[-1].text else "no"


def test_a_judge_sees_what_the_user_wrote_next_and_counts_once_people_agree(
    store: EventStore,
) -> None:
    for n in range(80):
        words = f"hmpf, you again {n}" if n % 2 else f"and what about the second one {n}"
        said = ("what is it called?", f"it is number {n}", words)
        store.add_interactions(
            [
                asked(f"a{n}", said[0], answer=said[1], session=f"s{n}"),
                asked(f"b{n}", *said, at=1.0, session=f"s{n}"),
            ]
        )
        label = "yes" if n % 2 else "no"
        store.append(
            HumanLabel(
                id=f"l{n}", created_at=START, item_id=f"a{n}", dimension="dissatisfied",
                label=label, reviewer="ben",
            )
        )  # fmt: skip
    derive_signals(store, now=START + timedelta(hours=2))
    judge = Judge(YES_NO, model_digest="m")
    ask = asker(YES_NO, ScriptedModel(grumbles))

    def read() -> int:
        return read_by_judge(store, judge, ALL, most=10, ask=ask, now=lambda: NOW)

    assert reads_next_turns(YES_NO)
    assert (read(), read()) == (80, 0)
    assert f"{judge.version}/en counts" in validate(store)
    assert usable_versions(store) == {f"{judge.version}/en"}  # the rules know no "hmpf"


def test_a_judge_of_next_turns_with_another_menu_is_refused() -> None:
    options = [
        {"name": name, "score": score, "means": name} for name, score in (("a", 0), ("b", 1))
    ]
    other = DISSATISFIED.model_validate(DISSATISFIED.model_dump() | {"options": options})
    with pytest.raises(InvalidInputError, match="with the options yes and no"):
        reads_next_turns(YES_NO.model_copy(update={"dimension": other}))


def test_a_judge_of_sessions_cannot_read_next_turns() -> None:
    of_sessions = YES_NO.model_copy(update={"unit": "session"})
    with pytest.raises(InvalidInputError, match=r"pointwise, of answers, .* of sessions, with"):
        reads_next_turns(of_sessions)


def test_what_was_erased_was_followed_by_nothing(store: EventStore) -> None:
    store.add_interactions(
        [
            asked("a", "hi", answer="hello", session="s"),
            asked("b", "hi", "hello", "no, I meant Ana", session="s", at=1.0),
        ]
    )
    derive_signals(store, now=NOW)
    assert [row.next_id for row in next_turns(store, ["a"], reader=RULES)] == ["b"]
    erase_interactions(store, ["a", "b"], now=NOW, text_key=text_key)
    assert next_turns(store, ["a"], reader=RULES) == []
