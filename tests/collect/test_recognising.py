"""An answer that comes in under another id is stored once, and what is said about it counts."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.collect.ingest import ingest, ingest_file
from ratchet.collect.recognising import Recogniser, same_asked
from ratchet.collect.report import IngestReport
from ratchet.errors import SettingsError
from ratchet.store import EventStore, Window
from ratchet.store.aliases import Stored
from ratchet.store.arrivals import last_position
from ratchet.store.history import History
from ratchet.store.retention import Expired, delete_expired
from ratchet.store.rows import microseconds

NOW = datetime(2026, 11, 1, tzinfo=UTC)
START = datetime(2026, 5, 4, 9, 0, 1, 250_000, tzinfo=UTC)
EVERYTHING = Window(datetime(2015, 1, 1, tzinfo=UTC), NOW)


@pytest.fixture
def store(open_store: Any) -> EventStore:
    return open_store()


def answer(number: int, tool: str = "a", **changes: Any) -> dict[str, Any]:
    """An answer as a tool exports it: its ids are the tool's own."""
    row = {
        "id": f"{tool}-{number}",
        "session_id": f"{tool}-session-{number}",
        "user_id": f"user-{number % 7}",
        "created_at": (START + timedelta(minutes=number)).isoformat(),
        "model_version": "m/1",
        "messages": [{"role": "user", "content": f"question {number}: é\n"}],
        "response": f"answer {number} ✓",
    }
    return row | changes


def thumb(number: int, tool: str = "a", **changes: Any) -> dict[str, Any]:
    row = {
        "id": f"{tool}-thumb-{number}",
        "interaction_id": f"{tool}-{number}",
        "created_at": (START + timedelta(minutes=number, seconds=30)).isoformat(),
        "kind": "thumbs",
        "value": "up",
    }
    return row | changes


def bring(
    store: EventStore, folder: Path, *rows: dict[str, Any], history: History | None = None,
    chunk: int = 5_000,
) -> IngestReport:  # fmt: skip
    path = folder / "log.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return ingest_file(path, store, now=NOW, chunk=chunk, known=Recogniser(store, history))


def ids(store: EventStore) -> list[str]:
    return store.interactions(EVERYTHING)["id"].to_pylist()


def counts(report: IngestReport) -> tuple[int, int, int, int, int]:
    return (
        report.interactions, report.feedback, report.repeated, report.recognised, report.set_aside
    )  # fmt: skip


def test_a_second_export_under_other_ids_is_not_stored_again(store, tmp_path):
    bring(store, tmp_path, *(answer(n) for n in range(30)))
    report = bring(store, tmp_path, *(answer(n, "b") for n in range(10, 40)))
    assert counts(report) == (10, 0, 0, 20, 0)
    assert sorted(ids(store)) == sorted(
        [f"a-{n}" for n in range(30)] + [f"b-{n}" for n in range(30, 40)]
    )


@pytest.mark.parametrize("chunk", [3, 5_000])
def test_two_exports_in_one_file_are_stored_once_wherever_it_is_cut(store, tmp_path, chunk):
    rows = [row for n in range(20) for row in (answer(n), answer(n, "b"), thumb(n, "b"))]
    report = bring(store, tmp_path, *rows, chunk=chunk)
    assert counts(report) == (20, 20, 0, 20, 0)
    assert sorted(ids(store)) == sorted(f"a-{n}" for n in range(20))


@pytest.mark.parametrize("chunk", [3, 5_000])
def test_bringing_all_of_it_in_again_changes_nothing(store, tmp_path, chunk):
    rows = [row for n in range(20) for row in (answer(n), answer(n, "b"), thumb(n, "b"))]
    bring(store, tmp_path, *rows, chunk=chunk)
    before = store.counts()
    report = bring(store, tmp_path, *rows, chunk=7)
    assert (report.interactions, report.feedback, report.set_aside) == (0, 0, 0)
    assert (report.repeated, report.recognised) == (40, 20)
    assert store.counts() == before


def test_feedback_on_an_other_id_is_about_the_stored_answer_also_in_later_files(store, tmp_path):
    bring(store, tmp_path, answer(1), answer(2))
    bring(store, tmp_path, answer(1, "b"), thumb(1, "b"))
    report = bring(store, tmp_path, thumb(2, "b"), thumb(1, "b", id="late", value="down"))
    assert report.feedback == 2
    about = store.feedback(EVERYTHING)
    assert set(zip(about["id"].to_pylist(), about["interaction_id"].to_pylist(), strict=True)) == {
        ("b-thumb-1", "a-1"), ("late", "a-1"),
    }  # fmt: skip
    # b-2 never came in: what is about it waits for it, as ever
    assert report.noted[0][0] == "feedback on answers that are not in the store (yet)"


