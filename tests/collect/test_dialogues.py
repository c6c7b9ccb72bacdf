"""Harvesting a log of whole dialogues."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ratchet.collect.dialogues import harvest_dialogues, read_dialogues
from ratchet.collect.ingest import IngestReport
from ratchet.errors import InvalidInputError
from ratchet.records import Interaction, SetAside
from ratchet.store import EventStore, Window

NOW = datetime(2026, 1, 5, 8, tzinfo=UTC)
USER, BOT = {"class": "User", "user_id": "User 01"}, {"class": "Bot", "user_id": "Bot 006"}
EVER = Window(datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))


def said(*turns: str | tuple[str, object]) -> list[dict[str, Any]]:
    """Messages from texts such as "p: hi", a bot's ("b: ...") with its score where it has one."""
    messages = []
    for turn in turns:
        text, score = turn if isinstance(turn, tuple) else (turn, None)
        who, _, content = text.partition(": ")
        messages.append(
            {
                "id": len(messages),
                "sender": "participant1" if who == "p" else "participant2",
                "sender_class": "Human" if who == "p" else "Bot",
                "text": content,
                "evaluation_score": score,
            }
        )
    return messages


def dialogue(*turns: str | tuple[str, object], **changes: Any) -> dict[str, Any]:
    """A dialogue of 12 seconds from noon; what is changed to `...` is left out."""
    row = {
        "dialog": said(*(turns or ("p: hi", "b: hello"))),
        "start_time": "2018-11-03 12:00:00",
        "end_time": "2018-11-03 12:00:12",
        "participant1_id": USER,
        "participant2_id": BOT,
        "eval_score": None,
    }
    return {name: value for name, value in (row | changes).items() if value is not ...}


def log(tmp_path: Path, *rows: dict[str, Any] | bytes, name: str = "log.jsonl") -> Path:
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path = tmp_path / name
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def read(path: Path, **options: Any) -> tuple[list[dict[str, Any]], list[SetAside]]:
    rows = [row for _, row in read_dialogues(path, now=NOW, **options)]
    aside = [row for row in rows if isinstance(row, SetAside)]
    return [row for row in rows if not isinstance(row, SetAside)], aside


def of_kind(events: list[dict[str, Any]], kind: str | None) -> list[dict[str, Any]]:
    return [event for event in events if event.get("kind") == kind]


def reason(tmp_path: Path, row: dict[str, Any] | bytes) -> str:
    """The reason for which a line is set aside between two good dialogues."""
    good = [dialogue(dialog_id=name) for name in ("before", "after")]
    events, aside = read(log(tmp_path, good[0], row, good[1]))
    assert len(of_kind(events, None)) == 2
    (rejected,) = aside
    assert (rejected.source, rejected.position.partition(",")[0]) == ("log.jsonl", "line 2")
    assert rejected.created_at == NOW
    assert rejected.reason.isprintable()
    assert rejected.raw.isprintable()
    assert len(rejected.raw) <= 200
    return rejected.reason


# What becomes of a dialogue ---------------------------------------------------------------------


def test_an_answer_is_an_interaction_with_the_conversation_up_to_it(tmp_path: Path) -> None:
    events, aside = read(log(tmp_path, dialogue("p: hi", "b: hello", "p: how?", "b: fine")))
    first, second = of_kind(events, None)
    assert aside == []
    assert [event.get("kind") for event in events] == [None, None, "session_end"]
    assert first["messages"] == ({"role": "user", "content": "hi"},)
    assert (first["response"], second["response"]) == ("hello", "fine")
    assert [message["role"] for message in second["messages"]] == ["user", "assistant", "user"]
    assert second["model_version"] == "convai2/bot-006"
    assert (second["user_id"], second["segment"]) == ("User 01", "convai2")
    assert first["session_id"] == second["session_id"]


def test_a_second_message_in_a_row_is_an_answer_too(tmp_path: Path) -> None:
    events, _ = read(log(tmp_path, dialogue("p: hi", "b: hello", ("b: and you?", 1))))
    second = of_kind(events, None)[1]
    assert [message["content"] for message in second["messages"]] == ["hi", "hello"]
    assert of_kind(events, "thumbs")[0]["interaction_id"] == second["id"]


