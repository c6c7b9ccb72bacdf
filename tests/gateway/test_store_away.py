"""A store that is away, deleted or replaced while the gateway serves."""

from __future__ import annotations

import os
import shutil
import signal
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from ratchet.errors import InvalidInputError, StoreReplacedError
from ratchet.gateway.access import new_key
from ratchet.gateway.app import create_app
from ratchet.gateway.known import LastKnown, StoreAwayError, StoreLink
from ratchet.gateway.log import segments
from ratchet.gateway.options import GatewayOptions
from ratchet.gateway.routing import State
from ratchet.gateway.serve import Supervisor
from ratchet.records import ApiKeyTerms, Release
from ratchet.settings import load_settings
from ratchet.store import EventStore
from tests.gateway.conftest import routing
from tests.gateway.test_standing import serving

NOW = datetime(2026, 12, 1, tzinfo=UTC)


@pytest.fixture
def file(settings):
    return settings.home / "store.db"


def released(settings, champion="m/1"):
    store = EventStore.open(settings.store_url, assistant=settings.model_name)
    store.append(Release(id="r", created_at=NOW, action="start", champion=champion, previous=None))
    return store


def moved(file, to):
    """Move a store with what SQLite keeps beside it."""
    for ending in ("", "-wal", "-shm"):
        if (beside := Path(f"{file}{ending}")).exists():
            beside.rename(f"{to}{ending}")


def until(holds, seconds=20):
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


# The store itself ---------------------------------------------------------------------------------


@pytest.mark.parametrize("replaced", [False, True])
def test_nothing_is_stored_in_a_file_that_lost_its_name(settings, file, replaced):
    store = released(settings)
    moved(file, f"{file}.away")
    if replaced:
        EventStore.open(settings.store_url).close()
    what = "another file" if replaced else "none"
    again = Release(id="r2", created_at=NOW, action="start", champion="m/2", previous=None)
    with pytest.raises(StoreReplacedError, match=f"got {what} under"):
        store.append(again)
    with pytest.raises(StoreReplacedError):
        store.latest(Release)
    assert file.exists() == replaced  # no empty store was made in its place
    if not replaced:
        moved(f"{file}.away", file)
        assert store.append(again)
    store.close()


def test_a_transaction_whose_file_is_lost_before_it_commits_stores_nothing(settings, file):
    store = released(settings)
    again = Release(id="r2", created_at=NOW, action="start", champion="m/2", previous=None)

    def lost():
        with store.atomic():
            store.append(again)
            moved(file, f"{file}.away")

    with pytest.raises(StoreReplacedError):
        lost()
    moved(f"{file}.away", file)
    assert [release.id for release in store.records(Release)] == ["r"]
    store.close()


# What it said last --------------------------------------------------------------------------------


def test_what_the_store_said_last_is_read_as_it_was(settings, tmp_path):
    key, _ = new_key("shop", ["ingest"], now=NOW)
    state = State(
        routing=routing(("m/1", 0.9), ("m/2", 0.1), previous="m/0"),
        adapters={"m/1": tmp_path / "a", "m/2": None},
        names={"m/1": "org/base"},
        adopted=("gpt-4o",),
        keys={key.id: key},
        terms={key.id: ApiKeyTerms(id=key.id, created_at=NOW, expires_at=NOW, scopes=("ask",))},
        needs_key=True,
    )
    known = LastKnown(settings.home / "gateway", settings)
    known.write(state, NOW)
    assert known.read() == (state, NOW)
    assert known.path.stat().st_mode & 0o777 == 0o600
    other = settings.model_copy(update={"store_url": "sqlite:////elsewhere/store.db"})
    assert LastKnown(settings.home / "gateway", other).read() is None
    known.path.write_bytes(known.path.read_bytes()[:-9])
    assert known.read() is None


def test_a_store_that_is_gone_at_the_start_is_not_made_anew(settings, file):
    released(settings).close()
    known = LastKnown(settings.home / "gateway", settings)
    known.write(State(needs_key=True), NOW)
    moved(file, f"{file}.away")
    link = StoreLink(settings, known)
    with pytest.raises(StoreAwayError, match=r"routing\.json"):
        link.get()
    assert not file.exists()
    moved(f"{file}.away", file)
    assert link.get().latest(Release).champion == "m/1"
    link.close()


def test_a_process_that_starts_after_the_store_was_replaced_does_not_take_the_other(settings, file):
    first = released(settings)
    known = LastKnown(settings.home / "gateway", settings)
    moved(file, f"{file}.away")
    EventStore.open(settings.store_url).close()
    link = StoreLink(settings, known, expected=first.file_identity)
    with pytest.raises(StoreReplacedError):
        link.get()
    assert "another file" in link.problem()
    first.close()


# The gateway --------------------------------------------------------------------------------------


