"""What runs in the box: the process of the tests, which starts that of the answer.

The tests' process alone knows the tests and says how they ended. The answer's is a Python of its
own that is handed the answer's source and then what is called in it: it shares no memory with the
tests, has no descriptor of theirs, and the kernel refuses to let it trace them. So there is
nothing in it by which an answer could find out what is expected, or say that it passed.

As `exchange`, of the standard library alone; both sources are one program in the box, started by
`sandbox`.
"""

from __future__ import annotations

import ast
import builtins
import ctypes
import importlib
import json
import os
import resource
import signal
import sys
from contextlib import suppress
from typing import Any, NoReturn

from ratchet.evaluation.code_execution.exchange import Gone, Peer

MEGABYTE = 2**20
DEEPEST = 10_000
_NOT_DUMPABLE = (4, 0)  # prctl(PR_SET_DUMPABLE, 0): no other process may look into this one
_WRITING, _READING = 3, 4  # the answer's two descriptors


def run_tests(job: dict[str, Any]) -> NoReturn:
    """Run the tests against the answer and write how they ended into the job's pipe."""
    _take_limits(job["limits"], job["user"])
    ctypes.CDLL(None).prctl(*_NOT_DUMPABLE)
    nothing = os.open("/dev/null", os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    pid, reading, writing = _start_answer(job)
    sys.setrecursionlimit(DEEPEST)
    sys.set_int_max_str_digits(0)
    peer = _Tests(reading, writing)
    try:
        _judge(peer, job)
        if peer.gone is not None:
            raise peer.gone
        said = {"outcome": "passed", "detail": ""}
    except Gone as gone:
        if str(gone):
            os.kill(pid, signal.SIGKILL)
        said = _end_of(pid, str(gone))
    except MemoryError:
        said = {"outcome": "out of memory", "detail": "MemoryError"}
    except BaseException as error:
        said = {"outcome": "failed", "detail": f"{type(error).__name__}: {_words(error)}"[:500]}
    os.write(job["report"], json.dumps(said).encode())
    os._exit(0)


def run_answer() -> NoReturn:
    """Serve what the tests call of the answer."""
    sys.stdin, sys.argv = open(0, encoding="utf-8"), [""]  # noqa: SIM115
    os.environ.clear()
    sys.setrecursionlimit(1_050)  # what serves it takes some
    sys.set_int_max_str_digits(0)
    with suppress(Gone):
        _Answer(_READING, _WRITING, guarded=False).serve()
    os._exit(0)


def _take_limits(limits: dict[str, Any], user: int) -> None:
    cpu = limits["cpu_seconds"]
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 1))  # a signal that says why, then the end
    for name, value in (
        ("RLIMIT_AS", limits["memory_megabytes"] * MEGABYTE),
        ("RLIMIT_FSIZE", limits["file_megabytes"] * MEGABYTE),
        ("RLIMIT_NOFILE", 64),
        ("RLIMIT_CORE", 0),
        ("RLIMIT_MEMLOCK", 0),
        ("RLIMIT_MSGQUEUE", 0),
        ("RLIMIT_NPROC", limits["processes"] + 1),  # the tests' process is one of the user's
    ):
        resource.setrlimit(getattr(resource, name), (value, value))
    if user:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)


def _start_answer(job: dict[str, Any]) -> tuple[int, int, int]:
    """Start a Python of the answer's own, which has two ends of pipes and nothing else open."""
    to_answer, from_answer = os.pipe(), os.pipe()
    words = [sys.executable, "-I", "-S", "-c", job["start"], "run_answer", job["modules"]]
    pid = os.fork()
    if pid == 0:
        # first out of the way of the two numbers that they get
        reading, writing = os.dup2(to_answer[0], 20), os.dup2(from_answer[1], 21)
        os.dup2(reading, _READING)
        os.dup2(writing, _WRITING)
        os.closerange(5, 64)
        os.execv(sys.executable, words)
    os.close(to_answer[0])
    os.close(from_answer[1])
    return pid, from_answer[0], to_answer[1]


def _judge(peer: _Tests, job: dict[str, Any]) -> None:
    entry, prompt = job["entry_point"], job["prompt"]
    names = _Names(peer, entry)
    names["__name__"] = "tests"
    defined = _run_prompt(prompt, names) if prompt else {}
    peer.comparable = entry in defined
    peer.classes = {name: kind for name, kind in defined.items() if name != entry}
    names.offered = set(peer.ask("load", job["sources"], job["name"], sorted(peer.classes)))
    if entry is not None:
        names.pop(entry, None)
    tests = compile(job["tests"], "tests", "exec")
    exec(tests, names)


def _run_prompt(prompt: str, names: dict[str, Any]) -> dict[str, type]:
    """Run the code that the prompt begins, for its helpers; return the classes that it defines."""
    for source in (prompt, f"{prompt}    pass\n"):
        try:
            code = ast.parse(source)
        except (SyntaxError, ValueError):
            continue
        with suppress(Exception):  # what it lacks, the tests miss where they need it
            exec(compile(code, "prompt", "exec"), names)
        return {
            node.name: names[node.name]
            for node in ast.walk(code)
            if isinstance(node, ast.ClassDef) and isinstance(names.get(node.name), type)
        }
    return {}


def _end_of(pid: int, reason: str) -> dict[str, Any]:
    _, status = os.waitpid(pid, 0)
    if reason:
        return {"outcome": "crashed", "detail": f"its process broke the exchange: {reason}"}
    code = os.waitstatus_to_exitcode(status)
    return {"outcome": "ended", "code": code if code >= 0 else 128 - code}


def _words(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return ""


class _Names(dict[str, Any]):
    """The tests' names; what they lack is the answer's, except names of Python itself."""

    def __init__(self, peer: Peer, entry: str | None) -> None:
        super().__init__()
        self.peer, self.entry = peer, entry
        self.offered: set[str] = set()

    def __missing__(self, name: str) -> Any:
        mine = name == self.entry or not (hasattr(builtins, name) or name.startswith("__"))
        if name not in self.offered or not mine:
            raise KeyError(name)
        if name != self.entry and name in sys.stdlib_module_names:
            return importlib.import_module(name)
        return self.peer.ask("name", name)


class _Tests(Peer):
    def __init__(self, reading: int, writing: int) -> None:
        super().__init__(reading, writing, guarded=True)


class _Answer(Peer):
    def extra(self, operation: str, _values: Any) -> Any:
        if operation == "load":
            return self._load(*_values)
        if operation == "name":
            return self.namespace[_values[0]]
        return super().extra(operation, _values)

    def _load(self, sources: list[str], name: str, shared: list[str]) -> list[str]:
        # compiling hostile code can end the interpreter, so it is done here
        self.namespace["__name__"] = name
        for place, source in enumerate(sources, start=1):
            try:
                code = compile(source, "answer", "exec")
                break
            except (SyntaxError, ValueError):
                if place == len(sources):
                    raise
        exec(code, self.namespace)
        found = {name: self.namespace.get(name) for name in shared}
        self.classes = {name: kind for name, kind in found.items() if isinstance(kind, type)}
        return [name for name in self.namespace if isinstance(name, str)]
