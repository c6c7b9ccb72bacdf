"""Ports, the environment of child processes, and servers that come up or do not."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest

from ratchet.errors import BusyError, RatchetError
from ratchet.servers import (
    Servers,
    answering_prefect,
    child_environment,
    flows_folder,
    free_port,
    mlflow_page,
    running_prefect,
    working_folder,
)
from ratchet.settings import VARIABLES, Settings, load_settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings({"RATCHET_HOME": str(tmp_path / "home")}, tmp_path)


@pytest.fixture
def plain() -> dict[str, str]:
    """The environment of the tests without what is set for these programs."""
    ours = ("PREFECT_", "MLFLOW_", "RATCHET_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


class _Health(BaseHTTPRequestHandler):
    """Answers /api/health, as Prefect does, and nothing else."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/api/health" else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        return


@pytest.fixture
def served() -> Iterator[str]:
    """Address of a Prefect API that is in good health."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Health)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/api"
    server.shutdown()
    server.server_close()
    thread.join()


@contextmanager
def listening(port: int = 0) -> Iterator[int]:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port))
        taken.listen()
        yield taken.getsockname()[1]


def free_neighbours(number: int) -> int:
    """Return the first of ports in a row that nobody listens on."""
    for _ in range(100):
        with listening() as first:
            pass
        try:
            for port in range(first, first + number):
                with listening(port):
                    pass
        except (OSError, OverflowError):
            continue
        return first
    raise AssertionError(f"no {number} free ports in a row")


def announce(settings: Settings, text: str) -> None:
    settings.home.mkdir(parents=True, exist_ok=True)
    settings.servers_file.write_text(text, "utf-8")


# Ports --------------------------------------------------------------------------------------------


def test_the_port_that_was_asked_for_is_given_when_it_is_free() -> None:
    wanted = free_neighbours(1)
    assert free_port(wanted) == wanted
    assert free_port(wanted) == wanted  # looking does not take it


def test_the_next_port_is_given_when_one_is_taken() -> None:
    wanted = free_neighbours(3)
    with listening(wanted):
        assert free_port(wanted) == wanted + 1
        with listening(wanted + 1):
            assert free_port(wanted) == wanted + 2


def test_a_port_is_never_given_twice_although_nobody_listens_yet() -> None:
    wanted = free_neighbours(4)
    given: set[int] = set()
    for _ in range(4):
        given.add(free_port(wanted, given=given))
    assert given == set(range(wanted, wanted + 4))
    with listening(wanted):
        assert free_port(wanted, given={wanted + 1}) == wanted + 2


def test_fifty_ports_that_are_taken_are_an_error_with_the_way_out() -> None:
    with listening() as wanted, pytest.raises(BusyError, match="got none; name another") as error:
        free_port(wanted, given=range(wanted + 1, wanted + 50))
    assert f"from {wanted} to {wanted + 49}" in str(error.value)


def test_the_search_ends_at_the_last_port_there_is() -> None:
    with pytest.raises(BusyError):
        free_port(65_535, given={65_535})


# Environment --------------------------------------------------------------------------------------


def test_the_home_wins_over_the_environment(settings: Settings) -> None:
    elsewhere = dict.fromkeys(
        ("RATCHET_HOME", "RATCHET_CACHE", "RATCHET_STORE_URL", "PREFECT_HOME"), "/elsewhere"
    )
    environ = {**elsewhere, "MLFLOW_TRACKING_URI": "http://elsewhere", "PATH": "/bin"}
    made = child_environment(settings, environ)
    assert made["RATCHET_HOME"] == str(settings.home)
    assert made["RATCHET_CACHE"] == str(settings.cache)
    assert made["RATCHET_STORE_URL"] == f"sqlite:///{settings.home / 'store.db'}"
    assert made["MLFLOW_TRACKING_URI"] == f"sqlite:///{settings.home / 'mlflow' / 'mlflow.db'}"
    assert made["PREFECT_HOME"] == str(settings.home / "prefect")
    assert made["PATH"] == "/bin"
    assert environ["RATCHET_HOME"] == "/elsewhere"


def test_a_child_over_the_home_resolves_the_same_settings(
    settings: Settings, tmp_path: Path
) -> None:
    assert load_settings(child_environment(settings, {}), tmp_path / "another") == settings


def test_a_child_over_the_home_has_every_setting_of_a_file_that_it_does_not_read(
    tmp_path: Path,
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
    (here / "ratchet.toml").write_text(
        'judges = "judges.yaml"\nsafety = "rules.yaml"\nembedding = "words"\n'
        'titles = "titles.yaml"\nnotify = ["json://127.0.0.1/a b"]\n'
    )
    (there / "ratchet.toml").write_text('judges = "others.yaml"\nmodel_name = "other"\n')
    settings = load_settings({}, here)
    made = child_environment(settings, {"RATCHET_JUDGES": "judges.yaml", "PATH": "/bin"})
    assert load_settings(made, there) == settings
    assert set(VARIABLES.values()) - set(made) == {"PREFECT_API_URL"}


def test_a_setting_that_is_not_set_is_not_taken_from_where_a_child_runs(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    there.mkdir()
    (there / "ratchet.toml").write_text('judges = "others.yaml"\n')
    settings = load_settings({}, here)
    assert load_settings(child_environment(settings, {}), there).judges is None


def test_the_home_of_prefect_is_created(settings: Settings) -> None:
    assert not settings.home.exists()
    child_environment(settings, {})
    child_environment(settings, {})
    assert settings.prefect_home.is_dir()


def test_no_child_sends_telemetry_whatever_the_environment_says(settings: Settings) -> None:
    wanted = {
        "PREFECT_SERVER_ANALYTICS_ENABLED": "true",
        "MLFLOW_DISABLE_TELEMETRY": "false",
        "DO_NOT_TRACK": "0",
    }
    made = child_environment(settings, wanted)
    refused = {name: made[name] for name in wanted}
    assert refused == {
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
    }


def test_a_child_stays_offline_unless_the_user_says_otherwise(settings: Settings) -> None:
    assert child_environment(settings, {})["HF_HUB_OFFLINE"] == "1"
    assert child_environment(settings, {"HF_HUB_OFFLINE": "0"})["HF_HUB_OFFLINE"] == "0"


def test_prefects_address_is_the_external_one_before_the_homes_own(
    settings: Settings, served: str
) -> None:
    assert "PREFECT_API_URL" not in child_environment(settings, {})
    announce(settings, json.dumps({"prefect_api": served}))
    assert child_environment(settings, {})["PREFECT_API_URL"] == served
    external = settings.model_copy(update={"prefect_api_url": "https://prefect.example/api"})
    assert child_environment(external, {})["PREFECT_API_URL"] == "https://prefect.example/api"


def test_the_flows_lie_beside_the_deployments() -> None:
    folder = flows_folder()
    assert (folder / "flows" / "loop.py").is_file()
    assert (folder / "prefect.yaml").is_file()
    assert folder.is_absolute()


# The server of a home -----------------------------------------------------------------------------


def test_a_home_is_served_where_its_address_answers(settings: Settings, served: str) -> None:
    assert running_prefect(settings) is None
    announce(settings, json.dumps({"prefect_api": served, "mlflow": "", "pid": 1}))
    assert running_prefect(settings) == served


def test_a_home_is_not_served_where_nobody_listens_any_more(settings: Settings) -> None:
    address = f"http://127.0.0.1:{free_neighbours(1)}/api"
    announce(settings, json.dumps({"prefect_api": address, "mlflow": "", "pid": 1}))
    assert running_prefect(settings) is None
    assert "PREFECT_API_URL" not in child_environment(settings, {})


def test_a_home_is_not_served_where_something_else_took_the_port(
    settings: Settings, served: str
) -> None:
    announce(settings, json.dumps({"prefect_api": f"{served}/not-prefect"}))
    assert running_prefect(settings) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        '{"prefect_api": "http://127.0.0.1',
        "[]",
        "null",
        "{}",
        '{"prefect_api": null}',
        '{"prefect_api": "no address"}',
        '{"prefect_api": "http://127.0.0.1:port/api"}',
    ],
)
def test_a_file_of_addresses_that_is_broken_is_no_server(settings: Settings, text: str) -> None:
    announce(settings, text)
    assert running_prefect(settings) is None


def test_a_home_that_is_served_is_not_started_again(
    settings: Settings, served: str, plain: dict[str, str]
) -> None:
    announce(settings, json.dumps({"prefect_api": served, "pid": 1}))
    servers = Servers(settings, say=print)
    with pytest.raises(BusyError, match="served once") as error:
        servers.start(prefect_port=4200, mlflow_port=5000, environ=plain)
    assert served in str(error.value)
    servers.stop()
    assert running_prefect(settings) == served  # the other's file stays


def test_a_server_that_runs_already_is_used_and_left_alone(
    settings: Settings, served: str, plain: dict[str, str]
) -> None:
    announce(settings, json.dumps({"prefect_api": served, "pid": 1}))
    servers = Servers(settings, say=print)
    servers.start_prefect(port=4200, environ=plain)
    assert servers.prefect_api == served
    assert not (settings.home / "logs").exists()
    servers.stop()
    assert httpx.get(f"{served}/health").status_code == 200


def test_a_server_that_dies_while_it_starts_is_one_error_with_the_end_of_its_log(
    settings: Settings, plain: dict[str, str]
) -> None:
    said: list[str] = []
    servers = Servers(settings, say=said.append)
    wrong = plain | {"PREFECT_SERVER_API_PORT": "not-a-port"}
    with listening() as taken, pytest.raises(RatchetError) as error:
        servers.start_prefect(port=taken, environ=wrong)
    message = str(error.value)
    log = (settings.home / "logs" / "prefect.log").read_text("utf-8")
    assert message.startswith("prefect ended; the end of logs/prefect.log:\n")
    assert "not-a-port" in message
    assert log.endswith(message.split("\n", 1)[1])
    (port,) = said
    assert port.startswith(f"port {taken} is taken; Prefect gets ")
    assert not settings.servers_file.exists()
    assert servers.watch() == "prefect"  # it has ended, so this returns at once
    servers.stop()
    servers.stop()


def test_stopping_what_was_never_started_does_nothing(settings: Settings) -> None:
    servers = Servers(settings, say=print)
    servers.stop()
    servers.stop()
    assert not settings.home.exists()


def test_stopping_removes_the_addresses_that_this_process_wrote_and_no_others(
    settings: Settings,
) -> None:
    for writer, stays in ((os.getpid(), False), (os.getppid(), True)):
        announce(settings, json.dumps({"prefect_api": "http://127.0.0.1:1/api", "pid": writer}))
        Servers(settings, say=print).stop()
        assert settings.servers_file.exists() is stays


def test_a_module_runs_over_the_home_and_its_exit_code_comes_back(
    settings: Settings, plain: dict[str, str], served: str
) -> None:
    announce(settings, json.dumps({"prefect_api": served}))
    servers = Servers(settings, say=print)
    servers.start_prefect(port=4200, environ=plain)
    (settings.home / "broken.json").write_text("{")
    # the standard library's json.tool exits with 1 on what is not JSON
    assert servers.run(["json.tool", str(settings.servers_file)]) == 0
    assert servers.run(["json.tool", str(settings.home / "broken.json")]) == 1


def test_where_children_work_no_module_of_ours_is_found_by_its_bare_name(
    settings: Settings, plain: dict[str, str], served: str, tmp_path: Path
) -> None:
    (tmp_path / "stranger.py").write_text(
        "import json, os, sys\n"
        "from importlib.util import find_spec\n"
        "import ratchet\n"
        "sys.path.insert(0, os.getcwd())  # as uvicorn and Prefect do\n"
        "package = os.path.dirname(ratchet.__file__)\n"
        "specs = [find_spec(name) for name in ('settings', 'errors', 'files', 'stats')]\n"
        "ours = [spec.origin for spec in specs if spec and str(spec.origin).startswith(package)]\n"
        "with open(sys.argv[1], 'w') as file:\n"
        "    json.dump({'folder': os.getcwd(), 'ours': ours}, file)\n"
    )
    announce(settings, json.dumps({"prefect_api": served}))
    servers = Servers(settings, say=print)
    places = os.pathsep.join([str(tmp_path), plain.get("PYTHONPATH", "")])
    servers.start_prefect(port=4200, environ=plain | {"PYTHONPATH": places})
    assert servers.run(["stranger", str(tmp_path / "found.json")]) == 0
    found = json.loads((tmp_path / "found.json").read_text("utf-8"))
    assert found == {"folder": str(working_folder(settings)), "ours": []}
    assert list(working_folder(settings).iterdir()) == []


def test_prefect_answers_or_is_left_alone(settings: Settings, served: str) -> None:
    assert answering_prefect(settings) is None
    outside = settings.model_copy(update={"prefect_api_url": served})
    assert answering_prefect(outside) == served
    gone = settings.model_copy(update={"prefect_api_url": "http://127.0.0.1:9/api"})
    assert answering_prefect(gone) is None


def test_a_run_has_a_page_where_mlflow_is_served(settings: Settings) -> None:
    assert mlflow_page(settings, "1", "abc") is None
    settings.home.mkdir(parents=True)
    settings.servers_file.write_text(json.dumps({"mlflow": "http://127.0.0.1:5000"}), "utf-8")
    assert mlflow_page(settings, "1", "abc") == "http://127.0.0.1:5000/#/experiments/1/runs/abc"
    elsewhere = settings.model_copy(update={"tracking_uri": "https://mlflow.example.org/"})
    page = mlflow_page(elsewhere, "1", "abc")
    assert page == "https://mlflow.example.org/#/experiments/1/runs/abc"
