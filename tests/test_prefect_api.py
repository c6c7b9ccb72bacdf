"""Prefect's HTTP API where it is busy, and settings that name blocks of a server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from ratchet.errors import SettingsError
from ratchet.models.endpoint import key_from
from ratchet.prefect_api import ask
from ratchet.servers import child_environment
from ratchet.settings import load_settings
from tests.flows.conftest import served_once
from tests.flows.prefect_home import new_home, run_python
from tests.store.s3_server import BUCKET, s3_server

__all__ = ["served_once"]  # a fixture
NOWHERE = "http://127.0.0.1:9/api"
SECRETS = "prefect:secret/store-url", "prefect:remote-file-system/kept"
MAKE = f"""
from prefect.blocks.system import Secret
from prefect.filesystems import RemoteFileSystem
Secret(value="postgresql+psycopg://ana:pass@db/store").save("store-url")
Secret(value="https://hooks.example/1 mailto://ana@example").save("notify")
Secret(value={{"user": "ana"}}).save("object")
Secret(value="a-key").save("backend")
RemoteFileSystem(basepath="s3://{BUCKET}/history").save("kept")
RemoteFileSystem(basepath="s3://{BUCKET}/history", settings={{"key": "k"}}).save("with-keys")
"""
RUN = """
import os
from prefect import flow
@flow(persist_result=True)
def answer():
    return 42
print(answer(), os.environ["PREFECT_DEFAULT_RESULT_STORAGE_BLOCK"])
"""


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("prefect:secret", "must name a block as prefect:TYPE/NAME"),
        ("prefect:secret/Store_URL", "must name a block as prefect:TYPE/NAME"),
        ("prefect:aws-credentials/mine", "got 'aws-credentials'; the types are: secret"),
        ("prefect:secret/store-url", "needs a Prefect server that runs by itself"),
    ],
)
def test_a_name_that_leads_nowhere_is_said(tmp_path: Path, value: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        load_settings({"RATCHET_STORE_URL": value}, tmp_path)
    (tmp_path / "ratchet.toml").write_text(f'store_url = "{value}"')
    with pytest.raises(SettingsError, match=says):
        load_settings({}, tmp_path)
    with pytest.raises(SettingsError, match=says):
        key_from({"RATCHET_BACKEND_KEY": value}, "RATCHET_BACKEND_KEY")


def test_a_server_that_does_not_answer_is_said_without_its_secret(tmp_path: Path) -> None:
    environ = {
        "RATCHET_STORE_URL": "prefect:secret/store-url",
        "PREFECT_API_URL": NOWHERE,
        "PREFECT_API_KEY": "pnu_secret",
    }
    with pytest.raises(SettingsError, match="must answer, got ConnectError") as caught:
        load_settings(environ, tmp_path)
    assert "pnu_secret" not in str(caught.value)


def test_results_name_a_block_that_prefect_itself_reads(tmp_path: Path) -> None:
    (tmp_path / "ratchet.toml").write_text('results = "prefect:remote-file-system/results"')
    assert load_settings({}, tmp_path).results == "prefect:remote-file-system/results"
    with pytest.raises(SettingsError, match="RATCHET_RESULTS must name a block"):
        load_settings({"RATCHET_RESULTS": "s3://bucket/results"}, tmp_path)


@contextmanager
def busy(times: int) -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    """Serve 503 so often and then 200; yield the address, and what was asked by whom."""
    asked: list[tuple[str, str | None]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            asked.append((self.path, self.headers.get("Authorization")))
            content = b'{"id": "r1"}'
            self.send_response(503 if len(asked) <= times else 200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/api", asked
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({}, None),
        ({"PREFECT_API_KEY": "pnu_1"}, "Bearer pnu_1"),
        ({"PREFECT_API_AUTH_STRING": "ana:secret"}, "Basic YW5hOnNlY3JldA=="),
    ],
)
def test_a_busy_server_is_asked_again_by_whoever_may(
    environ: dict[str, str], says: str | None
) -> None:
    with busy(2) as (api, asked):
        assert ask(api, "POST", "flow_runs/filter", {}, environ=environ).json() == {"id": "r1"}
    assert asked == [("/api/flow_runs/filter", says)] * 3


def test_a_server_that_stays_busy_is_an_answer_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with busy(100) as (api, asked):
        assert ask(api, "POST", "flow_runs/filter", {}, environ={}).status_code == 503
    assert len(asked) == 6


@pytest.mark.slow
@pytest.mark.usefixtures("s3")
def test_secrets_storage_and_results_stand_in_blocks_of_a_real_server(
    tmp_path: Path, served_once: Path
) -> None:
    server = new_home(tmp_path / "server", served_once)
    with server.serving() as environment:
        run_python(environment, "-c", MAKE)
        api = {"PREFECT_API_URL": server.servers.prefect_api}
        folder = tmp_path / "work"
        folder.mkdir()
        (folder / "ratchet.toml").write_text(
            f'prefect_api_url = "{server.servers.prefect_api}"\n'
            'notify = "prefect:secret/notify"\nhistory = "prefect:remote-file-system/kept"\n'
        )
        settings = load_settings({"RATCHET_STORE_URL": SECRETS[0]}, folder)
        assert settings.store_url == "postgresql+psycopg://ana:pass@db/store"
        assert settings.notify == ("https://hooks.example/1", "mailto://ana@example")
        assert settings.history == f"s3://{BUCKET}/history"
        assert load_settings(settings.environment(), folder) == settings
        key = {"RATCHET_BACKEND_KEY": "prefect:secret/backend"} | api
        assert key_from(key, "RATCHET_BACKEND_KEY") == "a-key"
        for name, says in [
            ("secret/nothing", "must name a block that the Prefect server has, got secret/nothing"),
            ("secret/object", "needs a text in the block secret/object, got dict"),
            ("remote-file-system/with-keys", "got settings beside it"),
        ]:
            with pytest.raises(SettingsError, match=says):
                load_settings({"RATCHET_HISTORY": f"prefect:{name}"} | api, tmp_path)

        (tmp_path / "nothing").mkdir()
        machine = new_home(
            tmp_path / "machine", tmp_path / "nothing",
            RATCHET_RESULTS="prefect:remote-file-system/kept", **api,
        )  # fmt: skip
        said = run_python(child_environment(machine.settings, machine.environ), "-c", RUN)
        assert "42 remote-file-system/kept" in said
        assert not (machine.settings.prefect_home / "storage").exists()
        import s3fs

        assert s3fs.S3FileSystem(skip_instance_cache=True).find(f"{BUCKET}/history")


@pytest.fixture
def s3() -> Iterator[None]:
    with s3_server():
        yield
