"""Settings that name blocks of a Prefect server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ratchet.errors import SettingsError
from ratchet.models.endpoint import key_from
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
