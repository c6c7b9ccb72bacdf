"""The flow deploy under a policy on a win rate: it asks people, waits for them, then decides."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient

from ratchet.evaluation.paired import decoding_name, question_digest
from ratchet.records import LABEL_TOKENS, Decision, ExampleSet, JudgeValidation
from ratchet.store.waits import latest_wait
from tests.cli.in_process import run_in_process
from tests.flows.pair_sheet import compare_pairs
from tests.flows.prefect_home import ROOT, new_home, run_python
from tests.flows.test_approval_flow import DEPLOY, Waiting, filled
from tests.servers.judge_endpoint import Answer, JudgeEndpoint, Seen

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

POLICY = {"primary": {"metric": "win_rate"}, "judges": ["careful"], "minimum_examples": 100}


def is_right(text: str) -> bool:
    return text.startswith("queue")


def careful(seen: Seen) -> Answer:
    """Names whoever is right, whichever place it stands at."""
    text = "\n".join(turn["content"] for turn in seen.body["messages"])
    one, two = (
        is_right(text.split(f"<{name} ", 1)[1].split(">\n", 1)[1])
        for name in ("answer A", "answer B")
    )
    return Answer(text=f"Verdict: {'tie' if one == two else 'A' if one else 'B'}")


class Mixed(Waiting):
    """Each model is right on every so many examples, not on the first ones."""

    def record(self, digest: str, right: int) -> None:
        given = {
            question_digest(example): example.target
            if (place * 7) % len(self.examples) < right
            else f"notes {len(digest) % 8}"  # as long as the right ones
            for place, example in enumerate(self.examples)
        }
        frozen = self.home.store.get(ExampleSet, self.regression.example_set_id)
        assert frozen is not None
        given |= {question_digest(example): "cards" for example in frozen.examples}
        self.home.store.add_answers(digest, decoding_name(LABEL_TOKENS), given, {})


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory, served_once: Path) -> Iterator[Waiting]:
    folder = tmp_path_factory.mktemp("win-rate")
    with JudgeEndpoint(careful) as server:
        judge = {
            "name": "careful", "mode": "pairwise",
            "endpoint": {"url": server.url, "model": "careful"},
        }  # fmt: skip
        (folder / "judges.yaml").write_text(yaml.safe_dump({"judges": [judge]}))
        home = new_home(folder, served_once, RATCHET_JUDGES=str(folder / "judges.yaml"))
        with home.serving() as environment:
            yield filled(home, environment, Mixed)


def deploy(waiting: Waiting, **options: Any) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", DEPLOY, json.dumps({"policy": POLICY} | options)],
        cwd=ROOT, env=waiting.environ, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_people_are_asked_and_what_they_say_decides(judged: Waiting, tmp_path: Path) -> None:
    judged.propose(1, 90)
    code, said = deploy(judged)
    assert code == 0  # waiting is no failure
    assert re.search(r"waiting: win_rate needs \d+ pairs that people compared, got 0", said)
    wait = latest_wait(judged.home.store)
    assert wait is not None
    assert wait.message in said
    assert judged.home.store.records(Decision) == ()
    sheet = tmp_path / "sheet.csv"
    elsewhere = {
        "RATCHET_HOME": str(tmp_path / "laptop"),
        "RATCHET_STORE_URL": judged.home.settings.store_url,
        "RATCHET_MODEL_NAME": judged.home.settings.model_name,
    }

    def ratchet(*words: object) -> None:
        done = run_in_process(*words, folder=tmp_path, environment=elsewhere)
        assert done.returncode == 0, done.stderr

    ratchet("export", "label-sheet", "--out", sheet)
    compare_pairs(sheet, is_right)
    ratchet("review", "--sheet", sheet, "--by", "ana")
    printed = run_python(judged.environ, "-c", DEPLOY, json.dumps({"policy": POLICY}))
    assert "careful: usable" in printed
    (decision,) = judged.home.store.records(Decision)
    assert (decision.verdict, decision.primary_metric) == ("promote", "win_rate"), printed
    assert decision.champion_value == 0.5
    assert decision.interval is not None
    assert decision.interval[0] > 0.0
    (validation,) = judged.home.store.records(JudgeValidation)
    assert (validation.judge, validation.decision) == ("careful", "usable")
    client = MlflowClient(judged.home.settings.tracking_uri)
    experiment = client.get_experiment_by_name("ratchet")
    assert experiment is not None
    (run,) = (
        found
        for found in client.search_runs([experiment.experiment_id])
        if found.data.tags.get("ratchet.decision") == decision.id
    )
    path = client.download_artifacts(run.info.run_id, "win-rate.json", str(tmp_path))
    assert json.loads(Path(path).read_text("utf-8"))["decision"] == "usable"
