"""Bringing interactions and feedback to the store."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ratchet.collect.ingest import IngestReport, ingest, ingest_file
from ratchet.errors import InvalidInputError
from ratchet.records import FEEDBACK, Definition, Feedback, Interaction, Message, Record, SetAside
from ratchet.store import Added, EventStore
from ratchet.store.event_rows import FeedbackRow, InteractionRow, feedback_record
from ratchet.store.rows import moment_of
from tests.parameters import examples

NOW = datetime(2026, 1, 5, 8, tzinfo=UTC)


def answer_of(row: InteractionRow) -> Interaction:
    """The interaction of a row as it is stored."""
    sent = {name: value for name, value in row._asdict().items() if value is not None}
    parsed = ("messages", "metadata", "tool_calls")
    sent |= {name: json.loads(sent[name]) for name in parsed if name in sent}
    sent["created_at"] = moment_of(row.created_at)
    return Interaction(**{name: sent[name] for name in Interaction.model_fields if name in sent})


@dataclass
class MemorySink:
    """The store's rules in memory; it also notes how large the batches are."""

    interactions: dict[str, Interaction] = field(default_factory=dict)
    feedback: dict[str, Feedback] = field(default_factory=dict)
    rejected: list[SetAside] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    definitions: dict[str, Definition] = field(default_factory=dict)

    def add_interaction_rows(self, rows: Sequence[InteractionRow]) -> Added:
        return self._add(self.interactions, [answer_of(row) for row in rows])

    def add_feedback_rows(self, rows: Sequence[FeedbackRow]) -> Added:
        return self._add(self.feedback, [feedback_record(row._asdict()) for row in rows])

    def add_definitions(self, definitions: Sequence[Definition]) -> None:
        self.definitions |= {found.id: found for found in definitions}

    def set_aside(self, rows: Sequence[SetAside]) -> None:
        self.batches.append(len(rows))
        self.rejected.extend(rows)

    def answered_at(self, ids: Sequence[str]) -> dict[str, datetime]:
        known = self.interactions
        return {key: known[key].created_at for key in ids if key in known}

    def stored_feedback(self, ids: Sequence[str]) -> dict[str, Feedback]:
        return {key: self.feedback[key] for key in ids if key in self.feedback}

    def _add(self, stored: dict[str, Any], records: Sequence[Any]) -> Added:
        self.batches.append(len(records))
        counts = {"new": 0, "repeated": 0}
        conflicts = []
        for record in records:
            known = stored.setdefault(record.id, record)
            if known is record:
                counts["new"] += 1
            elif known == record:
                counts["repeated"] += 1
            else:
                conflicts.append(record.id)
        return Added(**counts, conflicts=tuple(conflicts))


@pytest.fixture
def store(tmp_path: Path, made_store: Path) -> Iterator[EventStore]:
    shutil.copyfile(made_store, tmp_path / "store.db")
    opened = EventStore.open(f"sqlite:///{tmp_path / 'store.db'}", clock=lambda: NOW)
    yield opened
    opened.close()


def interaction(key: str = "i-1", **changes: Any) -> dict[str, Any]:
    row = {
        "id": key,
        "session_id": "s",
        "user_id": "u",
        "created_at": "2026-01-05T07:00:00Z",
        "model_version": "router/1",
        "messages": [{"role": "user", "content": "Where is my card?"}],
        "response": "card delivery",
    }
    return row | changes


def thumbs(key: str = "f-1", **changes: Any) -> dict[str, Any]:
    row = {
        "id": key,
        "interaction_id": "i-1",
        "created_at": "2026-01-05T07:01:00Z",
        "kind": "thumbs",
        "value": "up",
    }
    return row | changes


def take(rows: Sequence[object], sink: Any | None = None, **options: Any) -> IngestReport:
    return ingest(rows, MemorySink() if sink is None else sink, source="test", now=NOW, **options)


