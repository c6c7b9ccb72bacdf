"""Prefect's server, MLflow's server and workers as child processes over one home folder.

`up` starts them, waits until they answer, registers the deployments of `prefect.yaml` and stops
everything together, in reverse, when it is told to or when one of them dies.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

from ratchet.deployments import (
    PYTHON,
    TRAINING_POOL,
    Deployments,
    give_command,
    read_deployments,
)
from ratchet.errors import BusyError, RatchetError, SettingsError
from ratchet.files.whole import write_whole
from ratchet.prefect_api import ask
from ratchet.processes import (
    TOLD_FILE,
    end_with_parent,
    kill_with_parent,
    lives,
    open_environment,
    python,
    safe_path,
    secrets_in,
    signal_group,
    told,
)
from ratchet.settings import Settings, private_folder, tighten

WORK_POOLS = {"ratchet": 2, "ratchet-training": 1}
"""The pools of `prefect.yaml`, and how many runs at a time this machine takes of each: in the first
monitoring goes on while the loop waits for its training in the second."""
_PROCESSES = "process"  # the type of Prefect's pools whose runs are processes of their worker
_KUBERNETES = "kubernetes"
_STARTUP_SECONDS = 240.0
_STOP_SECONDS = 15.0
_DRAIN_SECONDS = 120.0
_OWNER_ALONE = 0o077  # umask of children: what they make in the home is nobody else's
_PREFECT = ("PREFECT_",)
_MLFLOW = ("MLFLOW_", "AWS_", "AZURE_", "GOOGLE_", "PG")
"""Prefixes of secrets that stay in the environment of a server, because it reads them there."""
_IN_MEMORY = Path("/dev/shm")
_TOLD = "ratchet-told-"


def flows_folder() -> Path:
    """Return the folder that holds `flows` and `prefect.yaml`.

    Raises:
        SettingsError: The flows are not installed beside the package.
    """
    spec = importlib.util.find_spec("ratchet.flows")
    places = list(spec.submodule_search_locations or []) if spec else []
    for place in places:
        folder = Path(place).resolve()
        if (folder / "loop.py").exists():
            return folder.parent
    raise SettingsError(
        "the flows must lie beside the package `ratchet` (`ratchet.flows`), got none; "
        "install from the project's folder: pip install -e ."
    )


def _shipped_file() -> Path:
    folder = flows_folder()
    file = folder / "prefect.yaml"
    return file if file.exists() else folder / "flows" / "prefect.yaml"


def shipped_deployments() -> dict[str, Any]:
    """Return the content of the `prefect.yaml` that is shipped."""
    return dict(yaml.safe_load(_shipped_file().read_text("utf-8")))


def working_folder(settings: Settings) -> Path:
    """Create the folder that children work in, which holds no module, and return it.

    Python, uvicorn and Prefect put the working folder before all else on the import path: among
    Ratchet's own modules, the `settings` of a stranger would be Ratchet's.
    """
    folder = settings.home / "work"
    return private_folder(folder)


def child_environment(settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    """Create the home and return the environment for processes over it: no telemetry."""
    settings.make_home()
    tighten(settings.home)  # what an earlier version left open
    private_folder(settings.prefect_home)
    ours = {
        **settings.environment(),
        "PREFECT_HOME": str(settings.prefect_home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "300",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "DO_NOT_TRACK": "1",
        "PYTHONUNBUFFERED": "1",
    }
    defaults = {
        "PREFECT_LOGGING_EXTRA_LOGGERS": "ratchet",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "GIT_PYTHON_REFRESH": "quiet",
    }
    for variable in ours:
        if environ.get(f"{variable}_FILE"):
            ours[variable] = ""  # children read the file as well
    environment = safe_path({**defaults, **environ, **ours})
    environment["PREFECT_API_URL"] = settings.prefect_api_url or running_prefect(settings) or ""
    if not environment["PREFECT_API_URL"]:
        del environment["PREFECT_API_URL"]  # Prefect would take an empty one for an address
    return environment


def make_database(path: Path) -> None:
    """Create an empty SQLite file that can give space back, where there is no file yet.

    A database is made that way before its first table, or never.
    """
    if path.exists():
        return
    private_folder(path.parent)
    path.touch(mode=0o600)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
        connection.execute("VACUUM")  # writes the setting though there is no table yet


def running_prefect(settings: Settings) -> str | None:
    """Return the Prefect API that `ratchet up` serves for this home, if it answers."""
    address = str(served_addresses(settings).get("prefect_api", ""))
    return address if address and _answers(f"{address}/health") else None


def answering_prefect(settings: Settings) -> str | None:
    """Return the Prefect API of the settings, or that of this home, if it answers."""
    address = settings.prefect_api_url
    if address is None:
        return running_prefect(settings)
    return address if _answers(f"{address}/health") else None


def mlflow_page(settings: Settings, experiment_id: str, run_id: str) -> str | None:
    """Return the page of a run in the MLflow UI, where one is served for this home."""
    uri = settings.tracking_uri
    address = uri if uri.startswith("http") else str(served_addresses(settings).get("mlflow", ""))
    page = f"#/experiments/{experiment_id}/runs/{run_id}"
    return f"{address.rstrip('/')}/{page}" if address else None


def pages_file(settings: Settings) -> Path:
    """Return the file that holds the address of the pages for people while they are served."""
    return settings.home / "pages.json"


def running_pages(settings: Settings) -> dict[str, Any]:
    """Return `address`, `pid` and `first_admin` of the pages that are served; empty where none."""
    try:
        said = json.loads(pages_file(settings).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    pid = said.get("pid") if isinstance(said, dict) else None
    return said if isinstance(pid, int) and pid > 0 and lives(pid) else {}


def free_port(wanted: int, *, given: Collection[int] = ()) -> int:
    """Return `wanted`, or the next port that nobody listens on and that was not `given` away.

    Raises:
        BusyError: None of the 50 ports from `wanted` on is free.
    """
    for port in range(wanted, min(wanted + 50, 65_536)):
        if port in given:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise BusyError(f"a port from {wanted} to {wanted + 49} must be free, got none; name another")


@dataclass(slots=True)
class Servers:
    """The running children, and where they answer.

    Attributes:
        settings: Of the home.
        say: Takes lines for people.
        store_id: The store that flow runs of the deployments must find; empty: any.
        prefect_api: Where Prefect's API answers.
        mlflow: Where MLflow answers.
    """

    settings: Settings
    say: Callable[[str], None]
    store_id: str = ""
    prefect_api: str = ""
    mlflow: str = ""
    _children: list[tuple[str, subprocess.Popen[bytes]]] = field(default_factory=list)
    _environment: dict[str, str] = field(default_factory=dict)
    _given: set[int] = field(default_factory=set)
    _told: Path | None = None

    def start(
        self,
        *,
        prefect_port: int,
        mlflow_port: int,
        environ: Mapping[str, str],
        pools: Collection[str] = tuple(WORK_POOLS),
    ) -> None:
        """Start the servers, register the deployments and start a worker for each of some pools.

        Raises:
            BusyError: This home is served already.
            RatchetError: A server does not come up.
        """
        self._begin(environ)
        self._start_prefect(self._port("Prefect", prefect_port))
        self._start_mlflow(self._port("MLflow", mlflow_port))
        self._wait("prefect", f"{self.prefect_api}/health")
        self._wait("mlflow", f"{self.mlflow}/health")
        self.register_deployments()
        self.start_workers(pools)
        self._announce()

    def start_prefect(self, *, port: int, environ: Mapping[str, str]) -> None:
        """Start Prefect's server alone, or use the one that serves this home.

        Raises:
            RatchetError: The server does not come up.
        """
        self._environment = child_environment(self.settings, environ)
        if "PREFECT_API_URL" in self._environment:
            self.prefect_api = self._environment["PREFECT_API_URL"]
            return
        self._begin(environ)
        self._start_prefect(self._port("Prefect", port))
        self._wait("prefect", f"{self.prefect_api}/health")
        self._announce()

    def start_pages(self, *, port: int, environ: Mapping[str, str]) -> dict[str, Any]:
        """Start the pages for people and return what they say, see `running_pages`.

        Raises:
            RatchetError: They do not come up.
        """
        if not self._environment:
            private_folder(self._logs)
            self._environment = child_environment(self.settings, environ)
        wanted = self._port("the pages", port)
        arguments = ["ratchet.processes", "ratchet.web", "--port", str(wanted)]
        self._spawn("pages", arguments, self._told_by_file())
        child = dict(self._children)["pages"]
        deadline = time.monotonic() + _STARTUP_SECONDS
        while (said := running_pages(self.settings)).get("pid") != child.pid:
            if child.poll() is not None or time.monotonic() > deadline:
                raise RatchetError(
                    f"the pages did not start; the end of logs/pages.log:\n{self._tail('pages')}"
                )
            time.sleep(0.1)
        return said

    def run(self, arguments: Sequence[str]) -> int:
        """Run a Python module over this home on the terminal and return its exit code."""
        child = subprocess.Popen(
            told(*arguments),
            cwd=working_folder(self.settings),
            env=self._told_by_file(),
            stdin=subprocess.DEVNULL,
            umask=_OWNER_ALONE,
            preexec_fn=kill_with_parent,
        )
        try:
            return child.wait()
        except BaseException:
            child.send_signal(signal.SIGINT)
            try:
                child.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
            raise

    @contextmanager
    def gateway(self, *, port: int, environ: Mapping[str, str]) -> Iterator[str]:
        """Serve this home's local model as `ratchet serve` does, and yield where it answers.

        Once it has stopped, all that it recorded is in the store.

        Raises:
            RatchetError: It does not come up.
        """
        if not self._environment:
            self._environment = child_environment(self.settings, environ)
        private_folder(self._logs)
        free = self._port("the gateway", port)
        address, served = f"http://127.0.0.1:{free}", ("serve", "--local", "--rate", "0")
        arguments = ["ratchet.processes", "ratchet.cli", *served, "--port", str(free)]
        self._spawn("gateway", arguments, self._told_by_file())
        started = self._children[-1]
        try:
            self._wait("gateway", f"{address}/healthz")
            yield address
        finally:
            started[1].terminate()  # it stops its own processes, and brings its log to the store
            try:
                started[1].wait(_DRAIN_SECONDS)
            finally:
                signal_group(started[1], signal.SIGKILL)
                started[1].wait()
                self._children.remove(started)

    def watch(self) -> str:
        """Wait until a child ends and return its name."""
        while True:
            for name, child in self._children:
                if child.poll() is not None:
                    return name
            time.sleep(0.5)

    def stop(self) -> None:
        """Stop the children, the last one first, by force where they do not go."""
        for _, child in reversed(self._children):
            signal_group(child, signal.SIGTERM)
        for _, child in reversed(self._children):
            try:
                child.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                signal_group(child, signal.SIGKILL)
                child.wait()
            signal_group(child, signal.SIGKILL)
        self._children.clear()
        if self._told is not None:
            shutil.rmtree(self._told.parent, ignore_errors=True)
            self._told = None
        if served_addresses(self.settings).get("pid") == os.getpid():
            self.settings.servers_file.unlink(missing_ok=True)

    def _begin(self, environ: Mapping[str, str]) -> None:
        already = running_prefect(self.settings)
        if already:
            raise BusyError(
                f"a home folder is served once, got one that answers at {already}; "
                "use it, or set RATCHET_HOME to another folder"
            )
        private_folder(self._logs)
        self._environment = child_environment(self.settings, environ)

    def _announce(self) -> None:
        addresses = {"prefect_api": self.prefect_api, "mlflow": self.mlflow, "pid": os.getpid()}
        write_whole(self.settings.servers_file, json.dumps(addresses).encode())

    @property
    def _logs(self) -> Path:
        return self.settings.home / "logs"

    def _port(self, name: str, wanted: int) -> int:
        port = free_port(wanted, given=self._given)
        self._given.add(port)
        if port != wanted:
            self.say(f"port {wanted} is taken; {name} gets {port}")
        return port

    def _start_prefect(self, port: int) -> None:
        self.prefect_api = f"http://127.0.0.1:{port}/api"
        self._environment["PREFECT_API_URL"] = self.prefect_api
        make_database(self.settings.prefect_home / "prefect.db")
        arguments = ["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
        environment = open_environment(self._environment, but=_PREFECT)
        self._spawn("prefect", arguments, environment)

    def _start_mlflow(self, port: int) -> None:
        self.mlflow = f"http://127.0.0.1:{port}"
        uri = self.settings.tracking_uri
        if uri.startswith("http"):
            self.mlflow = uri
            return
        private_folder(self.settings.home / "mlflow")
        if uri.startswith("sqlite:///"):
            make_database(Path(uri.removeprefix("sqlite:///")))
        storage = [
            "--serve-artifacts",
            "--artifacts-destination",
            str(self.settings.artifacts),
        ]
        environment = open_environment(self._environment, but=_MLFLOW)
        environment["MLFLOW_BACKEND_STORE_URI"] = uri  # may hold a password
        network = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        self._spawn("mlflow", ["mlflow", "server", *storage, *network], environment)

    def start_workers(self, pools: Collection[str]) -> None:
        """Start a worker of processes for each of some pools."""
        environment = self._told_by_file() | {PYTHON: sys.executable}
        for pool in pools:
            arguments = ["prefect", "worker", "start", "--pool", pool, "--type", _PROCESSES]
            name = "worker" if pool == "ratchet" else f"worker-{pool.removeprefix('ratchet-')}"
            limited = [*arguments, "--limit", str(WORK_POOLS.get(pool, 1))]
            self._spawn(name, limited, environment)

    def join(self, pools: Collection[str], *, api: str, environ: Mapping[str, str]) -> None:
        """Start workers alone, for pools of a Prefect server that runs elsewhere."""
        private_folder(self._logs)
        self.prefect_api = api
        self._environment = child_environment(self.settings, environ) | {"PREFECT_API_URL": api}
        self.start_workers(pools)

    def register(
        self, *, api: str, environ: Mapping[str, str], jobs: Mapping[str, Any] | None = None
    ) -> None:
        """Register the deployments with a Prefect server that runs elsewhere.

        Args:
            api: Its address.
            environ: Of this process.
            jobs: Base job template of Kubernetes jobs that train; None: processes train.

        Raises:
            RatchetError: Prefect refuses them.
        """
        self.prefect_api = api
        self._environment = child_environment(self.settings, environ) | {"PREFECT_API_URL": api}
        if jobs is not None:
            pool = {"name": TRAINING_POOL, "type": _KUBERNETES, "base_job_template": jobs}
            made = ask(api, "POST", "work_pools/", pool)
            if made.status_code not in (201, 409):  # 409: it is there, and stays as it is
                raise RatchetError(
                    f"Prefect must take the pool {TRAINING_POOL}, got {made.status_code}: "
                    f"{made.text[:300]}"
                )
        self.register_deployments()

    def register_deployments(self) -> None:
        """Register the deployments of `prefect.yaml`; what a person switched on stays on.

        Raises:
            RatchetError: Prefect refuses them.
        """
        file = self._prefect_file()
        for pool in WORK_POOLS:
            self._make_pool(pool)
        deploy = ["--no-prompt", "deploy", "--all", "--prefect-file", str(file)]
        switched_on = [item["name"] for item in self._automations() if item["enabled"]]
        self._prefect(deploy)
        self._switch_on(switched_on)

    def _prefect_file(self) -> Path:
        """Return the file of deployments: what is shipped, with what the home says differently."""
        ours = read_deployments(self.settings.deployments)
        if ours == Deployments() and not self.store_id:
            return _shipped_file()
        if ours.trains_elsewhere and ours.training_pool:
            self._make_pool(ours.training_pool)
        shipped = shipped_deployments()
        content = ours.stating(shipped, self.store_id) if self.store_id else ours.over(shipped)
        file = working_folder(self.settings) / "prefect.yaml"
        write_whole(file, yaml.safe_dump(content, sort_keys=False).encode())
        return file

    def _make_pool(self, name: str) -> None:
        """Make a pool of processes where there is none of that name; one that is there stays."""
        found = self._ask("GET", f"work_pools/{name}")
        is_new = found.status_code == 404
        if is_new:
            self._prefect(["work-pool", "create", name, "--type", _PROCESSES])
            found = self._ask("GET", f"work_pools/{name}")
        template = found.json()["base_job_template"]
        if give_command(template, is_new=is_new):
            self._ask("PATCH", f"work_pools/{name}", {"base_job_template": template})

    def _automations(self) -> list[dict[str, Any]]:
        return list(self._ask("POST", "automations/filter", {}).json())

    def _switch_on(self, names: Collection[str]) -> None:
        """Leave the automations on that a person switched on: deploying makes them anew, off."""
        for item in self._automations():
            if item["name"] in names and not item["enabled"]:
                self._ask("PATCH", f"automations/{item['id']}", {"enabled": True})

    def _ask(self, method: str, path: str, body: Any = None) -> httpx.Response:
        reply = ask(str(self.prefect_api), method, path, body, environ=self._environment)
        return reply if reply.status_code == 404 else reply.raise_for_status()

    def _prefect(self, arguments: Sequence[str]) -> None:
        done = subprocess.run(
            python("-m", "prefect", *arguments),
            cwd=working_folder(self.settings),
            env=open_environment(self._environment, but=_PREFECT),
            stdin=subprocess.DEVNULL,
            umask=_OWNER_ALONE,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            tail = (done.stdout + done.stderr).strip()[-1500:]
            raise RatchetError(f"`prefect {' '.join(arguments)}` failed:\n{tail}")

    def _told_by_file(self) -> dict[str, str]:
        """Return the environment of what runs flows, which reads the secrets from a file.

        The file lies in memory where the system has a place there, for its owner alone, and goes
        when the servers stop. Prefect's own secrets stay: it hands them on in the environment.
        """
        secrets = secrets_in(self._environment)
        hidden = {n: value for n, value in secrets.items() if not n.startswith(_PREFECT)}
        if not hidden:
            return self._environment
        if self._told is None:
            place = _IN_MEMORY if os.access(_IN_MEMORY, os.W_OK) else self.settings.home
            _forget_what_was_told(place)
            name = f"{_TOLD}{os.getpid()}-"
            self._told = Path(tempfile.mkdtemp(prefix=name, dir=place)) / "told.json"
        write_whole(self._told, json.dumps(hidden).encode(), sync=False)
        environment = open_environment(self._environment, but=_PREFECT)
        return environment | {TOLD_FILE: str(self._told)}

    def _spawn(self, name: str, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        path = self._logs / f"{name}.log"
        path.touch(mode=0o600)
        with path.open("ab") as log:
            child = subprocess.Popen(
                python("-m", *arguments),
                cwd=working_folder(self.settings),
                env=environment,
                umask=_OWNER_ALONE,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=end_with_parent,
            )
        self._children.append((name, child))

    def _wait(self, name: str, address: str) -> None:
        child = dict(self._children).get(name)
        deadline = time.monotonic() + _STARTUP_SECONDS
        while not _answers(address):
            ended = child is not None and child.poll() is not None
            if ended or time.monotonic() > deadline:
                tail = self._tail(name)
                reason = "ended" if ended else f"did not answer in {_STARTUP_SECONDS:.0f} s"
                raise RatchetError(f"{name} {reason}; the end of logs/{name}.log:\n{tail}")
            time.sleep(0.3)

    def _tail(self, name: str) -> str:
        path = self._logs / f"{name}.log"
        return path.read_text("utf-8", "replace")[-1500:] if path.exists() else "(no log)"


def _forget_what_was_told(place: Path) -> None:
    """Delete files of secrets that killed processes left behind."""
    for folder in place.glob(f"{_TOLD}*-*"):
        pid = folder.name.removeprefix(_TOLD).partition("-")[0]
        with suppress(OSError, ValueError):
            if folder.stat().st_uid == os.getuid() and not lives(int(pid)):
                shutil.rmtree(folder)


def served_addresses(settings: Settings) -> dict[str, Any]:
    """Return `prefect_api`, `mlflow` and `pid` of `ratchet up` for this home; empty if none."""
    try:
        addresses = json.loads(settings.servers_file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return addresses if isinstance(addresses, dict) else {}


def _answers(address: str) -> bool:
    try:
        return httpx.get(address, timeout=3.0).status_code == 200
    except (httpx.HTTPError, httpx.InvalidURL):
        return False
