"""A loop over open-ended traffic: no targets, no file of examples, and people who take their time.

What it lacks it waits for: first users, then labels. Nothing is done twice meanwhile.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pyarrow.parquet as pq
import pytest
import yaml

from ratchet.collect.ingest import ingest
from ratchet.records import (
    Candidate,
    Correction,
    Cycle,
    CycleEnd,
    CycleWait,
    Decision,
    ExampleSet,
    Feedback,
    Interaction,
    Message,
    TrainingSet,
    user_digest,
)
from tests.cli.in_process import run_in_process
from tests.flows.pair_sheet import compare_pairs
from tests.flows.prefect_home import PrefectHome, new_home, python_process
from tests.servers.judge_endpoint import Answer, JudgeEndpoint, Seen

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

USERS = 260
IMPORTS = """
import json
from ratchet.flows.loop import main
from ratchet.flows.deploy import DeployOptions, deploy
"""
OPTIONS = {
    "collect": {
        "max_new_tokens": 8,
        "sample": {"examples": 50, "minimum": 40, "per_user": 1},
    },
    "improve": {
        "curation": {"minimum_examples": 8, "poisoning": {"enabled": False}},
        "finetune": {"epochs": 3.0, "rank": 4, "learning_rate": 0.02},
    },
    "deploy": {"win_rate": {"labels": 30, "minimum_labels": 30}},
}


def longer(seen: Seen) -> Answer:
    """A judge who prefers the answer with more letters a."""
    text = "\n".join(turn["content"] for turn in seen.body["messages"])
    one, two = (
        text.split(f"<{name} ", 1)[1].split(">\n", 1)[1].split(f"\n</{name} ", 1)[0].count("a")
        for name in ("answer A", "answer B")
    )
    return Answer(text=f"Verdict: {'tie' if one == two else 'A' if one > two else 'B'}")


@dataclass(frozen=True)
class Team:
    """A home with a loop that can be run again and again."""

    home: PrefectHome
    run: Callable[[str], str]
    judge: JudgeEndpoint
    prefect: str

    def loop(self, **changes: object) -> str:
        return self.run(f"print('ended with', main([{json.dumps(json.dumps(OPTIONS | changes))}]))")

    def ratchet(self, *words: object) -> str:
        """Run the command; return what it printed."""
        home = self.home.settings.home
        done = run_in_process(*words, folder=home, environment={"RATCHET_HOME": str(home)})
        assert done.returncode == 0, done.stderr
        return done.stdout

    def states(self, flow: str) -> list[tuple[str, str]]:
        """Types and names of the states in which runs of a flow ended, in order."""
        found = httpx.post(
            f"{self.prefect}/flow_runs/filter",
            json={"sort": "START_TIME_ASC", "flows": {"name": {"any_": [flow]}}},
        ).json()
        return [(one["state"]["type"], one["state"]["name"]) for one in found]


def users(home: PrefectHome, first: int, count: int) -> None:
    """Let users write in: each asks one question, and half of them say what was right."""
    now = datetime.now(UTC)
    events: list[Interaction | Feedback] = []
    for number in range(first, first + count):
        at, key = now - timedelta(hours=20) + timedelta(minutes=number), f"chat-{number}"
        events.append(
            Interaction(
                id=key, session_id=key, user_id=f"u{number}", created_at=at,
                model_version="support-router/1", response="I cannot say.", latency_seconds=0.1,
                messages=(Message(role="user", content=f"Why is order {number} {'late' * 3}?"),),
                metadata={"training_consent": "no"} if number % 10 == 0 else {},
            )
        )  # fmt: skip
        events.append(
            Correction(
                id=f"c{number}", value=f"a parcel a day {number}", interaction_id=key,
                created_at=at + timedelta(minutes=1),
            )
        )  # fmt: skip
    ingest(events, home.store, source="gateway", now=now)


@pytest.fixture(scope="module")
def team(
    tmp_path_factory: pytest.TempPathFactory, served_once: Path, tiny_model: Path
) -> Iterator[Team]:
    folder = tmp_path_factory.mktemp("open-ended")
    with JudgeEndpoint(longer) as judge:
        spec = {
            "name": "careful", "mode": "pairwise", "endpoint": {"url": judge.url, "model": "m"},
        }  # fmt: skip
        (folder / "judges.yaml").write_text(yaml.safe_dump({"judges": [spec]}))
        home = new_home(
            folder, served_once,
            RATCHET_BASE_MODEL=str(tiny_model), RATCHET_JUDGES=str(folder / "judges.yaml"),
        )  # fmt: skip
        (home.settings.home / "gateway").mkdir()
        with home.serving() as environment, python_process(environment, IMPORTS) as run:
            yield Team(home, run, judge, environment["PREFECT_API_URL"])


def test_it_waits_for_users_then_for_labels_and_does_nothing_twice(team: Team) -> None:
    store = team.home.store
    users(team.home, 0, 30)
    few = team.loop()
    assert "drawn from traffic they need 200 answers at least, got 30" in few  # 40 of a fifth
    assert "ended with 0" in few
    assert team.states("loop") == [("COMPLETED", "WaitingForSetup")]
    assert store.records(Cycle) == store.records(ExampleSet) == ()

    users(team.home, 30, USERS - 30)
    said = team.loop()
    assert "waiting: win_rate needs 30 pairs that people compared, got 0" in said
    assert team.states("loop")[1:] == [("COMPLETED", "WaitingForLabels")]
    assert team.states("deploy") == [("COMPLETED", "WaitingForLabels")]
    (cycle,) = store.records(Cycle)
    assert store.get(CycleEnd, cycle.id) is None
    (frozen,) = (one for one in store.records(ExampleSet) if one.name == "sampled-1")
    assert cycle.example_set_id == frozen.id
    assert all(example.target is None for example in frozen.examples)
    _check_that_users_whom_the_gate_asks_are_in_no_training_set(team, frozen)
    status = team.ratchet("status")
    assert "(waits for 30 labels)" in status
    assert f"examples      {frozen.id} ({len(frozen.examples)})" in status

    made = len(store.records(Candidate)), len(store.records(TrainingSet))
    again = team.loop()
    assert "waiting: win_rate needs 30 pairs" in again
    assert "answered" not in again.replace("answered before", "")
    assert made == (len(store.records(Candidate)), len(store.records(TrainingSet))) == (1, 1)
    assert len(store.records(CycleWait)) == 1
    assert team.states("improve") == [("COMPLETED", "Completed")]
    assert team.judge.seen == []

    _label(team)
    assert "(has its labels)" in team.ratchet("status")
    decided = team.loop()
    assert "ended with 0" in decided
    (decision,) = store.records(Decision)
    assert decision.primary_metric == "win_rate"
    assert decision.policy["guardrails"][0]["metric"] == "empty_rate"  # the policy that ships
    assert decision.verdict != "promote"  # the policy asks for 100 examples
    assert store.get(CycleEnd, cycle.id) is not None
    assert len(team.states("improve")) == 1
    assert team.states("loop")[-1] == ("COMPLETED", "Completed")


def _check_that_users_whom_the_gate_asks_are_in_no_training_set(
    team: Team, frozen: ExampleSet
) -> None:
    held = {example.user_id for example in frozen.examples}
    assert len(held) == len(frozen.examples) >= 40
    refused = {user_digest(f"u{number}") for number in range(0, USERS, 10)}
    assert not held & refused
    (training,) = team.home.store.records(TrainingSet)
    folder = team.home.settings.home / training.path
    ids = [
        key
        for path in folder.glob("*.parquet")
        for key in pq.read_table(path)["interaction_id"].to_pylist()
    ]
    learnt = {user_digest(f"u{key.removeprefix('chat-')}") for key in ids}
    assert learnt
    assert not learnt & (held | refused)
    assert (
        dict(training.funnel)["not of users held out"]
        < dict(training.funnel)["not refused by their user"]
    )


def _label(team: Team) -> None:
    sheet = team.home.settings.home / "sheet.csv"
    team.ratchet("export", "label-sheet", "--out", sheet)
    compare_pairs(sheet, lambda text: text.count("a"))
    team.ratchet("review", "--sheet", sheet, "--by", "ana")
