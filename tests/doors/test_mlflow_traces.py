"""Traces of MLflow come in with their assessments, from files and page by page from its store."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ratchet.collect.recognising import Recogniser
from ratchet.collect.report import IngestReport
from ratchet.doors.door import Given
from ratchet.doors.known import door_named
from ratchet.doors.pages import Reached, Server, look
from ratchet.doors.servers import LOOKED_BACK, traces
from ratchet.errors import InvalidInputError
from ratchet.store import EventStore
from ratchet.store.tables import FACTS
from ratchet.tracking import Tracker
from ratchet.tracking.traces import trace_pages
from tests.doors.bringing import answers, bring, new_store, said, write
from tests.servers.mlflow_server import running_mlflow

CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Where is my order?"}]}
TOLD = {"choices": [{"message": {"role": "assistant", "content": "On its way."}}]}


def span(key: str, kind: str = "CHAT_MODEL", parent: str | None = None, **more: Any) -> Any:
    """Return a span as `Span.to_dict` of MLflow 3 writes it: attributes are JSON."""
    held = {"mlflow.spanType": kind, "mlflow.spanInputs": CHAT, "mlflow.spanOutputs": TOLD} | more
    return {
        "trace_id": "AAAAAAAAAAAAAAAAAAAAAQ==", "span_id": key, "parent_span_id": parent,
        "name": kind, "start_time_unix_nano": 1_796_032_800_000_000_000,
        "end_time_unix_nano": 1_796_032_801_500_000_000,
        "status": {"code": "STATUS_CODE_OK", "message": ""}, "events": [],
        "attributes": {name: json.dumps(value) for name, value in held.items()},
    }  # fmt: skip


def trace(*spans: Any, assessments: Any = (), key: str = "tr-1", **metadata: str) -> Any:
    info = {
        "trace_id": key, "request_time": "2026-11-30T10:00:00Z", "state": "OK",
        "trace_metadata": {"mlflow.trace.user": "ana", "mlflow.trace.session": "s-1"} | metadata,
        "tags": {"mlflow.traceName": "ask", "plan": "pro"}, "assessments": list(assessments),
    }  # fmt: skip
    return {"info": info, "data": {"spans": list(spans)}}


def assessment(name: str, key: str = "a-1", **more: Any) -> Any:
    return {
        "assessment_id": key, "assessment_name": name, "trace_id": "tr-1",
        "source": {"source_type": "HUMAN", "source_id": "ana"},
        "create_time": "2026-11-30T11:00:00Z", "last_update_time": "2026-11-30T11:00:00Z",
        "valid": True,
    } | more  # fmt: skip


SOURCE = "mlflow:support"
FIRST, SECOND = "AAAAAAAAAAE=", "AAAAAAAAAAI="
"""Base64 of span ids 1 and 2."""


def test_a_chat_span_is_an_answer_with_what_its_trace_says(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    usage = {"mlflow.chat.tokenUsage": {"input_tokens": 9, "output_tokens": 4}}
    row = trace(span(FIRST, "CHAIN"), span(SECOND, parent=FIRST, **usage))
    report = bring(write(tmp_path / "t.jsonl", row), store)
    (kept,) = answers(store)
    assert (kept.prompt, kept.response, kept.user_id, kept.session_id, kept.model_version) == (
        "Where is my order?", "On its way.", "ana", "s-1", "gpt-4o"
    )  # fmt: skip
    assert kept.metadata == {
        "mlflow_trace_id": "tr-1", "plan": "pro", "prompt_tokens": "9", "completion_tokens": "4"
    }  # fmt: skip
    assert kept.latency_seconds == pytest.approx(1.5)
    assert sum(count for _, count in report.passed) == 1


def test_a_trace_without_a_models_span_is_an_answer_by_its_first_span(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    root = span(
        FIRST, "CHAIN", **{"mlflow.spanInputs": {"topic": "Hi"}, "mlflow.spanOutputs": "Ho"}
    )
    bring(write(tmp_path / "t.jsonl", trace(root)), store)
    assert [(kept.prompt, kept.response) for kept in answers(store)] == [("Hi", "Ho")]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (assessment("user_feedback", feedback={"value": True}, rationale="quick"),
         [("comment", "quick"), ("thumbs", "up")]),
        (assessment("correctness", feedback={"value": 0.5}), [("judge_score", 0.5)]),
        (assessment("rating", feedback={"value": 4.0}), [("stars", 4)]),
        (assessment("expected_response", expectation={"value": "In Ulm."}),
         [("correction", "In Ulm.")]),
        (assessment("user_feedback", feedback={"value": False}, span_id="0000000000000002"),
         [("thumbs", "down")]),
        (assessment("facts", expectation={"serialized_value": {"value": "[]"}}), []),
        (assessment("user_feedback", feedback={"value": True}, valid=False), []),
        (assessment("x", feedback={"error": {"error_code": "E"}}), []),
        (assessment("tone", feedback={"value": 1.0}, metadata={"written_by": "ratchet"}), []),
    ],
)  # fmt: skip
def test_assessments_are_feedback_on_the_answer(
    tmp_path: Path, given: Any, expected: list[tuple[str, Any]]
) -> None:
    store = new_store(tmp_path)
    report = bring(write(tmp_path / "t.jsonl", trace(span(SECOND), assessments=[given])), store)
    assert [(kind, value) for _, kind, value in said(store)] == expected
    assert {about for about, _, _ in said(store)} <= {"On its way."}
    assert report.set_aside == 0
    assert sum(count for _, count in report.passed) == (0 if expected else 1)


def test_a_failed_span_is_an_error(tmp_path: Path) -> None:
    store, failed = new_store(tmp_path), span(SECOND)
    failed |= {"status": {"code": "STATUS_CODE_ERROR", "message": "overloaded"}}
    bring(write(tmp_path / "t.jsonl", trace(failed)), store)
    assert [kept.error for kept in answers(store)] == ["overloaded"]


def pull(store: EventStore, uri: str, page: int = 2) -> list[IngestReport]:
    server = Server(SOURCE, door_named("mlflow"), (traces(uri, "support", page),), "support")
    now = datetime.now(UTC)  # traces are of the time at which they are made
    given = Given(at=now, source=SOURCE)
    return list(look(server, given, store, since=None, known=Recogniser(store), now=now))


def reached(store: EventStore) -> Reached:
    """Return up to when the experiment was read."""
    with store.reading() as connection:
        kept = connection.execute(sa.select(FACTS.c.value).where(FACTS.c.name.like("import:%")))
        return Reached.of(kept.scalar_one_or_none())


def said_later(uri: str, trace_id: str, rated: str) -> None:
    """Rate an answer as a person does, and another one as Ratchet writes its verdicts back."""
    import mlflow
    from mlflow.entities import AssessmentSource

    person = AssessmentSource(source_type="HUMAN", source_id="ana")
    mlflow.set_tracking_uri(uri)
    mlflow.log_feedback(trace_id=trace_id, name="user_feedback", value=False, source=person)
    tracker = Tracker(uri, artifacts=Path("unused"), model_name="m")
    assert tracker.assess(rated, "tone", 1.0, by="judge/1", human=False)


def check_pages(uri: str, folder: Path) -> None:
    """Make five traces, read them page by page, and again once something was said about them."""
    import mlflow

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment("support")
    for number in range(5):
        with mlflow.start_span("chat", span_type="CHAT_MODEL") as one:
            one.set_inputs(CHAT | {"messages": [{"role": "user", "content": f"q{number}"}]})
            told = {"role": "assistant", "content": f"a{number}"}
            one.set_outputs({"choices": [{"message": told}]})
    mlflow.flush_trace_async_logging()
    try:
        store = new_store(folder)
        assert reached(store) == Reached()
        assert [report.interactions for report in pull(store, uri)] == [2, 2, 1]
        kept = {one.response: one for one in answers(store)}
        assert {one.prompt for one in kept.values()} == {f"q{n}" for n in range(5)}
        until = reached(store).until
        assert until is not None
        last = max(one.created_at for one in kept.values())
        assert abs(until - last) < timedelta(minutes=1)
        assert reached(store).next_begin(None, LOOKED_BACK) == until - LOOKED_BACK
        traced = {key: one.metadata["mlflow_trace_id"] for key, one in kept.items()}
        said_later(uri, traced["a3"], traced["a4"])
        assert sum(report.interactions for report in pull(store, uri)) == 0
        assert said(store) == [("a3", "thumbs", "down")]
        assert sum(report.feedback for report in pull(store, uri)) == 0
        with pytest.raises(InvalidInputError, match="an experiment must be there, got 'other'"):
            list(trace_pages(uri, "other", None))
    finally:
        mlflow.set_tracking_uri(before)


def test_an_experiment_is_read_page_by_page_and_what_is_said_later_is_found(
    mlflow_database: Path, tmp_path: Path
) -> None:
    shutil.copyfile(mlflow_database, tmp_path / "mlflow.db")
    check_pages(f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "store")


@pytest.mark.slow
def test_a_server_of_mlflow_is_read_as_its_database_is(
    mlflow_database: Path, tmp_path: Path
) -> None:
    (tmp_path / "server").mkdir()
    with running_mlflow(tmp_path / "server", mlflow_database) as (address, _):
        check_pages(address, tmp_path / "store")
