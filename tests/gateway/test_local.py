"""The gateway over the local model, with adapters of the registry beside each other."""

from __future__ import annotations

import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread

import pytest

from ratchet.deploy.adapters import AdapterShelf
from ratchet.errors import TrackingError
from ratchet.gateway.adapters import bring_adapters
from ratchet.records import Candidate
from ratchet.settings import load_settings
from tests.gateway.conftest import routing
from tests.models.test_serving import adapters

openai = pytest.importorskip("openai")
__all__ = ["adapters"]


@pytest.fixture
def settings(tmp_path, tiny_model):
    environ = {"RATCHET_HOME": str(tmp_path / "home"), "RATCHET_BASE_MODEL": str(tiny_model)}
    return load_settings(environ, tmp_path)


@pytest.fixture
def local(serve, settings, adapters):
    gateway = serve(max_tokens=12)
    for version, folder in adapters.items():
        number = version.partition("/")[2]
        path = f"adapters/{number}"
        shutil.copytree(folder, settings.home / path)
        gateway.store.append(
            Candidate(
                id=number, cycle_id="c", created_at=datetime.now(UTC), model_name="router",
                version=number, adapter_digest="d", path=path, training_set_id="t", run_id="r",
                losses=(), training_seconds=1.0,
            )
        )  # fmt: skip
    return gateway


def test_champion_and_challenger_answer_side_by_side_without_mlflow(local):
    gateway = local
    base = gateway.ask()
    assert base["model"] == Path(gateway.settings.base_model).name
    gateway.store.append(routing(("router/3", 0.5), ("router/2", 0.5)))
    gateway.app.state.gateway.router.refresh()
    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="x")
    told = {}
    for name in ("champion", "challenger"):
        whole = client.chat.completions.create(
            model=name, messages=[{"role": "user", "content": "hello"}]
        )
        stream = client.chat.completions.create(
            model=name,
            messages=[{"role": "user", "content": "hello"}],
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = list(stream)
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        assert text == whole.choices[0].message.content
        assert chunks[-1].usage == whole.usage
        told[whole.model] = text
    assert set(told) == {"router/2", "router/3"}
    assert told["router/2"] != told["router/3"]
    assert [kept.model_version for kept in gateway.interactions()[1:]] == [
        "router/2", "router/2", "router/3", "router/3",
    ]  # fmt: skip


def test_an_adapter_that_is_gone_fails_over_to_the_version_before(local):
    gateway = local
    shutil.rmtree(gateway.settings.home / "adapters" / "3")
    gateway.store.append(routing(("router/3", 1.0), previous="router/2"))
    gateway.app.state.gateway.router.refresh()
    assert gateway.ask()["model"] == "router/2"
    failed, _ = sorted(gateway.interactions(), key=lambda kept: kept.error is None)
    assert failed.model_version == "router/3"
    assert "cannot be loaded" in failed.error


def test_an_adapter_that_comes_from_another_machine_answers_once_it_is_here(local, caplog):
    gateway, stop, asked = local, Event(), []
    shelf, router = AdapterShelf(gateway.settings.home), gateway.app.state.gateway.router
    trained = gateway.settings.home / "adapters" / "3"
    elsewhere = trained.rename(gateway.settings.home / "elsewhere")

    def bring(_store: object, version: str) -> None:
        asked.append(version)
        if len(asked) == 1:
            raise TrackingError("MLflow is away")
        shutil.copytree(elsewhere, shelf.place_of(version, "d"))

    gateway.store.append(routing(("router/3", 1.0), previous="router/2"))
    router.refresh()
    assert gateway.ask()["model"] == "router/2"
    about = (lambda: gateway.store, shelf, bring, stop)
    thread = Thread(target=bring_adapters, args=about)
    thread.start()
    try:
        until = time.monotonic() + 60
        while router.state.adapters["router/3"] == trained:
            assert time.monotonic() < until
            router.refresh()
            time.sleep(0.05)
        while gateway.ask()["model"] != "router/3":
            assert time.monotonic() < until
    finally:
        stop.set()
        thread.join()
    assert asked == ["router/3", "router/3"]
    assert "does not come: MLflow is away" in caplog.text


@pytest.mark.mostly_slow("fields0-", "fields1-", "fields4-", "fields9-", "fields15-")
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"tools": ["f"]}, "tools"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format"),
        ({"logprobs": True}, "logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logit_bias": {"5": 100}}, "logit_bias"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"max_tokens": -2}, "max_tokens"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"top_p": 1.1}, "top_p"),
        ({"best_of": 3}, "best_of"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
        ({"modalities": 7}, "modalities"),
        ({"temperature": 9}, "temperature"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"tools": 5}, "tools"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_the_local_model_cannot_do_is_refused_with_the_reason(local, fields, param, stream):
    body = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "stream": stream}
    reply = local.post("/v1/chat/completions", body | fields)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)
    assert param in reply.json()["error"]["message"]
    assert local.interactions() == []


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "file"])
def test_the_local_model_refuses_content_other_than_text(local, kind):
    parts = [{"type": "text", "text": "see"}, {"type": kind, kind: {}}]
    reply = local.post(
        "/v1/chat/completions", {"model": "m", "messages": [{"role": "user", "content": parts}]}
    )
    assert (reply.status_code, kind in reply.json()["error"]["message"]) == (400, True)


@pytest.mark.mostly_slow("fields1", "fields6")
@pytest.mark.parametrize(
    "fields",
    [
        {"n": 1},
        {"tools": []},
        {"response_format": {"type": "text"}},
        {"logprobs": False},
        {"top_p": 0},
        {"max_tokens": -1},
        {"tool_choice": "auto", "best_of": 1, "modalities": ["text"]},
    ],
)
def test_what_changes_nothing_is_taken_by_the_local_model(local, fields):
    assert local.ask(**fields)["choices"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_over_the_context_of_the_local_model_is_refused(local, stream):
    body = {"model": "m", "messages": [{"role": "user", "content": "word " * 20_000}]}
    reply = local.post("/v1/chat/completions", body | {"stream": stream})
    assert reply.status_code == 400
    assert reply.json()["error"]["code"] == "context_length_exceeded"
    assert local.ask("short")["choices"]  # the model goes on


def test_an_adapter_that_is_gone_fails_over_in_a_stream_too(local):
    shutil.rmtree(local.settings.home / "adapters" / "3")
    local.store.append(routing(("router/3", 1.0), previous="router/2"))
    local.app.state.gateway.router.refresh()
    client = openai.OpenAI(base_url=f"{local.url}/v1", api_key="x", max_retries=0)
    chunks = client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "hello"}], stream=True
    )
    assert {chunk.model for chunk in chunks} == {"router/2"}


def test_the_local_model_answers_chats_alone(local):
    reply = local.post("/v1/embeddings", {"model": "m", "input": "x"})
    assert (reply.status_code, "--backend" in reply.json()["error"]["message"]) == (404, True)
    assert local.get("/v1/models/nobodys").status_code == 404