def reason(row: object) -> str:
    """The reason for which `row` is set aside between two good ones."""
    sink = MemorySink()
    report = take([interaction("before"), row, interaction("after")], sink)
    assert list(sink.interactions) == ["before", "after"]
    assert (report.interactions, report.set_aside) == (2, 1)
    (rejected,) = sink.rejected
    assert rejected.position == "row 2"
    assert rejected.reason.isprintable()
    assert rejected.raw.isprintable()
    return rejected.reason


# Good rows --------------------------------------------------------------------------------------


def test_records_mappings_and_json_text_are_all_stored() -> None:
    sink = MemorySink()
    rows = [
        Interaction.model_validate(interaction("i-1")),
        interaction("i-2"),
        json.dumps(interaction("i-3")),
        json.dumps(interaction("i-4")).encode() + b"\n",
        b"\xef\xbb\xbf" + json.dumps(interaction("i-5")).encode(),
        FEEDBACK.validate_python(thumbs("f-1")),
        thumbs("f-2"),
        json.dumps(thumbs("f-3", kind="stars", value=4)),
        json.dumps(thumbs("f-4", kind="comment", value="zu spät")).encode(),
    ]
    report = take(rows, sink)
    assert report == IngestReport(interactions=5, feedback=4, repeated=0, set_aside=0, reasons=())
    assert list(sink.interactions) == ["i-1", "i-2", "i-3", "i-4", "i-5"]
    assert [event.kind for event in sink.feedback.values()] == [
        "thumbs",
        "thumbs",
        "stars",
        "comment",
    ]


def test_blank_lines_are_skipped_and_still_counted_for_the_position() -> None:
    sink = MemorySink()
    report = take(["", b"\n", "  ", "nonsense", json.dumps(thumbs())], sink)
    assert (report.feedback, report.set_aside) == (1, 1)
    assert sink.rejected[0].position == "row 4"


def test_sending_a_stream_again_changes_nothing() -> None:
    sink = MemorySink()
    rows = [interaction(), thumbs(), "nonsense"]
    take(rows, sink)
    report = take(rows, sink)
    assert (report.interactions, report.feedback, report.repeated) == (0, 0, 2)
    first, second = sink.rejected
    assert first == second


# Bad rows ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("not json", "a row must be JSON, got 'not json' at character 1 (Expecting value); write"),
        (b"\xff{}", "a row must be UTF-8, got the byte 0xFF; save the file as UTF-8"),
        ("[1, 2]", "a row must be a JSON object with `kind` (feedback) or `messages`"),
        (None, "got None; send one object per row"),
        (7, "got 7; send one object per row"),
        ({}, "a row must have `kind` (feedback) or `messages` (interaction), got the fields of"),
        ({"id": "x", "text": "y"}, "got the fields id, text; name one of them"),
        (thumbs(kind="applause"), "row: Input tag 'applause' found using 'kind' does not match"),
        (thumbs(value="sideways"), "value: Input should be 'up' or 'down', got 'sideways'"),
        (thumbs(kind="stars", value=6), "value: Input should be less than or equal to 5, got 6"),
        (thumbs(kind="copy", value="yes"), "value: Input should be a valid boolean, got 'yes'"),
        (thumbs(extra=1), "extra: Extra inputs are not permitted, got 1"),
        (interaction(response=5), "response: Input should be a valid string, got 5"),
        (
            interaction(response=None, id=""),
            "at least 1 character, got ''; correct the value (and 1 more)",
        ),
        (
            interaction(created_at="2026-01-05T07:00:00"),
            "created_at: time must carry a time zone, got 2026-01-05T07:00:00; add 'Z' for UTC",
        ),
        (
            interaction(created_at="0001-01-01T00:00:00+23:00"),
            "created_at: time must lie in the years 1 to 9999 in UTC, got 0001-01-01T00:00:00+23",
        ),
        (interaction(messages=[]), "messages: Tuple should have at least 1 item"),
        (
            interaction(messages=[{"role": "robot", "content": ""}]),
            "messages.0.role: Input should be 'system', 'developer', 'user', 'assistant' or 'tool'",
        ),
        (
            {name: value for name, value in interaction().items() if name != "user_id"},
            "user_id: Field required, got nothing",
        ),
        (interaction(response="a\ud800b"), r"response: Input should be a valid string"),
        (json.dumps(interaction(response="\ud800")), r"as a unicode string, got '\ud800'"),
        (interaction(response="a\x00b"), r"response: text must hold no NUL characters"),
        (interaction(metadata={"a": "\ud800"}), r"metadata.a: Input should be a valid string"),
        (interaction(metadata={"a\x00": ""}), r"got 'a\x00'; remove them"),
        (thumbs(kind="correction", value="a\x00"), r"got 'a\x00'"),
        (interaction(**{"\ud800": 1}), r"unable to parse raw data as a unicode string"),
        ({**interaction(), 1: 2}, "1: Keys should be strings"),
        (interaction(latency_seconds=float("nan")), "latency_seconds: Input should be a finite"),
        (json.dumps(interaction(latency_seconds=float("nan"))), "must be finite, got NaN"),
        (json.dumps(interaction(latency_seconds=float("inf"))), "must be finite, got Infinity"),
        ('{"kind": ' + "9" * 5_000 + "}", "a row must be JSON, got Exceeds the limit"),
        ("[" * 200_000, "a row must be flat JSON, got too many levels; nest less"),
        (Message(role="user", content="Hi"), "row: Unable to extract tag using discriminator"),
    ],
)
def test_a_bad_row_is_set_aside_with_one_line_that_says_why(row: object, expected: str) -> None:
    assert expected in reason(row)


