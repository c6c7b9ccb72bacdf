"""The gateway over the local model, with adapters of the registry beside each other."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"n": 3}, "several answers, got n 3"),
        ({"response_format": {"type": "json_object"}}, "hold to a format"),
        ({"messages": [{"role": "user", "content": "word " * 3_000}]}, "context of 1,024 tokens"),
    ],
)
def test_what_the_local_model_cannot_do_is_the_callers_fault(serve, stream, asked, named):
    gateway = serve(max_tokens=4)
    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="x", max_retries=0)
    request = {"messages": [{"role": "user", "content": "hello"}]} | asked
    with pytest.raises(openai.BadRequestError, match=named):
        client.chat.completions.create(model="champion", stream=stream, **request)
    assert all(kept.error is None for kept in gateway.interactions())  # no version is to blame
    assert gateway.ask()["choices"]
