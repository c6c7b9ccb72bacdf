"""Traces of MLflow come in with their assessments, from files and page by page from its store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ratchet.collect.recognising import Recogniser
from ratchet.collect.report import IngestReport
from ratchet.doors.door import Given
from ratchet.doors.known import door_named
from ratchet.doors.pages import LOOKED_BACK, reached, store_pages
from ratchet.errors import InvalidInputError
from ratchet.store import EventStore
from ratchet.tracking import Tracker
from ratchet.tracking.traces import trace_pages
from tests.doors.bringing import NOW, answers, bring, new_store, said, write

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
    door = door_named("mlflow")
    pages = trace_pages(uri, "support", reached(store, door, uri), page=page)
    given = Given(at=NOW, source="mlflow:support")
    return list(
        store_pages(pages, door, uri, given, store, known=Recogniser(store), now=NOW)
    )  # fmt: skip


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Make an experiment with five traces in a store of MLflow; return its URI."""
    import mlflow

    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment("support")
    for number in range(5):
        with mlflow.start_span("chat", span_type="CHAT_MODEL") as one:
            one.set_inputs(CHAT | {"messages": [{"role": "user", "content": f"q{number}"}]})
            one.set_outputs(
                {"choices": [{"message": {"role": "assistant", "content": f"a{number}"}}]}
            )
    mlflow.flush_trace_async_logging()
    yield uri
    mlflow.set_tracking_uri(before)


def test_a_store_of_mlflow_is_read_page_by_page_and_what_is_said_later_is_found(
    experiment: str, tmp_path: Path
) -> None:
    import mlflow
    from mlflow.entities import AssessmentSource

    store = new_store(tmp_path)
    assert [report.interactions for report in pull(store, experiment)] == [2, 2, 1]
    assert sorted(kept.prompt for kept in answers(store)) == [f"q{n}" for n in range(5)]
    traced = {kept.response: kept.metadata["mlflow_trace_id"] for kept in answers(store)}
    person = AssessmentSource(source_type="HUMAN", source_id="ana")
    mlflow.set_tracking_uri(experiment)
    mlflow.log_feedback(trace_id=traced["a3"], name="user_feedback", value=False, source=person)
    Tracker(experiment, artifacts=tmp_path / "artifacts", model_name="m").assess(
        traced["a4"], "tone", 1.0, by="judge/1", human=False
    )
    again = pull(store, experiment)
    assert sum(report.interactions for report in again) == 0
    assert said(store) == [("a3", "thumbs", "down")]
    assert sum(report.feedback for report in pull(store, experiment)) == 0


def test_the_next_look_begins_a_week_before_the_last_trace(experiment: str, tmp_path: Path) -> None:
    store, door = new_store(tmp_path), door_named("mlflow")
    assert reached(store, door, experiment) is None
    pull(store, experiment)
    last = max(kept.created_at for kept in answers(store))
    begin = reached(store, door, experiment)
    assert begin is not None
    assert abs(begin + LOOKED_BACK - last) < timedelta(minutes=1)


def test_an_experiment_that_is_not_there_is_an_error(experiment: str) -> None:
    with pytest.raises(InvalidInputError, match="an experiment must be there, got 'other'"):
        list(trace_pages(experiment, "other", None))
