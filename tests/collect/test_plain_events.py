"""Rows that skip the records are the rows that the records give."""

from __future__ import annotations

import csv
import json
import os
import signal
import struct
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratchet.collect.ingest import ingest, ingest_file
from ratchet.collect.plain_events import feedback_row_of, plain_feedback, plain_interaction
from ratchet.errors import InvalidInputError
from ratchet.records import FEEDBACK, FEEDBACK_KINDS, Interaction, SetAside
from ratchet.records.signals import BY_NAME
from ratchet.store import Added, EventStore
from ratchet.store.event_rows import FeedbackRow, InteractionRow, feedback_row
from ratchet.store.history.layout import LATER
from ratchet.store.rows import microseconds
from tests.collect.test_ingest import NOW, interaction, thumbs
from tests.parameters import examples

EARLIEST, LATEST = microseconds(datetime(2015, 1, 1, tzinfo=UTC)), microseconds(NOW)
VALUES = {
    "thumbs": "down", "stars": 4, "dimension": 2, "comment": "Zu spät", "correction": "a\nb",
    "copy": True, "regenerate": False, "task_completed": True, "session_end": 12.5,
    "safety_violation": True, "judge_score": 0.25, "asked_again": True, "edited": False,
    "continued": True, "left": 3, "visit_seconds": 61.5, "next_turn": 2,
    "session_score": 0.75,
}  # fmt: skip
DETAILS = {
    "dimension": {"name": "accuracy"},
    "judge_score": {"judge_version": "judge/1"},
    "session_score": {"judge_version": "judge/1"},
    "next_turn": {"judge_version": "next-turn-rules-1/en"},
}


@dataclass
class RowSink:
    """Takes every row as new and keeps what it was given."""

    rows: list[tuple[Any, ...]] = field(default_factory=list)
    rejected: list[SetAside] = field(default_factory=list)

    def add_interaction_rows(self, rows: Any) -> Added:
        self.rows += rows
        return Added(len(rows), 0, ())

    add_feedback_rows = add_interaction_rows

    def add_definitions(self, definitions: Any) -> None:
        self.rows += [(found.id, found.body) for found in definitions]

    def set_aside(self, rows: Any) -> None:
        self.rejected += rows

    def answered_at(self, _ids: Any) -> dict[str, datetime]:
        return {}

    def stored_feedback(self, _ids: Any) -> dict[str, Any]:
        return {}

    @property
    def outcome(self) -> Any:
        """Rows, and position and reason of what was set aside."""
        return self.rows, [(row.position, row.reason) for row in self.rejected]


def outcome(rows: list[Any]) -> Any:
    """What becomes of rows: texts may skip the records, mappings never do."""
    sink = RowSink()
    report = ingest(rows, sink, source="test", now=NOW)
    return sink.outcome, report.reasons, report.noted


ODD = st.sampled_from(
    [
        *(None, True, False, 0, 1, -1, 5, 2**53, 10**400, 0.5, -0.0, 1e300, 1e16, 7.0, [], {}),
        *("", " ", "a", "\x00", "\x7f", "\ud800", "é", "😀", "\u2028", '"\\', "\\u0000", "null"),
        *("x" * 199, "x" * 200, "x" * 201, "é" * 200, "x" * 99_000, "x" * 100_000, "x" * 100_001),
        *("up", "Up", "thumbs", "Stars", "3", "3.0", "1e3", "inf", "-1", "1_0", "٣", " 2 "),
        *("2026-01-05T07:00:00Z", "2026-01-05 07:00:00+00:00", "2026-01-05T07:00:00.5Z"),
        *("2026-01-05T07:00:00.123456Z", "2026-01-05T07:00:00.1234567Z", "2026-01-05T07:00:00"),
        *("2026-01-05T07:00:00.Z", "2026-01-05t07:00:00z", "2026-01-05T07:00:00+02:00"),
        *("2026-01-05T24:00:00Z", "2026-01-05T07:00:60Z", "2026-02-30T07:00:00Z", "2026-01-05Z"),
        *("2026-01-05T07:00:00.1+05Z", "2026-W02-1T07:00:00Z", "0000-01-05T07:00:00Z"),
        *(
            "2026-01-05T07:00:00,5Z",
            "2026-01-05T7:00:00.0Z",
            "2026-01-05T07:00:00 Z",
            "Z",
            "+00:00",
        ),
        *("2014-12-31T23:59:59.999999Z", "2015-01-01T00:00:00Z", "9999-12-31T23:59:59Z"),
        *("2026-01-05T08:00:00Z", "2026-01-05T08:00:00.000001Z", "2026-01-05T08:05:00Z"),
        *("2026-01-05T08:05:00.000001Z", 1767596400, "1767596400"),
        *([{"role": "user", "content": "a"}, {"role": "assistant", "content": "\x00"}],),
        *([{"role": "robot", "content": "a"}], [{"role": "user"}], ["a"], {"role": "user"}),
        *([{"role": "user", "content": "a", "name": None}], [{"content": "é\x1f", "role": "user"}]),
        *([{"role": "system", "content": ""}], [{"role": ["user"], "content": "a"}]),
        *({"b": "1", "a": "2"}, {"é": "\n"}, {"a": None}, {"a": 1}, {"": ""}, {"\ud800": ""}),
    ]
)
FIELDS = [
    *Interaction.model_fields, "kind", "value", "interaction_id", "updated_at", "name", "source",
    "judge_version", "extra",
]  # fmt: skip
TEXT = st.text(st.characters(), max_size=30)
METADATA = st.dictionaries(TEXT, TEXT, max_size=3)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant"]), "content": TEXT}
    ),
    max_size=3,
)


