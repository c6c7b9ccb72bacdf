"""Langfuse's observations, traces and scores come in as answers with feedback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.doors.bringing import GOLDEN, answers, bring, new_store, said, write


def observation(key: str, **more: Any) -> dict[str, Any]:
    return {
        "id": key, "trace_id": f"t-{key}", "project_id": "p", "type": "GENERATION", "name": "chat",
        "parent_observation_id": None, "start_time": "2026-11-20 10:00:00.000000",
        "end_time": "2026-11-20 10:00:01.500000", "user_id": "ana", "session_id": "s-1",
        "input": json.dumps([{"role": "user", "content": f"question {key}"}]),
        "output": json.dumps({"role": "assistant", "content": f"answer {key}"}),
        "provided_model_name": "gpt-4o", "level": "DEFAULT",
    } | more  # fmt: skip


def score(key: str, name: str, value: Any, **more: Any) -> dict[str, Any]:
    return {
        "id": key, "timestamp": "2026-11-20 10:05:00.000000", "name": name, "value": value,
        "source": "API", "data_type": "NUMERIC", "string_value": None, "comment": None,
        "trace_id": None, "observation_id": None, "updated_at": "2026-11-20 10:05:00.000000",
    } | more  # fmt: skip


def test_an_export_of_the_documented_schema_comes_in_whole(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    report = bring(GOLDEN / "langfuse", store)
    expected = json.loads((GOLDEN / "langfuse.expected.json").read_text("utf-8"))
    told = [
        {
            "question": item.prompt, "answer": item.response, "user": item.user_id,
            "session": item.session_id, "model": item.model_version, "error": item.error,
            "at": item.created_at.isoformat(), "seconds": item.latency_seconds,
            "calls": [call.name for call in item.tool_calls],
        }
        for item in answers(store)
    ]  # fmt: skip
    assert told == expected["answers"]
    assert sorted(map(repr, said(store))) == sorted(repr(tuple(x)) for x in expected["feedback"])
    assert report.passed == (
        ("an observation that is no generation: a step of the application", 2),
    )
    assert report.set_aside == 1  # the score of a session
    assert report.noted == ()  # every score has found its answer


def test_a_second_import_adds_nothing(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    first = bring(GOLDEN / "langfuse", store)
    again = bring(GOLDEN / "langfuse", store)
    assert (again.interactions, again.feedback) == (0, 0)
    assert again.repeated + again.recognised == first.interactions + first.feedback
    assert again.set_aside == first.set_aside


def test_parquet_and_lines_of_the_same_rows_are_the_same_answers(tmp_path: Path) -> None:
    rows = [observation(f"o{number}") for number in range(5)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "observations.parquet")
    write(tmp_path / "observations.jsonl", *rows)
    one, other = (new_store(tmp_path / name) for name in ("one", "other"))
    bring(tmp_path / "observations.parquet", one)
    bring(tmp_path / "observations.jsonl", other)
    assert answers(one) == answers(other)
    assert len(answers(one)) == 5


def test_a_score_on_a_trace_is_about_its_last_answer(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    write(
        tmp_path / "all.jsonl",
        observation("late", trace_id="t", end_time="2026-11-20 10:00:09.000000"),
        observation("early", trace_id="t"),
        score("s", "user-feedback", 1, trace_id="t"),
    )
    assert bring(tmp_path / "all.jsonl", store).noted == ()
    assert said(store) == [("answer late", "thumbs", "up")]


def test_a_score_on_a_step_is_about_the_answer_of_its_trace(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    write(
        tmp_path / "all.jsonl",
        observation("o", trace_id="t"),
        observation("span", trace_id="t", type="SPAN"),
        score("s", "user-feedback", 1, trace_id="t", observation_id="span"),
    )
    bring(tmp_path / "all.jsonl", store)
    assert said(store) == [("answer o", "thumbs", "up")]


def test_scores_that_come_first_wait_for_their_answer(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    write(tmp_path / "s.jsonl", score("s", "user-feedback", 0, trace_id="t", comment="wrong"))
    waiting = bring(tmp_path / "s.jsonl", store)
    assert waiting.noted == (("feedback on answers that are not in the store (yet)", 2),)
    bring(write(tmp_path / "o.jsonl", observation("o", trace_id="t")), store)
    assert [one for one in said(store) if one[0] != "?"] == [
        ("answer o", "comment", "wrong"),
        ("answer o", "thumbs", "down"),
    ]
    again = bring(tmp_path / "s.jsonl", store)
    assert (again.feedback, again.set_aside) == (0, 0)


def test_a_later_version_of_a_score_replaces_the_earlier(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    first = score("s", "user-feedback", 1, trace_id="t")
    bring(write(tmp_path / "a.jsonl", observation("o", trace_id="t"), first), store)
    later = first | {"value": 0, "updated_at": "2026-11-21 08:00:00.000000"}
    assert bring(write(tmp_path / "b.jsonl", later), store).set_aside == 0
    assert said(store) == [("answer o", "thumbs", "down")]


@pytest.mark.parametrize(
    ("given", "kind", "value"),
    [
        (score("s", "thumbs", 0), "thumbs", "down"),
        (score("s", "user-feedback", -1), "thumbs", "down"),
        (score("s", "helpful", 1, data_type="BOOLEAN"), "thumbs", "up"),
        (score("s", "rating", 4), "stars", 4),
        (score("s", "faithfulness", 0.75, source="EVAL"), "judge_score", 0.75),
        (score("s", "exact", 0, data_type="BOOLEAN"), "judge_score", 0.0),
        (score("s", "tone", 3), "dimension", 3),
        (score("s", "note", 0, data_type="TEXT", string_value="too long"), "comment", "too long"),
        (score("s", "reaction", 0, data_type="CATEGORICAL", string_value="down"), "thumbs", "down"),
        (score("s", "output", 0, data_type="CORRECTION", string_value="42"), "correction", "42"),
    ],
)
def test_scores_are_feedback_by_name_and_value(
    tmp_path: Path, given: dict[str, Any], kind: str, value: object
) -> None:
    store = new_store(tmp_path)
    rows = (observation("o", trace_id="t"), given | {"trace_id": "t"})
    assert bring(write(tmp_path / "all.jsonl", *rows), store).set_aside == 0
    assert said(store) == [("answer o", kind, value)]


def test_a_score_that_is_none_of_these_says_how_it_becomes_one(tmp_path: Path) -> None:
    store, rows = new_store(tmp_path), (observation("o"), score("s", "words", 212, trace_id="t-o"))
    path = write(tmp_path / "all.jsonl", *rows)
    (example,) = bring(path, store).examples
    assert example.position == "line 2"
    assert "from 0 to 1, got 212 for 'words'; say what it is in a file for --map" in example.reason
    assert bring(path, store, mapping={"scores": {"words": "comment"}}).feedback == 1


def test_a_trace_without_observations_is_an_answer_and_one_with_them_is_not(tmp_path: Path) -> None:
    trace = {
        "id": "t1", "timestamp": "2026-11-30T10:00:00.000Z", "userId": "u", "sessionId": "s",
        "input": {"messages": [{"role": "user", "content": "Why?"}]},
        "output": {"role": "assistant", "content": "Because."}, "latency": 1.5,
        "scores": [{"id": "x", "name": "user-feedback", "value": 1, "dataType": "NUMERIC",
                    "timestamp": "2026-11-30T10:01:00.000Z"}],
    }  # fmt: skip
    inner = {"id": "o1", "type": "GENERATION", "startTime": "2026-11-30T10:00:00.500Z",
             "input": "Why not?", "output": "So.", "model": "m"}  # fmt: skip
    with_one = trace | {"id": "t2", "observations": [inner], "scores": []}
    store = new_store(tmp_path)
    bring(write(tmp_path / "traces.jsonl", trace, with_one), store)
    assert [(item.prompt, item.response) for item in answers(store)] == [
        ("Why?", "Because."), ("Why not?", "So.")
    ]  # fmt: skip
    assert answers(store)[1].user_id == "u"
    assert said(store) == [("Because.", "thumbs", "up")]


def test_an_answer_without_a_question_is_set_aside_with_its_place(tmp_path: Path) -> None:
    rows = (observation("a", input=None), observation("b", output=""), observation("c"))
    store = new_store(tmp_path)
    report = bring(write(tmp_path / "o.jsonl", *rows), store)
    assert (report.interactions, report.set_aside) == (1, 2)
    assert [(row.position, row.reason.partition(", got")[0]) for row in report.examples] == [
        ("line 1", "an answer must have a question"),
        ("line 2", "an answer must have words, calls or a refusal"),
    ]


def test_scores_of_csv_whose_cells_are_text_are_the_same(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    bring(write(tmp_path / "o.jsonl", observation("o", trace_id="t")), store)
    rows = [
        score("s1", "user-feedback", "0.0", trace_id="t"),
        score("s2", "rating", "4", trace_id="t"),
        score("s3", "ok", "1", data_type="BOOLEAN", trace_id="t"),
    ]
    cells = [",".join("" if cell is None else str(cell) for cell in row.values()) for row in rows]
    (tmp_path / "s.csv").write_text("\n".join([",".join(rows[0]), *cells]))
    assert bring(tmp_path / "s.csv", store).set_aside == 0
    assert said(store) == [
        ("answer o", "thumbs", "down"),
        ("answer o", "stars", 4),
        ("answer o", "judge_score", 1.0),
    ]


def test_since_passes_over_what_is_older(tmp_path: Path) -> None:
    from datetime import UTC, datetime

    old = observation("old", end_time="2026-10-01 10:00:01.500000")
    store = new_store(tmp_path)
    path = write(tmp_path / "o.jsonl", old, observation("new"))
    report = bring(path, store, since=datetime(2026, 11, 1, tzinfo=UTC))
    assert [item.response for item in answers(store)] == ["answer new"]
    assert report.passed == (("older than --since", 1),)