def test_a_row_whose_repr_fails_is_set_aside_too() -> None:
    class Odd:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    assert "got Odd" in reason(Odd())


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(st.characters()),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children),
    max_leaves=5,
)
FIELDS = sorted({*interaction(), *thumbs(), "metadata", "latency_seconds", "error"})


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    max_examples=examples(200),
    deadline=None,
)
@given(
    base=st.sampled_from([interaction(), thumbs(), {}]),
    changes=st.dictionaries(st.sampled_from(FIELDS) | st.text(st.characters()), JSON, max_size=2),
    as_text=st.booleans(),
)
def test_no_row_stops_the_stream(
    store: EventStore, base: dict[str, Any], changes: dict[str, Any], as_text: bool
) -> None:
    row = base | changes
    rows = [json.dumps(row) if as_text else row, thumbs("good")]
    report = take(rows, store)
    assert report.set_aside + report.interactions + report.feedback + report.repeated == 2


def test_the_raw_row_is_cut_and_can_be_read() -> None:
    sink = MemorySink()
    take(["x" * 10_000, b"\xff\x00\n", {"id": "y" * 500}], sink)
    raws = [row.raw for row in sink.rejected]
    assert raws[0] == "x" * 197 + "..."
    assert raws[1] == r"\xff\x00"
    assert raws[2].startswith("{'id': 'yyy")
    assert max(map(len, raws)) == 200


def test_the_report_counts_the_broken_rules_not_the_values() -> None:
    rows = [thumbs(value=value) for value in ("a", "b", "c")] + [thumbs(color=1)]
    report = take(rows)
    assert report.reasons == (
        ("value: Input should be 'up' or 'down'", 3),
        ("color: Extra inputs are not permitted", 1),
    )


def test_the_report_holds_every_reason_and_does_not_grow_without_end() -> None:
    report = take([thumbs(**{f"extra_{number}": 1}) for number in range(1_500)])
    assert len(report.reasons) == 1_001
    assert report.reasons[0] == ("other reasons", 500)
    assert report.set_aside == 1_500
    assert report.lines()[-1] == "and 500 more rows set aside for other reasons"


# Conflicts --------------------------------------------------------------------------------------


def test_an_id_with_other_content_is_set_aside_and_the_first_one_stands() -> None:
    sink = MemorySink()
    rows = [thumbs(), thumbs(value="down"), thumbs(), interaction(), interaction(response="no")]
    report = take(rows, sink)
    assert (report.interactions, report.feedback, report.repeated) == (1, 1, 1)
    assert sink.feedback["f-1"].value == "up"
    assert [row.position for row in sink.rejected] == ["row 5", "row 2"]
    assert sink.rejected[1].reason == (
        "id: must not be sent again with different content, got 'f-1'; "
        "send the new content under a new id"
    )
    assert "'down'" in sink.rejected[1].raw
    assert report.reasons == (("id: must not be sent again with different content", 2),)