def event(kind: str) -> dict[str, Any]:
    return thumbs(kind=kind, value=VALUES[kind]) | DETAILS.get(kind, {})


BASES = st.sampled_from([interaction(), *map(event, VALUES)])
PLAIN_CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "response": TEXT, "messages": MESSAGES, "metadata": METADATA, "segment": TEXT,
        "user_id": TEXT, "error": TEXT, "latency_seconds": st.floats(0, 1e300) | st.integers(0, 99),
        "created_at": st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat)
        | st.timedeltas(timedelta(0), timedelta(days=4_200)).map(
            lambda gap: (NOW - gap).isoformat().replace("+00:00", "Z")
        ),
    },
)  # fmt: skip


@settings(max_examples=examples(300))
@given(
    base=BASES,
    changes=st.dictionaries(st.sampled_from(FIELDS), ODD | TEXT, max_size=3) | PLAIN_CHANGES,
)
def test_a_text_and_the_mapping_that_it_says_become_the_same(
    base: dict[str, Any], changes: dict[str, Any]
) -> None:
    """Same rows with the same digests, same reasons, same notes: mappings go by the records."""
    row = base | changes
    text = json.dumps(row)
    assert outcome([text]) == outcome([json.loads(text)])


@pytest.mark.parametrize("value", ["plain", 'q"\\uote', "a\x7fé😀\u2028", "x" * 50_000])
@pytest.mark.parametrize("moment", ["2026-01-05T07:00:00Z", "2026-01-05 07:00:00.25+00:00"])
def test_plain_interactions_skip_the_records(value: str, moment: str) -> None:
    row = interaction(
        response=value, created_at=moment, latency_seconds=0.5, metadata={"b": value[:9], "a": ""}
    )
    assert plain_interaction(row, earliest=EARLIEST, latest=LATEST) is not None
    assert outcome([json.dumps(row)]) == outcome([row])


def test_plain_feedback_of_every_kind_skips_the_records() -> None:
    assert set(VALUES) == set(FEEDBACK_KINDS)
    for kind in FEEDBACK_KINDS:
        row = event(kind) | {"user_id": "u", "updated_at": "2026-01-05T07:30:00Z"}
        found = plain_feedback(row, earliest=EARLIEST, latest=LATEST)
        assert isinstance(found, FeedbackRow), kind
        assert outcome([json.dumps(row)]) == outcome([row])
        detail = BY_NAME[kind].detail
        assert detail is None or found.text is not None


def test_the_plain_form_knows_every_field_of_an_interaction() -> None:
    """A field that is added to the record has to be added there too, or is never plain."""
    whole = interaction(latency_seconds=1, error="", segment="web", metadata={"a": "b"})
    assert set(whole) | LATER == set(Interaction.model_fields)
    for name in LATER:
        never = whole | {name: [{"function": {"name": "n"}}] if name == "tool_calls" else "0" * 64}
        assert plain_interaction(never, earliest=EARLIEST, latest=LATEST) is None
    assert plain_interaction(whole, earliest=EARLIEST, latest=LATEST) is not None
    assert set(InteractionRow._fields) - {"digest", "prompt"} == set(Interaction.model_fields)


TABLE = [
    interaction("i-1", latency_seconds=2.5, metadata={"é": '"'}, segment="web"),
    interaction("i-2", latency_seconds=3, error="no"),
    interaction("i-3", user_id=17),
    interaction("i-4", created_at="2026-01-05T09:00:00Z"),
    interaction("i-5", messages=[]),
    *[event(kind) | {"id": kind} for kind in VALUES],
    thumbs("f-1", value=1),
    thumbs("f-2", value="sideways"),
    thumbs("f-3", created_at=(NOW + timedelta(days=1)).isoformat()),
]