def test_the_same_feedback_of_both_exports_is_stored_once_and_another_opinion_is_kept(
    store, tmp_path
):
    bring(store, tmp_path, answer(1), thumb(1), answer(2), thumb(2))
    report = bring(
        store, tmp_path, answer(1, "b"), thumb(1, "b"), answer(2, "b"), thumb(2, "b", value="down")
    )
    assert counts(report) == (0, 1, 0, 3, 0)
    assert store.counts()["thumbs"] == 3


def test_feedback_that_came_before_its_answer_under_the_other_id_counts_too(store, tmp_path):
    bring(store, tmp_path, answer(1))
    bring(store, tmp_path, thumb(1, "b", value="down"))
    bring(store, tmp_path, answer(1, "b"))
    about = store.feedback(EVERYTHING)
    assert about["interaction_id"].to_pylist() == ["a-1"]
    assert about["number"].to_pylist() == [0.0]
    bring(store, tmp_path, thumb(1, "b", value="down"), answer(1, "b"))
    assert store.feedback(EVERYTHING).num_rows == 1


def test_other_content_under_an_other_id_is_set_aside(store, tmp_path):
    bring(store, tmp_path, answer(1))
    bring(store, tmp_path, answer(1, "b"))
    report = bring(store, tmp_path, answer(1, "b", response="something else"))
    assert counts(report) == (0, 0, 0, 0, 1)
    assert "must not be sent again with different content, got 'b-1'" in report.examples[0].reason


@pytest.mark.parametrize(
    "changes",
    [
        {"response": "another answer"},
        {"messages": [{"role": "user", "content": "another question"}]},
        {"user_id": "somebody else"},
        {"created_at": (START + timedelta(minutes=1, milliseconds=1)).isoformat()},
    ],
)
def test_what_differs_in_words_person_or_time_is_another_answer(store, tmp_path, changes):
    bring(store, tmp_path, answer(1))
    assert bring(store, tmp_path, answer(1, "b", **changes)).interactions == 1


def test_two_ids_that_are_stored_already_both_stay(store, tmp_path):
    # as brought in by an earlier version
    ingest([answer(1), answer(1, "b")], store, source="old", now=NOW)
    report = bring(store, tmp_path, answer(1), answer(1, "b"))
    assert counts(report) == (0, 0, 2, 0, 0)


def test_two_anonymous_users_who_say_hi_in_one_second_are_two(store, tmp_path):
    nobody = {
        "user_id": "anonymous", "created_at": "2026-05-04T09:00:01Z", "response": "hello",
        "messages": [{"role": "user", "content": "hi"}],
    }  # fmt: skip
    report = bring(store, tmp_path, answer(1, **nobody), answer(2, **nobody))
    assert report.interactions == 2


def test_a_gateway_or_a_flow_takes_every_id_as_its_own(store):
    report = ingest([answer(1), answer(1, "b")], store, source="gateway", now=NOW)
    assert counts(report) == (2, 0, 0, 0, 0)


# Who and when -------------------------------------------------------------------------------------

MICRO, MILLI, SECOND, MINUTE = (
    microseconds(datetime.fromisoformat(text))
    for text in (
        "2026-05-04T09:00:01.250456Z", "2026-05-04T09:00:01.250Z", "2026-05-04T09:00:01Z",
        "2026-05-04T09:00:00Z",
    )
)  # fmt: skip


def asked(moment: int, user: str, session: str) -> Stored:
    return Stored("id", "digest", moment, user, session)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        # the same user: enough with milliseconds, not with seconds
        ((MICRO, "ann", "s1"), (MICRO, "ann", "s2"), True),
        ((MICRO, "ann", "s1"), (MILLI, "ann", "s2"), True),
        ((MICRO, "ann", "s1"), (SECOND, "ann", "s2"), False),
        ((SECOND, "ann", "s1"), (SECOND, "ann", "s2"), False),
        # the same session: enough with seconds
        ((MICRO, "ann", "s1"), (SECOND, "ann", "s1"), True),
        ((SECOND, "unknown", "s1"), (SECOND, "ann", "s1"), True),
        # two named users never are
        ((MICRO, "ann", "s1"), (MICRO, "bob", "s1"), False),
        # nobody is named: only with microseconds
        ((MICRO, "anonymous", "-"), (MICRO, "N/A", "default"), True),
        ((MILLI, "anonymous", "-"), (MILLI, "anonymous", "-"), False),
        ((SECOND, "anonymous", "none"), (SECOND, "anonymous", "none"), False),
        # a time written to the minute says too little
        ((MINUTE, "ann", "s1"), (MINUTE, "ann", "s1"), False),
        # another time
        ((MICRO, "ann", "s1"), (MICRO + 1, "ann", "s1"), False),
        ((MILLI, "ann", "s1"), (MILLI + 1_000, "ann", "s1"), False),
        ((SECOND, "ann", "s1"), (SECOND + 1_000_000, "ann", "s1"), False),
    ],
)
def test_who_is_the_same_person_follows_how_precisely_times_are_written(one, other, same):
    assert same_asked(asked(*one), asked(*other)) is same
    assert same_asked(asked(*other), asked(*one)) is same


