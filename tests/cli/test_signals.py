"""`ratchet signals`: what came, what is declared, and what is asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from ratchet.records import SignalDeclaration
from ratchet.store import EventStore
from tests.cli.in_process import run_in_process
from tests.store.reported_store import presence

Command = Callable[..., CompletedProcess[str]]


@pytest.fixture
def ratchet(tmp_path: Path) -> Command:
    environment = {"RATCHET_HOME": str(tmp_path / "home"), "USER": "ana", "COLUMNS": "100"}

    def run(*words: object) -> CompletedProcess[str]:
        return run_in_process(*words, folder=tmp_path, environment=environment)

    return run


@pytest.fixture
def home(tmp_path: Path) -> EventStore:
    """A home with an application that sends the yes alone and one that sends both."""
    (tmp_path / "home").mkdir()
    store = EventStore.open(f"sqlite:///{tmp_path / 'home' / 'store.db'}")
    since = datetime.now(UTC) - timedelta(hours=5)
    presence(store, 900, {"regenerate": 41}, application="shop", start=since)
    presence(store, 100, {"regenerate": 10}, application="page", start=since, noes=True)
    return store


def test_what_came_and_what_is_asked_is_listed(home: EventStore, ratchet: Command) -> None:
    shown = ratchet("signals", "list").stdout
    assert "shop: 900 answers in the last 7 days" in shown
    assert "regenerate              41 yes         0 no  only when it happens, it seems" in shown
    assert "regenerate              10 yes        90 no  not declared" in shown
    assert "application shop sends `regenerate` only when it happens: 41 yes, 0 no" in shown
    rows = json.loads(ratchet("signals", "list", "--json").stdout)
    (row,) = [r for r in rows if (r["application"], r["kind"]) == ("shop", "regenerate")]
    assert (row["yes"], row["no"], row["answers"], row["declared"]) == (41, 0, 900, None)


def test_the_question_stands_in_status_and_alerts_until_it_is_answered(
    home: EventStore, ratchet: Command
) -> None:
    ratchet("signals", "list")
    asks = "application shop sends `regenerate` only when it happens: 41 yes, 0 no of 900 answers"
    assert f"asks          {asks}" in ratchet("status").stdout
    assert f"not watched: {asks}" in ratchet("alerts").stdout
    (question,) = json.loads(ratchet("status", "--json").stdout)["questions"]
    assert (question["application"], question["kind"]) == ("shop", "regenerate")
    done = ratchet(
        "signals", "declare", "regenerate", "--application", "shop",
        "--reported", "when-it-happens", "--after", "15m", "--note", "the page sends clicks",
    )  # fmt: skip
    assert done.stdout.startswith(
        "shop reports `regenerate` when it happens: none within 15 minutes is a no, from "
    )
    assert "asks" not in ratchet("status").stdout
    assert "not watched" not in ratchet("alerts").stdout
    assert "declared: when it happens" in ratchet("signals", "list").stdout


def test_a_declaration_is_kept_with_who_made_it_and_from_when_on_it_holds(
    home: EventStore, ratchet: Command
) -> None:
    ratchet(
        "signals", "declare", "copy", "task-completed", "copy", "--application", "*",
        "--reported", "never", "--since", "2026-01-05T08:00",
    )  # fmt: skip
    kept = home.records(SignalDeclaration)
    assert [(item.kind, item.reported, item.by) for item in kept] == [
        ("copy", "never", "ana"),
        ("task_completed", "never", "ana"),
    ]
    assert {item.since for item in kept} == {datetime(2026, 1, 5, 8, tzinfo=UTC)}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["thumbs", "--reported", "never"], "kind must be a yes or no (copy, regenerate,"),
        (["copy", "--reported", "both", "--after", "soon"], "--after must be a number with s, m"),
        (["copy", "--reported", "both", "--since", "9000-01-01"], "--since must not lie ahead"),
        (["copy", "--reported", "both", "--after", "90d"], "less than or equal to 2592000"),
    ],
)
def test_what_cannot_be_declared_is_refused_and_nothing_is_kept(
    words: list[str], says: str, home: EventStore, ratchet: Command
) -> None:
    done = ratchet("signals", "declare", *words, "--application", "shop")
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
    assert home.records(SignalDeclaration) == ()


def test_a_home_without_a_store_has_nothing_to_list(ratchet: Command, tmp_path: Path) -> None:
    assert ratchet("signals", "list").stdout == "no answer in the last 7 days\n"
    assert not (tmp_path / "home").exists()
