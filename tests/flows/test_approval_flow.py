"""A promotion that waits for a person: real Prefect server, worker and MLflow, answers recorded."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from mlflow import MlflowClient

from ratchet.evaluation.paired import decoding_name, question_digest
from ratchet.models import adapter_digest
from ratchet.records import (
    LABEL_TOKENS,
    Approval,
    Candidate,
    Cycle,
    CycleEnd,
    Decision,
    Example,
    ExampleSet,
    Message,
    RegressionSet,
    Release,
)
from ratchet.servers import child_environment
from ratchet.tracking import Tracker
from tests.deploy.adapter_files import make_adapter
from tests.flows.prefect_home import ROOT, PrefectHome, new_home, run_python

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

AT = datetime(2026, 11, 24, tzinfo=UTC)
EXAMPLES = 120
DEPLOY = """
import json, sys
from ratchet.flows.deploy import DeployOptions, deploy
print(deploy(DeployOptions.model_validate(json.loads(sys.argv[1]))))
"""
POLICY = {
    "primary": {"metric": "exact_match", "hold_margin": 0.05},
    "guardrails": [
        {"metric": "exact_match", "per_cluster": True, "requires": "no_harm"},
        {"metric": "length", "margin": 0.5, "relative": True},
    ],
    "secondary": ["token_f1"],
    "beat_constant_answer": True,
    "approval": "always",
}


def made_up(text: str, count: int, target: str) -> tuple[Example, ...]:
    return tuple(
        Example(
            id=text.format(n),
            messages=(Message(role="user", content=text.format(n)),),
            target=target.format(n % 8),
        )
        for n in range(count)
    )


SAFETY = made_up("is {} safe to mix", 40, "no")


@dataclass(frozen=True)
class Waiting:
    """A home whose gate has answers of both models, and the environment of its processes."""

    home: PrefectHome
    environ: dict[str, str]
    tracker: Tracker
    examples: tuple[Example, ...]
    regression: RegressionSet

    def propose(self, number: int, right: int) -> str:
        """Open a cycle with a candidate that answers so many examples right."""
        store, champion = self.home.store, self.tracker.champion()
        assert champion is not None
        path = f"adapters/made-{number}"
        folder = make_adapter(self.home.settings.home / path, weights=b"%d" % number)
        with self.tracker.run("ratchet", key=f"made-{number}", name="made", tags={}) as run:
            source = run.folder(folder, "adapter")
        made = self.tracker.register_adapter(run.run_id, source, f"digest-{number}")
        cycle = Cycle(
            id=f"cycle-{number}", number=number, created_at=AT, champion=champion.reference,
            options_digest="o", seed=0, window_start=AT, window_end=AT,
            example_set_id=store.records(ExampleSet)[0].id,
        )  # fmt: skip
        store.append(cycle)
        candidate = Candidate(
            id=f"candidate-{number}", cycle_id=cycle.id, created_at=AT,
            model_name=self.tracker.model_name, version=made.version,
            adapter_digest=adapter_digest(folder), path=path, training_set_id="t",
            run_id=run.run_id, losses=(),
            training_seconds=1.0,
        )  # fmt: skip
        store.append(candidate)
        self.record(made.digest, right)
        return made.reference

    def record(self, digest: str, right: int) -> None:
        """Record a model's answers, the first so many of them right."""
        frozen = self.home.store.get(ExampleSet, self.regression.example_set_id)
        assert frozen is not None
        given = {
            question_digest(example): example.target if place < right else "no idea"
            for part in (self.examples, frozen.examples, SAFETY)
            for place, example in enumerate(part)
        }
        seconds = dict.fromkeys(given, 0.1)
        self.home.store.add_answers(digest, decoding_name(LABEL_TOKENS), given, seconds)

    def deploy(self, sets: dict[str, str] | None = None, **changes: Any) -> Decision:
        """Run the flow deploy in a process of its own and return its decision."""
        options = {"policy": POLICY | changes, "sets": sets or {}}
        printed = run_python(self.environ, "-c", DEPLOY, json.dumps(options))
        key = [line for line in printed.splitlines() if len(line) == 36 and " " not in line][-1]
        decision = self.home.store.get(Decision, key)
        assert decision is not None
        return decision

    def ratchet(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "ratchet.cli", *arguments],
            env=self.environ, cwd=ROOT, capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    @property
    def api(self) -> str:
        return self.environ["PREFECT_API_URL"]

    def run_of(self, decision: Decision, *states: str, seconds: float = 90.0) -> dict[str, Any]:
        """Wait until the run that asks about a decision is in one of some states."""
        deadline = time.monotonic() + seconds
        run: dict[str, Any] = {}
        while time.monotonic() < deadline:
            body = {"flows": {"name": {"any_": ["approve"]}}}
            found = httpx.post(f"{self.api}/flow_runs/filter", json=body).json()
            asked = [r for r in found if r["parameters"]["options"]["decision"] == decision.id]
            assert len(asked) <= 1
            run = asked[0] if asked else {}
            if run.get("state_name") in states:
                return run
            time.sleep(0.3)
        raise AssertionError(f"the run is {run.get('state_name')}, not one of {states}")


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory, served_once: Path) -> Iterator[Waiting]:
    home = new_home(tmp_path_factory.mktemp("approval"), served_once)
    try:
        home.servers.start(prefect_port=4300, mlflow_port=5300, environ=home.environ)
        yield filled(home, child_environment(home.settings, home.environ))
    finally:
        home.servers.stop()