@given(
    moment=st.integers(0, 10**7),
    units=st.tuples(*[st.sampled_from([1, 1_000, 1_000_000])] * 2),
    names=st.tuples(*[st.sampled_from(["ann", "bob", "unknown"])] * 2),
)
def test_a_time_that_a_tool_cut_off_is_found_as_the_whole_one(moment, units, names):
    base = SECOND + moment
    first, second = (base // unit * unit for unit in units)
    one, other = asked(first, names[0], "s"), asked(second, names[1], "s")
    contradict = "unknown" not in names and names[0] != names[1]
    whole_minute = any(value % 60_000_000 == 0 for value in (first, second))
    assert same_asked(one, other) is not (contradict or whole_minute)


@pytest.mark.parametrize("cut", ["milliseconds", "seconds"])
@pytest.mark.parametrize("first", [True, False])
def test_an_export_with_coarser_times_is_recognised_whichever_came_first(
    store, tmp_path, cut, first
):
    exact = START + timedelta(microseconds=456)
    whole = answer(1, session_id="s", created_at=exact.isoformat())
    coarse = answer(1, "b", session_id="s", created_at=exact.isoformat(timespec=cut))
    rows = [whole, coarse] if first else [coarse, whole]
    assert [bring(store, tmp_path, row).recognised for row in rows] == [0, 1]


def test_a_whole_minute_of_a_log_with_milliseconds_is_as_good_as_any_other_time(store, tmp_path):
    times = [START, datetime(2026, 5, 4, 9, tzinfo=UTC), START + timedelta(milliseconds=7)]
    both = [
        [answer(n, tool, created_at=at.isoformat()) for n, at in enumerate(times)] for tool in "ab"
    ]
    assert [bring(store, tmp_path, *rows).recognised for rows in both] == [0, 3]


def test_a_log_with_times_to_the_minute_keeps_both(store, tmp_path):
    at = datetime(2026, 5, 4, 9, tzinfo=UTC)
    both = [
        [
            answer(n, tool, session_id="s", created_at=(at + timedelta(minutes=n)).isoformat())
            for n in range(3)
        ]
        for tool in "ab"
    ]
    assert [bring(store, tmp_path, *rows).interactions for rows in both] == [3, 3]


# After retention ----------------------------------------------------------------------------------


@pytest.fixture
def pruned(tmp_path: Path) -> tuple[EventStore, History]:
    """A store that let all but its newest answer go, which history has."""
    store = EventStore.open(f"sqlite:///{tmp_path / 'store.db'}")
    history = History.open(tmp_path / "history")
    bring(store, tmp_path, *(answer(n) for n in range(20)), *(thumb(n) for n in range(20)))
    history.advance(store)
    delete_expired(store, Expired(NOW, last_position(store), frozenset()), rest=lambda _: None)
    assert ids(store) == ["a-19"]
    return store, history


def test_what_the_store_let_go_is_not_stored_again(pruned, tmp_path):
    store, history = pruned
    report = bring(store, tmp_path, *(answer(n) for n in range(20)), history=history)
    assert counts(report) == (0, 0, 20, 0, 0)
    assert ids(store) == ["a-19"]


def test_what_the_store_let_go_is_recognised_under_another_id(pruned, tmp_path):
    store, history = pruned
    rows = [row for n in range(20) for row in (answer(n, "b"), thumb(n, "b", value="down"))]
    report = bring(store, tmp_path, *rows, history=history)
    assert (report.interactions, report.feedback, report.recognised) == (0, 20, 20)
    history.advance(store)
    with history.connect() as connection:
        about = connection.sql(
            "SELECT count(DISTINCT interaction_id), min(interaction_id) FROM feedback "
            "JOIN interactions ON interaction_id = interactions.id WHERE kind = 'thumbs' "
            "AND number = 0"
        ).fetchall()
    assert about == [(20, "a-0")]


def test_other_content_under_an_id_that_the_store_let_go_is_set_aside(pruned, tmp_path):
    store, history = pruned
    report = bring(store, tmp_path, answer(3, response="other"), history=history)
    assert counts(report) == (0, 0, 0, 0, 1)


def test_a_history_of_another_store_says_nothing(pruned, tmp_path):
    _, history = pruned
    other = EventStore.open(f"sqlite:///{tmp_path / 'other.db'}")
    assert bring(other, tmp_path, answer(3), history=history).interactions == 1


def test_a_history_that_cannot_be_reached_stops_before_anything_is_stored(pruned, tmp_path):
    # a folder in the place of its cursor cannot be read as a file, as a share that went away
    store, history = pruned
    (tmp_path / "history" / "cursor.json").unlink()
    (tmp_path / "history" / "cursor.json").mkdir()
    with pytest.raises(SettingsError, match=r"history must be reachable .*nothing was stored"):
        bring(store, tmp_path, answer(99), history=history)
    assert ids(store) == ["a-19"]
