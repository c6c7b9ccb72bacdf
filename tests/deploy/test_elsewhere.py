"""A champion that somebody else serves, known by imported logs alone: no gateway is ever started.

A vendor's model is adopted under its name, and the vendor replaces it by another snapshot, which is
worse. Commands run in this process, over a home of their own.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ratchet.analyze.monitoring.watch import WatchConfig, watch
from ratchet.deploy.elsewhere import follow_elsewhere
from ratchet.deploy.served import is_served_elsewhere
from ratchet.records import BoardState, Release
from ratchet.settings import load_settings
from ratchet.store import EventStore
from ratchet.tracking import Tracker
from tests.cli.in_process import run_in_process
from tests.doors.foreign_log import write_export

OLD, NEW = "gpt-4o-2024-08-06", "gpt-4o-2024-11-20"
NOW = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
RELEASED = NOW - timedelta(hours=24)
BEGIN = RELEASED - timedelta(hours=60)


@dataclass(frozen=True)
class Home:
    folder: Path
    store: EventStore
    tracker: Tracker

    def ratchet(self, *words: object, code: int = 0) -> str:
        settings = {
            "RATCHET_HOME": str(self.folder / "home"), "RATCHET_EMBEDDING": "words",
        }  # fmt: skip
        done = run_in_process(*words, folder=self.folder, environment=settings)
        assert done.returncode == code, (words, done.stdout[-2000:], done.stderr[-2000:])
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path) -> Home:
    """A home with the logs of both snapshots; the first one was adopted before the second came."""
    folder = tmp_path_factory.mktemp("elsewhere")
    settings = load_settings({"RATCHET_HOME": str(folder / "home")}, folder)
    (settings.home / "mlflow").mkdir(parents=True)
    shutil.copyfile(mlflow_database, settings.home / "mlflow" / "mlflow.db")
    tracker = Tracker(
        settings.tracking_uri, artifacts=settings.artifacts, model_name=settings.model_name
    )
    write_export(folder / "first", OLD, BEGIN, 60, down=0.08)
    write_export(folder / "second", NEW, RELEASED, 24, down=0.5)
    made = Home(folder, EventStore.open(settings.store_url), tracker)
    made.ratchet("import", folder / "first")
    return made


def adopted(home: Home) -> None:
    if home.store.latest(Release) is None:
        home.ratchet("adopt", "--elsewhere", OLD, "--by", "ada")


def released(home: Home) -> None:
    adopted(home)
    home.ratchet("import", home.folder / "second")
    follow_elsewhere(home.store, home.tracker, NOW)


def test_without_a_word_no_model_of_somebody_elses_is_taken_for_the_champion(home: Home) -> None:
    if home.store.latest(Release) is None:
        said = home.ratchet("collect", "--dry-run")
        assert f"got none in a home with answers of {OLD}" in said
        assert "`ratchet adopt --elsewhere NAME`" in said
    said = home.ratchet("adopt", "--elsewhere", "gpt-5", code=2)
    assert f"got 'gpt-5' and answers of {OLD}" in said
    assert "got --backend" in home.ratchet(
        "adopt", "--elsewhere", OLD, "--backend", "http://127.0.0.1:1", code=2
    )


def test_a_vendors_model_is_adopted_by_its_name_and_its_cycle_lacks_no_server(home: Home) -> None:
    adopted(home)
    release = home.store.records(Release)[0]
    assert (release.action, release.champion, release.by) == ("adopt", OLD, "ada")
    assert is_served_elsewhere(home.store, OLD)
    said = home.ratchet("collect", "--dry-run")
    assert "a champion" not in said
    assert "the address of the server" not in said
    assert "where nobody has them nothing is trained" in said


def test_another_snapshot_is_a_release_in_records_boards_charts_and_timeline(home: Home) -> None:
    released(home)
    release = home.store.latest(Release)
    assert release is not None
    assert (release.action, release.champion, release.previous) == ("released elsewhere", NEW, OLD)
    assert timedelta(0) <= release.created_at - RELEASED <= timedelta(seconds=1)
    assert follow_elsewhere(home.store, home.tracker, NOW) is None, "once"
    config = WatchConfig(baseline_days=2.0, minimum_hours=24.0)
    report = watch(home.store, config, now=NOW)
    stands = {one.model_version: one.says for one in report.verdicts}
    assert stands[NEW] == "alarm"  # one in two down, after one in twelve
    assert home.store.records(BoardState, subject=NEW)
    words = ("chart", "thumbs_down_rate", "--by", "hour", "--json")
    charted = json.loads(home.ratchet(*words))
    assert NEW in [one["version"] for one in charted["releases"]]
    told = home.ratchet("timeline", "--hours", "48")
    assert f"{NEW} was released by whoever serves the champion" in told


@pytest.mark.slow  # by curation's own tests whose model it was makes no difference
def test_its_answers_are_curated_from(home: Home) -> None:
    released(home)
    said = home.ratchet("curate", "--dry-run")
    assert "Refunds take five days." in said or "corrected" in said
    assert "not enough" not in said


@pytest.mark.parametrize(
    "words",
    [
        lambda folder: ("rollback",),
        lambda folder: ("rollout", "start", "support-router/7"),
    ],
    ids=["rollback", "rollout"],
)
def test_what_sends_users_says_in_one_sentence_why_it_cannot_and_the_way_out(
    home: Home, words: Callable[[Path], tuple[str, ...]]
) -> None:
    adopted(home)
    said = home.ratchet(*words(home.folder), code=2)
    (line,) = [one for one in said.splitlines() if one.startswith("ratchet: ")]
    assert "which only the gateway can" in line
    assert "`ratchet adopt --backend URL`" in line
