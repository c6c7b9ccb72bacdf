"""Corrections in words: candidates for people, and rows of training sets once they confirm."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ratchet.collect.derived import derive_signals
from ratchet.errors import InvalidInputError
from ratchet.improve.curation.config import CurationConfig
from ratchet.improve.curation.curating import Asked, CurateOptions, Known, curate
from ratchet.improve.curation.rows import RowKind
from ratchet.records import FEEDBACK, Interaction, ReviewItem
from ratchet.review import corrections
from ratchet.review.corrections import (
    counts_in_words,
    interactions_about,
    queue_corrections,
    shown,
)
from ratchet.review.queue import decide, open_items, queue_flags
from ratchet.review.sheet import keep_decisions, review_sheet
from ratchet.safety.rules import Flag
from ratchet.store import EventStore
from ratchet.store.forget import forget
from ratchet.store.history import History
from tests.cli.in_process import run_in_process
from tests.collect.conversations import START, asked
from tests.improve.curation.worlds import vectors

NOW = START + timedelta(hours=2)
QUESTION, WRONG = "Where is my order?", "Orders are listed under Billing."
MEANT, RIGHT = "No, I meant the refund of it", "The refund is on its way since Monday."
THANKS = "Thank you!"
CALL = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"id": 7}'}}


def talk(
    name: str = "", then: str | None = THANKS, user: str = "ana", **second: Any
) -> list[Interaction]:
    """Return a conversation in which the user corrects an answer and says something of the next."""
    keys = [f"{name}{place}" for place in ("first", "second", "third")]
    session = f"s{name}"
    turns = (QUESTION, WRONG, MEANT, RIGHT)
    said = [
        asked(keys[0], QUESTION, answer=WRONG, session=session, user=user),
        asked(keys[1], *turns[:3], answer=RIGHT, at=1.0, session=session, user=user, **second),
    ]
    if then is not None:
        said.append(asked(keys[2], *turns, then, at=2.0, session=session, user=user))
    return said


def derived(store: EventStore, *talks: Sequence[Interaction]) -> None:
    for one in talks:
        store.add_interactions(one)
    derive_signals(store, now=NOW)


def candidates(store: EventStore, *talks: Sequence[Interaction]) -> tuple[ReviewItem, ...]:
    derived(store, *talks)
    queue_corrections(store, now=NOW)
    return open_items(store)


def feedback(store: EventStore, about: str, kind: str, value: Any) -> None:
    event = {"id": f"{kind}-{about}", "interaction_id": about, "kind": kind, "value": value}
    store.add_feedback([FEEDBACK.validate_python({**event, "created_at": NOW})])


def learnt(store: EventStore) -> list[str]:
    """Return what training sets are made from: the corrections of the first answer, the latest."""
    found = [row for row in store.feedback_about(["first"]) if row.kind == "correction"]
    found.sort(key=lambda row: row.updated_at or row.created_at)
    return [row.text for row in found if row.text][-1:]


def rows(store: EventStore, kind: RowKind, folder: Path) -> list[Any]:
    options = CurateOptions(curation=CurationConfig(minimum_examples=1, validation_share=0.0))
    known = Known(judges=(), withheld=(), vectors=vectors)
    found = curate(
        store, History.open(folder), Asked(kind, NOW + timedelta(days=1), options), known
    )
    return list(found.prepared.rows) if found.prepared else []


def test_an_unconfirmed_candidate_is_no_row_and_a_confirmed_one_is_by_sft_and_dpo(
    store: EventStore, tmp_path: Path
) -> None:
    (item,) = candidates(store, talk())
    assert (item.interaction_id, item.other_id) == ("first", "second")
    assert rows(store, "sft", tmp_path / "history") == []
    assert rows(store, "dpo", tmp_path / "history") == []
    decide(store, item.id, "confirmed", reviewer="ben", now=NOW)
    (demonstration,) = rows(store, "sft", tmp_path / "history")
    (pair,) = rows(store, "dpo", tmp_path / "history")
    assert (demonstration.interaction_id, demonstration.target) == ("first", RIGHT)
    assert [turn.text for turn in demonstration.messages if turn.role == "user"] == [QUESTION]
    assert (pair.interaction_id, pair.chosen, pair.rejected) == ("first", RIGHT, WRONG)
    assert open_items(store) == ()


def test_what_is_rejected_is_no_row(store: EventStore) -> None:
    (item,) = candidates(store, talk())
    decide(store, item.id, "rejected", reviewer="ben", now=NOW)
    assert learnt(store) == []


def test_a_reviewer_may_write_the_right_answer_and_another_one_a_better(
    store: EventStore, tmp_path: Path
) -> None:
    (item,) = candidates(store, talk())
    decide(store, item.id, "confirmed", reviewer="ben", now=NOW, answer="On its way.")
    first = learnt(store)
    later = NOW + timedelta(minutes=1)
    decide(store, item.id, "confirmed", reviewer="cleo", now=later, answer="It left on Monday.")
    assert (first, learnt(store)) == (["On its way."], ["It left on Monday."])
    assert [row.target for row in rows(store, "sft", tmp_path / "h")] == ["It left on Monday."]
    with pytest.raises(InvalidInputError, match="confirm again with the right answer"):
        decide(store, item.id, "rejected", reviewer="dora", now=later)


@pytest.mark.parametrize(
    "then", [None, "That is wrong", "No, I meant the invoice of it", MEANT, "No, I mean this one"]
)
def test_an_answer_that_was_left_or_corrected_again_is_no_candidate(
    store: EventStore, then: str | None
) -> None:
    assert candidates(store, talk(then=then)) == ()


@pytest.mark.parametrize(
    ("kind", "value", "is_candidate"),
    [("thumbs", "up", True), ("thumbs", "down", False), ("stars", 5, True), ("stars", 3, False)],
)
def test_a_rating_that_comes_later_decides(
    store: EventStore, kind: str, value: Any, is_candidate: bool
) -> None:
    assert candidates(store, talk(then=None)) == ()
    feedback(store, "second", kind, value)
    queue_corrections(store, now=NOW)
    assert bool(open_items(store)) is is_candidate


def test_a_bad_rating_outweighs_that_the_user_went_on(store: EventStore) -> None:
    store.add_interactions(talk())
    feedback(store, "second", "thumbs", "down")
    assert candidates(store, []) == ()


def test_a_turn_that_moves_on_is_no_correction_of_the_answer_before(store: EventStore) -> None:
    said = [
        asked("first", QUESTION, answer=WRONG),
        asked("second", QUESTION, WRONG, "And my invoice?", answer=RIGHT, at=1.0),
        asked("third", QUESTION, WRONG, "And my invoice?", RIGHT, THANKS, at=2.0),
    ]
    assert candidates(store, said) == ()


def test_each_is_queued_once_however_often_and_late_it_is_looked_at(
    open_store: Callable[[], EventStore],
) -> None:
    store = open_store()
    derived(store, talk())
    assert queue_corrections(store, now=NOW).queued == 1
    assert queue_corrections(store, now=NOW).queued == 0
    feedback(store, "second", "thumbs", "up")
    assert queue_corrections(store, now=NOW).queued == 0
    assert len(open_items(store)) == 1


def test_one_user_cannot_fill_the_queue(store: EventStore) -> None:
    store.add_interactions([one for number in range(8) for one in talk(f"n{number}-")])
    store.add_interactions(talk("other-", user="ben"))
    derive_signals(store, now=NOW)
    report = queue_corrections(store, now=NOW)
    assert (report.queued, report.left_out) == (corrections.A_USER + 1, 8 - corrections.A_USER)
    assert "3 left out" in report.in_words


@pytest.mark.parametrize(
    "metadata",
    [
        {"training_consent": "no"},
        {"retain_until": "2026-01-01T00:00:00Z"},
        {"retain_until": "2027-01-01T00:00:00Z"},  # the first answer may be kept for good
    ],
)
def test_an_answer_whose_user_forbids_it_is_no_candidate(
    store: EventStore, metadata: dict[str, str]
) -> None:
    assert candidates(store, talk(metadata=metadata)) == ()


def test_an_unsafe_answer_cannot_be_confirmed_but_by_the_reviewers_own_words(
    store: EventStore,
) -> None:
    (item,) = candidates(store, talk())
    queue_flags(store, [Flag("rule", "second", "privacy", "a card")], now=NOW)
    with pytest.raises(InvalidInputError, match="must be safe"):
        decide(store, item.id, "confirmed", reviewer="ben", now=NOW)
    assert learnt(store) == []
    decide(store, item.id, "confirmed", reviewer="ben", now=NOW, answer="On its way.")
    assert learnt(store) == ["On its way."]


def test_a_user_who_is_forgotten_takes_a_confirmed_correction_along(
    store: EventStore, tmp_path: Path
) -> None:
    (item,) = candidates(store, talk())
    decide(store, item.id, "confirmed", reviewer="ben", now=NOW, answer="It left on Monday, ana.")
    forget(store, tmp_path, "ana", now=NOW, text_key=str)
    assert rows(store, "sft", tmp_path / "h") == []
    assert learnt(store) == ["[erased]"]
    assert queue_corrections(store, now=NOW).queued == 0


def test_both_turns_are_shown_as_people_read_them(store: EventStore) -> None:
    called = asked(
        "second", QUESTION, WRONG, MEANT, answer="", at=1.0, session="s", tool_calls=[CALL]
    )
    first, _, _ = talk()
    derived(store, [first.model_copy(update={"session_id": "s"}), called])
    feedback(store, "second", "thumbs", "up")
    queue_corrections(store, now=NOW)
    (item,) = open_items(store)
    assert shown(item, interactions_about(store, [item])) == [
        ("user", QUESTION), ("answer", WRONG), ("then", MEANT), ("second", "calls find(id=7)"),
    ]  # fmt: skip


def test_a_sheet_shows_both_answers_and_brings_back_the_right_one(
    store: EventStore, tmp_path: Path
) -> None:
    items = candidates(store, talk())
    text, gone = review_sheet(items, interactions_about(store, items))
    (row,) = csv.DictReader(io.StringIO(text.removeprefix("\ufeff")))
    asked_at = "system: You are asked at 0.0.\n"
    said = f"user: {QUESTION}\nassistant: {WRONG}\nuser: {MEANT}"
    assert (gone, row["prompt"], row["answer"]) == (0, asked_at + said, RIGHT)
    path = tmp_path / "sheet.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerow(row | {"label": "confirmed", "right_answer": "On its way."})
    kept = keep_decisions(store, path, reviewer="ben", now=NOW)
    assert (kept.new, kept.set_aside) == (1, ())
    assert learnt(store) == ["On its way."]


def test_a_sheet_leaves_out_what_is_no_longer_stored(store: EventStore) -> None:
    items = candidates(store, talk())
    known = interactions_about(store, items)
    assert review_sheet(items, {"first": known["first"]})[1] == 1


def test_the_command_lists_both_answers_and_takes_the_decision(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    store = EventStore.open(f"sqlite:///{home / 'store.db'}")
    (item,) = candidates(store, talk())

    def review(*words: str) -> str:
        done = run_in_process(
            "review", *words, folder=tmp_path, environment={"RATCHET_HOME": str(home)}
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    listed = review()
    assert "of these 1 correction in words" in listed
    for line in (f"user:   {QUESTION}", f"answer: {WRONG}", f"then:   {MEANT}", f"second: {RIGHT}"):
        assert line in listed
    decided = review("--decide", item.id[:8], "--label", "confirmed", "--by", "ben")
    assert "is decided as confirmed by ben" in decided
    assert review() == "nothing waits for review\n"
    assert counts_in_words(store) == (
        "corrections in words: 0 wait for a person, 1 confirmed, 0 rejected"
    )
    store.close()


@pytest.mark.parametrize(
    ("label", "answer", "why"),
    [("fine", None, "confirmed or rejected"), ("rejected", "x", "come with the label confirmed")],
)
def test_a_decision_that_says_nothing_clear_is_refused(
    store: EventStore, label: str, answer: str | None, why: str
) -> None:
    (item,) = candidates(store, talk())
    with pytest.raises(InvalidInputError, match=why):
        decide(store, item.id, label, reviewer="ben", now=NOW, answer=answer)
    assert open_items(store) == (item,)