def filled(
    home: PrefectHome, environ: dict[str, str], made_as: type[Waiting] | None = None
) -> Waiting:
    """Fill a home with a champion, frozen sets and the champion's answers."""
    settings = home.settings
    tracker = Tracker(
        settings.tracking_uri, artifacts=settings.artifacts, model_name=settings.model_name
    )
    base = tracker.register_base("tiny", "digest-base")
    tracker.move_champion(base.reference, None)
    examples = made_up("where does {} go", EXAMPLES, "queue {}")
    home.store.append(ExampleSet.freeze("held-out", examples, AT))
    frozen = ExampleSet.freeze("regression", made_up("my card {} is lost", 40, "cards"), AT)
    home.store.append(frozen)
    regression = RegressionSet(
        id="cluster-7", created_at=AT, name="cards", example_set_id=frozen.id, users=()
    )
    home.store.append(regression)
    made = (made_as or Waiting)(home, environ, tracker, examples, regression)
    made.record(base.digest, 30)
    return made


def test_the_gate_asks_and_its_process_ends_with_nothing_moved(waiting: Waiting) -> None:
    waiting.propose(1, 90)
    decision = waiting.deploy()
    assert decision.verdict == "promote"
    assert decision.approval is not None
    champion = waiting.tracker.champion()
    assert champion is not None
    assert champion.reference == decision.champion
    assert waiting.home.store.get(CycleEnd, "cycle-1") is not None
    run = waiting.run_of(decision, "Suspended")
    assert _ended(int(run["infrastructure_pid"].rpartition(":")[2]))
    status = json.loads(waiting.ratchet("status", "--json").stdout)
    assert status["waiting"] == [decision.id]
    assert waiting.deploy() == decision  # asked again: the same decision, the same run
    waiting.run_of(decision, "Suspended")


def test_the_form_shows_the_evidence_and_refuses_half_an_answer(waiting: Waiting) -> None:
    decision = waiting.home.store.records(Decision)[-1]
    run = waiting.run_of(decision, "Suspended")
    keys = run["state"]["state_details"]["run_input_keyset"]
    shown = httpx.get(f"{waiting.api}/flow_runs/{run['id']}/input/{keys['description']}").text
    assert "Promote" in shown
    assert "exact_match in cards" in shown.replace("&#95;", "_")
    half = {"run_input": {"verdict": "approve"}}
    answer = httpx.post(f"{waiting.api}/flow_runs/{run['id']}/resume", json=half).json()
    assert answer["status"] == "REJECT"
    waiting.run_of(decision, "Suspended")


def test_approved_in_the_prefect_ui_the_challenger_is_promoted(waiting: Waiting) -> None:
    decision = waiting.home.store.records(Decision)[-1]
    run = waiting.run_of(decision, "Suspended")
    word = {"verdict": "approve", "reason": "read 20 losses", "by": "ann"}
    answer = httpx.post(f"{waiting.api}/flow_runs/{run['id']}/resume", json={"run_input": word})
    assert answer.json()["status"] == "ACCEPT"
    waiting.run_of(decision, "Completed")
    said = waiting.home.store.get(Approval, decision.id)
    assert said is not None
    assert (said.approved, said.by, said.reason, said.via) == (
        True, "ann", "read 20 losses", "prefect",
    )  # fmt: skip
    champion, previous = waiting.tracker.champion(), waiting.tracker.previous()
    assert champion is not None
    assert previous is not None
    assert (champion.reference, previous.reference) == (decision.challenger, decision.champion)
    release = waiting.home.store.latest(Release)
    assert release is not None
    assert release.decision_id == decision.id


