"""Versions of the golden set: out of what people said, held out by user, time and text."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest

from ratchet.analyze.failures.embedding import text_key
from ratchet.errors import WaitingError
from ratchet.evaluation.example_files import read_examples
from ratchet.golden.building import draw, from_file
from ratchet.golden.rules import GoldenRules
from ratchet.golden.versions import (
    changes,
    content_digest,
    decision_note,
    frozen_examples,
    golden_version,
    golden_versions,
    lines_of,
)
from ratchet.improve.curation.dataset import write_prepared
from ratchet.records import ExampleSet, Message, SafetyViolation, Thumbs, user_digest
from ratchet.store import EventStore
from ratchet.store.cycles import held_out_users
from ratchet.store.forget import forget
from tests.golden_set.said import (
    LABELS,
    NO_HISTORY,
    SAID,
    approve,
    asked,
    build,
    confirm,
    correct,
    prompt,
)
from tests.improve.curation.curated_home import curated

RULES = GoldenRules(examples=60, minimum=20, user_share=0.5, new=5)
"""Half of the users may be held out, so that small stores have enough."""
NUMBER = {prompt(number): number for number in range(1_000)}
WEEK = timedelta(days=8)


def numbers(frozen: ExampleSet) -> list[int]:
    return [NUMBER[example.prompt] for example in frozen.examples]


def made(store: EventStore, home: Path, rules: GoldenRules = RULES) -> ExampleSet:
    version = build(store, home, rules)
    assert version is not None
    return frozen_examples(store, version)


def left_out(store: EventStore, home: Path, rules: GoldenRules = RULES) -> Counter[str]:
    return draw(store, home, NO_HISTORY, rules, latest=None).set_aside


def test_approved_answers_confirmed_corrections_and_labels_are_the_right_answers(store, tmp_path):
    store.add_interactions(asked(number) for number in range(120))
    approve(store, range(40))
    for number in range(40, 80):
        correct(store, number, f"right {number}")
        confirm(store, number)
    approve(store, range(80, 120), dimension="queue", label="Returns")
    rules = RULES.model_copy(update={"answer_dimension": "queue"})
    version = build(store, tmp_path, rules)
    assert version is not None
    frozen = frozen_examples(store, version)
    assert len(frozen.examples) == version.examples >= 40  # about half of 120 users
    for example in frozen.examples:
        number = NUMBER[example.prompt]
        expected = LABELS[number % 3] if number < 40 else f"right {number}"
        assert example.target == (expected if number < 80 else "Returns")
        assert example.user_id == user_digest(f"u{number}")
    by_source = Counter(min(number // 40, 2) for number in numbers(frozen))
    assert dict(version.sources) == {
        "approval": by_source[0], "correction": by_source[1], "label": by_source[2],
    }  # fmt: skip
    assert held_out_users(store) == {example.user_id for example in frozen.examples}


def test_a_users_correction_counts_once_a_person_confirmed_it_or_where_all_do(store, tmp_path):
    store.add_interactions(asked(number) for number in range(80))
    for number in range(80):
        correct(store, number, LABELS[number % 3])
    assert build(store, tmp_path, RULES) is None
    given = RULES.model_copy(update={"corrections": "given"})
    frozen = made(store, tmp_path, given)
    assert {example.target for example in frozen.examples} == set(LABELS)
    later = SAID + WEEK
    # what the version before had heard is not drawn again
    assert build(store, tmp_path, given, later) is None


@pytest.mark.parametrize(("people", "examples"), [(1, True), (2, False)])
def test_a_correction_is_right_once_as_many_people_confirmed_it_as_it_takes(
    store, tmp_path, people, examples
):
    store.add_interactions(asked(number) for number in range(80))
    for number in range(80):
        correct(store, number, LABELS[number % 3])
        confirm(store, number, people=people)
    assert (build(store, tmp_path, RULES) is not None) == examples


def test_where_people_disagree_nothing_is_right(store, tmp_path):
    same = (Message(role="user", content="Where is my parcel now?"),)
    store.add_interactions(
        asked(number, **({"messages": same} if number in (1, 2) else {})) for number in range(10)
    )
    approve(store, range(10))
    approve(store, [0], label="bad", reviewer="bob")  # of two reviewers one
    approve(store, [3], label="poor", dimension="tone")  # on another dimension
    drawn = draw(store, tmp_path, NO_HISTORY, RULES, latest=None)
    assert not {one.interaction.id for one in drawn.right} & {"i0", "i1", "i2", "i3"}
    assert drawn.set_aside["people disagree about the answer"] == 1
    assert drawn.set_aside["right answers to one question differ"] == 2  # Returns and Delivery


def test_a_label_that_says_the_user_was_dissatisfied_approves_nothing(store, tmp_path):
    store.add_interactions(asked(number) for number in range(40))
    approve(store, range(40), dimension="dissatisfied", label="yes")
    assert draw(store, tmp_path, NO_HISTORY, RULES, latest=None).right == ()


def test_what_is_unsafe_refused_failed_or_of_simulated_users_is_left_out_and_counted(
    store, tmp_path
):
    with store.simulating():
        store.add_interactions(asked(number) for number in range(5))
    refused = {"metadata": {"training_consent": "no"}}
    store.add_interactions(asked(number, **refused) for number in range(5, 10))
    store.add_interactions(asked(number, error="down", response="") for number in range(10, 15))
    store.add_interactions(asked(number) for number in range(15, 25))
    flagged = [
        SafetyViolation(
            id=f"v{number}", interaction_id=f"i{number}", created_at=SAID, value=True, source="rule"
        )
        for number in range(15, 20)
    ]
    store.add_feedback(flagged)
    approve(store, range(25))
    drawn = draw(store, tmp_path, NO_HISTORY, RULES, latest=None)
    assert {int(one.interaction.id[1:]) for one in drawn.right} <= set(range(20, 25))
    counts = drawn.set_aside
    assert counts["not stored any more, or of simulated users"] == 5
    assert counts["its user refuses, or lets it be kept for a time only"] == 5
    assert counts["flagged as unsafe, or found so"] == 5
    assert counts["the answer failed"] == 5


def test_personal_data_is_taken_out_of_questions_and_answers(store, tmp_path):
    def mail(number: int) -> str:
        return f"{prompt(number)} ana{number}@example.com"

    store.add_interactions(
        asked(
            number,
            messages=(Message(role="user", content=mail(number)),),
            response=f"Write to desk{number}@example.com, {prompt(number + 300)}",
        )
        for number in range(80)
    )
    approve(store, range(80))
    frozen = made(store, tmp_path)
    assert frozen.examples
    assert not [one for one in frozen.examples if "@example" in one.prompt + (one.target or "")]


def test_nothing_of_a_version_is_in_a_training_set_made_later(store, tmp_path):
    store.add_interactions(asked(number, response=f"answer {number}") for number in range(200))
    store.add_feedback(
        Thumbs(id=f"t{n}", interaction_id=f"i{n}", created_at=SAID, value="up") for n in range(200)
    )
    before = {row.interaction_id for row in curated(store, tmp_path).required().rows}
    approve(store, range(200))
    frozen = made(store, tmp_path)
    held = {f"i{number}" for number in numbers(frozen)}
    assert held & before, "they would be trained on if they were not held out"
    after = {row.interaction_id for row in curated(store, tmp_path).required().rows}
    assert after
    assert not after & held


def test_a_version_leaves_out_whom_and_what_earlier_training_sets_hold(store, tmp_path):
    """By user, by text and by time: each is tried alone."""
    store.add_interactions(asked(number, response=f"answer {number}") for number in range(60))
    store.add_feedback(
        Thumbs(id=f"t{n}", interaction_id=f"i{n}", created_at=SAID, value="up") for n in range(60)
    )
    prepared = curated(store, tmp_path).required()
    written = write_prepared(prepared, home=tmp_path, cycle_id="none", now=SAID)
    store.append(written)
    trained = {int(row.interaction_id[1:]) for row in prepared.rows}
    assert len(trained) > 40
    late = SAID + WEEK
    # the same users with new questions, and other users with the same questions
    store.add_interactions(
        asked(200 + number, user_id=f"u{number}", created_at=late) for number in sorted(trained)
    )
    store.add_interactions(
        asked(
            400 + number,
            created_at=late,
            messages=(Message(role="user", content=prompt(number).upper() + "!"),),
        )
        for number in sorted(trained)
    )
    store.add_interactions(asked(600 + number, created_at=late) for number in range(80))
    approve(store, range(600, 640), SAID - timedelta(days=1))
    approve(store, [200 + n for n in sorted(trained)], late)
    approve(store, [400 + n for n in sorted(trained)], late)
    approve(store, range(640, 680), late)
    drawn = draw(store, tmp_path, NO_HISTORY, RULES, latest=None)
    found = {int(one.interaction.id[1:]) for one in drawn.right}
    assert found
    assert found <= set(range(640, 680))
    assert drawn.said_after == SAID
    assert drawn.set_aside["said before the end of what was trained on"] == 40
    assert drawn.set_aside["its user was trained on"] == len(trained)
    assert drawn.set_aside["close to what was trained on"] > 0


def test_a_version_is_due_by_the_rule_and_keeps_what_the_one_before_has(store, tmp_path):
    store.add_interactions(asked(number) for number in range(100))
    approve(store, range(60))
    first = made(store, tmp_path)
    approve(store, range(60, 100), SAID + timedelta(days=1))
    assert build(store, tmp_path, RULES, SAID + timedelta(days=6)) is None  # 7 days are needed
    many = RULES.model_copy(update={"new": 50})
    assert build(store, tmp_path, many, SAID + WEEK) is None  # 40 users, half of them held out
    version = build(store, tmp_path, RULES, SAID + WEEK)
    assert version is not None
    second = frozen_examples(store, version)
    assert (version.number, version.kept) == (2, len(first.examples))
    assert second.examples[: version.kept] == first.examples
    assert version.added == len(second.examples) - version.kept >= 5
    assert set(numbers(second)[version.kept :]) <= set(range(60, 100))
    assert frozen_examples(store, golden_version(store, 1)) == first  # stays answerable
    assert changes(first, second).shared == len(first.examples)
    assert "version 2" in decision_note(store, second.id)[0]
    assert decision_note(store, "held-out-1") == ()


def test_the_oldest_examples_make_room_and_a_new_right_answer_replaces_the_old_one(store, tmp_path):
    rules = RULES.model_copy(update={"examples": 20})
    store.add_interactions(asked(number) for number in range(200))
    approve(store, range(100))
    first = made(store, tmp_path, rules)
    assert len(first.examples) == 20
    again = numbers(first)[-1]
    correct(store, again, "Something else", SAID + timedelta(days=2))
    confirm(store, again, SAID + timedelta(days=2))
    approve(store, range(100, 112), SAID + timedelta(days=3))
    version = build(store, tmp_path, rules, SAID + WEEK)
    assert version is not None
    second = frozen_examples(store, version)
    assert len(second.examples) == 20
    differs = changes(first, second)
    assert differs.answered_anew == 1
    assert differs.retired == differs.added == version.added - 1
    targets = {NUMBER[example.prompt]: example.target for example in second.examples}
    assert targets[again] == "Something else"
    oldest = numbers(first)[: differs.retired]
    assert not set(oldest) & set(targets)


def test_one_user_gives_few_examples_and_a_near_duplicate_none(store, tmp_path):
    store.add_interactions(asked(number, user_id="one") for number in range(30))
    store.add_interactions(
        asked(
            number,
            messages=(Message(role="user", content=f"{prompt(900)} please, number {number}"),),
            response="Billing",
        )
        for number in range(30, 60)
    )
    approve(store, range(60))
    everybody = GoldenRules(examples=60, minimum=20, user_share=0.5, per_user=3)
    drawn = draw(store, tmp_path, NO_HISTORY, everybody, latest=None)
    of_one = [one for one in drawn.right if one.interaction.user_id == "one"]
    assert len(of_one) in (0, 3)  # by the side of the split that the user is on
    others = [one for one in drawn.right if one.interaction.user_id != "one"]
    assert len(others) == 1
    assert drawn.set_aside["a near duplicate"] >= 5  # of about half of thirty users


def test_a_person_who_asks_is_told_what_is_missing(store, tmp_path):
    store.add_interactions(asked(number) for number in range(10))
    approve(store, range(10))
    with pytest.raises(
        WaitingError, match=r"needs 20 examples .*; decide more in `ratchet review`"
    ):
        build(store, tmp_path, RULES, asked=True)
    assert golden_versions(store) == ()


def test_a_forgotten_user_is_in_no_version(store, tmp_path):
    store.add_interactions(asked(number) for number in range(100))
    approve(store, range(100))
    frozen = made(store, tmp_path)
    gone = numbers(frozen)[0]
    forget(store, tmp_path, f"u{gone}", now=SAID, text_key=text_key)
    version = golden_version(store)
    left = frozen_examples(store, version)
    assert len(left.examples) == version.examples - 1
    assert prompt(gone) not in {example.prompt for example in left.examples}
    assert content_digest(left.examples) != version.digest


def test_a_file_can_be_given_and_a_version_is_written_as_one(store, tmp_path):
    store.add_interactions(asked(number) for number in range(100))
    approve(store, range(100))
    frozen = made(store, tmp_path)
    path = tmp_path / "golden.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines_of(frozen)))
    assert read_examples(path) == frozen.examples
    path.write_text("".join(f"{line}\n" for line in list(lines_of(frozen))[5:]))
    given = from_file(store, path, now=SAID + WEEK, open_tokens=64)
    assert (given.number, given.origin, given.retired) == (2, "file", 5)
    assert from_file(store, path, now=SAID + 2 * WEEK, open_tokens=64) == given
