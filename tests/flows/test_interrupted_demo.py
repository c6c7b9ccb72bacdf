"""`ratchet demo` killed at every stage and started again does everything once.

Prefect, MLflow and the trainer are the real ones; the model is a tiny one, for speed.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

from ratchet.demo.plan import DemoOptions
from ratchet.records import Analysis, Candidate, Cycle, CycleEnd, Decision, Release, TrainingSet
from ratchet.store import EventStore

ROOT = Path(__file__).parents[2]
DEMO = [sys.executable, "-m", "ratchet.cli", "demo", "--messages-limit", "256"]
OPTIONS = DemoOptions()
GATE = f"of {OPTIONS.held_out} examples"
KILL_AT = ("answered 128 of 256", "opened cycle", "training step", GATE)


def _environment(home: Path, model: Path) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PREFECT_", "MLFLOW_", "RATCHET_"))
    }
    return kept | {
        "RATCHET_HOME": str(home),
        "RATCHET_BASE_MODEL": str(model),
        "PYTHONUNBUFFERED": "1",
    }


def _run_until(text: str | None, environment: dict[str, str]) -> tuple[int, str]:
    """Run the demo; kill it the moment it prints `text`."""
    process = subprocess.Popen(
        DEMO, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    alarm = threading.Timer(240, process.kill)
    alarm.start()
    printed = ""
    assert process.stdout is not None
    for line in process.stdout:
        printed += line
        if text is not None and text in line:
            process.send_signal(signal.SIGKILL)
            text = None
    alarm.cancel()
    return process.wait(), printed


def _running(home: Path) -> list[str]:
    """Return the command lines of living processes that work on this home."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            environment = (path / "environ").read_bytes().decode("utf-8", "replace")
            command = (path / "cmdline").read_bytes().decode("utf-8", "replace")
        except OSError:
            continue
        if str(home) in environment and int(path.name) != os.getpid() and command:
            found.append(command.replace("\0", " "))
    return found


@pytest.mark.timeout(600)
@pytest.mark.slow
@pytest.mark.parametrize("moments", [KILL_AT[2:3], KILL_AT], ids=len)
def test_a_demo_killed_at_every_stage_does_everything_once(
    tmp_path: Path, tiny_model: Path, moments: tuple[str, ...]
) -> None:
    home = tmp_path / "home"
    environment = _environment(home, tiny_model)
    for moment in moments:
        code, printed = _run_until(moment, environment)
        assert code == -signal.SIGKILL, f"never printed {moment!r}:\n{printed[-3000:]}"
    code, printed = _run_until(None, environment)
    assert code == 0, printed[-3000:]
    assert "going on with cycle 1" in printed
    assert "were interrupted" in printed
    assert "DEPLOY" in printed

    store = EventStore.open(f"sqlite:///{home / 'store.db'}")
    counts = store.counts()
    # who waited for an answer when the application was killed asks again
    assert 256 <= counts["interactions"] <= 256 + OPTIONS.at_once
    assert counts["copy"] == counts["regenerate"] == 256
    for kind in (Cycle, CycleEnd, TrainingSet, Candidate, Decision, Analysis):
        assert len(store.records(kind)) == 1, kind
    decision = store.records(Decision)[0]
    promotions = [r for r in store.records(Release) if r.action == "promote"]
    assert len(promotions) == (decision.verdict == "promote")
    assert len(list((home / "adapters").iterdir())) == 1
    # while users talk no flow runs, and where a cycle is opened none may run yet
    _assert_no_flow_run_still_runs(home, len([each for each in moments if each in KILL_AT[2:]]))
    assert _running(home) == []

    status = subprocess.run(
        [sys.executable, "-m", "ratchet.cli", "status", "--json"],
        env=environment, cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert json.loads(status.stdout)["last_decision"]["verdict"] == decision.verdict


def _assert_no_flow_run_still_runs(home: Path, killed: int) -> None:
    with sqlite3.connect(home / "prefect" / "prefect.db") as database:
        states = Counter(row[0] for row in database.execute("SELECT state_type FROM flow_run"))
    assert states["RUNNING"] == 0, states
    assert states["CRASHED"] >= killed
    assert states["COMPLETED"] >= 5