@pytest.mark.mostly_slow("jsonl-True", "csv-False", "parquet-False")
@pytest.mark.parametrize("second_process", [False, True])
@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_a_file_becomes_what_its_rows_become(
    tmp_path: Path, form: str, second_process: bool
) -> None:
    names = sorted({name for row in TABLE for name in row})
    path = tmp_path / f"rows.{form}"
    cells = [
        {
            name: json.dumps(given) if isinstance(given, dict | list) else given
            for name, given in row.items()
        }
        for row in TABLE
    ]
    if form == "jsonl":
        path.write_text("\n".join(map(json.dumps, TABLE)))
    elif form == "csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(cells)
    else:
        columns = {name: [row.get(name) for row in cells] for name in names}
        texts = {name: [None if v is None else str(v) for v in columns[name]] for name in names}
        texts |= {"latency_seconds": columns["latency_seconds"]}  # type: ignore[dict-item]
        pq.write_table(pa.table(texts), path)
    sink, expected = RowSink(), RowSink()
    found = ingest_file(path, sink, now=NOW, second_process=second_process)
    wanted = ingest(TABLE, expected, source="test", now=NOW)
    assert sink.rows == expected.rows
    assert len(sink.rows) == len(TABLE) - 3
    assert [reason.partition(", got")[0] for _, reason in sink.outcome[1]] == [
        reason.partition(", got")[0] for _, reason in expected.outcome[1]
    ]
    assert (found.interactions, found.feedback, found.noted) == (
        wanted.interactions, wanted.feedback, wanted.noted,
    )  # fmt: skip


def test_what_fails_in_the_second_process_is_said_in_the_first(tmp_path: Path) -> None:
    path = tmp_path / "none.jsonl"
    for second_process in (False, True):
        with pytest.raises(InvalidInputError, match="No such file"):
            ingest_file(path, RowSink(), now=NOW, second_process=second_process)


def killed_within_an_item(sender: Any, _make: Any, _given: Any) -> None:
    """In the place of what sends: says that a long item comes, sends its beginning, is killed."""
    os.write(sender.fileno(), struct.pack("!i", 1_000_000) + b"beginning")
    os.kill(os.getpid(), signal.SIGKILL)


def killed_before_an_item(sender: Any, _make: Any, _given: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.mostly_slow("killed_within_an_item")
@pytest.mark.parametrize("killed", [killed_within_an_item, killed_before_an_item])
def test_a_second_process_that_is_killed_is_said_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: Any
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(interaction("i")))
    monkeypatch.setattr("ratchet.collect.second_process._send", killed)
    with pytest.raises(InvalidInputError, match="was killed; run the same command again"):
        ingest_file(path, RowSink(), now=NOW, second_process=True)


def test_conflicts_look_alike_whoever_read_them(store: EventStore, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    texts = [interaction("i", response=f"{number}" + "é" * 300) for number in range(3)]
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in texts))
    for second_process in (False, True):
        ingest_file(path, store, now=NOW, chunk=2, second_process=second_process)
    kept = store.set_aside_rows()  # the same rows have the same ids: stored once
    assert [row.position for row in kept] == ["line 2", "line 3"]
    assert len(kept[0].raw) == 200


@pytest.mark.parametrize("kind", sorted(VALUES))
@pytest.mark.parametrize("year", [1, 1969, 2026, 9999])
def test_a_row_made_here_is_that_of_the_record_whatever_its_time(kind: str, year: int) -> None:
    at = datetime(year, 6, 1, 12, 0, 0, 125, tzinfo=UTC)
    fields = {"id": "f", "interaction_id": "i", "user_id": "ana", "kind": kind, "created_at": at}
    fields |= {"value": VALUES[kind], "updated_at": at, **DETAILS.get(kind, {})}
    assert feedback_row_of(fields) == feedback_row(FEEDBACK.validate_python(fields))


@pytest.mark.parametrize("name", ["\ud800", "a\x00b"])
@pytest.mark.parametrize("field", ["user_id", "interaction_id"])
def test_a_row_that_names_what_cannot_be_stored_is_set_aside(name: str, field: str) -> None:
    row = (interaction() if field == "user_id" else thumbs()) | {field: name}
    for given_as in (row, json.dumps(row)):
        sink = RowSink()
        report = ingest([given_as], sink, source="test", now=NOW)
        assert (report.set_aside, report.interactions, report.feedback) == (1, 0, 0)
        assert getattr(sink.rejected[0], field) is None
        assert sink.rejected[0].reason.startswith(field)