def test_each_answer_names_the_one_before_it_that_it_continues(tmp_path: Path) -> None:
    turns = ("b: welcome", "p: hi", "b: hello", "b: well?", "p: bye", "b: see you")
    rows, _ = read(log(tmp_path, dialogue(*turns)))
    answers = [row for row in rows if "messages" in row]
    assert [row.get("continues") for row in answers] == [None, answers[0]["id"], answers[1]["id"]]


def test_a_log_that_was_harvested_before_answers_named_what_they_continue_is_the_same(
    tmp_path: Path, store: EventStore
) -> None:
    path = log(tmp_path, dialogue("p: hi", "b: hello", "p: bye", "b: see you"))
    rows, _ = read(path)
    before = [{k: v for k, v in row.items() if k != "continues"} for row in rows]
    store.add_interactions([Interaction.model_validate(row) for row in before if "messages" in row])
    report = harvest_dialogues(path, store, now=NOW)
    assert (report.interactions, report.repeated, report.set_aside) == (0, 2, 0)


def test_messages_are_placed_between_start_and_end_by_position(tmp_path: Path) -> None:
    turns = ("p: 1", ("b: 2", 1), "p: 3", "b: 4", "p: 5")
    events, _ = read(log(tmp_path, dialogue(*turns, eval_score=4)))
    noon = datetime(2018, 11, 3, 12, tzinfo=UTC)
    # Five messages make four gaps of 12 / 4 = 3 seconds.
    moments = [event["created_at"] - noon for event in of_kind(events, None)]
    assert moments == [timedelta(seconds=3), timedelta(seconds=9)]
    assert of_kind(events, "thumbs")[0]["created_at"] == noon + timedelta(seconds=3)
    for kind in ("stars", "session_end"):
        assert of_kind(events, kind)[0]["created_at"] == noon + timedelta(seconds=12)


def test_a_time_keeps_its_zone_and_is_utc_without_one(tmp_path: Path) -> None:
    times = {"start_time": "2018-11-03T13:00:00+01:00", "end_time": "2018-11-03 12:00:12"}
    events, _ = read(log(tmp_path, dialogue(**times)))
    assert of_kind(events, "session_end")[0]["value"] == 12.0


def test_thumbs_stars_and_session_end_are_feedback(tmp_path: Path) -> None:
    turns = ("p: 1", ("b: 2", 0), "p: 3", ("b: 4", 1), "p: 5")
    events, aside = read(log(tmp_path, dialogue(*turns, eval_score=2)))
    answers = [event["id"] for event in of_kind(events, None)]
    feedback = [event for event in events if "kind" in event]
    about = [(e["kind"], e["value"], answers.index(e["interaction_id"])) for e in feedback]
    assert about == [
        ("thumbs", "down", 0),
        ("thumbs", "up", 1),
        ("stars", 2, 1),
        ("session_end", 12.0, 1),
    ]
    assert aside == []


def test_the_bot_may_be_either_participant_and_of_another_system(tmp_path: Path) -> None:
    turned = dialogue(
        dialog=[{"sender": "participant2", "text": "1"}, {"sender": "participant1", "text": "2"}],
        participant1_id={"class": "Bot", "user_id": "Bot  7"},
        participant2_id={"class": "User", "user_id": "u"},
    )
    events, _ = read(log(tmp_path, turned), system="forum")
    assert events[0]["model_version"] == "forum/bot-7"
    assert (events[0]["user_id"], events[0]["response"]) == ("u", "2")


# Ids --------------------------------------------------------------------------------------------


def test_ids_do_not_depend_on_the_file_its_order_or_its_compression(tmp_path: Path) -> None:
    rows = [dialogue(dialog_id="a"), dialogue(), dialogue(start_time="2018-11-03 11:59:00")]
    plain = read(log(tmp_path, *rows))[0]
    packed = tmp_path / "another.gz"
    packed.write_bytes(gzip.compress(log(tmp_path, *reversed(rows)).read_bytes()))
    assert {event["id"] for event in read(packed)[0]} == {event["id"] for event in plain}
    assert len({event["id"] for event in plain}) == len(plain)


