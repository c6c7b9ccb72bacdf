"""Pairs wait for people in the store, and their labels come back to it from any machine."""

import csv
from datetime import UTC, datetime, timedelta

import pytest

from ratchet.errors import InsufficientDataError, InvalidInputError, WaitingError
from ratchet.judges.judged_win_rate import to_compare
from ratchet.judges.label_sheet import sheet_text
from ratchet.judges.pair_labels import (
    keep_labels,
    pairs_on,
    said_about,
    sheet_of,
    waiting_sheets,
)
from ratchet.judges.win_rate import pairs_of
from ratchet.records import (
    CycleEnd,
    Example,
    ExampleSet,
    Interaction,
    JudgeValidation,
    LabelSheet,
    Message,
    PairLabel,
)
from ratchet.store import EventStore
from ratchet.store.forget import forget

NOW = datetime(2026, 12, 1, 9, tzinfo=UTC)
HOUR = timedelta(hours=1)
EXAMPLES = tuple(
    Example(id=f"e{n}", messages=(Message(role="user", content=f"Question {n}?"),), target="x")
    for n in range(90)
)
SET = ExampleSet.freeze("golden", EXAMPLES, NOW)


def pairs(old="champion says", new="challenger says"):
    champion = {example.id: f"{old} {example.id}" for example in EXAMPLES}
    return pairs_of(EXAMPLES, champion, {key: f"{new} {key}" for key in champion})


@pytest.fixture
def store(tmp_path):
    store = EventStore.open(f"sqlite:///{tmp_path}/home/store.db")
    store.append(SET)
    yield store
    store.close()


def asked(store, compared=None, **more):
    values = {"wanted": 30, "cycle_id": "cycle-1", "example_set_id": SET.id, "now": NOW} | more
    return sheet_of(store, compared or pairs(), 40, **values)


def filled(store, record, path, choose):
    """Write the sheet as another machine does that has the store alone, and fill it in."""
    on_it = pairs_on(store, record)
    path.write_text(sheet_text(on_it, [one.id for one in on_it]), encoding="utf-8", newline="")
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(row | {"winner": choose(row, place)} for place, row in enumerate(rows))
    return path


def validated(decision="not enough labels", more=None):
    return JudgeValidation(
        id="v", created_at=NOW, judge="careful", judge_version="c1", dimension="d",
        decision=decision, reasons=("so far",), labels_digest="l", items=30, unscored=0,
        figures=(), more_labels=more,
    )  # fmt: skip


def likes(start):
    return lambda row, _place: "a" if row["answer_a"].startswith(start) else "b"


def test_what_people_are_asked_is_stored_once_and_holds_a_random_part(store):
    first, again = asked(store), asked(store)
    assert (first.is_new, again.is_new) == (True, False)
    (record,) = store.records(LabelSheet)
    chosen = to_compare(pairs(), 40)
    assert [pair.example_id for pair in record.pairs] == [pair.id for pair in chosen]
    assert pairs_on(store, record) == chosen
    assert asked(store, pairs(new="another says")).record.id != record.id


def test_labels_given_on_another_machine_are_found_by_the_gate(store, tmp_path):
    sheet = asked(store)
    with pytest.raises(InsufficientDataError, match="needs 30 pairs that people compared, got 0"):
        sheet.read(pairs(), minimum=30)
    path = filled(store, sheet.record, tmp_path / "sheet.csv", likes("challenger"))
    kept = keep_labels(store, path, reviewer="ana", now=NOW + HOUR)
    assert (kept.new, kept.repeated, kept.open, kept.set_aside) == (40, 0, 0, ())
    found = asked(store).read(pairs(), minimum=30)
    assert found.compared == 40
    assert set(found.winners.values()) == {"1"}  # the first of a pair is the challenger's
    again = keep_labels(store, path, reviewer="ana", now=NOW + 2 * HOUR)
    assert (again.new, again.repeated) == (0, 40)
    assert len(store.records(PairLabel)) == 40


