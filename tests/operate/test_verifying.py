"""Damage that was planted in a home is found, and named."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from ratchet.gateway.log import LogKind, WriteAheadLog, segments
from ratchet.operate.verifying import verify
from ratchet.settings import Settings, load_settings
from ratchet.store import EventStore
from ratchet.store.checking import check_store
from ratchet.store.forget import forget
from ratchet.store.history import History
from tests.fixtures.old_home import unpack
from tests.operate.test_backup import interaction, thumbs
from tests.parameters import mostly_slow
from tests.store.test_definitions import as_before, calling, plain

NOW = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A home of release 0.1 with a history and a line in its log."""
    folder = tmp_path_factory.mktemp("verified")
    unpack(folder)
    settings = load_settings({"RATCHET_HOME": str(folder / "home")}, folder)
    settings.make_home()
    with closing(EventStore.open(settings.store_url)) as store:
        History.open(settings.history).advance(store)
    log = WriteAheadLog.create(settings.home / "gateway" / "wal")
    log.append(LogKind.INTERACTION, b'{"id": "x"}')
    log.close()
    with closing(sqlite3.connect(settings.home / "store.db")) as file:
        file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return settings


def in_store(statement: str) -> Callable[[Settings], Path]:
    """Return what changes the store as no part of Ratchet would."""

    def change(settings: Settings) -> Path:
        with closing(sqlite3.connect(settings.home / "store.db")) as file, file:
            assert file.execute(statement).rowcount == 1
        return settings.home / "store.db"

    return change


def flip(pattern: str, at: int = -40) -> Callable[[Settings], Path]:
    """Return what changes a byte of the first file that matches."""

    def change(settings: Settings) -> Path:
        path = sorted(settings.home.glob(pattern))[0]
        content = bytearray(path.read_bytes())
        content[at] ^= 0x01
        path.write_bytes(content)
        return path

    return change


FIRST = "(SELECT min(position) FROM {})"
DAMAGES = {
    "a changed answer": (
        in_store(
            "UPDATE interactions SET response = response || '.' WHERE position = "
            + FIRST.format("interactions")
        ),
        "store", "of interactions are not what was sent",
    ),
    "a changed rating": (
        in_store(
            "UPDATE feedback SET number = 1 - number WHERE position = "
            "(SELECT min(position) FROM feedback WHERE kind = 'thumbs')"
        ),
        "store", "of feedback are not what was sent",
    ),
    "a lost count": (
        in_store("UPDATE counts SET value = value - 1 WHERE name = 'set_aside' AND value = "
                 "(SELECT max(value) FROM counts WHERE name = 'set_aside')"
                 " AND key = (SELECT key FROM counts WHERE name = 'set_aside' "
                 "ORDER BY value DESC LIMIT 1)"),
        "store", "the kept counts of set_aside",
    ),
    "a changed record": (
        in_store("UPDATE journal SET body = json_set(body, '$.champion', 7) WHERE position = "
                 "(SELECT max(position) FROM journal WHERE kind = 'Release')"),
        "store", "of the journal cannot be read: Release",
    ),
    "a record of a later version": (
        in_store("INSERT INTO journal (kind, id, created_at, body) VALUES ('Novel', 'n', 1, '{}')"),
        "store", "Novel n (of an unknown kind)",
    ),
    "a damaged page": (flip("store.db", at=9_000), "store", ""),
    "a damaged database": (flip("mlflow/mlflow.db", at=110), "databases", "mlflow/mlflow.db"),
    "a damaged log": (flip("gateway/wal/*.wal", at=30), "log", "is damaged at byte 0"),
    "a changed adapter": (
        flip("adapters/[0-9a-f]*/adapter_model.safetensors"), "adapters", "has the digest",
    ),
    "a changed training set": (
        flip("datasets/*/train.parquet", at=60), "training sets", "datasets/",
    ),
    "a changed history": (
        flip("history/interactions/*/*.parquet", at=2_000), "history", "interactions/day=",
    ),
}  # fmt: skip


def found(settings: Settings) -> dict[str, str]:
    return {part.part: " ".join(part.problems) for part in verify(settings) if part.problems}


def test_a_home_without_damage_is_whole(home: Settings) -> None:
    assert found(home) == {}


@pytest.mark.parametrize(
    "what",
    mostly_slow(
        [name for name in DAMAGES if name != "a damaged page"],
        fast={"a changed adapter", "a lost count"},
    ),
)
def test_damage_is_found_where_it_is_and_nowhere_else(what: str, home: Settings) -> None:
    damage, part, said = DAMAGES[what]
    before = {path: path.read_bytes() for path in home.home.rglob("*") if path.is_file()}
    damage(home)
    try:
        problems = found(home)
        assert set(problems) == {part}
        assert said in problems[part]
    finally:
        for path in home.home.rglob("*.db-*"):
            path.unlink()
        for path, content in before.items():
            path.write_bytes(content)


def test_a_torn_last_line_of_the_log_is_no_damage(home: Settings) -> None:
    path = segments(home.home / "gateway" / "wal")[-1]
    before = path.read_bytes()
    path.write_bytes(before + b"0123abcd 17 i {")
    try:
        assert found(home) == {}
    finally:
        path.write_bytes(before)


def test_what_is_left_of_a_forgotten_user_is_counted_and_no_damage(
    store_url: str, tmp_path: Path
) -> None:
    with closing(EventStore.open(store_url)) as store:
        store.add_interactions([interaction(number) for number in range(20)])
        store.add_feedback([thumbs(number) for number in range(20)])
        forget(store, tmp_path, "u1", now=NOW, text_key=str.casefold)
        whole = check_store(store)
    assert whole.problems == []
    assert whole.counts["erased"] >= 4, "every fifth interaction is of u1"


@pytest.mark.parametrize("old", [False, True])
def test_history_with_calls_is_whole_and_so_is_one_of_before_them(
    tmp_path: Path, old: bool
) -> None:
    settings = load_settings({"RATCHET_HOME": str(tmp_path)}, tmp_path)
    with closing(EventStore.open(settings.store_url)) as store:
        store.add_interactions([plain("a")] if old else [calling("a"), plain("b")])
        History.open(settings.history).advance(store)
    if old:
        as_before(Path(settings.history))
    assert found(settings) == {}


def test_ids_that_lost_their_rows_are_found_on_postgresql(postgresql_url: str) -> None:
    with closing(EventStore.open(postgresql_url)) as store:
        store.add_interactions([interaction(number) for number in range(20)])
        engine = sa.create_engine(postgresql_url)
        with engine.begin() as connection:
            connection.execute(sa.text("DELETE FROM interaction_ids WHERE id = 'i3'"))
        engine.dispose()
        assert check_store(store).problems == [
            "1 entries of interactions are without an id in interaction_ids"
        ]
