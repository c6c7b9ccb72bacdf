"""A home folder of its own with a real Prefect server, for tests of whole flows."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ratchet.servers import Servers, child_environment
from ratchet.settings import Settings, load_settings
from ratchet.store import EventStore

ROOT = Path(__file__).parents[2]


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


def new_home(folder: Path, mlflow_database: Path, **variables: str) -> PrefectHome:
    """Make a home folder that sees no setting of the machine but the given variables."""
    ours = ("PREFECT_", "MLFLOW_", "RATCHET_")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environ |= {"RATCHET_HOME": str(folder / "home"), **variables}
    settings = load_settings(environ, ROOT)
    (settings.home / "mlflow").mkdir(parents=True)
    shutil.copyfile(mlflow_database, settings.home / "mlflow" / "mlflow.db")
    return PrefectHome(settings, environ, Servers(settings=settings, say=print))


def run_python(environment: dict[str, str], *arguments: str, seconds: float = 240.0) -> str:
    """Run Python in the project's folder and return what it printed; it has to succeed."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=seconds,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr
