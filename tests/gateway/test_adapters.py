"""Adapters of a vLLM-like server are held to the routing, over restarts and on every replica."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ratchet.errors import InvalidInputError
from ratchet.gateway.adapters import AdapterKeeper
from ratchet.gateway.http_backend import HttpBackend
from ratchet.gateway.options import GatewayOptions
from ratchet.gateway.routing import State
from ratchet.gateway.serve import Supervisor
from ratchet.records import Candidate, RoutingFollowed
from ratchet.store import EventStore
from tests.gateway.conftest import routing, running
from tests.servers.vllm_server import VllmServer


@pytest.fixture
def server():
    with VllmServer() as started:
        yield started


def candidates(gateway, *versions):
    for version in versions:
        name, _, number = version.partition("/")
        folder = gateway.settings.home / "adapters" / number
        folder.mkdir(parents=True)
        (folder / "adapter_config.json").write_text("{}")
        gateway.store.append(
            Candidate(
                id=version, cycle_id="c", created_at=datetime.now(UTC), model_name=name,
                version=number, adapter_digest="d", path=f"adapters/{number}",
                training_set_id="t", run_id="r", losses=(), training_seconds=1.0,
            )
        )  # fmt: skip


def route(gateway, *variants, key="r", previous=None):
    gateway.store.append(routing(*variants, key=key, previous=previous))
    gateway.app.state.gateway.router.refresh()


def until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.02)


@pytest.fixture
def served(serve, server):
    gateway = serve(backend=server.url, load_adapters=True, rate_per_second=0)
    candidates(gateway, "m/1", "m/2", "m/3")
    route(gateway, ("m/2", 0.5), ("m/1", 0.5), previous="m/1")
    return gateway


def test_a_new_routing_takes_effect_with_its_adapters_loaded(served, server):
    assert set(server.adapters) == {"m/1", "m/2"}
    assert served.ask(model="m/2")["choices"][0]["message"]["content"] == "m/2: hello"
    route(served, ("m/3", 1.0), key="r2", previous="m/2")
    assert served.ask()["model"] == "m/3"
    assert {status for status, _ in server.answers} == {200}
    assert served.interactions()[0].error is None


def test_what_no_routing_names_is_unloaded_and_what_others_loaded_is_left(served, server):
    server.adapters["somebody-elses"] = "/elsewhere"
    route(served, ("m/3", 1.0), key="r2", previous="m/2")
    until(lambda: "m/1" not in server.adapters, 15)
    assert set(server.adapters) == {"m/2", "m/3", "somebody-elses"}


def test_an_adapter_that_somebody_unloaded_is_loaded_again(served, server):
    server.forget()
    until(lambda: set(server.adapters) == {"m/1", "m/2"}, 3)


def test_a_name_that_is_taken_with_nothing_behind_it_is_loaded_anew(served, server):
    server.lost_loads = 1
    route(served, ("m/3", 1.0), key="r2")
    until(lambda: "m/3" in server.adapters, 5)
    assert ("unload", "m/3") in server.calls


def test_a_load_that_fails_is_told_once_and_tried_again(served, server, caplog):
    folder = served.settings.home / "adapters" / "3" / "adapter_config.json"
    folder.unlink()
    route(served, ("m/3", 1.0), key="r2", previous="m/1")
    assert served.ask()["model"] == "m/1"
    until(lambda: server.calls.count(("load", "m/3")) >= 3)
    assert sum("No adapter found" in record.message for record in caplog.records) == 1
    folder.write_text("{}")
    until(lambda: "m/3" in server.adapters, 5)
    until(lambda: served.ask()["model"] == "m/3", 2)


def test_one_adapter_that_cannot_be_loaded_keeps_no_other_from_being_loaded(served, server):
    (served.settings.home / "adapters" / "3" / "adapter_config.json").unlink()
    server.forget()
    route(served, ("m/3", 0.5), ("m/2", 0.5), key="r2", previous="m/1")
    assert set(server.adapters) == {"m/1", "m/2"}


@pytest.mark.slow
def test_an_adapter_that_is_named_again_in_time_is_not_unloaded(served, server):
    route(served, ("m/3", 1.0), key="r2")
    time.sleep(2.5)
    route(served, ("m/2", 0.5), ("m/1", 0.5), key="r3")
    time.sleep(4.0)  # longer than what was left of the time
    assert {"m/1", "m/2"} <= set(server.adapters)
    assert ("unload", "m/1") not in server.calls


@pytest.mark.slow
def test_several_processes_hold_one_server_right_together(serve, server, caplog):
    server.load_seconds = 0.2
    gateways = [serve(backend=server.url, load_adapters=True) for _ in range(2)]
    candidates(gateways[0], "m/1", "m/2")
    gateways[0].store.append(routing(("m/2", 1.0), previous="m/1"))
    until(lambda: set(server.adapters) == {"m/1", "m/2"})
    gateways[0].store.append(routing(("m/1", 1.0), key="r2"))
    until(lambda: set(server.adapters) == {"m/1"}, 15)
    time.sleep(1.5)
    assert set(server.adapters) == {"m/1"}
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_every_replica_is_kept_right(serve, server):
    with VllmServer() as second:
        gateway = serve(
            backend=server.url, replicas=(second.url,), load_adapters=True, rate_per_second=0
        )
        candidates(gateway, "m/1", "m/2")
        route(gateway, ("m/2", 1.0), previous="m/1")
        assert set(server.adapters) == set(second.adapters) == {"m/1", "m/2"}
        for _ in range(4):
            gateway.ask()
        assert [len(server.answers), len(second.answers)] == [2, 2]
        second.stop()
        assert all(gateway.ask()["model"] == "m/2" for _ in range(4))  # the other one answers
        second.start()
        until(lambda: set(second.adapters) == {"m/1", "m/2"}, 4)


def test_a_server_that_takes_no_adapters_is_told_of_and_asked_all_the_same(serve, caplog):
    with VllmServer(updating=False) as server:
        gateway = serve(backend=server.url, backend_model="base-model", load_adapters=True)
        candidates(gateway, "m/1")
        route(gateway, ("m/1", 1.0))
        assert gateway.ask()["model"] == "m/1"
    assert any("backend lacks adapters" in record.message for record in caplog.records)


def test_the_server_is_told_the_path_that_it_has_for_the_adapters(settings, tmp_path):
    root = tmp_path / "shared"
    at = settings.model_copy(
        update={"adapter_root": root, "backend_adapter_root": "/models"},
    )
    with VllmServer(mounts={"/models": root}) as server:
        options = GatewayOptions(settings=at, backend=server.url, load_adapters=True)
        with running(options) as gateway:
            candidates(gateway, "m/2")  # trained elsewhere: this home's folder is not looked at
            (root / "m-2-d").mkdir(parents=True)
            (root / "m-2-d" / "adapter_config.json").write_text("{}")
            route(gateway, ("m/2", 1.0))
            until(lambda: server.adapters == {"m/2": "/models/m-2-d"}, 5)
            assert gateway.ask()["model"] == "m/2"


def test_what_a_check_has_loaded_stays_until_a_routing_names_it(server):
    seconds = [0.0]
    state = State(
        routing=routing(("base-model", 1.0)),
        adapters={"base-model": None, "m/1": Path("one"), "m/2": Path("two")},
    )
    server.adapters |= {"m/1": "one"}

    async def look_at(*times):
        keeper = AdapterKeeper([], lambda *_: None, clock=lambda: seconds[0])
        backend = HttpBackend(server.url)
        kept = []
        for at in times:
            seconds[0] = at
            await keeper.look(backend, state)
            kept.append("m/1" in server.adapters)
        await backend.close()
        return kept

    assert asyncio.run(look_at(0.0, 6.0, 299.0, 301.0)) == [True, True, True, False]


def test_one_name_for_all_versions_keeps_the_routing_that_there_was(serve, server):
    gateway = serve(backend=server.url, backend_model="base-model")
    route(gateway, ("m/1", 1.0))
    assert gateway.ask()["model"] == "m/1"
    (followed,) = gateway.store.records(RoutingFollowed)
    assert followed.asks_for == "base-model"
    route(gateway, ("m/2", 1.0), key="r2", previous="m/1")
    assert gateway.ask()["model"] == "m/1"
    health = gateway.get("/healthz").json()
    assert health["status"] == "degraded"
    assert "would record the answers of one model as several versions" in health["advice"][0]
    assert gateway.store.records(RoutingFollowed) == (followed,)
    route(gateway, ("m/1", 1.0), key="r3")
    assert gateway.get("/healthz").json()["status"] == "ok"


def test_one_name_for_all_versions_does_not_start_while_several_are_routed(settings, server):
    store = EventStore.open(settings.store_url)
    store.append(routing(("m/2", 0.5), ("m/1", 0.5)))
    store.close()
    options = GatewayOptions(settings=settings, backend=server.url, backend_model="base-model")
    with pytest.raises(InvalidInputError, match="a routing to m/2, m/1; leave it out"):
        Supervisor(options, say=print).run()


# Restarts under load ------------------------------------------------------------------------------


def restarted_under_load(gateway, server, times):
    statuses, over, seconds = [], threading.Event(), []

    def ask(number):
        while not over.is_set():
            body = {
                "model": "any", "user": f"u{number}", "stream": number % 2 == 0,
                "messages": [{"role": "user", "content": "hi"}],
            }  # fmt: skip
            reply = gateway.client.post(f"{gateway.url}/v1/chat/completions", json=body)
            broke = b'"error"' in reply.content
            statuses.append(502 if broke and reply.status_code == 200 else reply.status_code)
            time.sleep(0.005)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(times):
            until(lambda: statuses[-1:] == [200])
            server.stop()
            time.sleep(0.05)
            server.start()
            begun = time.monotonic()
            until(lambda: gateway.ask_status("m/2") == 200)
            seconds.append(time.monotonic() - begun)
    finally:
        over.set()
        for thread in threads:
            thread.join(30)
    return statuses, seconds


def check_restarts(gateway, server, times):
    gateway.ask_status = lambda model: (
        gateway.post(
            "/v1/chat/completions",
            {"model": model, "user": "probe", "messages": [{"role": "user", "content": "ready?"}]},
        ).status_code
    )
    statuses, seconds = restarted_under_load(gateway, server, times)
    assert set(statuses) <= {200, 502, 503}
    assert statuses.count(200) > times
    assert max(seconds) < 2.0
    # whatever the server refused is recorded against the version that it was asked for
    refused = [model for status, model in server.answers if status == 404]
    failed = [kept for kept in gateway.interactions() if kept.error]
    for version in ("m/1", "m/2"):
        recorded = [k for k in failed if k.model_version == version and "HTTP 404" in k.error]
        assert len(recorded) == refused.count(version)
    assert len(failed) >= sum(status != 200 for status in statuses)


def test_a_server_that_restarts_under_load_is_ready_again_within_two_seconds(served, server):
    check_restarts(served, server, 3)


@pytest.mark.slow
def test_fifty_restarts_under_load_show_no_user_a_404(served, server):
    check_restarts(served, server, 50)