@pytest.mark.parametrize(
    ("decision", "filled_in", "more", "missing"),
    [
        ("usable", 30, None, None),
        ("not usable", 30, None, None),
        ("not enough labels", 30, 5, 5),
        ("not enough labels", 30, 500, 10),  # no more than are open
        ("not enough labels", 30, None, 10),
    ],
)
def test_more_labels_are_awaited_while_they_can_say_whether_the_judge_may_count(
    store, tmp_path, decision, filled_in, more, missing
):
    sheet = asked(store)
    path = filled(
        store, sheet.record, tmp_path / "sheet.csv", lambda _, place: "a" * (place < filled_in)
    )
    keep_labels(store, path, reviewer="ana", now=NOW)
    read = sheet.read(pairs(), minimum=30)
    record = validated(decision, more)
    if missing is None:
        sheet.await_more(record, read, pairs(), NOW)
        return
    with pytest.raises(WaitingError, match=f"compare about {missing} more pairs") as caught:
        sheet.await_more(record, read, pairs(), NOW)
    assert (caught.value.missing, caught.value.judge) == (missing, "careful")


def test_a_sheet_whose_pairs_are_all_compared_is_extended_until_none_are_left(store, tmp_path):
    sheet = asked(store)
    keep_labels(
        store,
        filled(store, sheet.record, tmp_path / "sheet.csv", likes("challenger")),
        reviewer="ana",
        now=NOW,
    )
    record = validated(more=15)
    with pytest.raises(WaitingError, match="compare about 15 more pairs"):
        sheet.await_more(record, sheet.read(pairs(), minimum=30), pairs(), NOW + HOUR)
    longer = asked(store)
    assert longer.record.pairs[:40] == sheet.record.pairs
    assert [pair.id for pair in pairs_on(store, longer.record)] == [
        pair.id for pair in to_compare(pairs(), 55)
    ]
    assert waiting_sheets(store) == [(longer.record, 40)]  # what was said of the first 40 counts
    keep_labels(
        store,
        filled(store, longer.record, tmp_path / "more.csv", likes("challenger")),
        reviewer="ana",
        now=NOW + HOUR,
    )
    read = longer.read(pairs(), minimum=30)
    assert (read.compared, read.open, waiting_sheets(store)) == (55, 0, [])
    for _ in range(9):  # two thirds of all pairs are people's at most
        try:
            longer.await_more(record, longer.read(pairs(), minimum=30), pairs(), NOW + HOUR)
            break
        except WaitingError:
            longer = asked(store)
            path = filled(store, longer.record, tmp_path / "end.csv", likes("challenger"))
            keep_labels(store, path, reviewer="ana", now=NOW + HOUR)
    assert len(longer.record.pairs) == 2 * len(pairs()) // 3


def test_a_half_filled_sheet_counts_as_far_as_people_got(store, tmp_path):
    sheet = asked(store)
    assert [(one.id, compared) for one, compared in waiting_sheets(store)] == [(sheet.record.id, 0)]
    half = filled(
        store, sheet.record, tmp_path / "half.csv",
        lambda row, place: likes("champion")(row, place) if place < 12 else "",
    )  # fmt: skip
    kept = keep_labels(store, half, reviewer="ana", now=NOW)
    assert (kept.new, kept.open, kept.compared) == (12, 28, 12)
    with pytest.raises(InsufficientDataError, match=r"got 12; write the sheet anywhere with"):
        asked(store).read(pairs(), minimum=30)
    rest = filled(
        store, sheet.record, tmp_path / "rest.csv",
        lambda row, place: likes("champion")(row, place) if place >= 12 else "",
    )  # fmt: skip
    keep_labels(store, rest, reviewer="ben", now=NOW)
    assert asked(store).read(pairs(), minimum=30).compared == 40
    assert waiting_sheets(store) == []