def test_feedback_and_interactions_may_share_an_id() -> None:
    report = take([interaction("same"), thumbs("same")])
    assert (report.interactions, report.feedback, report.set_aside) == (1, 1, 0)


# Streams ----------------------------------------------------------------------------------------


def test_a_stream_is_taken_in_chunks_and_never_held_whole() -> None:
    sink = MemorySink()
    ahead = 0

    def stream() -> Iterator[object]:
        nonlocal ahead
        for number in range(2_500):
            yield thumbs(f"f-{number}") if number % 2 else "nonsense"
            ahead = max(ahead, number + 1 - sum(sink.batches))

    report = take(stream(), sink, chunk=100)  # type: ignore[arg-type]
    assert (report.feedback, report.set_aside) == (1_250, 1_250)
    assert max(sink.batches) == 50
    assert ahead <= 100


@pytest.mark.parametrize("chunk", [0, -5])
def test_a_chunk_below_one_is_refused(chunk: int) -> None:
    with pytest.raises(InvalidInputError, match=f"chunk must be at least 1, got {chunk}"):
        take([], chunk=chunk)


@settings(deadline=None)
@given(
    rows=st.lists(
        st.builds(thumbs, st.sampled_from("abc"), value=st.sampled_from(["up", "down", "no"])),
        max_size=20,
    ),
    chunk=st.integers(1, 7),
)
def test_the_counts_add_up_whatever_the_chunk(rows: list[dict[str, Any]], chunk: int) -> None:
    sinks = (MemorySink(), MemorySink())
    report = take(rows, sinks[0], chunk=chunk)
    whole = take(rows, sinks[1])
    assert report == whole
    assert report.feedback + report.repeated + report.set_aside == len(rows)
    by_position = [sorted(sink.rejected, key=lambda row: row.position) for sink in sinks]
    assert by_position[0] == by_position[1]


# Files ------------------------------------------------------------------------------------------


def lines(tmp_path: Path, *rows: bytes | dict[str, Any]) -> Path:
    path = tmp_path / "events.jsonl"
    encoded = (row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows)
    path.write_bytes(b"\n".join(encoded))
    return path


def test_a_file_is_read_by_line_and_bad_lines_are_set_aside(tmp_path: Path) -> None:
    sink = MemorySink()
    path = lines(tmp_path, interaction(), b'{"a": "\xe9"}', b"", thumbs(), b"{", thumbs("f-2"))
    report = ingest_file(path, sink, now=NOW)
    assert (report.interactions, report.feedback, report.set_aside) == (1, 2, 2)
    assert [(row.source, row.position) for row in sink.rejected] == [
        ("events.jsonl", "line 2"),
        ("events.jsonl", "line 5"),
    ]


@pytest.mark.parametrize("last", [True, False])
def test_a_line_of_ten_megabytes_is_set_aside(tmp_path: Path, last: bool) -> None:
    sink = MemorySink()
    huge = b'{"id": "' + b"x" * 10_000_000 + b'"}'
    rows = [interaction(), huge] if last else [interaction(), huge, thumbs()]
    report = ingest_file(lines(tmp_path, *rows), sink, now=NOW)
    assert (report.interactions, report.feedback, report.set_aside) == (1, 0 if last else 1, 1)
    assert sink.rejected[0].reason.startswith(
        "a row must have at most 4,000,000 bytes, got 10,000,"
    )
    assert len(sink.rejected[0].raw) == 200


def test_the_longest_line_allowed_is_read(tmp_path: Path) -> None:
    row = json.dumps(thumbs()).encode()
    path = lines(tmp_path, row, row)
    assert ingest_file(path, MemorySink(), now=NOW, max_line_bytes=len(row) + 1).set_aside == 0
    assert ingest_file(path, MemorySink(), now=NOW, max_line_bytes=len(row)).set_aside == 1


