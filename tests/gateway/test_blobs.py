"""Bytes that clients sent go once no record refers to them, and never from under a request."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ratchet.gateway import blobs
from ratchet.gateway.blobs import (
    BlobFolder,
    erase_files,
    note_folder,
    noted_folders,
    unreferred,
)
from ratchet.operate.forgetting import Everywhere
from ratchet.operate.pruning import Pruning
from ratchet.operate.retention import RetentionConfig
from ratchet.records import Blob, Interaction, SetAside
from ratchet.settings import load_settings
from ratchet.store import EventStore
from ratchet.store.arrivals import last_position
from ratchet.store.history import History
from ratchet.store.retention import Expired, delete_expired

NOW = datetime(2026, 12, 1, 9, tzinfo=UTC)
DAY = timedelta(days=1)


class Home:
    """A home whose gateway keeps bytes."""

    def __init__(self, folder: Path, store: EventStore) -> None:
        named = {"RATCHET_HOME": "home", "RATCHET_STORE_URL": f"sqlite:///{folder / 'store.db'}"}
        self.settings = load_settings(named, folder)
        self.settings.make_home()
        self.gateway, self.store = self.settings.home / "gateway", store
        self.bytes = BlobFolder(folder / "bytes")
        note_folder(self.gateway, self.bytes.path)

    def keep(self, content: bytes, age: timedelta = 2 * DAY) -> Blob:
        blob = Blob(hashlib.sha256(content).hexdigest(), "image/png", len(content))
        self.bytes.keep(blob, content)
        touched = (NOW - age).timestamp()
        os.utime(self.path(blob), (touched, touched))
        return blob

    def path(self, blob: Blob) -> Path:
        return self.bytes.path / blob.digest[:2] / blob.digest

    def answered(self, key: str, blob: Blob, user: str = "ana", **more: object) -> None:
        picture = {"type": "image_url", "image_url": {"url": blob.reference}}
        values = {
            "id": key, "session_id": key, "user_id": user, "created_at": NOW - 2 * DAY,
            "model_version": "m/1", "messages": [{"role": "user", "content": [picture]}],
            "response": "a cat",
        }  # fmt: skip
        self.store.add_interactions([Interaction.model_validate(values | more)])

    def prune(self, history: History | None = None, preview: bool = False) -> tuple[int, int]:
        found = Pruning(
            self.store, self.settings, RetentionConfig(), now=NOW, history=history, preview=preview
        )
        (line,) = [one for one in found.run() if one.what == "bytes that clients sent"]
        assert line.failed is None
        return line.rows, line.gone or 0

    def forget(self, user: str, history: History | None = None) -> Everywhere:
        everywhere = Everywhere(self.store, self.settings, NOW, None, lambda: None)
        everywhere.forget(user, history, by="ada")
        return everywhere


@pytest.fixture
def home(tmp_path: Path, store: EventStore) -> Home:
    return Home(tmp_path, store)


def test_forgetting_a_user_erases_bytes_that_nobody_elses_record_refers_to(home: Home) -> None:
    own, shared = home.keep(b"ana's"), home.keep(b"everybody's")
    home.answered("one", own)
    home.answered("two", shared)
    home.answered("three", shared, user="ben")
    everywhere = home.forget("ana")
    assert (home.path(own).exists(), home.path(shared).exists()) == (False, True)
    assert everywhere.swept.deleted == 1
    home.forget("ben")
    assert not home.path(shared).exists()


def test_pruning_takes_what_nothing_refers_to_and_a_preview_nothing(home: Home) -> None:
    loose, used = home.keep(b"loose"), home.keep(b"used")
    home.answered("one", used)
    assert home.prune(preview=True) == (1, 0)
    assert home.path(loose).exists()
    assert home.prune() == (1, 1)
    assert (home.path(loose).exists(), home.path(used).exists()) == (False, True)
    assert home.prune() == (0, 0)


def test_bytes_that_the_log_a_set_aside_row_or_an_answers_metadata_name_stay(home: Home) -> None:
    logged, refused, heard = home.keep(b"logged"), home.keep(b"refused"), home.keep(b"heard")
    (home.gateway / "wal").mkdir(parents=True)
    (home.gateway / "wal" / "0.wal2").write_bytes(b"x" * 50 + logged.reference.encode())
    row = SetAside(
        id="s", created_at=NOW, source="gateway", position="1", reason="refused",
        raw=refused.reference,
    )  # fmt: skip
    home.store.set_aside([row])
    message = [{"role": "user", "content": "hi"}]
    home.answered("one", heard, messages=message, metadata={"answer_audio": heard.reference})
    assert home.prune() == (0, 0)


def test_bytes_of_an_answer_that_only_history_has_stay(home: Home, tmp_path: Path) -> None:
    blob = home.keep(b"old")
    home.answered("one", blob)
    history = History.open(tmp_path / "history", of=home.store)
    history.advance(home.store)
    assert history.blobs() == {blob.digest}
    newer = home.keep(b"newer")
    home.answered("two", newer)
    history.advance(home.store)
    expired = Expired(NOW, last_position(home.store), frozenset())
    assert delete_expired(home.store, expired, rest=lambda _: None)[0] == 1
    assert home.store.stored_interactions(["one"]) == {}
    assert home.prune(history, preview=True) == (0, 0)
    assert home.prune(history) == (0, 0)
    assert home.prune(None) == (1, 1)  # without history nothing refers to it
    assert not home.path(blob).exists()


def test_what_a_forgotten_user_sent_goes_though_only_history_has_the_answer(
    home: Home, tmp_path: Path
) -> None:
    blob = home.keep(b"ana's")
    home.answered("one", blob)
    home.answered("two", home.keep(b"ben's"), user="ben")
    history = History.open(tmp_path / "history", of=home.store)
    history.advance(home.store)
    expired = Expired(NOW, last_position(home.store), frozenset())
    delete_expired(home.store, expired, rest=lambda _: None)
    home.forget("ben", history)
    assert home.path(blob).exists()
    home.forget("ana", history)
    assert not home.path(blob).exists()


def test_a_request_that_sends_the_same_bytes_meanwhile_keeps_them(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = home.keep(b"again")
    before = NOW - DAY
    found = unreferred(home.store, None, home.gateway, before=before)
    assert found.files == (home.path(blob),)
    home.bytes.keep(blob, b"again")  # touches it; its record comes next
    assert erase_files(found, before=before) == 0
    assert home.path(blob).read_bytes() == b"again"


def test_a_request_between_putting_aside_and_deleting_writes_the_bytes_anew(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob, before = home.keep(b"again"), NOW - DAY
    found = unreferred(home.store, None, home.gateway, before=before)
    put_aside: Callable[..., Path] = Path.replace

    def replace(self: Path, target: Path) -> Path:
        done = put_aside(self, target)
        if target.name.endswith(".gone"):
            home.bytes.keep(blob, b"again")
        return done

    monkeypatch.setattr(Path, "replace", replace)
    assert erase_files(found, before=before) == 1
    assert home.path(blob).read_bytes() == b"again"


def test_a_call_that_was_killed_leaves_a_file_like_any_other(home: Home) -> None:
    blob = home.keep(b"killed")
    home.path(blob).rename(home.path(blob).with_name(blob.digest + ".gone"))
    home.answered("one", blob)
    assert home.prune() == (0, 0)
    assert home.path(blob).read_bytes() == b"killed"


def test_bytes_that_came_again_after_a_call_was_killed_keep_their_time(home: Home) -> None:
    blob = home.keep(b"killed")
    home.path(blob).rename(home.path(blob).with_name(blob.digest + ".gone"))
    home.keep(b"killed", age=timedelta(seconds=1))  # its record is on its way
    assert home.prune() == (0, 0)
    assert home.path(blob).read_bytes() == b"killed"
    assert [path.name for path in home.path(blob).parent.iterdir()] == [blob.digest]


def test_bytes_that_came_just_now_are_named_and_go_with_the_next_pruning(home: Home) -> None:
    blob = home.keep(b"fresh", age=timedelta(minutes=1))
    everywhere = home.forget("ana")
    assert home.path(blob).exists()
    assert any(
        "1 file of bytes that came in the last 10 minutes" in x for x in everywhere.swept.left
    )


def test_a_home_remembers_every_folder_once(home: Home, tmp_path: Path) -> None:
    for _ in range(2):
        note_folder(home.gateway, tmp_path / "other")
    assert noted_folders(home.gateway) == (home.bytes.path, tmp_path / "other")
    assert noted_folders(tmp_path) == ()
    assert blobs.unreferred(home.store, None, tmp_path, before=NOW).files == ()