def test_the_ids_of_systems_and_of_people_differ(tmp_path: Path) -> None:
    other = {"class": "User", "user_id": "User 02"}
    path = log(tmp_path, dialogue(), dialogue(participant1_id=other))
    events = [*read(path)[0], *read(path, system="forum")[0]]
    assert len({event["id"] for event in events}) == len(events) == 8


def test_a_later_export_adds_only_what_is_new(tmp_path: Path, store: EventStore) -> None:
    rows = [dialogue(dialog_id="a"), b"{", dialogue(dialog_id="b")]
    first = harvest_dialogues(log(tmp_path, *rows[:2]), store, now=NOW)
    later = harvest_dialogues(log(tmp_path, *rows), store, now=NOW + timedelta(days=1))
    assert (first.interactions, first.feedback, first.repeated, first.set_aside) == (1, 1, 0, 1)
    assert (later.interactions, later.feedback, later.repeated, later.set_aside) == (1, 1, 2, 1)
    assert store.counts()["set_aside"] == 1


def test_a_dialogue_that_was_changed_since_is_set_aside(tmp_path: Path, store: EventStore) -> None:
    harvest_dialogues(log(tmp_path, dialogue("p: hi", "b: hello", dialog_id=1)), store, now=NOW)
    changed = log(tmp_path, dialogue("p: hi", "b: no", dialog_id=1))
    report = harvest_dialogues(changed, store, now=NOW)
    assert report.reasons == (("id: must not be sent again with different content", 1),)
    assert store.interactions(EVER)["response"].to_pylist() == ["hello"]


# What is set aside ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (b"{", "a row must be JSON, got '' at character 2 (Expecting property name"),
        (b"\xff{}", "a row must be UTF-8, got the byte 0xFF; save the file as UTF-8"),
        (b"[" * 100_000, "a row must be flat JSON, got too many levels"),
        (b"x" * 9_000_000, "must have at most 4,000,000 bytes, got 9,000,001; split or shorten it"),
        (b"[1]", "a row must be a JSON object, got '[1]'"),
        ({"dialog": "hi"}, "dialog must be JSON, got 'hi'"),
        (dialogue(start_time=..., end_time=...), "got no start_time and no end_time; what has no"),
        (dialogue(end_time=None), "must have start_time and end_time, got no end_time; what has"),
        (
            dialogue(start_time="noon"),
            "start_time must be an ISO 8601 time or seconds since 1970, got 'noon'",
        ),
        (
            dialogue(end_time=True),
            "end_time must be an ISO 8601 time or seconds since 1970, got Tr",
        ),
        (
            dialogue(end_time=1e300),
            "end_time must be an ISO 8601 time or seconds since 1970, got 1e",
        ),
        (dialogue(start_time="0001-01-01T00:00+09:00"), "start_time must be an ISO 8601 time"),
        (dialogue(end_time="2018-11-03 11:00"), "not end before it starts, got 2018-11-03T12:00:0"),
        (dialogue(participant2_id=...), "by user_id and class, got None for participant2_id"),
        (dialogue(participant1_id={"user_id": " "}), "got {'user_id': ' '} for participant1_id"),
        (dialogue(participant2_id=USER), "must be between a person and a bot, got 0 bots"),
        (dialogue(participant1_id=BOT), "must be between a person and a bot, got 2 bots"),
        (dialogue(dialog=["hi"]), "whose sender is participant1 or participant2, got 'hi' as mess"),
        (dialogue(dialog=[{"sender": "admin", "text": "x"}]), "got {'sender': 'admin', 'text'"),
        (dialogue(dialog=[{"sender": "participant2", "sender_class": "Human"}]), "got 'Human' for"),
        (dialogue("p: hi", eval_score=4), "an answer of the bot to the person, got none, with 4"),
        (dialogue(dialog=[]), "an answer of the bot to the person, got none, with no stars"),
    ],
    ids=lambda value: value[-30:] if isinstance(value, str) else "",
)
def test_what_is_no_dialogue_is_set_aside_with_its_reason(
    tmp_path: Path, row: dict[str, Any] | bytes, expected: str
) -> None:
    assert expected in reason(tmp_path, row)


