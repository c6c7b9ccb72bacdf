"""A home folder of its own with a real Prefect server, for tests of whole flows."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Timer

from ratchet.servers import Servers, child_environment
from ratchet.settings import Settings, load_settings
from ratchet.store import EventStore

ROOT = Path(__file__).parents[2]
_DONE = "-- done --"
_SERVE = f"""
import json, sys
names = {{}}
for line in sys.stdin:
    exec(json.loads(line), names)
    sys.stderr.flush()
    print("{_DONE}", flush=True)
"""


@dataclass(frozen=True)
class PrefectHome:
    """A new home folder with MLflow's tables, before and while its Prefect server runs."""

    settings: Settings
    environ: dict[str, str]
    servers: Servers

    @property
    def store(self) -> EventStore:
        return EventStore.open(self.settings.store_url)

    @contextmanager
    def serving(self) -> Iterator[dict[str, str]]:
        """Start the server, yield the environment of its flows, and stop it."""
        try:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = int(probe.getsockname()[1])
            self.servers.start_prefect(port=port, environ=self.environ)
            yield child_environment(self.settings, self.environ)
        finally:
            self.servers.stop()


def new_home(folder: Path, template: Path, **variables: str) -> PrefectHome:
    """Make a home folder that sees no setting of the machine but the given variables.

    Args:
        folder: The home is `home` in it.
        template: Copied into the home: MLflow's tables, which take seconds to make, and where it
            has them those of Prefect.
        variables: Of the environment.
    """
    ours = ("PREFECT_", "MLFLOW_", "RATCHET_")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environ |= {"RATCHET_HOME": str(folder / "home"), **variables}
    settings = load_settings(environ, ROOT)
    shutil.copytree(template, settings.home)
    return PrefectHome(settings, environ, Servers(settings=settings, say=print))


def run_python(environment: dict[str, str], *arguments: str, seconds: float = 240.0) -> str:
    """Run Python in the project's folder and return what it printed; it has to succeed."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=seconds,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


@contextmanager
def python_process(
    environment: dict[str, str], first: str, *, seconds: float = 400.0
) -> Iterator[Callable[[str], str]]:
    """Keep one Python process that runs a statement when asked: imports are paid once.

    Args:
        environment: Of the process.
        first: Statements that come first, such as imports.
        seconds: After so long it is killed.

    Yields:
        A function that runs statements, which have to succeed, and returns what they printed.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVE],
        cwd=ROOT, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None

    def run(statements: str) -> str:
        process.stdin.write(json.dumps(statements) + "\n")
        process.stdin.flush()
        printed = ""
        for line in process.stdout:
            if line == _DONE + "\n":
                return printed
            printed += line
        raise AssertionError(f"the process ended:\n{printed[-6000:]}")

    alarm = Timer(seconds, process.kill)
    alarm.start()
    try:
        run(first)
        yield run
    finally:
        alarm.cancel()
        process.stdin.close()
        process.wait(60.0)
        process.stdout.close()
