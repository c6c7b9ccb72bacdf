"""The replicas of a backend, asked by flows: a vLLM-like server that refuses as vLLM does."""

from __future__ import annotations

import pytest

from ratchet.deploy.backends import Replicas
from ratchet.errors import ModelError
from tests.servers.vllm_server import VllmServer


@pytest.fixture
def server():
    with VllmServer("org/base") as started:
        yield started


@pytest.fixture
def replica(server):
    with Replicas.of([server.url], key="secret-key") as replicas:
        yield replicas.each[0]


def test_adapters_are_listed_with_the_model_that_they_are_of(replica, tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    replica.load_adapter("m/2", str(tmp_path))
    assert replica.models() == {"org/base": None, "m/2": "org/base"}
    assert replica.probe("m/2") > 0.0
    replica.unload_adapter("m/2")
    assert replica.models() == {"org/base": None}


def test_a_replica_answers_as_an_adapter_however_its_name_is_taken(server, replica, tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    replica.answer_as("m/2", str(tmp_path))
    replica.answer_as("m/2", str(tmp_path))
    assert server.calls == [("load", "m/2")]
    server._taken.add("m/3")  # a load that failed before
    replica.answer_as("m/3", str(tmp_path))
    assert set(replica.models()) == {"org/base", "m/2", "m/3"}
    with pytest.raises(ModelError, match=r"load m/4 from /nowhere, a path as the backend sees it"):
        replica.answer_as("m/4", "/nowhere")


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda replica: replica.probe("m/9"), "HTTP 404: .*`m/9` does not exist"),
        (lambda replica: replica.load_adapter("m/2", "/nowhere"), "HTTP 404: .*No adapter found"),
        (lambda replica: replica.unload_adapter("m/2"), "HTTP 404: .*cannot be found"),
    ],
)
def test_what_a_replica_refuses_is_said_with_its_own_reason(replica, ask, said):
    with pytest.raises(ModelError, match=said) as raised:
        ask(replica)
    assert "secret-key" not in str(raised.value)


def test_a_replica_that_is_down_is_named(server, replica):
    server.stop()
    with pytest.raises(ModelError, match=f"{server.url} cannot be asked GET /v1/models"):
        replica.models()
    server.start()