def test_of_one_person_the_latest_label_counts_and_of_several_the_most_frequent(store, tmp_path):
    sheet = asked(store)
    path = tmp_path / "sheet.csv"

    def say(who, start, hours):
        keep_labels(
            store, filled(store, sheet.record, path, likes(start)),
            reviewer=who, now=NOW + hours * HOUR,
        )  # fmt: skip
        return set(said_about(store, sheet.record, pairs()).winners.values())

    assert say("ana", "challenger", 1) == {"1"}
    assert say("ana", "champion", 2) == {"2"}
    assert say("ben", "challenger", 3) == {"tie"}  # one against one
    assert say("eva", "challenger", 4) == {"1"}
    assert len(store.records(PairLabel)) == 4 * 40


def test_rows_that_cannot_be_used_have_each_their_reason(store, tmp_path):
    sheet = asked(store)
    path = filled(store, sheet.record, tmp_path / "sheet.csv", likes("champion"))
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    foreign = filled(
        store, asked(store, pairs(new="other says")).record, tmp_path / "o.csv", likes("champion")
    ).read_text(encoding="utf-8-sig")
    lines += [lines[1], foreign.splitlines()[1], "e1,,,,better,p0"]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    kept = keep_labels(store, path, reviewer="ana", now=NOW)
    assert kept.new == 40
    twice, elsewhere, word = [row.reason for row in kept.set_aside]
    assert twice.endswith("is there before; each pair is labelled once")
    assert elsewhere == "it is about other answers than these; label a new sheet"
    assert word == "winner must be a, b or tie, got 'better'; write one of the three"


def test_a_sheet_of_another_store_is_refused_whole(store, tmp_path):
    elsewhere = EventStore.open(f"sqlite:///{tmp_path}/other/store.db")
    elsewhere.append(SET)
    record = asked(elsewhere).record
    path = filled(elsewhere, record, tmp_path / "sheet.csv", likes("champion"))
    elsewhere.close()
    with pytest.raises(InvalidInputError, match="whose 40 rows are about none"):
        keep_labels(store, path, reviewer="ana", now=NOW)


def test_what_people_wrote_into_a_home_of_an_earlier_version_counts(store, tmp_path):
    key = asked(store).record.id
    folder = tmp_path / "home" / "labels"
    folder.mkdir()
    filled(store, asked(store).record, folder / f"pairs-{key[:12]}.csv", likes("challenger"))
    found = asked(store, folder=folder).read(pairs(), minimum=30)
    assert set(found.winners.values()) == {"1"}
    asked(store, folder=folder)
    assert len(store.records(PairLabel)) == 40


def test_a_cycle_that_ended_or_has_other_answers_by_now_waits_for_no_earlier_sheet(store):
    asked(store)
    newer = asked(store, pairs(new="another says")).record
    other = asked(store, pairs(new="a third says"), cycle_id="cycle-2").record
    assert [record.id for record, _ in waiting_sheets(store)] == [newer.id, other.id]
    store.append(CycleEnd(id="cycle-1", created_at=NOW, outcome="abandoned"))
    assert [record.id for record, _ in waiting_sheets(store)] == [other.id]


def test_what_a_forgotten_user_said_is_erased_from_the_pairs(store, tmp_path):
    said = "the code of my front door is 4711"
    store.add_interactions(
        [
            Interaction(
                id="i", session_id="s", user_id="eva", created_at=NOW, model_version="m/1",
                messages=(Message(role="user", content=said),), response="noted",
            )
        ]
    )  # fmt: skip
    record = asked(store, pairs(new=f"you said {said},")).record
    assert said in record.model_dump_json()
    forget(store, tmp_path / "home", "eva", now=NOW + HOUR, text_key=str)
    assert said not in store.get(LabelSheet, record.id).model_dump_json()
    assert asked(store, pairs(new=f"you said {said},")).is_new is False  # nor is it stored again


def test_a_sheet_without_its_examples_says_where_to_run(store, tmp_path):
    elsewhere = EventStore.open(f"sqlite:///{tmp_path}/other/store.db")
    record = asked(elsewhere).record
    with pytest.raises(InvalidInputError, match="needs its examples, got no set 'golden-"):
        pairs_on(elsewhere, record)
    elsewhere.close()