def test_rejected_on_the_command_line_the_run_ends_and_nothing_moves(waiting: Waiting) -> None:
    waiting.propose(2, 115)
    decision = waiting.deploy()
    waiting.run_of(decision, "Suspended")
    assert waiting.ratchet("approve", decision.id[:8]).returncode == 2
    nothing = waiting.ratchet("approve", decision.id[:8], "--reject", "--by", "bob")
    assert (nothing.returncode, "who and why" in nothing.stderr) == (2, True)
    word = ("--reject", "--by", "bob", "--reason", "too terse")
    done = waiting.ratchet("approve", decision.id[:8], *word)
    assert done.returncode == 0, done.stderr
    assert "goes on" in done.stdout
    waiting.run_of(decision, "Completed")
    said = waiting.home.store.get(Approval, decision.id)
    assert said is not None
    assert (said.approved, said.by, said.via) == (False, "bob", "command")
    champion = waiting.tracker.champion()
    assert champion is not None
    assert champion.reference == decision.champion
    word = ("--approve", "--by", "bob", "--reason", "after all")
    again = waiting.ratchet("approve", decision.id[:8], *word)
    assert (again.returncode, "approved or rejected once" in again.stderr) == (2, True)


def test_nobody_in_time_is_a_rejection(waiting: Waiting) -> None:
    waiting.propose(3, 118)
    decision = waiting.deploy(approval_hours=0.001)
    assert decision.verdict == "promote"
    time.sleep(4.0)
    late = waiting.ratchet("approve", decision.id[:8], "--approve", "--by", "eve", "--reason", "ok")
    assert (late.returncode, "nobody approved it" in late.stderr) == (2, True)
    said = waiting.home.store.get(Approval, decision.id)
    assert said is not None
    assert (said.approved, said.via) == (False, "expiry")
    champion = waiting.tracker.champion()
    assert champion is not None
    assert champion.reference == decision.champion


def test_mlflow_has_the_evidence_and_each_side_points_to_the_other(waiting: Waiting) -> None:
    client = MlflowClient(waiting.home.settings.tracking_uri)
    experiment = client.get_experiment_by_name("ratchet")
    decision = next(d for d in waiting.home.store.records(Decision) if d.cycle_id == "cycle-1")
    (run,) = client.search_runs(
        [experiment.experiment_id], f"tags.`ratchet.decision` = '{decision.id}'"
    )
    names = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert {"decision.md", "decision.json", "policy.json", "answers.json", "clusters.json"} <= names
    drawn = {item.path for item in client.list_artifacts(run.info.run_id, "plots")}
    assert drawn == {
        f"plots/{name}.png"
        for name in ("gate", "gate-metrics", "gate-differences", "gate-clusters")
    }
    table = json.loads(Path(client.download_artifacts(run.info.run_id, "answers.json")).read_text())
    assert len(table["data"]) == EXAMPLES + 40
    assert {"champion exact_match", "challenger length", "challenger token_f1"} <= set(
        table["columns"]
    )
    assert "/runs/flow-run/" in run.data.tags["prefect.flow_run_url"]
    latest = httpx.post(f"{waiting.api}/artifacts/filter", json={}).json()
    said = [item["data"] for item in latest if item["key"] == "decision"]
    assert any(f"/runs/{run.info.run_id}" in text for text in said)
    version = client.get_model_version("support-router", decision.challenger.rpartition("/")[2])
    assert version.tags["ratchet.approval"] == "approved"
    assert version.tags["ratchet.gate_run"] == run.info.run_id
    if "RATCHET_KEEP_PLOTS" in os.environ:
        folder = Path(client.download_artifacts(run.info.run_id, "plots"))
        shutil.copytree(folder, os.environ["RATCHET_KEEP_PLOTS"], dirs_exist_ok=True)


def test_a_safety_critical_set_asks_and_without_a_deployment_the_command_is_the_way(
    tmp_path: Path, served_once: Path
) -> None:
    home = new_home(tmp_path, served_once)
    file = tmp_path / "safety.jsonl"
    rows = [{"id": one.id, "prompt": one.prompt, "target": one.target} for one in SAFETY]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    rule = {"metric": "exact_match", "examples": "safety", "margin": 0.2, "safety_critical": True}
    with home.serving() as environ:
        alone = filled(home, environ)
        alone.propose(1, 90)
        decision = alone.deploy({"safety": str(file)}, approval="never", guardrails=[rule])
        assert decision.approval == "safety-critical: exact_match"
        assert [(one.name, one.examples) for one in decision.measured[1:2]] == [
            ("exact_match on safety", 40)
        ]
        assert len(decision.example_set_ids) == 3
        listed = alone.ratchet("approve")
        assert decision.id[:8] in listed.stdout
        word = ("--approve", "--by", "ann", "--reason", "fine")
        done = alone.ratchet("approve", decision.id[:8], *word)
    assert done.returncode == 0, done.stderr
    assert f"champion is now {decision.challenger}" in done.stdout


def _ended(process: int) -> bool:
    """Wait for a process to end."""
    for _ in range(150):
        if not Path(f"/proc/{process}").exists():
            return True
        time.sleep(0.1)
    return False
