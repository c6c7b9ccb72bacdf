"""Gateways on several hosts: homes of their own, one store on PostgreSQL, no shared disk."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from ratchet.gateway.access import new_key
from ratchet.records import ApiKeyRevocation
from ratchet.store import EventStore
from tests.gateway.conftest import ALWAYS, routing
from tests.gateway.killing import PATIENCE_SECONDS, free_port, gateway, kill_group

pytestmark = pytest.mark.slow
SECRET = "a secret that both gateways are given"


class Host:
    """A gateway with a home of its own."""

    def __init__(self, stack: ExitStack, folder: Path, backend: str, store_url: str) -> None:
        self.home, self.port = folder, free_port()
        folder.mkdir(mode=0o700)
        self._secret = folder / "given"
        self._secret.write_text(SECRET.replace(" ", "-"))
        self._stack, self._backend, self._store_url = stack, backend, store_url
        self.start()

    def start(self) -> None:
        self.process = self._stack.enter_context(
            gateway(
                self.home, self._backend, self.port, self.home / "gateway.log",
                workers=1, more=("--gateways", "2", "--rate", "20"),
                RATCHET_STORE_URL=self._store_url,
                RATCHET_GATEWAY_SECRET_FILE=str(self._secret),
            )
        )  # fmt: skip
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                if self.get("/healthz").status_code == 200:
                    return
            except httpx.HTTPError:
                assert self.process.poll() is None, (self.home / "gateway.log").read_text()
                assert time.monotonic() < until
            time.sleep(0.05)

    def get(self, path: str, key: str | None = None) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", headers=_bearer(key), timeout=30)

    def post(self, path: str, body: object, key: str | None = None) -> httpx.Response:
        url = f"http://127.0.0.1:{self.port}{path}"
        return httpx.post(url, json=body, headers=_bearer(key), timeout=30)

    def says(self, said: object, **fields: object) -> str:
        """Ask without a key, and return which version answered."""
        turns = [{"role": "user", "content": said}] if isinstance(said, str) else said
        reply = self.post("/v1/chat/completions", {"model": "any", "messages": turns} | fields)
        assert reply.status_code == 200, reply.text
        return str(reply.json()["model"])

    def versions(self) -> set[str]:
        """The versions that are served here, without names that stand for one of them."""
        listed = {model["id"] for model in self.get("/v1/models").json()["data"]}
        return {name for name in listed if name.startswith("m/")}

    def status(self, key: str | None = None) -> int:
        return self.get("/v1/models", key).status_code

    def ask(self, text: str, user: str, key: str | None = None) -> dict[str, str]:
        body = {"model": "any", "messages": [{"role": "user", "content": text}], "user": user}
        reply = self.post("/v1/chat/completions", body, key)
        assert reply.status_code == 200, reply.text
        answered = reply.json()
        return {"id": answered["id"], "token": answered["ratchet"]["token"]}


def _until(holds: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _bearer(key: str | None) -> dict[str, str]:
    return {} if key is None else {"authorization": f"Bearer {key}"}


@pytest.fixture
def hosts(tmp_path, mock, postgresql_url):
    with ExitStack() as stack:
        yield [Host(stack, tmp_path / name, mock.url, postgresql_url) for name in ("one", "two")]


def test_what_one_gateway_answered_is_rated_at_another_and_a_killed_one_loses_nothing(
    hosts, postgresql_url
):
    one, two = hosts
    first = one.ask("hello", "ana")
    rated = two.post(
        "/v1/feedback",
        {"id": "f1", "interaction_id": first["id"], "kind": "thumbs", "value": "up",
         "user_id": "ana", "token": first["token"]},
    )  # fmt: skip
    assert rated.status_code == 200, rated.text
    last = one.ask("and goodbye", "ben")
    kill_group(one.process)  # its log may still hold what it acknowledged
    second = two.ask("still there?", "cem")
    one.start()
    wanted = {first["id"], last["id"], second["id"]}
    store = EventStore.open(postgresql_url)
    try:
        until = time.monotonic() + PATIENCE_SECONDS
        while set(store.interactions(ALWAYS)["id"].to_pylist()) != wanted:
            assert time.monotonic() < until
            time.sleep(0.1)
        while not (feedback := store.feedback(ALWAYS).to_pylist()):
            assert time.monotonic() < until
            time.sleep(0.1)
        assert [row["interaction_id"] for row in feedback] == [first["id"]]
    finally:
        store.close()


def test_the_rate_of_a_caller_is_shared_out(hosts):
    one, _ = hosts
    batch = {"events": [_comment(number) for number in range(1_000)]}
    assert one.post("/v1/feedback", batch).status_code == 200
    refused = one.post("/v1/feedback", _comment(0))
    assert refused.status_code == 429
    # 20 a second of two gateways are 10 of each: 980 are owed, which 20 a second would pay in 49 s
    assert 60 < int(refused.headers["retry-after"]) <= 100


def test_who_answers_a_user_is_the_same_at_each_gateway_and_follows_the_store(
    hosts, postgresql_url
):
    store = EventStore.open(postgresql_url)
    try:
        store.append(routing(("m/2", 0.5), ("m/1", 0.5), key="halves"))
        _until(lambda: all(host.versions() == {"m/1", "m/2"} for host in hosts))
        given = [[host.says("hello", user=f"u{n}") for n in range(8)] for host in hosts]
        assert given[0] == given[1]
        assert set(given[0]) == {"m/1", "m/2"}
        store.append(routing(("m/1", 1.0), key="back"))
        _until(lambda: all(host.versions() == {"m/1"} for host in hosts), seconds=2.5)
        assert {host.says("hello", user=f"u{n}") for host in hosts for n in range(8)} == {"m/1"}
    finally:
        store.close()


def test_a_key_is_known_and_revoked_at_each_gateway(hosts, postgresql_url):
    store = EventStore.open(postgresql_url)
    try:
        record, key = new_key("shop", ("ingest", "read"), now=datetime.now(UTC))
        store.append(record)
        _until(lambda: [host.status() for host in hosts] == [401, 401], seconds=2.5)
        assert [host.status(key) for host in hosts] == [200, 200]
        store.append(ApiKeyRevocation(id=record.id, created_at=datetime.now(UTC)))
        _until(lambda: [host.status(key) for host in hosts] == [401, 401], seconds=2.5)
    finally:
        store.close()


def test_a_conversation_that_moves_between_gateways_stays_one(hosts, postgresql_url):
    """Where nobody is named the gateways agree from the second turn on, as the page says."""
    store = EventStore.open(postgresql_url)
    try:
        store.append(routing(("m/2", 0.5), ("m/1", 0.5), key="halves"))
        _until(lambda: all(host.versions() == {"m/1", "m/2"} for host in hosts))
        turns = {name: [] for name in ("ana", "")}
        for place in range(6):
            for name, said in turns.items():
                said.append({"role": "user", "content": f"turn {place} of {name}"})
                hosts[place % 2].says(said, **({"user": name} if name else {}))
                said.append({"role": "assistant", "content": f"turn {place} of {name}"})  # an echo
        _until(lambda: len(store.interactions(ALWAYS)) == 12)
        kept = [one for some in store.iter_interactions(ALWAYS) for one in some]
    finally:
        store.close()

    def belongs(one):
        return one.user_id, one.session_id, one.model_version

    named = [one for one in kept if one.user_id == "ana"]
    assert len(named) == 6
    assert len({belongs(one) for one in named}) == 1
    nameless = [belongs(one) for one in kept if one.user_id != "ana"]
    assert len(set(nameless[1:])) == 1
    assert {one.continues for one in named} == {None}  # the answer before is another gateway's


def _comment(number: int) -> dict[str, object]:
    return {"id": f"c{number}", "interaction_id": "none", "kind": "thumbs", "value": "up"}
