"""Items chosen by rule, pairs in the queue, and items taken out and brought back."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ratchet.errors import InvalidInputError
from ratchet.files.text import SPREADSHEET_MARK
from ratchet.judges.label_sheet import pair_name
from ratchet.judges.pair_labels import bare_pairs, waiting_sheets
from ratchet.records import (
    FEEDBACK,
    ComparedPair,
    Example,
    ExampleSet,
    Interaction,
    JudgeVerdict,
    LabelSheet,
    Message,
    PairLabel,
    ReviewItem,
    ToolCall,
)
from ratchet.records.conversations import CalledFunction
from ratchet.review.choosing import choose_items
from ratchet.review.deciding import decide
from ratchet.review.exchange import exported, import_known, import_labels, write_rows
from ratchet.review.policy import ReviewPolicy, load_policy
from ratchet.review.queue import open_items
from ratchet.review.showing import show_item
from ratchet.review.working import mine, next_work
from ratchet.store import EventStore

NOW = datetime(2026, 3, 2, 10, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)


@pytest.fixture
def store(open_store: Callable[[], EventStore]) -> EventStore:
    return open_store()


def answered(number: int, **more: Any) -> Interaction:
    fields: dict[str, Any] = {
        "id": f"i-{number}", "session_id": "s", "user_id": "u", "created_at": NOW,
        "model_version": "hidden/1", "response": f"Answer {number}.",
        "messages": (Message(role="user", content=f"Question {number}"),),
    }  # fmt: skip
    return Interaction.model_validate(fields | more)


def verdict(number: int, score: float | None, judge: str = "judge-1", **more: Any) -> JudgeVerdict:
    fields: dict[str, Any] = {
        "id": f"v-{judge}-{number}", "created_at": NOW, "judge": "judge", "judge_version": judge,
        "dimension": "helpfulness", "mode": "pointwise", "model": "m", "reply": "-",
        "prompt": (Message(role="user", content="?"),), "score": score,
        "outcome": None if score is None else str(1 + round(4 * score)), "item_id": f"i-{number}",
    }  # fmt: skip
    return JudgeVerdict.model_validate(fields | more)


def thumb(number: int, value: str) -> Any:
    return FEEDBACK.validate_python(
        {"id": f"t-{number}", "interaction_id": f"i-{number}", "created_at": NOW, "kind": "thumbs",
         "value": value}
    )  # fmt: skip


def policy(**queue: Any) -> ReviewPolicy:
    return ReviewPolicy.model_validate({"queues": [{"dimension": "helpfulness", **queue}]})


def chosen(store: EventStore) -> list[str]:
    return sorted(item.interaction_id for item in open_items(store))


def test_answers_on_which_judge_and_users_disagree_are_chosen_once(store: EventStore) -> None:
    store.add_interactions([answered(number) for number in range(5)])
    store.add_verdicts([verdict(n, score) for n, score in enumerate((1.0, 0.0, 1.0, 0.5))])
    store.add_feedback([thumb(0, "down"), thumb(1, "up"), thumb(2, "up"), thumb(3, "down")])
    rules = policy(rule="disagreement")
    assert choose_items(store, rules, sampled_from=(), now=NOW).new["disagreement"] == 2
    assert chosen(store) == ["i-0", "i-1"]
    assert choose_items(store, rules, sampled_from=(), now=LATER).new["disagreement"] == 0
    store.add_feedback([thumb(4, "down")])  # the verdict comes later than the thumb
    store.add_verdicts([verdict(4, 0.9)])
    assert choose_items(store, rules, sampled_from=(), now=LATER).new["disagreement"] == 1


def test_a_judge_that_is_unsure_sends_answers_to_people_up_to_a_days_limit(
    store: EventStore,
) -> None:
    store.add_interactions([answered(number) for number in range(5)])
    scores = (0.5, None, 1.0, 1.0, 0.0)
    store.add_verdicts([verdict(n, score) for n, score in enumerate(scores)])
    store.add_verdicts([verdict(3, 0.25, "judge-2")])
    told = choose_items(store, policy(rule="low_confidence", a_day=2), sampled_from=(), now=NOW)
    assert (told.new["low_confidence"], told.left_out) == (2, 1)
    assert len(set(chosen(store)) & {"i-0", "i-1", "i-3"}) == 2
    assert {item.why for item in open_items(store)} == {"chosen for a second look"}


def test_a_random_sample_of_a_rule_is_drawn_from_what_a_pass_looks_at(store: EventStore) -> None:
    store.add_interactions([answered(number) for number in range(30)])
    rules = policy(rule="sample", share=1.0, a_day=100)
    ids = [f"i-{number}" for number in range(30)]
    assert choose_items(store, rules, sampled_from=ids, now=NOW).new["sample"] == 30


def sheet(store: EventStore) -> LabelSheet:
    examples = [
        Example(id=f"e-{n}", messages=(Message(role="user", content=f"Ask {n}"),), target="-")
        for n in range(3)
    ]
    store.append(ExampleSet(id="set", created_at=NOW, name="golden", examples=tuple(examples)))
    record = LabelSheet(
        id="sheet", created_at=NOW, cycle_id="cycle", example_set_id="set", wanted=2,
        pairs=tuple(
            ComparedPair(example_id=f"e-{n}", first=f"new {n}", second=f"old {n}" if n else "new 0")
            for n in range(3)
        ),
    )  # fmt: skip
    store.append(record)
    return record


def test_pairs_that_a_gate_waits_for_are_compared_in_the_queue(store: EventStore) -> None:
    record = sheet(store)
    assert choose_items(store, ReviewPolicy(), sampled_from=(), now=NOW).new == {"pairs": 2}
    pairs = {pair_name(pair): pair for pair in bare_pairs(record)}
    for item in open_items(store):
        shown = show_item(store, item, ReviewPolicy())
        assert shown is not None
        assert len(shown.answers) == 2
        pair = pairs[item.interaction_id]
        place = {text: heading[-1] for heading, text in shown.answers}
        decide(store, item.id, place[pair.answer], reviewer="ana", now=LATER)  # the challenger's
    assert [label.winner for label in store.records(PairLabel)] == ["1", "1"]
    assert waiting_sheets(store) == []
    assert choose_items(store, ReviewPolicy(), sampled_from=(), now=LATER).new == {"pairs": 0}


def test_pairs_on_which_the_judge_keeps_to_a_place_come_first(store: EventStore) -> None:
    sheet(store)
    text = (Message(role="user", content="Ask 2: new 2 or old 2?"),)
    store.add_verdicts(
        [
            verdict(n, 1.0, mode="pairwise", item_id="e-2", prompt=text, outcome="A", id=f"p-{n}")
            for n in range(2)
        ]
    )
    choose_items(store, ReviewPolicy(), sampled_from=(), now=NOW)
    assert [item.queue for item in open_items(store)] == ["gate_borderline", "pairs"]


def ask(store: EventStore, *numbers: int) -> None:
    for number in numbers:
        store.append(
            ReviewItem(
                id=f"item-{number}", created_at=NOW, interaction_id=f"i-{number}",
                dimension="helpfulness", priority="normal", raised_by="sample", why="-",
            )
        )  # fmt: skip


def test_exported_items_hold_whole_conversations_and_no_version(
    store: EventStore, tmp_path: Path
) -> None:
    call = ToolCall(id="c", function=CalledFunction(name="find", arguments='{"card": 7}'))
    turns = (
        Message(role="user", content="Where is it?"),
        Message(role="assistant", content=None, tool_calls=(call,)),
        Message(role="tool", content="in the post", tool_call_id="c"),
    )
    store.add_interactions([answered(1, messages=turns)])
    ask(store, 1, 2)  # the second one is about what is not stored
    rows, gone = exported(store, open_items(store), ReviewPolicy())
    assert (len(rows), gone) == (1, 1)
    path = tmp_path / "items.jsonl"
    write_rows(path, rows)
    (row,) = map(json.loads, path.read_text("utf-8").splitlines())
    assert row["messages"][1]["tool_calls"][0]["function"]["name"] == "find"
    assert row["messages"][-1]["content"] == "Answer 1."
    assert (row["labels"], row["label"]) == (list("12345"), "")
    assert "hidden/1" not in path.read_text("utf-8")
    with pytest.raises(InvalidInputError, match="written once"):
        write_rows(path, rows)


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_labels_come_back_once_and_bad_rows_are_set_aside(
    store: EventStore, tmp_path: Path, suffix: str
) -> None:
    store.add_interactions([answered(number) for number in range(5)])
    ask(store, *range(5))
    path = tmp_path / f"items.{suffix}"
    rows, _ = exported(store, open_items(store), ReviewPolicy())
    filled = [
        rows[0] | {"label": "4", "note": "fine"},
        rows[1] | {"label": "splendid"},
        rows[2] | {"skip": "in Finnish"},
        rows[3],
        rows[4] | {"item": "nothing", "label": "4"},
    ]
    write_rows(path, filled)
    done = import_labels(store, path, reviewer="ana", policy=ReviewPolicy(), now=LATER)
    assert (done.new, done.repeated, done.skipped, done.open) == (1, 0, 1, 1)
    reasons = [row.reason for row in done.set_aside]
    assert "is decided as 1, 2, 3, 4, 5" in reasons[0]
    assert "an item must be named by its id" in reasons[1]
    again = import_labels(store, path, reviewer="ana", policy=ReviewPolicy(), now=LATER)
    assert (again.new, again.repeated) == (0, 1)


def test_a_sheet_of_the_queue_opens_in_a_spreadsheet(store: EventStore, tmp_path: Path) -> None:
    store.add_interactions([answered(0, response="=1+1")])
    ask(store, 0)
    rows, _ = exported(store, open_items(store), ReviewPolicy())
    write_rows(tmp_path / "items.csv", rows)
    text = (tmp_path / "items.csv").read_text("utf-8")
    assert text.startswith(SPREADSHEET_MARK)
    (row,) = csv.DictReader(text.removeprefix(SPREADSHEET_MARK).splitlines())
    assert not row["answer"].startswith("=")


def test_known_labels_are_brought_in_and_check_reviewers(store: EventStore, tmp_path: Path) -> None:
    store.add_interactions([answered(1)])
    path = tmp_path / "known.jsonl"
    lines = [
        {"interaction_id": "i-1", "dimension": "helpfulness", "label": "5"},
        {"interaction_id": "i-9", "dimension": "helpfulness", "label": "5"},
        {"interaction_id": "i-1", "dimension": "helpfulness", "label": "9"},
    ]
    path.write_text("\n".join(map(json.dumps, lines)), "utf-8")
    rules = ReviewPolicy(known_share=0.5)
    done = import_known(store, path, policy=rules, now=NOW)
    assert (done.new, len(done.set_aside)) == (1, 2)
    assert open_items(store) == ()
    (item,) = store.records(ReviewItem)
    decide(store, item.id, "4", reviewer="ana", now=NOW, policy=rules)
    assert (mine(store, "ana").checked, mine(store, "ana").share) == (1, 0.0)
    assert next_work(store, rules, reviewer="ana", now=NOW) is None


def test_a_policy_names_every_rule_that_its_file_breaks(tmp_path: Path) -> None:
    path = tmp_path / "review.yaml"
    path.write_text(
        "people: 0\ndimensions:\n  - {name: tone, question: How so, labels: [warm]}\n"
        "  - {name: harmlessness, labels: [yes_it_is, no_it_is_not]}\n",
        "utf-8",
    )
    with pytest.raises(InvalidInputError) as refused:
        load_policy(path)
    for place in ("people", "dimensions.0.labels", "dimensions.1.labels"):
        assert place in str(refused.value)
    path.write_text("reviewers: 2\n", "utf-8")
    with pytest.raises(InvalidInputError, match="got reviewers"):
        load_policy(path)
    path.write_text("queues:\n  - {rule: sample, dimension: tone, share: 0.1}\n", "utf-8")
    with pytest.raises(InvalidInputError, match="a queue must ask for a dimension among"):
        load_policy(path)