def feedback(answer, key):
    return {
        "id": key, "interaction_id": answer["id"], "kind": "thumbs", "value": "up",
        "token": answer["ratchet"]["token"],
    }  # fmt: skip


def test_while_the_store_is_gone_nothing_is_acknowledged_and_then_it_is_again(
    serve, mock, settings, file
):
    released(settings).close()
    gateway = serve(backend=mock.url)
    answer = gateway.ask()
    moved(file, f"{file}.away")
    refused = gateway.post("/v1/feedback", feedback(answer, "f-1"))
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_recorded")
    assert refused.headers["retry-after"] == "5"
    chat = {"model": "any", "messages": [{"role": "user", "content": "hello"}]}
    told = gateway.post("/v1/chat/completions", chat)
    assert (told.status_code, told.headers["x-ratchet-recorded"]) == (200, "no")
    assert (told.json()["model"], told.json()["ratchet"]["token"]) == ("m/1", "")
    health = gateway.get("/healthz")
    assert (health.status_code, health.json()["recording"]) == (503, False)
    assert "got none under" in health.json()["not_recording"]
    assert not file.exists()
    moved(f"{file}.away", file)
    assert gateway.post("/v1/feedback", feedback(answer, "f-1")).json()["accepted"] == 1
    until(lambda: gateway.get("/healthz").status_code == 200)
    assert [item.id for item in gateway.interactions()] == [answer["id"]]
    assert [row["id"] for row in gateway.feedback()] == ["f-1"]


def test_a_sync_that_fails_answers_503_and_shows_in_health(serve, mock, monkeypatch):
    gateway = serve(backend=mock.url, sync=True)
    answer = gateway.ask()
    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", _fail)
        assert gateway.post("/v1/feedback", feedback(answer, "f-1")).status_code == 503
        health = gateway.get("/healthz")
        assert (health.status_code, health.json()["recording"]) == (503, False)
        assert "sync" in health.json()["not_recording"]
    until(lambda: gateway.get("/healthz").status_code == 200)
    assert gateway.post("/v1/feedback", feedback(answer, "f-1")).json()["accepted"] == 1
    assert [row["id"] for row in gateway.feedback()] == ["f-1"]


def _fail(_file):
    raise OSError(5, "Input/output error")


def test_with_keys_a_gateway_without_its_store_still_asks_for_them(mock, settings, file):
    store = released(settings)
    record, key = new_key("shop", ["ingest"], now=NOW)
    store.append(record)
    store.close()
    options = GatewayOptions(settings=settings, backend=mock.url)
    chat = {"model": "any", "messages": [{"role": "user", "content": "hello"}]}
    with TestClient(create_app(options), client=("127.0.0.1", 5), base_url="http://127.0.0.1"):
        pass  # it keeps what it read
    moved(file, f"{file}.away")
    with TestClient(create_app(options), base_url="http://127.0.0.1") as client:
        assert client.post("/v1/chat/completions", json=chat).status_code == 401
        allowed = {"authorization": f"Bearer {key}"}
        told = client.post("/v1/chat/completions", json=chat, headers=allowed)
        assert (told.status_code, told.json()["model"]) == (200, "m/1")
        health = client.get("/healthz")
        assert (health.json()["status"], health.json()["champion"]) == ("degraded", "m/1")
    assert not file.exists()


def test_a_gateway_without_a_store_or_anything_known_does_not_start(tmp_path):
    settings = load_settings(
        {"RATCHET_HOME": str(tmp_path), "RATCHET_STORE_URL": "postgresql+psycopg://127.0.0.1:1/x"},
        tmp_path,
    )
    with pytest.raises(InvalidInputError, match="the store must open"):
        Supervisor(GatewayOptions(settings=settings, port=0), say=print).run()


@pytest.mark.slow
def test_ratchet_serve_starts_and_replaces_a_worker_while_its_store_is_away(tmp_path, mock):
    home = tmp_path / ".ratchet"
    settings = load_settings({"RATCHET_HOME": str(home)}, tmp_path)
    released(settings).close()
    file = home / "store.db"
    with serving(tmp_path, "--backend", mock.url) as first:
        until(lambda: first.health()["champion"] == "m/1")
        until((home / "gateway" / "routing.json").exists)
    moved(file, f"{file}.away")
    with serving(tmp_path) as second:
        second.until("the store does not open")
        assert until(lambda: second.health()["store_away"])
        assert second.health()["champion"] == "m/1"
        parent = second._process.pid
        children = Path(f"/proc/{parent}/task/{parent}/children")
        (worker,) = children.read_text().split()
        os.kill(int(worker), signal.SIGKILL)
        second.until("is started again")
        assert second.health()["champion"] == "m/1"
        moved(f"{file}.away", file)
        health = until(lambda: (h := second.health())["status"] == "ok" and h)
        assert (health["store_away"], health["backlog"]["problem"]) == (None, None)
    assert segments(home / "gateway" / "wal") == []
    shutil.rmtree(home)
