"""Backups: taken while events come in, brought back elsewhere, and refused when they are not whole.

What a restored home must hold comes from what was acknowledged before the backup began, never from
the backup itself.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from threading import Event, Lock, Thread
from uuid import uuid4

import pytest
import sqlalchemy as sa
from filelock import FileLock

from ratchet.cli.shared import open_tracker
from ratchet.errors import BusyError, ConflictError, InvalidInputError
from ratchet.gateway.drain import Drain
from ratchet.gateway.log import LogKind, WriteAheadLog
from ratchet.operate.backup import MANIFEST, make_backup, read_manifest
from ratchet.operate.restoring import restore
from ratchet.operate.verifying import verify
from ratchet.records import Interaction, Message, Thumbs, digest
from ratchet.settings import Settings, load_settings
from ratchet.store import EventStore
from ratchet.store.history import History
from ratchet.store.leases import LOOP, hold
from tests.cli.in_process import run_in_process
from tests.fixtures.old_home import unpack

NOW = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
backup = partial(make_backup, version="test")


def interaction(number: int) -> Interaction:
    return Interaction(
        id=f"i{number}",
        session_id=f"s{number % 7}",
        user_id=f"u{number % 5}",
        created_at=NOW + timedelta(days=31 * (number % 3), seconds=number),
        model_version="support-router/1",
        segment="all",
        messages=(Message(role="user", content=f"Wo ist Paket {number}? \\n\t'\"ü"),),
        response=f"antwort\n{number}",
        metadata={"consent": "yes", "number": str(number)},
    )


def thumbs(number: int) -> Thumbs:
    return Thumbs(id=f"f{number}", interaction_id=f"i{number}", created_at=NOW, value="up")


def settings_of(home: Path, url: str | None = None) -> Settings:
    named = {"RATCHET_HOME": str(home)} | ({"RATCHET_STORE_URL": url} if url else {})
    return load_settings(named, home.parent)


def problems(settings: Settings) -> list[str]:
    return [line for part in verify(settings) for line in part.problems]


@pytest.fixture
def elsewhere(store_url: str, tmp_path: Path) -> str | None:
    """A second, empty store of the same kind."""
    if store_url.startswith("sqlite"):
        return None
    url = sa.make_url(store_url)
    schema = f"test_{uuid4().hex}"
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.schema.CreateSchema(schema))
    engine.dispose()
    return url.update_query_dict({"options": f"-csearch_path={schema}"}).render_as_string(False)


@dataclass(slots=True)
class Gateway:
    """A gateway's writing half: it logs an event, acknowledges it, and a drain stores it."""

    settings: Settings
    acknowledged: list[str] = field(default_factory=list)
    stop: Event = field(default_factory=Event)
    turn: Lock = field(default_factory=Lock)

    def log(self) -> None:
        folder = self.settings.home / "gateway" / "wal"
        log, number = WriteAheadLog.create(folder), 0
        while not self.stop.is_set():
            if number % 60 == 59:  # a worker ends, and its segment goes once it is drained
                log.close()
                with self.turn:  # what a drain does between creation and lock is not tested here
                    log = WriteAheadLog.create(folder)
            body = json.dumps(interaction(number).canonical()).encode()
            log.append(LogKind.INTERACTION, body)
            self.acknowledged.append(f"i{number}")
            number += 1
            self.stop.wait(0.0005)
        log.close()

    def drain(self) -> None:
        store = EventStore.open(self.settings.store_url)
        draining = Drain(self.settings.home / "gateway" / "wal", store)
        while not self.stop.is_set():
            with self.turn:
                draining.once()
        draining.close()
        store.close()

    def wait_for(self, count: int) -> None:
        deadline = time.monotonic() + 60
        while len(self.acknowledged) < count:
            assert time.monotonic() < deadline, "the gateway's half ended"
            self.stop.wait(0.01)


@contextmanager
def serving(settings: Settings) -> Iterator[Gateway]:
    gateway = Gateway(settings)
    (settings.home / "gateway" / "wal").mkdir(parents=True)
    threads = [Thread(target=gateway.log), Thread(target=gateway.drain)]
    for thread in threads:
        thread.start()
    try:
        yield gateway
    finally:
        gateway.stop.set()
        for thread in threads:
            thread.join()


