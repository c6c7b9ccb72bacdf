"""`ratchet import`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ratchet.cli import app
from ratchet.errors import InvalidInputError
from tests.doors.bringing import GOLDEN, write


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def ratchet(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_an_import_says_its_format_and_what_became_of_the_rows() -> None:
    lines = ratchet("import", GOLDEN / "litellm.jsonl").output.splitlines()
    assert lines[:3] == [
        "litellm: spend logs of LiteLLM's proxy (recognised), 1 file",
        "2 interactions and 0 pieces of feedback stored",
        "0 were there before, 1 row set aside",
    ]
    assert "store_prompts_in_spend_logs: true" in lines[3]
    assert lines[4].endswith("passed over: a call that is no chat (embeddings, pictures, sound)")
    listed = json.loads(ratchet("set-aside", "--source", "litellm.jsonl", "--json").output)
    assert [row["position"] for row in listed] == ["line 4"]


def test_after_an_import_the_state_names_the_step_to_a_champion_that_others_serve() -> None:
    assert "none yet" not in ratchet("import", GOLDEN / "litellm.jsonl").output
    first, *_ = ratchet("status").output.splitlines()
    assert first.endswith(
        "run `ratchet adopt --elsewhere NAME` for the model that gave these answers"
    )


def test_a_dry_run_shows_mapping_rows_and_reasons_and_makes_no_home(home: Path) -> None:
    lines = ratchet("import", GOLDEN / "langfuse", "--dry-run").output.splitlines()
    assert any(line.split() == ["user_id", "user_id"] for line in lines)
    shown = [json.loads(line) for line in lines if line.startswith("{")]
    assert [row.get("response", row.get("value")) for row in shown[:2]] == [
        "It arrives tomorrow.", ""
    ]  # fmt: skip
    assert (
        "5 interactions and 7 pieces of feedback would be stored, 1 row set aside; "
        "nothing was stored" in lines
    )
    assert "a score must be on an observation or a trace" in lines[-2]
    assert not home.exists()


def test_rows_of_which_none_can_be_used_end_with_a_way_out(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", {"id": 1}, {"id": 2})
    result = ratchet("import", path, "--as", "sharegpt")
    assert isinstance(result.exception, InvalidInputError)
    assert "got 2 rows in 'x.jsonl' and none can be used" in str(result.exception)


def test_ingest_is_an_import_of_our_own_events(tmp_path: Path) -> None:
    said = [{"role": "user", "content": "hi"}]
    event = {
        "id": "a", "session_id": "s", "user_id": "u", "created_at": "2026-11-01T10:00:00Z",
        "model_version": "m/1", "messages": said, "response": "hello",
    }  # fmt: skip
    path = write(tmp_path / "e.jsonl", event)
    assert "1 interaction and 0" in ratchet("ingest", path).output
    lines = ratchet("import", path).output.splitlines()
    assert lines[0].startswith("ratchet: events of Ratchet's own")
    assert lines[2] == "1 were there before, 0 rows set aside"


def test_a_mapping_is_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "map.yaml").write_text("columns:\n  prompt: q\n  response: a\n")
    (tmp_path / "t.csv").write_text("q,a\nTea?,Yes.\nMilk?,No.\n")
    output = ratchet("import", "t.csv", "--map", "map.yaml").output
    assert "table: a table, by the columns of --map" in output
    assert "2 interactions and 0 pieces of feedback stored" in output
