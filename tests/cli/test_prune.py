"""`ratchet prune`."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ratchet.records import Interaction, Message
from ratchet.store import EventStore
from tests.cli.in_process import run_in_process

NOW = datetime.now(UTC)
Ratchet = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def home(tmp_path: Path, mlflow_database: Path) -> Path:
    """A home with MLflow's tables, an interaction of 200 days ago and one of today."""
    folder = tmp_path / "home"
    (folder / "mlflow").mkdir(parents=True)
    (folder / "mlflow" / "mlflow.db").write_bytes(mlflow_database.read_bytes())
    store = EventStore.open(f"sqlite:///{folder}/store.db")
    store.add_interactions(
        [
            Interaction(
                id=f"i{days}", session_id="s", user_id="u", model_version="m/1", response="yes",
                created_at=NOW - timedelta(days=days),
                messages=(Message(role="user", content="hello"),),
            )
            for days in (200, 0)
        ]
    )  # fmt: skip
    store.close()
    return folder


@pytest.fixture
def ratchet(tmp_path: Path, home: Path) -> Ratchet:
    def run(*words: object, **settings: str) -> subprocess.CompletedProcess[str]:
        environment = {"RATCHET_HOME": str(home), **settings}
        return run_in_process(*words, folder=tmp_path, environment=environment)

    return run


def stored(home: Path) -> int:
    store = EventStore.open(f"sqlite:///{home}/store.db")
    try:
        return store.counts()["interactions"]
    finally:
        store.close()


def test_a_dry_run_shows_what_would_go_and_changes_nothing(home: Path, ratchet: Ratchet) -> None:
    shown = ratchet("prune", "--dry-run")
    assert shown.returncode == 0, shown.stderr
    when = f"{NOW - timedelta(days=200):%Y-%m-%d}"
    (row,) = (line for line in shown.stdout.splitlines() if line.startswith("interactions"))
    assert row.split()[1:3] == ["1", when]
    assert row.endswith("older than 90 days, and in history")
    assert "nothing was changed" in shown.stdout
    assert stored(home) == 2
    assert not (home / "history").exists()


def test_it_copies_into_history_deletes_and_says_so_as_json(home: Path, ratchet: Ratchet) -> None:
    done = ratchet("prune", "--json")
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    lines = {line["what"]: line for line in content["lines"]}
    assert content["dry_run"] is False
    assert (lines["interactions"]["rows"], lines["interactions"]["gone"]) == (1, 1)
    assert stored(home) == 1
    assert (home / "history" / "cursor.json").exists()
    again = json.loads(ratchet("prune", "--json").stdout)
    assert [line for line in again["lines"] if line["rows"]] == []
    assert "nothing is old enough to go" in ratchet("prune").stdout


def test_a_file_says_how_long_things_are_kept(tmp_path: Path, home: Path, ratchet: Ratchet) -> None:
    file = tmp_path / "retention.yaml"
    file.write_text("interactions_days: 365\n", "utf-8")
    assert ratchet("prune", RATCHET_RETENTION=str(file)).returncode == 0
    assert stored(home) == 2
    file.write_text("interactions_days: 3\n", "utf-8")
    refused = ratchet("prune", RATCHET_RETENTION=str(file))
    assert refused.returncode == 2
    assert "retention.yaml: interactions_days" in refused.stderr


def test_compact_writes_the_files_anew(home: Path, ratchet: Ratchet) -> None:
    done = ratchet("prune", "--compact", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["given_back"] >= 0


def test_without_a_store_there_is_nothing_to_prune(tmp_path: Path) -> None:
    empty = {"RATCHET_HOME": str(tmp_path / "empty")}
    refused = run_in_process("prune", folder=tmp_path, environment=empty)
    assert refused.returncode == 2
    assert "pruning needs a home folder with a store" in refused.stderr