def drained(settings: Settings) -> EventStore:
    """Open a store after what the log still held was brought to it."""
    store = EventStore.open(settings.store_url)
    draining = Drain(settings.home / "gateway" / "wal", store)
    while draining.once():
        pass
    draining.close()
    return store


@pytest.mark.mostly_slow("sqlite")
def test_a_backup_taken_while_events_come_in_holds_all_that_were_acknowledged_before(
    tmp_path: Path, store_url: str, elsewhere: str | None
) -> None:
    settings = settings_of(tmp_path / "home", store_url)
    settings.make_home()
    with closing(EventStore.open(store_url)) as store:
        store.add_feedback([thumbs(number) for number in range(50)])
        store.set_aside([])
    taken = []
    with serving(settings) as gateway:
        for number in range(3):
            gateway.wait_for(300 * (number + 1))
            before = list(gateway.acknowledged)
            backup(settings, tmp_path / f"backup-{number}")
            taken.append((before, len(gateway.acknowledged)))
    assert taken[-1][1] > len(taken[-1][0]), "events came in during the backup"
    with closing(drained(settings)) as store:
        stored = set(store.stored_interactions(gateway.acknowledged))
        assert stored == set(gateway.acknowledged), "the gateway itself lost events"
    for number, (before, _) in enumerate(taken):
        target = settings_of(tmp_path / f"restored-{number}", elsewhere)
        restore(target, tmp_path / f"backup-{number}", replace=number > 0, now=NOW)
        assert problems(target) == []
        with closing(drained(target)) as store:
            assert set(store.stored_interactions(before)) == set(before)
            assert store.counts()["thumbs"] == 50
        assert problems(target) == []
        shutil.rmtree(target.home)


def test_a_restored_store_goes_on_where_it_stopped(
    tmp_path: Path, store_url: str, elsewhere: str | None
) -> None:
    settings = settings_of(tmp_path / "home", store_url)
    settings.make_home()
    history = History.open(settings.history)
    with closing(EventStore.open(store_url, clock=lambda: NOW)) as store:
        store.add_interactions([interaction(number) for number in range(40)])
        history.advance(store)
    backup(settings, tmp_path / "backup")
    target = settings_of(tmp_path / "restored", elsewhere)
    restore(target, tmp_path / "backup", replace=False, now=NOW)
    with closing(EventStore.open(target.store_url, clock=lambda: NOW)) as store:
        added = store.add_interactions([interaction(number) for number in range(30, 60)])
        assert added.new == 20, "10 of 30 were there"
        History.open(target.history).advance(store)
        assert store.counts()["interactions"] == 60
    assert problems(target) == []


@pytest.fixture
def old_home(tmp_path: Path) -> Settings:
    """A home of release 0.1, as it was packed."""
    unpack(tmp_path / "old")
    return settings_of(tmp_path / "old" / "home")


def test_an_old_home_is_backed_up_and_restored_under_another_path(
    old_home: Settings, tmp_path: Path
) -> None:
    with closing(EventStore.open(old_home.store_url)) as store:
        counts = store.counts()
    manifest = backup(old_home, tmp_path / "backup")
    assert not any("drain.lock" in file.path or "-wal" in file.path for file in manifest.files)
    shutil.rmtree(old_home.home)
    target = settings_of(tmp_path / "new" / "home")
    restore(target, tmp_path / "backup", replace=False, now=NOW)
    found = {part.part: part for part in verify(target, partial(open_tracker, target))}
    assert {name: part.problems for name, part in found.items() if part.problems} == {}
    assert set(found) == {
        "store", "databases", "log", "history", "adapters", "training sets", "registry"
    }  # fmt: skip
    assert found["training sets"].looked_at == "1 in the home"
    with closing(EventStore.open(target.store_url)) as store:
        assert store.counts() == counts
    mlflow = open_tracker(target)
    champion = mlflow.champion()
    assert champion is not None
    assert champion.adapter is None or champion.adapter.is_relative_to(target.home)


