"""Times that cannot be right, at every way into the store."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ratchet.collect.dialogues import harvest_dialogues
from ratchet.collect.ingest import ingest, ingest_file
from ratchet.collect.times import CLOCK_ERROR, EARLIEST, EARLY, FUTURE, UNKNOWN, YEARS_LATE
from ratchet.gateway.drain import Drain
from ratchet.gateway.log import LogKind, WriteAheadLog
from ratchet.store import EventStore
from tests.collect.test_ingest import NOW, interaction, thumbs

ANSWERED = datetime(2026, 1, 5, 7, tzinfo=UTC)  # of `interaction`
SECOND = timedelta(seconds=1)


@pytest.fixture
def store(tmp_path: Path, made_store: Path) -> Iterator[EventStore]:
    shutil.copyfile(made_store, tmp_path / "store.db")
    opened = EventStore.open(f"sqlite:///{tmp_path / 'store.db'}", clock=lambda: NOW)
    yield opened
    opened.close()


def take(store: EventStore, *rows: object, now: datetime = NOW) -> Any:
    return ingest(rows, store, source="test", now=now)


@pytest.mark.parametrize(
    "moment",
    [0, 1, "1970-01-01T00:00:00Z", "1899-12-30T00:00:00Z", (EARLIEST - SECOND).isoformat(), -5e8],
)
@pytest.mark.parametrize("row", [interaction, thumbs])
def test_what_is_dated_before_2015_is_set_aside(store: EventStore, row: Any, moment: Any) -> None:
    report = take(store, row("old", created_at=moment), interaction("good"))
    assert (report.interactions, report.feedback, report.set_aside) == (1, 0, 1)
    assert report.reasons == (("created_at: must be 2015-01-01 or later", 1),)


def test_2015_itself_is_taken(store: EventStore) -> None:
    assert take(store, interaction(created_at=EARLIEST.isoformat())).interactions == 1


def test_an_answer_of_the_future_is_set_aside_and_a_clock_a_little_ahead_is_not(
    store: EventStore,
) -> None:
    ahead = [CLOCK_ERROR, CLOCK_ERROR + SECOND, timedelta(hours=9), timedelta(days=20_000)]
    rows = [interaction(f"i-{n}", created_at=NOW + gap) for n, gap in enumerate(ahead)]
    report = take(store, *rows)
    assert (report.interactions, report.set_aside) == (1, 3)
    assert report.reasons == (("created_at: must not be in the future", 3),)
    assert store.answered_at(["i-0"]) == {"i-0": NOW + CLOCK_ERROR}


def test_feedback_of_the_future_gets_the_time_of_its_first_arrival(store: EventStore) -> None:
    """The gateway's rule (docs/gateway.md), and sending the file again changes nothing."""
    row = thumbs(created_at=(NOW + timedelta(days=400)).isoformat())
    report = take(store, interaction(), row)
    assert report.noted == ((FUTURE, 1),)
    assert store.stored_feedback(["f-1"])["f-1"].created_at == NOW
    again = take(store, interaction(), row, now=NOW + timedelta(hours=3))
    assert (again.repeated, again.set_aside) == (2, 0)
    assert store.stored_feedback(["f-1"])["f-1"].created_at == NOW


@pytest.mark.parametrize(
    ("gap", "expected"),
    [
        (-SECOND, ((EARLY, 1),)),
        (-timedelta(days=900), ((EARLY, 1),)),
        (timedelta(0), ()),
        (timedelta(days=365), ()),
        (timedelta(days=366), ((YEARS_LATE, 1),)),
    ],
)
def test_feedback_far_from_its_answer_is_taken_and_counted(
    store: EventStore, gap: timedelta, expected: tuple[tuple[str, int], ...]
) -> None:
    answered = NOW - timedelta(days=500)
    rows = [interaction(created_at=answered), thumbs(created_at=answered + gap)]
    report = take(store, *rows)
    assert (report.feedback, report.set_aside, report.noted) == (1, 0, expected)
    assert report.lines() == [f"{count:>8} × noted: {note}" for note, count in expected]


@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_only_feedback_whose_answer_never_comes_is_unknown(store: EventStore, chunk: int) -> None:
    """Its answer may come later in the same file, or have come in an earlier one."""
    take(store, interaction("earlier"))
    rows = [
        thumbs("f-1", interaction_id="later"),
        thumbs("f-2", interaction_id="nowhere"),
        thumbs("f-3", interaction_id="earlier"),
        thumbs("f-4", interaction_id="nowhere", kind="copy", value=True),
        interaction("later"),
    ]
    report = ingest(rows, store, source="test", now=NOW, chunk=chunk)
    assert (report.feedback, report.noted) == (4, ((UNKNOWN, 2),))


def test_an_answer_that_comes_after_its_feedback_shows_its_odd_time(store: EventStore) -> None:
    early = thumbs(created_at=(ANSWERED - timedelta(hours=1)).isoformat())
    assert take(store, early, interaction()).noted == ((EARLY, 1),)


def test_files_follow_the_rule(store: EventStore, tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    rows = [interaction("old", created_at=0), thumbs(interaction_id="nowhere")]
    path.write_text("\n".join(map(json.dumps, rows)))
    report = ingest_file(path, store, now=NOW)
    assert (report.set_aside, report.noted) == (1, ((UNKNOWN, 1),))


def test_dialogues_follow_the_rule(store: EventStore, tmp_path: Path) -> None:
    said = [
        {"sender": "participant1", "text": "hi"},
        {"sender": "participant2", "text": "hello", "evaluation_score": 1},
    ]
    dialogue = {
        "dialog": said,
        "participant1_id": {"class": "User", "user_id": "u"},
        "participant2_id": {"class": "Bot", "user_id": "b"},
    }
    times = [(0, 60), ("2031-01-01", "2031-01-02"), ("2020-01-01", "2020-01-02")]
    rows = [dialogue | {"start_time": start, "end_time": end} for start, end in times]
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    report = harvest_dialogues(path, store, now=NOW)
    assert report.interactions == 1
    reasons = dict(report.reasons)
    assert reasons["created_at: must be 2015-01-01 or later"] == 3  # answer, thumb, session end
    assert reasons["created_at: must not be in the future"] == 1
    assert dict(report.noted) == {FUTURE: 2, UNKNOWN: 2}  # on the answer that was set aside


def test_the_gateways_log_follows_the_rule_and_loses_no_answer_to_a_clock_set_back(
    store: EventStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "ratchet")
    folder = tmp_path / "wal"
    log = WriteAheadLog.create(folder)
    now = datetime.now(UTC)
    rows: list[tuple[LogKind, dict[str, Any]]] = [
        (LogKind.INTERACTION, interaction("served", created_at=now.isoformat())),
        (LogKind.FEEDBACK, thumbs("old", interaction_id="served", created_at="1999-01-01T00:00Z")),
        (LogKind.FEEDBACK, thumbs("early", interaction_id="served")),
        (LogKind.FEEDBACK, thumbs("unknown", interaction_id="still to come")),
    ]
    log.append_all([(kind, json.dumps(row).encode()) for kind, row in rows])
    log.close()
    drain = Drain(folder, store, clock=lambda: now - timedelta(hours=2))
    drain.once()
    drain.close()
    assert list(store.answered_at(["served"])) == ["served"]
    (row,) = store.set_aside_rows(source="gateway")
    assert row.reason.startswith("created_at: must be 2015-01-01 or later")
    assert f"1 × noted: {EARLY}" in caplog.text
    assert UNKNOWN not in caplog.text
