"""What is wrong is told with what to do, and decides the exit code."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from filelock import FileLock

from ratchet.gateway.log import LogKind, WriteAheadLog
from ratchet.operate import doctor
from ratchet.operate.doctor import Doctor, Health
from ratchet.settings import Settings, load_settings
from ratchet.store import MIGRATIONS, EventStore
from ratchet.store.history import History
from tests.cli.in_process import run_in_process
from tests.operate.test_backup import interaction

NOW = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A home with a store, whose model is no matter here."""
    environ = {"RATCHET_HOME": str(tmp_path / "home"), "RATCHET_BACKEND": "http://127.0.0.1:9"}
    found = load_settings(environ, tmp_path)
    found.make_home()
    with closing(EventStore.open(found.store_url, clock=lambda: NOW)) as store:
        store.add_interactions([interaction(1)])
    for path in found.home.iterdir():
        path.chmod(0o600)
    return found


def look(settings: Settings, now: datetime = NOW) -> dict[str, Health]:
    def no_tracker() -> None:
        raise AssertionError("MLflow has no database here, so it is not opened")

    found = list(Doctor(settings, now, no_tracker).look())  # type: ignore[arg-type]
    assert all(bool(item.do) == (item.state != "ok") for item in found), "each has its way out"
    return {item.name: item for item in found}


def test_a_sound_home_has_no_problem_and_everything_was_looked_at(settings: Settings) -> None:
    found = look(settings)
    assert [item for item in found.values() if item.state == "problem"] == []
    assert set(found) == {
        "home", "permissions", "disk", "clock", "store", "log", "history", "Prefect", "MLflow",
        "model", "backend", "deployments", "judges", "alerts", "GPU",
    }  # fmt: skip


def test_files_that_others_may_read_are_named(settings: Settings) -> None:
    (settings.home / "store.db").chmod(0o644)
    found = look(settings)["permissions"]
    assert found.state == "problem"
    assert "store.db" in found.found
    assert "chmod -R go=" in found.do


def test_a_store_of_a_later_version_is_a_problem_and_is_not_touched(settings: Settings) -> None:
    engine = sa.create_engine(settings.store_url)
    with engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO schema_migrations VALUES ('9999_novel', 1)"))
    engine.dispose()
    found = look(settings)["store"]
    assert (found.state, found.do) == ("problem", "install that version of Ratchet")


def test_another_store_than_the_one_that_is_expected_is_a_problem(settings: Settings) -> None:
    with closing(EventStore.open(settings.store_url)) as store:
        identity = store.identity
    assert identity in look(settings)["store"].found
    assert look(settings.model_copy(update={"store_id": identity}))["store"].state == "ok"
    found = look(settings.model_copy(update={"store_id": "f" * 16}))["store"]
    assert found.state == "problem"
    assert f"it is {identity}, and ffffffffffffffff is expected" in found.found


def test_migrations_to_come_are_told_and_not_applied(settings: Settings) -> None:
    last = list(MIGRATIONS)[-1]
    engine = sa.create_engine(settings.store_url)
    with engine.begin() as connection:
        connection.execute(sa.text(f"DELETE FROM schema_migrations WHERE name = '{last}'"))
    for _ in range(2):
        found = look(settings)["store"]
        assert found.state == "warning"
        assert last in found.found
    engine.dispose()


def test_a_store_that_is_no_database_is_a_problem(settings: Settings) -> None:
    for path in settings.home.glob("store.db*"):
        path.write_bytes(b"not a database" * 100)
    assert look(settings)["store"].state == "problem"


def test_a_clock_behind_the_stores_last_row_is_a_problem(settings: Settings) -> None:
    assert look(settings, NOW - timedelta(minutes=4))["clock"].state != "problem"
    assert look(settings, NOW - timedelta(minutes=6))["clock"].state == "problem"


def test_a_full_disk_is_a_problem_and_a_scarce_one_a_warning(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for free, state in ((999_999_999, "problem"), (4_999_999_999, "warning"), (10**10, "ok")):
        usage = doctor.shutil.disk_usage(settings.home)._replace(free=free)
        monkeypatch.setattr("shutil.disk_usage", lambda _, usage=usage: usage)
        assert look(settings)["disk"].state == state


def test_a_log_that_nobody_drains_is_told(settings: Settings) -> None:
    folder = settings.home / "gateway" / "wal"
    log = WriteAheadLog.create(folder)
    log.append(LogKind.INTERACTION, b"{}")
    log.close()
    assert look(settings)["log"].state == "warning"
    with FileLock(folder / "drain.lock"):
        assert look(settings)["log"].state == "ok"


def test_a_server_that_was_named_and_does_not_answer_is_a_problem(settings: Settings) -> None:
    assert look(settings)["Prefect"].state == "warning"
    named = settings.model_copy(update={"prefect_api_url": "http://127.0.0.1:9/api"})
    assert look(named)["Prefect"].state == "problem"


def test_files_that_settings_name_are_read(settings: Settings, tmp_path: Path) -> None:
    assert look(settings)["deployments"].state == look(settings)["judges"].state == "ok"
    path = tmp_path / "own.yaml"
    named = settings.model_copy(update={"deployments": path, "judges": path, "alerts": path})
    for text in ("schedules: {looop: false}\n", "nothing: 1\n"):
        path.write_text(text, "utf-8")
        assert look(named)["deployments"].state == "problem"
        assert look(named)["judges"].state == "problem"
        assert look(named)["alerts"].state == "problem"
    path.write_text("channels: {team: {type: slack, url: RATCHET_SLACK_SECRET}}\n", "utf-8")
    assert "needs its secret in RATCHET_SLACK_SECRET" in look(named)["alerts"].found
    path.write_text("nothing: 1\n", "utf-8")
    assert "looop" not in look(named)["deployments"].found


def test_a_backend_that_does_not_answer_is_a_warning(settings: Settings) -> None:
    found = look(settings)["backend"]
    assert (found.state, "127.0.0.1:9" in found.found) == ("warning", True)
    assert look(settings.model_copy(update={"backend": ()}))["backend"].state == "ok"


def test_a_damaged_converted_model_is_a_problem(settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "smollm2-135m-instruct"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"half")
    (folder / "ratchet-digest.txt").write_text("0" * 64, "utf-8")
    own = settings.model_copy(update={"cache": tmp_path / "cache", "backend": ()})
    found = look(own)["model"]
    assert found.state == "problem"


def test_the_exit_code_says_whether_there_is_a_problem(tmp_path: Path) -> None:
    environment = {
        "RATCHET_HOME": str(tmp_path / "home"),
        "RATCHET_BACKEND": "http://127.0.0.1:9",
    }
    fresh = run_in_process("doctor", "--json", folder=tmp_path, environment=environment)
    told = json.loads(fresh.stdout)
    assert fresh.returncode == (0 if told["healthy"] else 1)
    (tmp_path / "home").mkdir(mode=0o755)
    (tmp_path / "home").chmod(0o755)
    loose = run_in_process("doctor", folder=tmp_path, environment=environment)
    assert loose.returncode == 1
    assert "problem  permissions:" in loose.stdout


def test_a_history_whose_mount_is_gone_is_a_problem(settings: Settings) -> None:
    with closing(EventStore.opened(settings.store_url)) as store:  # type: ignore[type-var]
        History.open(settings.history).advance(store)
    assert look(settings)["history"].state == "ok"
    Path(settings.history).rename(settings.home / "elsewhere")
    found = look(settings)["history"]
    assert found.state == "problem"
    assert "mount it again or restore it" in found.found
