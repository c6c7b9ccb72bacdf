"""LangSmith's runs and feedback come in as answers with feedback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ratchet.doors.importing import prepare
from tests.doors.bringing import NOW, answers, bring, new_store, said, write

EXTRA = {
    "metadata": {"ls_model_name": "gpt-4o", "thread_id": "s-1", "user_id": "ana", "plan": "pro"},
    "invocation_params": {"model": "gpt", "temperature": 0.5},
}  # fmt: skip


def run(key: str, **more: Any) -> dict[str, Any]:
    """Return a run by the documented format; objects are JSON in the export's columns."""
    return {
        "id": key, "trace_id": "t-1", "dotted_order": f"1Z{key}", "run_type": "llm", "name": "chat",
        "session_id": "project", "start_time": "2026-11-20T10:00:00.000000",
        "end_time": "2026-11-20T10:00:01.500000", "status": "success", "error": None,
        "inputs": json.dumps({"messages": [{"role": "user", "content": f"question {key}"}]}),
        "outputs": json.dumps({"choices": [{"message": {"role": "assistant",
                                                        "content": f"answer {key}"}}]}),
        "extra": json.dumps(EXTRA), "prompt_tokens": 7, "completion_tokens": 2,
        "first_token_time": "2026-11-20T10:00:00.250000",
    } | more  # fmt: skip


def feedback(key: str, name: str, about: str = "r1", **more: Any) -> dict[str, Any]:
    return {
        "id": key, "run_id": about, "trace_id": "t-1", "key": name, "score": None, "value": None,
        "comment": None, "correction": None, "created_at": "2026-11-20T11:00:00.000000",
        "modified_at": "2026-11-20T11:00:00.000000",
    } | more  # fmt: skip


def test_parquet_and_lines_of_the_same_rows_are_the_same_answers(tmp_path: Path) -> None:
    rows = [run("r1"), run("r2")]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "runs.parquet")
    write(tmp_path / "runs.jsonl", *rows)
    stores = new_store(tmp_path / "a"), new_store(tmp_path / "b")
    for store, name in zip(stores, ("runs.parquet", "runs.jsonl"), strict=True):
        assert prepare(str(tmp_path / name), now=NOW).door.name == "langsmith"
        assert bring(tmp_path / name, store).set_aside == 0
    assert answers(stores[0]) == answers(stores[1])
    kept = answers(stores[0])[0]
    assert (kept.prompt, kept.response, kept.user_id, kept.session_id, kept.model_version) == (
        "question r1", "answer r1", "ana", "s-1", "gpt-4o"
    )  # fmt: skip
    assert kept.metadata["first_token_seconds"] == "0.25"
    assert (kept.metadata["temperature"], kept.metadata["prompt_tokens"]) == ("0.5", "7")
    assert kept.latency_seconds == pytest.approx(1.5)


def serialised(kind: str, **kwargs: Any) -> dict[str, Any]:
    names = ["langchain", "schema", "messages", kind]
    return {"lc": 1, "type": "constructor", "id": names, "kwargs": kwargs}


def test_messages_of_langchain_are_read(tmp_path: Path) -> None:
    call = {"name": "refund", "args": {"order": 7}, "id": "c1"}
    asked = [[
        serialised("SystemMessage", content="Be kind."), serialised("HumanMessage", content="Hi"),
    ]]  # fmt: skip
    told = serialised("AIMessage", content="", tool_calls=[call])
    row = run(
        "r1",
        inputs={"messages": asked},
        outputs={"generations": [[{"text": "", "message": told}]]},
    )
    store = new_store(tmp_path)
    bring(write(tmp_path / "r.jsonl", row), store)
    (kept,) = answers(store)
    assert [(turn.role, turn.content) for turn in kept.messages] == [
        ("system", "Be kind."), ("user", "Hi")
    ]  # fmt: skip
    assert [(one.name, one.arguments) for one in kept.tool_calls] == [("refund", {"order": 7})]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (feedback("f", "user_score", score=1.0), [("thumbs", "up")]),
        (feedback("f", "user_score", score=0.0, comment="wrong"),
         [("comment", "wrong"), ("thumbs", "down")]),
        (feedback("f", "faithful", score=0.75), [("judge_score", 0.75)]),
        (feedback("f", "stars", score=4.0), [("stars", 4)]),
        (feedback("f", "note", value="far too long"), [("comment", "far too long")]),
        (feedback("f", "fix", correction='{"output": "42"}'), [("correction", "42")]),
    ],
)  # fmt: skip
def test_feedback_is_about_its_run(
    tmp_path: Path, given: dict[str, Any], expected: list[tuple[str, Any]]
) -> None:
    store = new_store(tmp_path)
    write(tmp_path / "runs.jsonl", run("r1"), run("r2"), given)
    assert bring(tmp_path / "runs.jsonl", store).noted == ()
    assert [(about, kind, value) for about, kind, value in said(store)] == [
        ("answer r1", kind, value) for kind, value in expected
    ]


def test_feedback_on_a_trace_is_about_its_last_answer(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    chain = run("t-1", run_type="chain")
    later = run("r2", end_time="2026-11-20T10:00:09")
    rows = chain, run("r1"), later, feedback("f", "user_score", "t-1", score=1)
    report = bring(write(tmp_path / "r.jsonl", *rows), store)
    assert said(store) == [("answer r2", "thumbs", "up")]
    assert sum(count for _, count in report.passed) == 1


def test_a_run_that_failed_is_an_error_and_a_second_import_adds_nothing(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    path = write(tmp_path / "r.jsonl", run("r1", error="overloaded", outputs=None))
    bring(path, store)
    assert [kept.error for kept in answers(store)] == ["overloaded"]
    again = bring(path, store)
    assert (again.interactions, again.set_aside) == (0, 0)