@pytest.mark.parametrize(
    ("score", "expected"), [(None, "no thumb"), (1, "a thumb up"), (0, "a thumb down")]
)
def test_an_opening_is_set_aside_and_its_thumb_named(
    tmp_path: Path, score: int | None, expected: str
) -> None:
    events, aside = read(log(tmp_path, dialogue(("b: hi", score), "p: hello", ("b: well?", 1))))
    assert len(of_kind(events, "thumbs")) == 1
    assert events[0]["messages"][0] == {"role": "assistant", "content": "hi"}
    (rejected,) = aside
    assert rejected.position == "line 1, message 0"
    assert f"person to be an interaction, got an opening with {expected};" in rejected.reason


def test_without_an_answer_both_the_openings_thumb_and_the_stars_are_kept(tmp_path: Path) -> None:
    events, aside = read(log(tmp_path, dialogue(("b: hi", 0), eval_score=1)))
    assert events == []
    opening, whole = aside
    assert "an opening with a thumb down" in opening.reason
    assert "got none, with 1 stars" in whole.reason


def test_a_thumb_on_what_a_person_said_is_set_aside(tmp_path: Path) -> None:
    expected = "a thumb must be on a bot's message, got a thumb up on a person's; check the export"
    _, (rejected,) = read(log(tmp_path, dialogue(("p: hi", 1), "b: hello")))
    assert (rejected.reason, rejected.position) == (expected, "line 1, message 0")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (dialogue(eval_score=6), "value: Input should be less than or equal to 5"),
        (dialogue(eval_score="4.5"), "value: Input should be a valid integer"),
        (dialogue("p: hi", ("b: hello", 7)), "value: Input should be 'up' or 'down'"),
        (dialogue("p: hi", ("b: hello", "?")), "value: Input should be 'up' or 'down'"),
        (dialogue("p: hi", "b: a\x00b"), "response: text must hold no NUL characters, which Post"),
        (dialogue(dialog=[*said("p: hi"), {"sender": "participant2"}]), "response: Field required"),
    ],
)
def test_ingest_sets_aside_what_breaks_a_rule_of_the_records(
    tmp_path: Path, store: EventStore, row: dict[str, Any], expected: str
) -> None:
    report = harvest_dialogues(log(tmp_path, row), store, now=NOW)
    assert report.set_aside == 1
    assert report.reasons[0][0].startswith(expected)
    assert store.counts()["set_aside"] == 1


def test_the_report_counts_all_set_aside_rows_by_rule(tmp_path: Path, store: EventStore) -> None:
    bad = [dialogue(start_time=None), dialogue(start_time=..., end_time=...), b"{"]
    report = harvest_dialogues(log(tmp_path, dialogue(eval_score=6), *bad), store, now=NOW)
    reasons = (
        ("a dialogue must have start_time and end_time", 2),
        ("a row must be JSON", 1),
        ("value: Input should be less than or equal to 5", 1),
    )
    assert report == IngestReport(1, 1, repeated=0, set_aside=4, reasons=reasons)
    assert store.counts()["set_aside"] == 4


# Files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "name", "expected"),
    [
        (["text,label", "hi,there"], "other.csv", r"other\.csv must have the columns dialog, got"),
        (['{"kind": "thumbs"}'], "other.jsonl", r"got '.*other\.jsonl', of which 1 rows hold none"),
    ],
)
def test_a_file_without_a_dialogue_is_one_error_and_nothing_is_stored(
    tmp_path: Path, store: EventStore, lines: list[str], name: str, expected: str
) -> None:
    path = log(tmp_path, *(line.encode() for line in lines), name=name)
    with pytest.raises(InvalidInputError, match=expected):
        harvest_dialogues(path, store, now=NOW)
    assert sum(store.counts().values()) == 0


