"""A gateway on a real port in this process, in front of a mock backend or a tiny model."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from ratchet.gateway.app import create_app
from ratchet.gateway.connections import server_options
from ratchet.gateway.drain import Drain
from ratchet.gateway.options import GatewayOptions
from ratchet.records import Interaction, Routing, Variant
from ratchet.settings import Settings, load_settings
from ratchet.store import EventStore, Window
from tests.servers.mock_backend import MockBackend

ALWAYS = Window(datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))


@dataclass
class Gateway:
    url: str
    settings: Settings
    store: EventStore
    app: Any
    client: httpx.Client

    @property
    def drain(self) -> Drain:
        return Drain(self.settings.home / "gateway" / "wal", self.store)

    def post(self, path: str, body: Any = None, **options: Any) -> httpx.Response:
        return self.client.post(self.url + path, json=body, **options)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.client.get(self.url + path, **options)

    def ask(self, text: str = "hello", **fields: Any) -> dict[str, Any]:
        body = {"model": "any", "messages": [{"role": "user", "content": text}]} | fields
        reply = self.post("/v1/chat/completions", body)
        assert reply.status_code == 200, reply.text
        found: dict[str, Any] = reply.json()
        return found

    def interactions(self) -> list[Interaction]:
        self.settle()
        ids = self.store.interactions(ALWAYS)["id"].to_pylist()
        found = self.store.stored_interactions(ids)
        return [found[key] for key in ids]

    def feedback(self) -> list[dict[str, Any]]:
        self.settle()
        rows: list[dict[str, Any]] = self.store.feedback(ALWAYS).to_pylist()
        return rows

    def settle(self) -> None:
        drain = self.drain
        while drain.once():
            pass
        drain.close()


@pytest.fixture
def settings(tmp_path: Path, made_store: Path) -> Settings:
    """Settings of a home with a store in which nothing is yet."""
    (tmp_path / "home").mkdir(mode=0o700)
    shutil.copyfile(made_store, tmp_path / "home" / "store.db")
    return load_settings({"RATCHET_HOME": str(tmp_path / "home")}, tmp_path)


@pytest.fixture
def mock() -> Iterator[MockBackend]:
    with MockBackend() as server:
        yield server


@pytest.fixture
def serve(settings: Settings) -> Iterator[Callable[..., Gateway]]:
    """Start gateways over one home; keywords are options of `GatewayOptions`."""
    with ExitStack() as stack:

        def started(**options: Any) -> Gateway:
            return stack.enter_context(running(GatewayOptions(settings=settings, **options)))

        yield started


@pytest.fixture
def gateway(serve: Callable[..., Gateway], mock: MockBackend) -> Gateway:
    return serve(backend=mock.url)


@contextmanager
def running(options: GatewayOptions) -> Iterator[Gateway]:
    app = create_app(options)
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, log_level="warning", **server_options(options)
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    until = time.monotonic() + 60
    while not server.started and time.monotonic() < until and thread.is_alive():
        time.sleep(0.01)
    assert server.started
    port = server.servers[0].sockets[0].getsockname()[1]
    store = EventStore.open(options.settings.store_url)
    client = httpx.Client(timeout=60, trust_env=False, verify=False)
    try:
        yield Gateway(f"http://127.0.0.1:{port}", options.settings, store, app, client)
    finally:
        client.close()
        server.should_exit = True
        thread.join(30)
        store.close()


def routing(*variants: tuple[str, float], key: str = "r", previous: str | None = None) -> Routing:
    arms = tuple(Variant(version=version, share=share) for version, share in variants)
    return Routing(
        id=key, created_at=datetime.now(UTC), experiment="e", variants=arms, previous=previous
    )
