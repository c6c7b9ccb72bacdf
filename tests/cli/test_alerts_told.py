"""`ratchet alerts test`, `mute`, `unmute`, `routes` and `ratchet report weekly`, as commands."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ratchet.records import AlertMute
from ratchet.records.accounts import AuditEntry
from ratchet.store import EventStore
from tests.cli.in_process import run_in_process
from tests.notify.conftest import Inbox, alert, as_slack, listening


@pytest.fixture
def slack():
    with listening(as_slack) as kept:
        yield kept


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slack: Inbox) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    (tmp_path / "alerts.yaml").write_text(
        "channels:\n"
        "  team: {type: slack, url: RATCHET_SLACK_SECRET}\n"
        "  spare: {type: slack, url: RATCHET_SPARE_SECRET}\n"
        "routes:\n"
        "  - {name: urgent, severity: critical, to: [team], repeat_hours: 1}\n"
        "  - {name: rest, to: [team, spare], kinds: [board]}\n",
        "utf-8",
    )
    monkeypatch.chdir(tmp_path)
    environment = {
        "RATCHET_HOME": str(folder),
        "RATCHET_ALERTS": str(tmp_path / "alerts.yaml"),
        "RATCHET_SLACK_SECRET": slack.url("T0SECRET"),
        "RATCHET_SPARE_SECRET": "http://127.0.0.1:1/T0SECRET",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    store = EventStore.open(f"sqlite:///{folder / 'store.db'}")
    store.append(alert(created_at=datetime.now(UTC)))
    store.close()
    return folder


def ratchet(*words: str):
    given = {name: value for name, value in os.environ.items() if name.startswith("RATCHET_")}
    return run_in_process(*words, folder=Path.cwd(), environment=given)


def test_a_test_message_says_what_came_of_it(home: Path, slack: Inbox) -> None:
    done = ratchet("alerts", "test", "--route", "urgent", "--by", "ada")
    assert (done.returncode, done.stdout) == (0, "team         arrived\n"), done.stderr
    (body,) = slack.bodies
    assert body["text"] == "🔵 Test message of Ratchet"
    assert "ada tries the channel team" in body["blocks"][1]["text"]["text"]
    slack.answers = [(404, {}, "no_service")]
    done = ratchet("alerts", "test")
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "team         did not arrive: 404 no_service",
        "spare        did not arrive: no connection (ConnectError)",
    ]
    assert "T0SECRET" not in done.stdout + done.stderr


def test_a_route_that_there_is_not_is_refused(home: Path) -> None:
    done = ratchet("alerts", "test", "--route", "rset")
    assert done.returncode == 2
    assert "there are: urgent, rest" in done.stderr


def test_a_missing_secret_is_one_line_with_its_variable(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RATCHET_SPARE_SECRET")
    done = ratchet("alerts", "test")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "RATCHET_SPARE_SECRET" in done.stderr


def test_a_mute_is_kept_audited_shown_and_ended(home: Path) -> None:
    done = ratchet("alerts", "mute", "alert", "--hours", "2", "--reason", "vendor", "--by", "ada")
    assert done.stdout.startswith("alert-1 is muted until "), done.stderr
    shown = ratchet("alerts", "routes").stdout
    assert "by ada: vendor" in shown
    assert "urgent       critical and above: alerts and reminders, again after 1 h -> team" in shown
    assert "spare        slack: nothing sent yet" in shown
    assert json.loads(ratchet("alerts", "routes", "--json").stdout)["muted"][0]["by"] == "ada"
    assert ratchet("alerts", "unmute", "alert", "--reason", "mended", "--by", "bob").returncode == 0
    store = EventStore.open(f"sqlite:///{home / 'store.db'}")
    assert [one.by for one in store.records(AlertMute)] == ["ada", "bob"]
    assert [(one.by, one.action) for one in store.records(AuditEntry)] == [
        ("ada", "mute"), ("bob", "unmute"),
    ]  # fmt: skip
    store.close()


def test_a_mute_without_a_reason_is_refused(home: Path) -> None:
    done = ratchet("alerts", "mute", "all")
    assert done.returncode == 2
    assert "must have a reason" in done.stderr


def test_the_weekly_report_is_printed_or_written(home: Path, tmp_path: Path) -> None:
    printed = ratchet("report", "weekly", "--week", "2026-W48")
    assert printed.stdout.startswith("# support-router, week 2026"), printed.stderr
    done = ratchet("report", "weekly", "--week", "2026-W48", "--out", "reports")
    assert done.returncode == 0, done.stderr
    names = sorted(path.name for path in (tmp_path / "reports").iterdir())
    assert names == ["weekly-2026-W48.html", "weekly-2026-W48.md"]
    assert (tmp_path / "reports" / names[1]).read_text("utf-8").startswith("# support")
    refused = ratchet("report", "weekly", "--week", "2026-99")
    assert refused.returncode == 2