def test_a_large_file_of_something_else_is_given_up_early(tmp_path: Path) -> None:
    path = log(tmp_path, *[b"{}"] * 1_000, dialogue())
    with pytest.raises(InvalidInputError, match="of which 1,000 rows hold none; the first"):
        read(path)
    events, aside = read(log(tmp_path, *[b"{}"] * 999, dialogue(), *[b"{}"] * 2_000))
    assert (len(events), len(aside)) == (2, 2_999)


def test_an_empty_file_and_blank_lines_are_an_empty_log(tmp_path: Path) -> None:
    assert read(log(tmp_path)) == ([], [])
    assert read(log(tmp_path, b"", b"  ")) == ([], [])


def test_a_file_that_cannot_be_read_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"nothing\.jsonl' \(No such file"):
        read(tmp_path / "nothing.jsonl")
    with pytest.raises(InvalidInputError, match="directory"):
        read(tmp_path)


@pytest.mark.parametrize("damage", [lambda raw: raw[:-12], lambda raw: raw[:20] + b"?" * 9])
def test_a_damaged_archive_is_one_clear_error(tmp_path: Path, damage: Any) -> None:
    path = tmp_path / "log.gz"
    rows = (json.dumps(dialogue(dialog_id=number)).encode() for number in range(50))
    path.write_bytes(damage(gzip.compress(b"\n".join(rows))))
    with pytest.raises(InvalidInputError, match="a compressed file must be whole"):
        read(path)


# The real log -----------------------------------------------------------------------------------

VOLUNTEERS = "data_volunteers"  # the 1,111 dialogues of the second round


def expected_of(rows: list[dict[str, Any]]) -> Counter[str]:
    """Count by hand what the rules make of the dialogues: no code of the harvest is used."""
    expected: Counter[str] = Counter()
    for row in rows:
        if "start_time" not in row:
            expected["untimed"] += 1
            expected["untimed stars"] += row["eval_score"] is not None
            continue
        classes = [message["sender_class"] for message in row["dialog"]]
        scores = [message["evaluation_score"] for message in row["dialog"]]
        asked = classes.index("Human") if "Human" in classes else len(classes)
        answers = [i for i in range(asked, len(classes)) if classes[i] == "Bot"]
        openings = [i for i in range(asked) if classes[i] == "Bot"]
        expected["interactions"] += len(answers)
        expected["openings"] += len(openings)
        expected["unanswered"] += not answers
        expected["session_end"] += bool(answers)
        expected["stars" if answers else "lost stars"] += row["eval_score"] is not None
        for name, places in (("", answers), ("opening ", openings)):
            expected[f"{name}up"] += sum(scores[i] == 1 for i in places)
            expected[f"{name}down"] += sum(scores[i] == 0 for i in places)
    return expected


@dataclass(frozen=True)
class Harvest:
    """The real log, what the store held after one harvest, and the store after a second one."""

    rows: list[dict[str, Any]]
    first: IngestReport
    counts: dict[str, int]
    again: IngestReport
    store: EventStore


@pytest.fixture(scope="module")
def harvest(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harvest]:
    path = shared_data / "convai2" / "dialogs.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    store = EventStore.open(f"sqlite:///{tmp_path_factory.mktemp('real') / 'store.db'}")
    first = harvest_dialogues(path, store, now=NOW)
    counts = store.counts()
    again = harvest_dialogues(path, store, now=NOW + timedelta(days=1))
    yield Harvest(rows, first, counts, again, store)
    store.close()


def thumbs(store: EventStore, window: Window = EVER) -> Counter[float]:
    table = store.feedback(window)
    pairs = zip(table["kind"].to_pylist(), table["number"].to_pylist(), strict=True)
    return Counter(number for kind, number in pairs if kind == "thumbs")


