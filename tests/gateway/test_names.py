"""Which model answers which name, before and after a champion, and what the backend lacks."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ratchet.records import Adoption, ServedName
from tests.gateway.conftest import routing
from tests.gateway.test_adapters import candidates, route, until
from tests.servers.vllm_server import VllmServer

BASE = "org/base"
HELLO = [{"role": "user", "content": "hello"}]
NOW = datetime(2026, 12, 1, tzinfo=UTC)


@pytest.fixture
def server():
    with VllmServer(BASE) as started:
        yield started


@pytest.fixture
def adopted(serve, server):
    """A gateway in front of an adopted model with another name."""
    gateway = serve(backend=server.url, rate_per_second=0)
    gateway.store.append(Adoption(id="a", created_at=NOW, version=BASE, also=("gpt-4o",)))
    route(gateway, (BASE, 1.0))
    return gateway


def ask(gateway, model, user="ann"):
    return gateway.post(
        "/v1/chat/completions", {"model": model, "messages": HELLO, "user": user}
    )  # fmt: skip


def refused(reply):
    """The names that a refusal lists."""
    error = reply.json()["error"]
    assert (reply.status_code, error["code"], error["param"]) == (404, "model_not_found", "model")
    return error["message"].partition("it lists ")[2].split(", ")


def listed(gateway):
    return [entry["id"] for entry in gateway.get("/v1/models").json()["data"]]


# Before any champion ------------------------------------------------------------------------------


def test_before_any_champion_names_go_to_the_backend_as_they_are(serve, server):
    gateway = serve(backend=server.url)
    reply = ask(gateway, BASE)
    assert (reply.status_code, reply.json()["model"]) == (200, BASE)
    assert ask(gateway, "gpt-4o").status_code == 502  # as the server has it: a failed attempt
    assert [name for _, name in server.answers] == [BASE, "gpt-4o"]
    failed = [item.model_version for item in gateway.interactions() if item.error]
    assert failed == ["gpt-4o"]
    assert listed(gateway) == [BASE]
    assert gateway.get(f"/v1/models/{BASE}").json()["id"] == BASE
    assert gateway.get("/v1/models/gpt-4o").status_code == 404


@pytest.mark.parametrize("alias", ["champion", "challenger", "previous"])
def test_an_alias_of_nothing_is_not_found_and_nobody_is_asked(serve, server, alias):
    gateway = serve(backend=server.url)
    refused(ask(gateway, alias))
    assert server.answers == []
    assert gateway.get(f"/v1/models/{alias}").status_code == 404
    refused(gateway.post("/v1/embeddings", {"model": alias, "input": "x"}))


def test_a_gateway_without_a_champion_says_so(serve, server):
    health = serve(backend=server.url).get("/healthz").json()
    assert (health["status"], health["champion"]) == ("ok", None)
    assert "ratchet adopt --backend URL" in health["advice"][0]


# With a champion ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [BASE, "gpt-4o", "anything-else"])
def test_the_names_of_an_adopted_model_are_routed_like_any_name_of_an_application(adopted, name):
    candidates(adopted, "m/2")
    route(adopted, ("m/2", 1.0), key="r2", previous=BASE)
    ask(adopted, name)
    first, *rest = adopted.interactions()
    assert (first.model_version, first.metadata["experiment"]) == ("m/2", "e")
    assert [item.model_version for item in rest] == [BASE]  # the server has no m/2: fail-over


def test_users_who_name_the_adopted_model_are_split_as_the_routing_says(adopted, server, tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    server.adapters["m/2"] = str(tmp_path)
    candidates(adopted, "m/2")
    route(adopted, ("m/2", 0.5), (BASE, 0.5), key="r2")
    users = [f"user-{number}" for number in range(40)]
    got = {user: ask(adopted, BASE, user).json()["model"] for user in users}
    shares = routing(("m/2", 0.5), (BASE, 0.5))
    assert got == {user: shares.choose(user).version for user in users}
    assert set(got.values()) == {"m/2", BASE}
    pinned = {ask(adopted, "champion", user).json()["model"] for user in users}
    assert pinned == {BASE}
    assert {ask(adopted, "challenger", user).json()["model"] for user in users} == {"m/2"}
    assert {ask(adopted, "m/2", user).json()["model"] for user in users[:5]} == {"m/2"}


def test_an_alias_that_stands_for_nothing_now_is_not_found_with_the_names_that_are(adopted, server):
    names = refused(ask(adopted, "challenger"))
    assert names == ["champion", BASE, "gpt-4o"]
    assert server.answers == []
    assert "there is no challenger now" in ask(adopted, "challenger").json()["error"]["message"]


@pytest.mark.parametrize("path", ["completions", "responses", "embeddings"])
def test_other_parts_of_the_api_know_the_same_names(adopted, path):
    candidates(adopted, "m/2")
    route(adopted, (BASE, 1.0), key="r2")
    for name in ("challenger", "m/2", "m/77"):
        refused(adopted.post(f"/v1/{path}", {"model": name, "input": "x", "prompt": "x"}))


def test_a_version_that_is_not_loaded_is_not_found_and_is_not_listed(adopted, server, tmp_path):
    candidates(adopted, "m/2", "m/3")
    route(adopted, (BASE, 1.0), key="r2")
    server.adapters["m/3"] = str(tmp_path)
    until(lambda: "m/3" in listed(adopted))
    assert refused(ask(adopted, "m/2")) == listed(adopted) == ["champion", "m/3", BASE, "gpt-4o"]
    assert ask(adopted, "m/3").json()["model"] == "m/3"
    refused(ask(adopted, "m/77"))  # no version of this home
    assert adopted.get("/v1/models/m/2").status_code == 404
    assert adopted.get("/v1/models/m/3").json()["owned_by"] == "ratchet"


def test_every_name_that_is_listed_answers(adopted, server, tmp_path):
    server.adapters["m/2"] = str(tmp_path)
    candidates(adopted, "m/2", "m/3")
    route(adopted, ("m/2", 0.5), (BASE, 0.5), key="r2", previous=BASE)
    names = listed(adopted)
    assert set(names) == {"champion", "challenger", "previous", "m/2", BASE, "gpt-4o"}
    assert {ask(adopted, name).status_code for name in names} == {200}


def test_versions_are_asked_for_by_the_backends_names_everywhere(serve, mock):
    gateway = serve(backend=mock.url)
    gateway.store.append(ServedName(id="n", created_at=NOW, version="m/1", name="support-lora"))
    route(gateway, ("m/1", 1.0))
    for path in ("completions", "responses"):
        gateway.post(f"/v1/{path}", {"model": "any", "prompt": "x", "input": "x"})
    gateway.post("/v1/embeddings", {"model": "m/1", "input": "x"})
    gateway.post("/v1/embeddings", {"model": "embedder", "input": "x"})
    asked = [body["model"] for body in mock.seen]
    assert asked == ["support-lora", "support-lora", "support-lora", "embedder"]


# What the backend lacks ---------------------------------------------------------------------------


def health(gateway):
    return gateway.get("/healthz").json()


def test_a_routing_to_a_version_that_the_backend_lacks_is_never_a_silent_ok(serve, server):
    gateway = serve(backend=server.url, rate_per_second=0)
    route(gateway, ("support-router/1", 1.0))
    found = health(gateway)
    assert (found["status"], found["lacking"]) == ("degraded", {"backend": ["support-router/1"]})
    assert "ratchet adopt --as VERSION --model NAME" in found["advice"][0]
    assert ask(gateway, "any").status_code == 502
    (attempt,) = gateway.interactions()
    assert "does not exist" in attempt.error
    gateway.store.append(
        ServedName(id="n", created_at=NOW, version="support-router/1", name=BASE)
    )  # fmt: skip
    gateway.app.state.gateway.router.refresh()
    assert ask(gateway, "any").json()["model"] == "support-router/1"
    found = health(gateway)
    assert (found["status"], found["lacking"], found["advice"]) == ("ok", {}, [])


def test_users_of_a_version_that_is_lacked_are_answered_by_the_one_before(adopted):
    candidates(adopted, "m/2")
    route(adopted, ("m/2", 1.0), key="r2", previous=BASE)
    assert health(adopted)["status"] == "degraded"
    assert ask(adopted, "any").json()["model"] == BASE
    assert [bool(item.error) for item in adopted.interactions()] == [True, False]


def test_a_version_that_one_replica_lacks_is_said_of_that_replica(serve, server, tmp_path):
    with VllmServer(BASE) as second:
        gateway = serve(backend=server.url, replicas=(second.url,), rate_per_second=0)
        server.adapters["m/2"] = str(tmp_path)
        candidates(gateway, "m/2")
        route(gateway, ("m/2", 1.0))
        until(lambda: health(gateway)["lacking"] == {"backend-2": ["m/2"]})
        assert health(gateway)["status"] == "degraded"
        assert {ask(gateway, "any", f"u{n}").json()["model"] for n in range(6)} == {"m/2"}


def test_a_server_that_does_not_say_what_it_has_is_believed(serve, mock):
    gateway = serve(backend=mock.url)
    candidates(gateway, "m/2")
    route(gateway, ("m/1", 1.0))
    assert (health(gateway)["status"], health(gateway)["lacking"]) == ("ok", {})
    assert gateway.ask(model="m/2")["model"] == "m/2"