def test_nothing_in_a_backup_or_a_restored_home_is_open_to_others(
    old_home: Settings, tmp_path: Path
) -> None:
    backup(old_home, tmp_path / "backup")
    target = settings_of(tmp_path / "restored")
    restore(target, tmp_path / "backup", replace=False, now=NOW)
    for folder in (tmp_path / "backup", target.home):
        for path in (folder, *folder.rglob("*")):
            assert path.stat().st_mode & 0o077 == 0, path


# A backup that is not whole -----------------------------------------------------------------------


@pytest.fixture
def taken(tmp_path: Path) -> Path:
    """A small backup."""
    settings = settings_of(tmp_path / "home")
    settings.make_home()
    with closing(EventStore.open(settings.store_url)) as store:
        store.add_interactions([interaction(number) for number in range(5)])
    (settings.home / "note.txt").write_text("kept", "utf-8")
    backup(settings, tmp_path / "backup")
    return tmp_path / "backup"


def cut_off(folder: Path) -> None:
    path = folder / "store" / "store.db"
    path.write_bytes(path.read_bytes()[:-100])


def change_a_byte(folder: Path) -> None:
    path = folder / "store" / "store.db"
    content = bytearray(path.read_bytes())
    content[5_000] ^= 1
    path.write_bytes(content)


def lose_a_file(folder: Path) -> None:
    (folder / "home" / "note.txt").unlink()


def change_the_manifest(folder: Path) -> None:
    text = (folder / MANIFEST).read_text("utf-8")
    (folder / MANIFEST).write_text(text.replace('"sqlite"', '"postgresql"'), "utf-8")


def cut_off_the_manifest(folder: Path) -> None:
    text = (folder / MANIFEST).read_text("utf-8")
    (folder / MANIFEST).write_text(text[:-20], "utf-8")


