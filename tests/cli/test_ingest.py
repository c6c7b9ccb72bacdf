"""`ratchet ingest` and `ratchet set-aside`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ratchet.cli import app
from ratchet.cli.progress import Progress
from ratchet.errors import InvalidInputError
from tests.collect.test_ingest import interaction, thumbs


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def write(path: Path, *rows: object) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


def ratchet(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


SIDEWAYS = "value: Input should be 'up' or 'down', got 'sideways'; correct the value"


def refusal(result: Any) -> str:
    """The message with which `main` ends with code 2."""
    assert isinstance(result.exception, InvalidInputError)
    return str(result.exception)


def test_what_was_stored_and_why_the_rest_was_not(tmp_path: Path) -> None:
    path = write(tmp_path / "e.jsonl", interaction(), thumbs(), thumbs("f-2", value="sideways"))
    result = ratchet("ingest", path)
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        "1 interaction and 1 piece of feedback stored",
        "0 were there before, 1 row set aside",
        f"{1:>8} × line 3: {SIDEWAYS}",
        "1 signal derived from 1 new interaction",  # months ago, and nothing followed
        "`ratchet set-aside` lists every row that was set aside",
    ]


def test_every_reason_is_printed_with_line_value_and_way_out(tmp_path: Path) -> None:
    fields = [f"colour_{number}" for number in range(45)]
    path = write(tmp_path / "e.jsonl", interaction(), *[thumbs(**{name: 7}) for name in fields])
    lines = ratchet("ingest", path).output.splitlines()
    for number, name in enumerate(fields, start=2):
        expected = f"line {number}: {name}: Extra inputs are not permitted, got 7; leave the field"
        assert sum(expected in line for line in lines) == 1


@pytest.mark.parametrize(
    "rows",
    [
        (),
        ("",),
        ("nonsense",),
        (thumbs(value="?"), interaction(response=5)),
        ({"prompt": "hi", "completion": "hello"},),
        (interaction(created_at="1970-01-01T00:00:00Z"),),
    ],
)
def test_a_file_of_which_nothing_can_be_used_ends_with_a_hint(
    tmp_path: Path, rows: tuple[object, ...]
) -> None:
    message = refusal(ratchet("ingest", write(tmp_path / "e.jsonl", *rows)))
    assert "must hold at least one usable row" in message
    assert "`messages` (an answer) or `kind` (feedback)" in message
    assert "--dialogues" in message
    assert "\n" not in message


def test_a_file_that_is_all_there_already_is_no_failure(tmp_path: Path) -> None:
    path = write(tmp_path / "e.jsonl", interaction(), thumbs())
    assert [ratchet("ingest", path).exit_code for _ in range(2)] == [0, 0]


def test_a_log_of_dialogues_without_answers_ends_with_a_hint_too(tmp_path: Path) -> None:
    people = {f"participant{n}_id": {"class": "User", "user_id": f"u{n}"} for n in (1, 2)}
    row = {"dialog": [{"sender": "participant1", "text": "hi"}], **people}
    message = refusal(ratchet("ingest", "--dialogues", write(tmp_path / "d.jsonl", row)))
    assert "leave --dialogues out" in message


def test_rows_set_aside_are_listed_with_place_reason_and_value(tmp_path: Path) -> None:
    ratchet("ingest", write(tmp_path / "a.jsonl", interaction(), thumbs(value="sideways")))
    ratchet("ingest", write(tmp_path / "b.csv", "id,kind,value", "x,stars,9", "y,stars,8"))
    assert ratchet("set-aside", "--source", "a.jsonl").output.splitlines() == [
        f"a.jsonl, line 2: {SIDEWAYS}",
        f"    received: {json.dumps(thumbs(value='sideways'))}",
    ]
    listed = json.loads(ratchet("set-aside", "--json").output)
    assert [(row["source"], row["position"]) for row in listed] == [
        ("a.jsonl", "line 2"), ("b.csv", "line 2"), ("b.csv", "line 3")
    ]  # fmt: skip
    assert listed[1]["raw"] == "x,stars,9"
    assert {"id", "created_at", "reason"} <= set(listed[0])


def test_the_latest_rows_are_listed_and_the_others_counted(tmp_path: Path) -> None:
    rows = [thumbs(f"f-{number}", value="?") for number in range(60)]
    ratchet("ingest", write(tmp_path / "a.jsonl", *rows))
    lines = ratchet("set-aside").output.splitlines()
    assert lines[0].startswith("a.jsonl, line 11: ")
    assert lines[-1] == "and 10 earlier rows; --latest 0 lists all"
    assert len(ratchet("set-aside", "--latest", 0).output.splitlines()) == 120
    assert len(json.loads(ratchet("set-aside", "--json", "--latest", 3).output)) == 3


def test_nothing_set_aside_says_so_and_creates_no_home(home: Path) -> None:
    assert ratchet("set-aside").output == "no rows were set aside\n"
    assert ratchet("set-aside", "--json").output == "[]\n"
    assert ratchet("set-aside", "--source", "x").output == "no rows of x were set aside\n"
    assert not home.exists()


def test_a_hostile_row_does_not_steer_the_terminal(tmp_path: Path) -> None:
    hostile = json.dumps(thumbs(value="\x1b[2J\u202e")) + "\x1b[31m"
    ratchet("ingest", write(tmp_path / "a.jsonl", interaction(), hostile))
    assert all(c.isprintable() for c in ratchet("set-aside").output.replace("\n", ""))


def test_a_long_run_says_every_ten_seconds_how_far_it_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    moments = iter([100.0, 105.0, 110.0, 119.0, 130.0])
    progress = Progress(clock=lambda: next(moments))
    for rows in (5_000, 10_000, 15_000, 30_000):
        progress(rows)
    assert capsys.readouterr().err.splitlines() == [
        "10,000 rows so far, 1,000 a second",
        "30,000 rows so far, 1,000 a second",
    ]
