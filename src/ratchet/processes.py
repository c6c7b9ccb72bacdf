"""How child processes are started: what they may import, ask and know.

- Python puts the current folder before all else on the import path of `python -m`, so that a file
  `json.py` there would be run in place of the library's. Every child is started in safe-path mode.
- Whoever may read `/proc/PID/environ`, a crash report or the log of a supervisor reads what a
  process was started with. Secrets go to a child through a pipe, or not at all, or where it starts
  processes of its own in a file that these read: `python -m ratchet.processes MODULE` runs a module
  that finds in `os.environ` what the file of RATCHET_TOLD_FILE holds, and what it was not started
  with.
- No child may ask a question: its standard input is empty, or what it is told.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import runpy
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from pathlib import Path

TOLD_FILE = "RATCHET_TOLD_FILE"
"""The environment variable with the path of the file from which a process reads its secrets."""
_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)
_SAFE_PATH, _PATH = "PYTHONSAFEPATH", "PYTHONPATH"
_SECRET_NAME = re.compile(
    r"(?i)(^|_)(keys?|tokens?|secrets?|pass(word|wd)?|pwd|credentials?|notify|dsn|sas|auth)(_|$)|"
    r"password|apikey"
)
_PASSWORD_IN_ADDRESS = re.compile(r"://[^/@\s]*:[^/@\s]+@")
_NO_SECRET = re.compile(r"(?i)_FILE$|^TOKENIZERS_|^SSH_AUTH_SOCK$|^(OLD)?PWD$")


def python(*arguments: str) -> list[str]:
    """Return the command that runs this Python without the current folder on its import path."""
    return [sys.executable, "-P", *arguments]


def is_secret(name: str, value: str) -> bool:
    """Tell whether a variable holds a secret, by its name or by an address with a password."""
    if _PASSWORD_IN_ADDRESS.search(value):
        return True
    return bool(value) and bool(_SECRET_NAME.search(name)) and not _NO_SECRET.search(name)


def secrets_in(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that hold secrets, which a child is told through a pipe."""
    return {name: value for name, value in environ.items() if is_secret(name, value)}


def open_environment(environ: Mapping[str, str], *, but: tuple[str, ...] = ()) -> dict[str, str]:
    """Return an environment that anybody may read: without secrets, and with a safe import path.

    Args:
        environ: With secrets.
        but: How the names of those begin that stay, because a program of others reads them there.
    """
    secrets = {name for name in secrets_in(environ) if not name.startswith(but)}
    return safe_path({name: value for name, value in environ.items() if name not in secrets})


def safe_path(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment whose Python processes, and theirs, import nothing from where they are.

    Empty entries of PYTHONPATH mean the current folder, so they are dropped.
    """
    found = {**environ, _SAFE_PATH: "1"}
    if _PATH in found:
        entries = [part for part in found[_PATH].split(os.pathsep) if part not in ("", ".")]
        found[_PATH] = os.pathsep.join(entries)
    return found


def told(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module of Python with what the file of TOLD_FILE holds."""
    return python("-m", "ratchet.processes", module, *arguments)


def hear(environ: MutableMapping[str, str]) -> None:
    """Add to an environment what the file of TOLD_FILE holds, where there is one.

    What is set after a process has started does not show in `/proc/PID/environ`.
    """
    path = environ.get(TOLD_FILE)
    if path:
        environ.update(json.loads(Path(path).read_text("utf-8")))


def lives(pid: int) -> bool:
    """Tell whether there is a process of this number, whoever's it is."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def signal_group(child: subprocess.Popen[bytes], number: int) -> None:
    """Send a signal to a child and to what it started, where it leads a group and is not gone."""
    try:
        os.killpg(child.pid, number)
    except ProcessLookupError:
        return


def end_with_parent() -> None:
    """Have Linux ask this child to end should its parent be killed."""
    _signal_with_parent(signal.SIGTERM)


def kill_with_parent() -> None:
    """Have Linux kill this child at once, so that the home's lock is free for the next."""
    _signal_with_parent(signal.SIGKILL)


def _signal_with_parent(number: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, number)


@contextmanager
def starting_safely() -> Iterator[None]:
    """Have what `multiprocessing` starts meanwhile import nothing from the current folder."""
    names = (_SAFE_PATH, _PATH)
    before = {name: os.environ[name] for name in names if name in os.environ}
    safe = safe_path(os.environ)
    os.environ.update({name: safe[name] for name in names if name in safe})
    try:
        yield
    finally:
        os.environ.pop(_SAFE_PATH)
        os.environ.update(before)


if __name__ == "__main__":
    hear(os.environ)
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