def lose_the_manifest(folder: Path) -> None:
    (folder / MANIFEST).unlink()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut_off, "store/store.db of"),
        (change_a_byte, "store/store.db with another content"),
        (lose_a_file, "no home/note.txt"),
        (change_the_manifest, "manifest.json that was changed"),
        (cut_off_the_manifest, "manifest.json that cannot be read"),
        (lose_the_manifest, "without one"),
    ],
)
def test_a_backup_that_is_not_whole_is_refused_in_one_line_and_nothing_is_changed(
    damage: Callable[[Path], None], said: str, taken: Path, tmp_path: Path
) -> None:
    damage(taken)
    target = tmp_path / "restored"
    done = run_in_process(
        "restore", taken, folder=tmp_path, environment={"RATCHET_HOME": str(target)}
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not target.exists()


def resigned(folder: Path, change: Callable[[dict[str, object]], None]) -> None:
    """Change a manifest and sign it anew, as who means harm would."""
    content = json.loads((folder / MANIFEST).read_text("utf-8"))
    del content["digest"]
    change(content)
    (folder / MANIFEST).write_text(json.dumps(content | {"digest": digest(content)}), "utf-8")


@pytest.mark.parametrize("path", ["home/../../out", "/etc/x", "../out", "out", "home/..", ""])
def test_no_file_of_a_backup_may_name_a_place_outside_of_it(path: str, taken: Path) -> None:
    def change(content: dict[str, object]) -> None:
        content["files"] = [{"path": path, "bytes": 0, "sha256": "0" * 64}]

    resigned(taken, change)
    with pytest.raises(InvalidInputError, match="does not hold together"):
        read_manifest(taken)


def test_a_backup_of_a_later_format_says_so(taken: Path) -> None:
    resigned(taken, lambda content: content.update(format=2))
    with pytest.raises(InvalidInputError, match="must be of format 1, got 2"):
        read_manifest(taken)


# What is there already ----------------------------------------------------------------------------


def test_a_home_that_holds_something_is_put_aside_only_when_told_so(
    taken: Path, tmp_path: Path
) -> None:
    settings = settings_of(tmp_path / "home")
    (settings.home / "note.txt").write_text("newer", "utf-8")
    with closing(EventStore.open(settings.store_url)) as store:
        store.add_interactions([interaction(99)])
    with pytest.raises(ConflictError, match="--replace"):
        restore(settings, taken, replace=False, now=NOW)
    assert (settings.home / "note.txt").read_text("utf-8") == "newer"
    done = restore(settings, taken, replace=True, now=NOW)
    assert (settings.home / "note.txt").read_text("utf-8") == "kept"
    assert done.aside is not None
    assert (done.aside / "note.txt").read_text("utf-8") == "newer"
    with closing(sqlite3.connect(done.aside / "store.db")) as before:
        assert before.execute("SELECT count(*) FROM interactions").fetchone() == (6,)
    assert problems(settings) == []
    again = backup(settings, tmp_path / "again")
    assert not any(".replaced" in file.path for file in again.files)


def test_a_store_lost_alone_is_not_mixed_with_the_log_of_the_file_before(
    taken: Path, tmp_path: Path
) -> None:
    settings = settings_of(tmp_path / "home")
    store = EventStore.open(settings.store_url)
    store.add_interactions([interaction(99)])  # lies in store.db-wal
    (settings.home / "store.db").unlink()
    assert (settings.home / "store.db-wal").exists()
    restore(settings, taken, replace=True, now=NOW)
    store.close()
    with closing(EventStore.open(settings.store_url)) as store:
        assert store.counts()["interactions"] == 5
    assert problems(settings) == []


def test_a_postgresql_store_with_rows_is_replaced_only_when_told_so(
    tmp_path: Path, postgresql_url: str
) -> None:
    settings = settings_of(tmp_path / "home", postgresql_url)
    settings.make_home()
    with closing(EventStore.open(postgresql_url)) as store:
        store.add_interactions([interaction(1)])
    backup(settings, tmp_path / "backup")
    with closing(EventStore.open(postgresql_url)) as store:
        store.add_interactions([interaction(2)])
    target = settings_of(tmp_path / "other", postgresql_url)
    with pytest.raises(ConflictError, match="schema of PostgreSQL has rows"):
        restore(target, tmp_path / "backup", replace=False, now=NOW)
    restore(target, tmp_path / "backup", replace=True, now=NOW)
    with closing(EventStore.open(postgresql_url)) as store:
        assert store.counts()["interactions"] == 1
    assert problems(target) == []


def test_a_home_that_is_in_use_is_not_restored(taken: Path, tmp_path: Path) -> None:
    path = tmp_path / "home" / "gateway" / "wal" / "drain.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path), pytest.raises(BusyError, match="stop `ratchet serve`"):
        restore(settings_of(tmp_path / "home"), taken, replace=True, now=NOW)


def test_a_store_over_which_somebody_works_is_not_restored(taken: Path, tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "home")
    with (
        closing(EventStore.open(settings.store_url)) as store,
        hold(store, LOOP),
        pytest.raises(BusyError, match=r"whose loop process \d+ holds"),
    ):
        restore(settings, taken, replace=True, now=NOW)
    restore(settings, taken, replace=True, now=NOW)


def test_a_backup_never_writes_over_anything(taken: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in taken.rglob("*") if path.is_file()}
    with pytest.raises(InvalidInputError, match="which holds something"):
        backup(settings_of(tmp_path / "home"), taken)
    assert {path: path.read_bytes() for path in taken.rglob("*") if path.is_file()} == before
    assert not list(tmp_path.glob("*.part-*"))


def test_a_backup_of_sqlite_is_not_restored_to_postgresql(
    taken: Path, tmp_path: Path, postgresql_url: str
) -> None:
    with pytest.raises(InvalidInputError, match="the kind of database"):
        restore(settings_of(tmp_path / "x", postgresql_url), taken, replace=False, now=NOW)


def test_the_commands_back_up_restore_and_verify(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "home")
    settings.make_home()
    with closing(EventStore.open(settings.store_url)) as store:
        store.add_interactions([interaction(number) for number in range(5)])
    ratchet = partial(run_in_process, folder=tmp_path)
    home, other = ({"RATCHET_HOME": str(tmp_path / name)} for name in ("home", "other"))
    made = ratchet("backup", "taken", "--json", environment=home)
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["store"] == "sqlite"
    assert ratchet("verify", "taken", environment=home).returncode == 0
    back = ratchet("restore", "taken", environment=other)
    assert back.returncode == 0, back.stderr
    whole = ratchet("verify", "--no-registry", "--json", environment=other)
    assert whole.returncode == 0, whole.stdout
    assert json.loads(whole.stdout)["whole"] is True
