"""Flows that are killed at every point where something becomes lasting.

    python -m tests.faults.crashing        # imports everything once, and forks a process for a run

A point is a place in a run of a flow: a flow or task begins or has ended, a transaction that wrote
is about to be committed or was, in the store's database or in MLflow's, a file or folder is about
to be renamed. A run is told which points it passes and kills itself at the first other one, so that
the same work, begun again and again, dies once at each of its points.

The points are found by hooks of what the project does not own: Prefect's tasks and flows,
SQLAlchemy and Python's audit events.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_WRITES = re.compile(r"\s*(?:INSERT INTO|UPDATE|DELETE FROM)\s+\"?(\w+)", re.IGNORECASE)
IMPORTS = """
import accelerate, datasets, matplotlib.pyplot, mlflow, peft, prefect, presidio_analyzer
import scipy.stats, sklearn.base, torch, transformers, trl
import mlflow.store.tracking.sqlalchemy_store, mlflow.store.model_registry.sqlalchemy_store
import ratchet.flows.analyze, ratchet.flows.approve, ratchet.flows.collect, ratchet.flows.deploy
import ratchet.flows._cycle_analysis
import ratchet.flows.improve, ratchet.flows.loop, ratchet.flows.prune, ratchet.flows.rollback
import ratchet.flows.rollout
"""


class Points:
    """Hooks of this process: kills it at the first point that is not to be passed.

    Args:
        passed: Points that a run before was killed at.
        trace: File that every point is written to.
        deadly: Patterns of the points that kill; none kills where there is none.
        most: How often a point of one name kills.
    """

    def __init__(self, passed: Iterable[str], trace: Path, deadly: str, most: int) -> None:
        self._passed, self._deadly, self._most = set(passed), re.compile(deadly), most
        self._counts: Counter[str] = Counter()
        self._trace = os.open(trace, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._modules = trace.with_name("modules")
        self._tasks: list[str] = []
        self._over = False

    def reach(self, what: str) -> None:
        if self._over:
            return
        name = f"{self._tasks[-1] if self._tasks else 'outside'}: {what}"
        self._counts[name] += 1
        point = f"{name} #{self._counts[name]}"
        os.write(self._trace, f"{os.getpid()} {point}\n".encode())
        if self._counts[name] > self._most or point in self._passed:
            return
        if self._deadly.search(point):
            self._modules.write_text("\n".join(sys.modules))
            os.write(self._trace, f"{os.getpid()} killed at {point}\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)

    def install(self) -> None:
        self._watch_calls()
        self._watch_databases()
        sys.addaudithook(self._audit)

    def end(self) -> None:
        self._over = True

    def _watch_calls(self) -> None:
        from prefect import Flow, Task

        for kind in (Flow, Task):
            kind.__call__ = self._called(kind.__call__)  # type: ignore[method-assign]

    def _called(self, call: Any) -> Any:
        def around(this: Any, *arguments: Any, **named: Any) -> Any:
            self._tasks.append(this.name)
            try:
                self.reach("begins")
                given = call(this, *arguments, **named)
                self.reach("has ended")
                return given
            finally:
                self._tasks.pop()

        return around

    def _watch_databases(self) -> None:
        import sqlalchemy as sa

        wrote: dict[int, str] = {}

        @sa.event.listens_for(sa.Engine, "before_cursor_execute")
        def _executes(connection, _cursor, statement, _parameters, _context, _many):
            found = _WRITES.match(statement)
            if found:
                wrote[id(connection.connection.dbapi_connection)] = found[1]

        @sa.event.listens_for(sa.Engine, "commit")
        def _commits(connection):
            table = wrote.get(id(connection.connection.dbapi_connection))
            if table is not None:
                self.reach(f"commits {table}")

        @sa.event.listens_for(sa.Engine, "rollback")
        def _gives_up(connection):
            wrote.pop(id(connection.connection.dbapi_connection), None)

        @sa.event.listens_for(sa.Pool, "checkin")
        def _committed(dbapi_connection, _record):
            table = wrote.pop(id(dbapi_connection), None)
            if table is not None:
                self.reach(f"has committed {table}")

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.rename" and not self._over:
            target = Path(os.fsdecode(arguments[1]))
            kind = target.suffix or ("folder" if len(target.name) > 12 else target.name)
            self.reach(f"renames into {target.parent.name} {kind}")


def _child(order: dict[str, Any]) -> None:
    """Run a flow in this forked process."""
    os.environ.update(order["environment"])
    output = os.open(order["output"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    points = Points(order["passed"], Path(order["trace"]), order["deadly"], order["most"])
    points.install()
    exec(order["code"], {})
    points.end()


def main() -> None:
    exec(IMPORTS)
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _child(order)
            sys.exit(0)
        print(pid, flush=True)
        status = _ended(pid, order["seconds"])
        print(os.waitstatus_to_exitcode(status), flush=True)
        _import_too(Path(order["trace"]).with_name("modules"))


def _import_too(modules: Path) -> None:
    """Import what a run had imported when it was killed, so that the next ones need not."""
    if modules.exists():
        for name in modules.read_text().splitlines():
            if name not in sys.modules:
                with contextlib.suppress(Exception):
                    importlib.import_module(name)
        modules.unlink()


def _ended(pid: int, seconds: float) -> int:
    deadline = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return status
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGABRT)
            return os.waitpid(pid, 0)[1]
        time.sleep(0.005)


@dataclass
class Crashes:
    """Runs flows in forked processes, and what they went through.

    Attributes:
        folder: Holds the trace and what was printed.
        kills: How many runs were killed, at which points.
    """

    process: subprocess.Popen[str]
    folder: Path
    kills: list[str] = field(default_factory=list)

    @property
    def trace(self) -> list[str]:
        """Every point that was reached, in order."""
        file = self.folder / "trace"
        lines = file.read_text().splitlines() if file.exists() else []
        return [line.partition(" ")[2] for line in lines]

    @property
    def printed(self) -> str:
        file = self.folder / "output"
        return file.read_text(errors="replace") if file.exists() else ""

    def passed(self, point: str) -> int:
        """Return how often a point was reached and survived; it is given without its number."""
        name = re.compile(f"{re.escape(point)} #\\d+")
        reached = sum(name.fullmatch(line) is not None for line in self.trace)
        return reached - sum(name.fullmatch(line) is not None for line in self.kills)

    def once(self, code: str, environment: dict[str, str], *, deadly: str = "^$", most: int = 1,
             seconds: float = 240.0) -> int:  # fmt: skip
        """Run once; return the exit code, which is -9 where a point killed it."""
        order = {
            "code": code, "environment": environment, "passed": self.kills, "deadly": deadly,
            "most": most, "trace": str(self.folder / "trace"),
            "output": str(self.folder / "output"), "seconds": seconds,
        }  # fmt: skip
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        pid = int(self.process.stdout.readline())
        code_of = int(self.process.stdout.readline())
        killed = [
            line.removeprefix("killed at ") for line in self.trace if line.startswith("killed at ")
        ]
        assert len(killed) - len(self.kills) == (code_of == -signal.SIGKILL), (pid, code_of)
        self.kills = killed
        return code_of

    def until_done(self, code: str, environment: dict[str, str], *, deadly: str, most: int = 1,
                   runs: int = 200) -> int:  # fmt: skip
        """Run again and again, killed at one point more each time; return how often."""
        for number in range(runs):
            ended = self.once(code, environment, deadly=deadly, most=most)
            if ended == 0:
                return number
            assert ended == -signal.SIGKILL, f"{ended}\n{self.printed[-6000:]}"
        raise AssertionError(f"not done after {runs} runs; last: {self.kills[-5:]}")


@contextlib.contextmanager
def crashes(environment: dict[str, str], folder: Path) -> Iterator[Crashes]:
    """Keep a process that forks one for each run, in an environment of Prefect's."""
    folder.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.crashing"],
        cwd=ROOT, env=environment | {"OMP_NUM_THREADS": "1"}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if line == "ready\n":
                break
        yield Crashes(process, folder)
    finally:
        process.stdin.close()
        process.wait(60.0)
        process.stdout.close()


if __name__ == "__main__":
    main()
