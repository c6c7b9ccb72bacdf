"""The tutorial on a Langfuse export: its commands, typed as the page has them."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ratchet.simulation.langfuse_export import write_export
from ratchet.store import EventStore
from tests.cli.in_process import run_in_process

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "tutorial" / "from-a-langfuse-export.md").read_text("utf-8")
SMALL = 150
WITH_SERVERS = ("collect", "analyze")
"""Commands that start Prefect, which takes a process and its time."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.S | re.M)


def commands() -> list[list[str]]:
    """Return the page's commands in their order, as words."""
    lines = "".join(blocks("bash")).splitlines()
    return [shlex.split(line.partition("  #")[0]) for line in lines if line.strip()]


def test_the_page_goes_from_an_export_to_a_training_set() -> None:
    assert [" ".join(words[:2]) for words in commands()] == [
        "python -m", "ratchet import", "ratchet init", "ratchet import", "ratchet collect",
        "ratchet analyze", "ratchet chart", "ratchet curate", "ratchet curate",
    ]  # fmt: skip


def test_an_export_has_the_documented_fields_and_what_it_was_asked_for(tmp_path: Path) -> None:
    until = datetime(2026, 12, 1, tzinfo=UTC)
    observations, scores = write_export(tmp_path, SMALL, until, seed=3)
    rows = [json.loads(line) for line in (tmp_path / "observations_v2/export.jsonl").open()]
    said = [json.loads(line) for line in (tmp_path / "scores/export.jsonl").open()]
    assert (len(rows), len(said)) == (observations, scores)
    assert sum(row["type"] == "GENERATION" for row in rows) == SMALL
    assert {"trace_id", "start_time", "input", "output", "user_id", "session_id"} <= rows[0].keys()
    assert {score["trace_id"] for score in said} <= {row["trace_id"] for row in rows}
    assert {score["data_type"] for score in said} == {"NUMERIC", "CORRECTION"}
    write_export(tmp_path / "again", SMALL, until, seed=3)
    again = (tmp_path / "again/observations_v2/export.jsonl").read_bytes()
    assert again == (tmp_path / "observations_v2/export.jsonl").read_bytes()


def test_the_commands_without_servers_do_what_the_page_says(tmp_path: Path) -> None:
    write_export(tmp_path / "export", SMALL, datetime.now(UTC), seed=0)
    (tmp_path / "answers.yaml").write_text(blocks("yaml")[0], "utf-8")
    environment = {"RATCHET_CACHE": str(tmp_path / "cache"), "RATCHET_EMBEDDING": "words"}
    said = []
    for words in commands():
        if words[0] != "ratchet" or words[1] in WITH_SERVERS:
            continue
        done = run_in_process(*words[1:], folder=tmp_path, environment=environment)
        if words[1] == "chart":  # a small export has too few answers a day, and is told so
            assert "needs at least 8 days of 20 observations" in done.stderr
            continue
        assert done.returncode in (0, 1), (words, done.stdout, done.stderr)
        said.append(done.stdout)
    preview, _, imported, curated, _ = said
    assert f"{SMALL} interactions and " in preview
    assert "0 rows set aside; nothing was stored" in preview
    assert f"{SMALL} interactions and " in imported
    assert "come from" in curated
    store = EventStore.open(f"sqlite:///{tmp_path}/.ratchet/store.db")
    assert store.counts()["interactions"] == SMALL
    assert not store.counts().get("set_aside")


@pytest.mark.slow
def test_all_of_it_on_two_thousand_answers(tmp_path: Path) -> None:
    (tmp_path / "answers.yaml").write_text(blocks("yaml")[0], "utf-8")
    environment = {
        **os.environ,
        "RATCHET_CACHE": str(tmp_path / "cache"),
        "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
    }
    environment.pop("RATCHET_HOME", None)
    said = {}
    for words in commands():
        program = ["-m", "ratchet.cli"] if words[0] == "ratchet" else []
        done = subprocess.run(
            [sys.executable, *program, *words[1:]],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900,
        )  # fmt: skip
        assert done.returncode == 0, (words, done.stdout[-3_000:], done.stderr[-3_000:])
        said[" ".join(words[1:])] = done.stdout
    assert (
        "2,000 interactions and 1,661 pieces of feedback would be stored, 0 rows set aside"
        in (said["import export --dry-run"])
    )
    analyzed = said["analyze"]
    assert "ANALYZE  gpt-4o-mini as its users saw it" in analyzed
    assert "thumbs down rate" in analyzed
    assert "where failures pile up:" in analyzed
    assert re.search(r"^ +\S.*\breturn\b.* failed", analyzed, re.M)  # what it fails at
    assert (tmp_path / "first-set").is_dir()
