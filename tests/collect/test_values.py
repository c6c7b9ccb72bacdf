"""Ordinary ways of writing values. Times are checked against `datetime` itself."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.collect.ingest import IngestReport, ingest, ingest_file
from ratchet.collect.values import moment, plain_values
from ratchet.records import Feedback
from ratchet.store import EventStore
from tests.collect.test_ingest import NOW, MemorySink, interaction, thumbs

AT = datetime(2025, 12, 24, 18, 30, 15, 250_000, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECONDS = (AT - EPOCH) // timedelta(microseconds=1)


def stored(**changes: Any) -> Feedback:
    """The one event that a row of feedback becomes."""
    sink = MemorySink()
    report = ingest([thumbs(**changes)], sink, source="test", now=NOW)
    assert report.set_aside == 0, sink.rejected
    (event,) = sink.feedback.values()
    return event


def refused(**changes: Any) -> str:
    """Why a row of feedback is set aside."""
    sink = MemorySink()
    assert ingest([thumbs(**changes)], sink, source="test", now=NOW).set_aside == 1
    return sink.rejected[0].reason


@pytest.mark.parametrize(
    ("kind", "given_value", "expected"),
    [
        ("stars", 5.0, 5),
        ("stars", "5", 5),
        ("stars", " 3.0 ", 3),
        ("dimension", 2.0, 2),
        ("copy", 1.0, True),
        ("copy", 0, False),
        ("regenerate", "TRUE", True),
        ("task_completed", "false", False),
        ("safety_violation", "0.0", False),
        ("thumbs", 1, "up"),
        ("thumbs", -1.0, "down"),
        ("thumbs", True, "up"),
        ("thumbs", False, "down"),
        ("thumbs", "Up", "up"),
        ("thumbs", "THUMBS_DOWN", "down"),
        ("thumbs", "+1", "up"),
        ("thumbs", "👎", "down"),
        ("Thumbs ", "up", "up"),
        ("session_end", "12.5", 12.5),
        ("comment", "5", "5"),
        ("correction", "true", "true"),
    ],
)
def test_a_value_written_in_an_ordinary_way_is_taken(
    kind: str, given_value: object, expected: object
) -> None:
    extra = {"name": "accuracy"} if kind == "dimension" else {}
    event = stored(kind=kind, value=given_value, **extra)
    assert (event.value, type(event.value)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("kind", "given_value"),
    [
        ("stars", 4.5), ("stars", "four"), ("stars", True), ("stars", float("nan")),
        ("copy", 2), ("copy", "yes"), ("copy", -1), ("task_completed", []),
        ("thumbs", 0), ("thumbs", "0"), ("thumbs", 2), ("thumbs", "sideways"), ("thumbs", {}),
    ],
)  # fmt: skip
def test_a_value_that_is_not_certain_is_set_aside_as_it_came(
    kind: str, given_value: object
) -> None:
    assert plain_values({"kind": kind, "value": given_value})["value"] is given_value
    assert refused(kind=kind, value=given_value).startswith("value: ")


@pytest.mark.parametrize(
    "written",
    [
        MICROSECONDS / 1e6,
        MICROSECONDS // 1_000,
        MICROSECONDS,
        MICROSECONDS * 1_000,
        str(MICROSECONDS // 1_000),
        f"{MICROSECONDS / 1e6:.2f}",
        AT.isoformat(),
        AT.astimezone(timezone(timedelta(hours=-7))).isoformat(),
    ],
)
def test_a_time_is_read_in_any_unit_since_1970(written: object) -> None:
    assert stored(created_at=written).created_at == AT


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=9)), timezone(-timedelta(hours=4))])
def test_a_time_is_read_as_mails_write_it(zone: timezone) -> None:
    whole = AT.replace(microsecond=0)
    assert stored(created_at=format_datetime(whole.astimezone(zone))).created_at == whole
    assert stored(created_at=f"{whole:%d %b %Y %H:%M:%S} GMT").created_at == whole
    assert stored(created_at=f"{whole:%a, %d %b %Y %H:%M:%S} -0000").created_at == whole


@given(st.integers(10**15, 7 * 10**15))  # from 2001 to 2191
def test_every_unit_since_1970_names_the_same_time(count: int) -> None:
    at = EPOCH + timedelta(microseconds=count)
    assert moment(count) == moment(count * 1_000) == at
    assert moment(count // 1_000) == at - timedelta(microseconds=count % 1_000)
    assert moment(count // 1_000_000) == at.replace(microsecond=0)


@pytest.mark.parametrize("value", [True, None, [], "soon", "2026-01-05T07:00:00", 10**25, "1e999"])
def test_what_is_no_time_stays_as_it_is(value: object) -> None:
    assert isinstance(moment(value), datetime) is False


def test_a_time_without_a_zone_is_still_set_aside() -> None:
    assert "must carry a time zone" in refused(created_at="2026-01-05 07:00:00")


def test_numeric_ids_are_their_digits() -> None:
    event = stored(id=17, interaction_id=4.0, user_id=9)
    assert (event.id, event.interaction_id, event.user_id) == ("17", "4", "9")
    sink = MemorySink()
    row = interaction(12, session_id=3.0, user_id=10**17 + 1, segment=7, model_version=2)
    assert ingest([row], sink, source="test", now=NOW).interactions == 1
    answer = sink.interactions["12"]
    assert (answer.session_id, answer.user_id) == ("3", "100000000000000001")
    assert (answer.segment, answer.model_version) == ("7", "2")


@pytest.mark.parametrize("key", [True, 1.5, [], {}])
def test_what_is_no_id_is_set_aside(key: object) -> None:
    assert refused(interaction_id=key).startswith("interaction_id: ")


WIDE = dict.fromkeys((*interaction(), *thumbs(), "name", "source", "kind", "value", "metadata"))


def test_a_wide_export_with_nulls_in_every_other_column_is_taken() -> None:
    sink = MemorySink()
    rows = [WIDE | interaction("i-1"), WIDE | thumbs("f-1"), WIDE | {"unheard_of": None} | thumbs()]
    report = ingest(rows, sink, source="test", now=NOW)
    assert report == IngestReport(1, 1, repeated=1, set_aside=0, reasons=())


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_pandas_exports_mean_the_same_in_every_form(tmp_path: Path, form: str) -> None:
    """One interaction and three opinions, as `DataFrame.to_json`, `to_csv`, `to_parquet` do it."""
    rows = [WIDE | interaction("1", messages=json.dumps(interaction()["messages"]))]
    for number, (kind, value) in enumerate([("stars", 4.0), ("copy", 1.0), ("thumbs", -1.0)]):
        rows.append(WIDE | thumbs(f"f-{number}", kind=kind, value=value, interaction_id="1"))
    path = tmp_path / f"export.{form}"
    if form == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    elif form == "csv":
        lines = [",".join(f'"{name}"' for name in rows[0])]
        for row in rows:
            cells = ("" if cell is None else str(cell).replace('"', '""') for cell in row.values())
            lines.append(",".join(f'"{cell}"' for cell in cells))
        path.write_text("\n".join(lines))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    sink = MemorySink()
    report = ingest_file(path, sink, now=NOW)
    assert (report.interactions, report.feedback, report.set_aside) == (1, 3, 0), sink.rejected
    assert [event.value for event in sink.feedback.values()] == [4, True, "down"]


def test_an_ordinary_value_is_the_same_event_as_the_plain_one(tmp_path: Path) -> None:
    """So that the export of another tool stores nothing twice."""
    store = EventStore.open(f"sqlite:///{tmp_path / 's.db'}")
    rows = [thumbs(kind="stars", value=4), thumbs(kind="stars", value="4.0", user_id=None)]
    report = ingest(rows, store, source="test", now=NOW)
    assert (report.feedback, report.repeated, report.set_aside) == (1, 1, 0)
    store.close()