@pytest.mark.slow
def test_the_real_log_is_harvested_whole(harvest: Harvest) -> None:
    expected, first, counts = expected_of(harvest.rows), harvest.first, harvest.counts
    assert counts["interactions"] == first.interactions == expected["interactions"]
    assert counts["stars"] == expected["stars"]
    assert counts["session_end"] == expected["session_end"]
    assert thumbs(harvest.store) == {1.0: expected["up"], 0.0: expected["down"]}
    assert dict(first.reasons) == {
        "a dialogue must have start_time and end_time": expected["untimed"],
        "a dialogue must hold an answer of the bot to the person": expected["unanswered"],
        "a bot's message must answer a person to be an interaction": expected["openings"],
    }
    assert counts["set_aside"] == first.set_aside == sum(dict(first.reasons).values())


@pytest.mark.slow
def test_a_second_harvest_of_the_real_log_changes_nothing(harvest: Harvest) -> None:
    first, again = harvest.first, harvest.again
    assert (again.interactions, again.feedback) == (0, 0)
    assert again.repeated == first.interactions + first.feedback
    assert (again.set_aside, again.reasons) == (first.set_aside, first.reasons)
    assert harvest.store.counts() == harvest.counts


@pytest.mark.slow
def test_the_thumbs_of_the_real_log_add_up_to_the_published_ones(harvest: Harvest) -> None:
    """All thumbs are accounted for; fewer are stored than the log holds.

    The description of the data names 935 thumbs up and 440 down: those of the 1,111 dialogues of
    the volunteers' second round. All 1,402 dialogues with a time hold 1,121 and 693, because 291
    of an earlier round have times and thumbs too; the 3,005 without a time hold none. Some thumbs
    are on a bot's opening, which answers nobody: 104 up and 15 down in the second round. They are
    set aside and named in the reason, so that 831 and 425 are left to store.
    """
    second = [row for row in harvest.rows if row["source_file"] == VOLUNTEERS]
    untimed = [row for row in harvest.rows if "start_time" not in row]
    expected, everything = expected_of(second), expected_of(harvest.rows)
    assert len(second) == 1_111
    assert expected["up"] + expected["opening up"] == 935
    assert expected["down"] + expected["opening down"] == 440
    assert all("evaluation_score" not in message for row in untimed for message in row["dialog"])
    # The rounds follow each other, so that the time of the first dialogue tells them apart.
    started = min(datetime.fromisoformat(row["start_time"]) for row in second)
    window = Window(started.replace(tzinfo=UTC), EVER.end)
    assert thumbs(harvest.store, window) == {1.0: expected["up"], 0.0: expected["down"]}
    reasons = harvest.store.set_aside_reasons().items()
    for thumb in ("up", "down"):
        named = [count for text, count in reasons if f"opening with a thumb {thumb};" in text]
        assert sum(named) == everything[f"opening {thumb}"]


@pytest.mark.slow
def test_the_stars_of_the_real_log_that_find_no_answer_are_named(harvest: Harvest) -> None:
    """Most stars have no time: 2,919 of 3,710; 267 more are on dialogues without an answer.

    Of the 791 on dialogues with a time 524 are stored, of the 593 in the second round 416.
    """
    expected = expected_of(harvest.rows)
    reasons = harvest.store.set_aside_reasons().items()
    named = sum(count for text, count in reasons if "got none, with" in text)
    without = sum(count for text, count in reasons if "got none, with no stars" in text)
    assert named - without == expected["lost stars"]
    given = sum(row["eval_score"] is not None for row in harvest.rows)
    assert harvest.counts["stars"] == given - expected["untimed stars"] - expected["lost stars"]


@pytest.mark.parametrize(
    ("score", "expected"),
    [(0, "down"), (0.0, "down"), ("0", "down"), (1, "up"), (1.0, "up"), ("1", "up"), (True, "up")],
)
def test_a_score_is_a_thumb_however_it_is_written(
    tmp_path: Path, store: EventStore, score: object, expected: str
) -> None:
    """In this format 0 is a thumb down; a source that lost one side would bias every rate."""
    report = harvest_dialogues(
        log(tmp_path, dialogue("p: hi", ("b: hello", score))), store, now=NOW
    )
    assert report.set_aside == 0
    numbers = store.feedback(EVER).to_pylist()
    assert [row["number"] for row in numbers if row["kind"] == "thumbs"] == [expected == "up"]