def test_a_file_that_cannot_be_read_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"nothing\.jsonl' \(No such file"):
        ingest_file(tmp_path / "nothing.jsonl", MemorySink(), now=NOW)
    with pytest.raises(InvalidInputError, match="directory"):
        ingest_file(tmp_path, MemorySink(), now=NOW)
    with pytest.raises(InvalidInputError, match="must be at least 1, got 5000 and 0"):
        ingest_file(lines(tmp_path), MemorySink(), now=NOW, max_line_bytes=0)


def test_an_empty_file_is_an_empty_report(tmp_path: Path) -> None:
    report = ingest_file(lines(tmp_path), MemorySink(), now=NOW)
    assert report == IngestReport(0, 0, 0, 0, ())


# The real store ---------------------------------------------------------------------------------


def test_the_event_store_keeps_what_was_sent_and_what_was_set_aside(store: EventStore) -> None:
    rows: list[object] = [
        interaction(),
        interaction("i-2", response="account"),
        interaction("i-2", response="another"),
        thumbs(),
        thumbs("f-2", kind="comment", value="no"),
        "nonsense",
        thumbs("f-3", value="sideways"),
    ]
    first = take(rows, store)
    assert (first.interactions, first.feedback, first.repeated, first.set_aside) == (2, 2, 0, 3)
    again = take(rows, store)
    assert (again.interactions, again.feedback, again.repeated, again.set_aside) == (0, 0, 4, 3)
    counts = store.counts()
    assert (counts["interactions"], counts["thumbs"], counts["comment"]) == (2, 1, 1)
    assert counts["set_aside"] == 3
    assert store.stored_interactions(["i-2"])["i-2"].response == "account"


def test_a_record_goes_through_the_store_unchanged(store: EventStore) -> None:
    sent = Interaction.model_validate(interaction(metadata={"app": "bänk"}, latency_seconds=0.5))
    take([sent.model_dump_json()], store)
    stored: dict[str, Record] = dict(store.stored_interactions(["i-1"]))
    assert stored == {"i-1": sent}


KILLED = """
import os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from ratchet.collect.ingest import ingest_file
from ratchet.store import EventStore
now = datetime(2026, 1, 5, 8, tzinfo=UTC)
kill = lambda rows: os.kill(os.getpid(), signal.SIGKILL)
ingest_file(Path(sys.argv[1]), EventStore.open(sys.argv[2]), now=now, chunk=500, progress=kill)
"""


@pytest.mark.mostly_slow("sqlite")
def test_a_killed_run_goes_on_where_it_was_when_it_is_started_again(
    tmp_path: Path, store_url: str
) -> None:
    path = lines(
        tmp_path,
        *[interaction(f"i-{number}") for number in range(700)],
        b"nonsense",
        *[thumbs(f"f-{number}", interaction_id=f"i-{number}") for number in range(700)],
    )
    command = [sys.executable, "-c", KILLED, str(path), store_url]
    assert subprocess.run(command, timeout=60, env=dict(os.environ)).returncode == -signal.SIGKILL
    store, told = EventStore.open(store_url, clock=lambda: NOW), []
    assert store.counts()["interactions"] == 500
    report = ingest_file(path, store, now=NOW, chunk=500, progress=told.append)
    assert (report.interactions, report.feedback, report.repeated) == (200, 700, 500)
    assert (report.set_aside, told) == (1, [500, 1_000, 1_401])
    again = ingest_file(path, store, now=NOW)
    assert (again.interactions, again.feedback, again.repeated) == (0, 0, 1_400)
    counts = store.counts()
    assert (counts["interactions"], counts["thumbs"], counts["set_aside"]) == (700, 700, 1)
    store.close()


def test_rows_with_long_texts_are_stored_in_smaller_parts(tmp_path: Path) -> None:
    """Memory stays bounded: 60 rows of a megabyte are no chunk."""
    sink, told = MemorySink(), []
    rows = [interaction(f"i-{n}", response="x" * 1_000_000) for n in range(60)]
    report = ingest_file(lines(tmp_path, *rows), sink, now=NOW, chunk=100, progress=told.append)
    assert report.set_aside == 60
    assert told == [20, 40, 60]  # at most 20 million characters and what the last five add
