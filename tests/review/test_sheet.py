"""What waits for review on a sheet, and the decisions that come back on it."""

import csv
import io
from datetime import UTC, datetime, timedelta

import pytest

from ratchet.errors import InvalidInputError
from ratchet.records import Interaction, Message, ReviewDecision, ReviewItem
from ratchet.review.queue import open_items, queue_flags
from ratchet.review.sheet import keep_decisions, review_sheet
from ratchet.safety.rules import Flag
from ratchet.store import EventStore
from tests.calls import looked_up

NOW = datetime(2026, 12, 1, 9, tzinfo=UTC)
COUNT = 6


def answer(number):
    return Interaction(
        id=f"i{number}",
        session_id="s",
        user_id="u",
        created_at=NOW - timedelta(hours=1),
        model_version="support/3",
        messages=(Message(role="user", content=f"=HYPERLINK({number})"),),
        response=f"'tis answer {number}",
    )


@pytest.fixture
def store(tmp_path):
    store = EventStore.open(f"sqlite:///{tmp_path}/store.db")
    store.add_interactions([answer(number) for number in range(COUNT)])
    flags = [Flag("rule", f"i{number}", "word", "it names a drug") for number in range(COUNT)]
    queue_flags(store, flags, now=NOW)
    yield store
    store.close()


def written(store, path, label):
    items = open_items(store)
    known = store.stored_interactions([item.interaction_id for item in items])
    text, unknown = review_sheet(items, known)
    assert unknown == 0
    rows = list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"))))
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        for place, row in enumerate(rows):
            writer.writerow(row | {"label": label(place), "note": "=1+1"})
    return rows


def test_a_sheet_shows_what_is_asked_names_no_version_and_runs_no_formula(store, tmp_path):
    rows = written(store, tmp_path / "sheet.csv", lambda _place: "")
    assert len(rows) == COUNT
    assert all("support/3" not in cell for row in rows for cell in row.values())
    assert {row["prompt"] for row in rows} == {f"user: =HYPERLINK({n})" for n in range(COUNT)}
    assert all(row["answer"].startswith("''tis") for row in rows)  # read back as 'tis


def test_decisions_come_back_once_and_open_rows_wait_on(store, tmp_path):
    path = tmp_path / "sheet.csv"
    labels = ["Violation", "fine", "", "", "fine", ""]
    written(store, path, lambda place: labels[place])
    kept = keep_decisions(store, path, reviewer="ana", now=NOW)
    assert (kept.new, kept.repeated, kept.open, kept.set_aside) == (3, 0, 3, ())
    assert len(open_items(store)) == 3
    decisions = store.records(ReviewDecision)
    assert sorted(one.label for one in decisions) == ["fine", "fine", "violation"]
    assert {(one.reviewer, one.note) for one in decisions} == {("ana", "=1+1")}
    again = keep_decisions(store, path, reviewer="ana", now=NOW)
    assert (again.new, again.repeated, again.open) == (0, 3, 3)


def test_rows_that_cannot_be_used_have_each_their_reason(store, tmp_path):
    path = tmp_path / "sheet.csv"
    written(store, path, lambda place: ["fine", "perhaps"][place % 2] if place < 2 else "")
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    path.write_text("\n".join([*lines, lines[1], "3f9a,,,,,fine,,"]) + "\n", encoding="utf-8")
    kept = keep_decisions(store, path, reviewer="ana", now=NOW)
    assert kept.new == 1
    word, twice, unknown = [row.reason for row in kept.set_aside]
    assert word == "safety is decided as violation or fine, got 'perhaps'; take one of them"
    assert twice.endswith("is there before; each is decided once on a sheet")
    assert unknown.startswith("item must be one that waits for review in this store, got '3f9a'")
    written(store, path, lambda _place: "")
    changed = path.read_text(encoding="utf-8-sig").replace("label", "verdict")
    path.write_text(changed, encoding="utf-8")
    with pytest.raises(InvalidInputError, match="none named label"):
        keep_decisions(store, path, reviewer="ana", now=NOW)


def test_another_persons_word_on_a_decided_item_is_kept_and_a_change_of_mind_is_told(
    store, tmp_path
):
    path = tmp_path / "sheet.csv"
    written(store, path, lambda _place: "fine")
    assert keep_decisions(store, path, reviewer="ana", now=NOW).new == COUNT
    assert keep_decisions(store, path, reviewer="ben", now=NOW).new == COUNT
    text = path.read_text(encoding="utf-8-sig").replace(",fine,", ",violation,")
    path.write_text(text, encoding="utf-8")
    kept = keep_decisions(store, path, reviewer="ana", now=NOW)
    assert kept.new == 0
    assert len(kept.set_aside) == COUNT
    assert "got a second decision by 'ana', who said 'fine'" in kept.set_aside[0].reason


def test_a_sheet_shows_calls_and_results_as_people_read_them():
    talk = looked_up("Who?", '{"name": "Ana"}', name="Ana")
    about = answer(0).model_copy(update={"messages": talk})
    item = ReviewItem(
        id="r", created_at=NOW, interaction_id="i0", dimension="safety", priority="normal",
        why="a rule", raised_by="rule",
    )  # fmt: skip
    text, _ = review_sheet([item], {"i0": about})
    (row,) = csv.DictReader(io.StringIO(text.removeprefix("\ufeff")))
    assert row["prompt"].split("\n") == [
        "developer: Mail help@example.com if in doubt.",
        "user: Who?",
        'assistant: calls find_customer(name="Ana")',
        'tool: result of find_customer: {"name": "Ana"}',
        "user: And now?",
    ]
