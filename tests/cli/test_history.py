"""`ratchet history`."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ratchet.records import Interaction, Message
from ratchet.records.events import Thumbs
from ratchet.store import EventStore
from tests.cli.in_process import run_in_process

MORNING = datetime(2026, 3, 1, 9, tzinfo=UTC)
Ratchet = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def ratchet(tmp_path: Path) -> Ratchet:
    def run(*words: object, **settings: str) -> subprocess.CompletedProcess[str]:
        environment = {"RATCHET_HOME": str(tmp_path / "home"), **settings}
        return run_in_process(*words, folder=tmp_path, environment=environment)

    return run


def fill(home: Path, days: range) -> None:
    store = EventStore.open(f"sqlite:///{home}/store.db")
    values: dict[str, Any] = {"session_id": "s", "user_id": "u", "model_version": "m/1"}
    said = (Message(role="user", content="hello"),)
    store.add_interactions(
        [
            Interaction(
                id=f"i{day}",
                created_at=MORNING + timedelta(days=day),
                messages=said,
                response="yes",
                **values,
            )
            for day in days
        ]
    )
    thumb = Thumbs(id=f"f{days[0]}", interaction_id="i0", created_at=MORNING, value="up")
    store.add_feedback([thumb])
    store.close()


def test_what_is_new_is_copied_and_what_is_there_is_shown(tmp_path: Path, ratchet: Ratchet) -> None:
    fill(tmp_path / "home", range(3))
    first = ratchet("history")
    assert first.returncode == 0, first.stderr
    assert "copied 3 interactions, 1 feedback event\n" in first.stdout
    assert f"{tmp_path}/home/history has every row up to number 3 of the interactions" in (
        first.stdout
    )
    assert "  2026-03-03" in first.stdout
    fill(tmp_path / "home", range(3, 20))
    again = ratchet("history").stdout
    assert "copied 17 interactions, 1 feedback event\n" in again
    assert "  and 6 earlier days; --json lists all\n" in again


def test_json_lists_every_day(tmp_path: Path, ratchet: Ratchet) -> None:
    fill(tmp_path / "home", range(16))
    shown = json.loads(ratchet("history", "--json").stdout)
    assert shown["copied"] == {"interactions": 16, "feedback": 1}
    assert (shown["cursor"]["interactions"], shown["cursor"]["feedback"]) == (16, 1)
    days = [day for day in shown["days"] if day["table"] == "interactions"]
    assert [day["day"] for day in days] == [f"2026-03-{day:02}" for day in range(1, 17)]
    assert {(day["rows"], day["files"]) for day in days} == {(1, 1)}
    folder = tmp_path / "home" / "history" / "interactions"
    sizes = [path.stat().st_size for path in sorted(folder.rglob("*.parquet"))]
    assert [day["bytes"] for day in days] == sizes


def test_show_only_copies_nothing_and_needs_no_store(tmp_path: Path, ratchet: Ratchet) -> None:
    shown = ratchet("history", "--show-only")
    assert shown.returncode == 0
    assert "nothing is written to" in shown.stdout
    assert list(tmp_path.iterdir()) == []
    assert json.loads(ratchet("history", "--show-only", "--json").stdout)["cursor"] is None
    fill(tmp_path / "home", range(1))
    assert "nothing is written" in ratchet("history", "--show-only").stdout
    refused = ratchet("history", RATCHET_HOME=str(tmp_path / "other"))
    assert refused.returncode == 2
    assert "needs a home folder with a store" in refused.stderr


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("nonsense://bucket/x", "must be a folder or an address that fsspec knows, got one"),
        ("gs://bucket/x", "pip install 'ratchet-llm[gcs]'"),
        ("az://bucket/x", "pip install 'ratchet-llm[azure]'"),
    ],
)
def test_an_address_that_cannot_be_opened_is_one_clear_error(
    ratchet: Ratchet, address: str, expected: str
) -> None:
    refused = ratchet("history", "--show-only", RATCHET_HISTORY=address)
    assert refused.returncode == 2
    assert expected in refused.stderr
