"""The whole loop on recorded open-ended traffic, on a real small model: SmolLM2-135M.

A log of an assistant comes in, people label pairs, a judge of a known error is held against them,
the gate promotes by the win rate, users get the challenger by stages, and a person rolls it back.
Each test is a step and stands on those before it. About ten minutes on two cores.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ratchet.deploy.routing import running_rollout
from ratchet.models import SMOLLM2, prepare_base_model
from ratchet.models.serving import AdapterModel
from ratchet.records import (
    Candidate,
    Decision,
    JudgeValidation,
    Release,
    RolloutLook,
    TrainingSet,
)
from ratchet.settings import load_settings
from tests.flows.team import (
    BASE,
    Reply,
    Team,
    good_answer,
    is_good,
    judge_right_in,
    question,
    share_of,
    until,
)
from tests.servers.judge_endpoint import JudgeEndpoint
from tests.servers.model_server import ModelServer

LOGGED, USERS, LAG, AT_ONCE, LONGEST = 240, 160, 20, 8, 12
SAYS_AFTER = timedelta(seconds=5)
"""So long after an answer users said what they think of it: later than LAG it would not count."""
JUDGE_RIGHT = 0.85
SYSTEM = {"role": "system", "content": "Answer briefly."}
"""Shorter than what the model's template says by itself, which half of the time would go into."""
UNHELPFUL = "Please ask our desk, they will help you on."
LOOP = {
    "collect": {
        "max_new_tokens": LONGEST,
        "sample": {"examples": 104, "minimum": 100, "per_user": 1, "user_share": 0.45},
    },
    "analyze": {"judges": {}},
    "improve": {
        "finetune": {"epochs": 1.0, "batch_size": 8, "validation_share": 0.0},
        "curation": {"maximum_examples": 88},
    },
    "deploy": {
        "answers": {"temperature": 0.0},
        "win_rate": {"labels": 100, "minimum_labels": 60, "bar": {"kappa": 0.4, "agreement": 0.7}},
        "rollout": {
            "stages": [
                {"share": 0.3, "hours": 0.0001, "slack": 8.0, "imbalance": 4.0},
                {"share": 0.5, "hours": 0.0001, "slack": 6.0, "imbalance": 2.0},
            ],
            "lag_seconds": LAG, "settle_seconds": 0, "minimum_users": 20,
            "signals": [
                {"name": "thumbs_down", "margin": 0.02, "primary": True},
                {"name": "failed", "margin": 0.01},
            ],
        },
    },
}  # fmt: skip
"""Answers are as long as a helpful one, so that length tells nothing of who helps; how long they
take is not watched, since an adapter beside its base is slower on a processor that others share."""
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory, served_once: Path) -> Iterator[Team]:
    folder = tmp_path_factory.mktemp("open-ended")
    weights = prepare_base_model(SMOLLM2, load_settings({}, Path.cwd()).cache)
    model = AdapterModel.load(weights, together=AT_ONCE)
    with (
        ModelServer(BASE, model) as server,
        JudgeEndpoint(judge_right_in(JUDGE_RIGHT)) as judge,
        Team(folder, served_once, [server], judge, weights) as made,
    ):
        yield made
    model.close()


def ask_all(team: Team, first: int) -> list[Reply]:
    """Have every user ask a question of their own and say at once what they think of the answer."""
    client = team.client()

    def ask(number: int) -> Reply:
        text = question(first + number)
        turns = [SYSTEM, {"role": "user", "content": text}]
        reply = team.ask(
            client, f"user-{number}", text, messages=turns, temperature=0.0, max_tokens=LONGEST
        )
        team.feedback(*team.react(reply, text))
        return reply

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(ask, range(USERS)))


def test_a_recorded_log_comes_in_and_its_model_is_adopted(team: Team) -> None:
    begin, rows = datetime.now(UTC) - timedelta(hours=20), []
    for number in range(LOGGED):
        at, text, key = begin + timedelta(minutes=number), question(number), f"log-{number}"
        helped = share_of(text) < 0.35
        about = {"interaction_id": key, "created_at": (at + SAYS_AFTER).isoformat()}
        rows += [
            {
                "id": key, "session_id": key, "user_id": f"user-{number}",
                "created_at": at.isoformat(), "model_version": BASE, "latency_seconds": 0.4,
                "messages": [SYSTEM, {"role": "user", "content": text}],
                "response": good_answer(text) if helped else UNHELPFUL,
            },
            {"id": f"{key}-t", "kind": "thumbs", "value": "up" if helped else "down"} | about,
        ]  # fmt: skip
        if not helped:
            rows.append(
                {"id": f"{key}-c", "kind": "correction", "value": good_answer(text)} | about
            )
    path = team.folder / "log.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    team.ratchet("import", path, "--as", "ratchet")
    team.ratchet("adopt", "--backend", team.servers[0].url)
    assert len(team.interactions()) == LOGGED
    release = team.store.latest(Release)
    assert release is not None
    assert release.champion == BASE


def test_the_loop_trains_on_corrections_and_waits_for_people(team: Team) -> None:
    said = team.run(f"cycle({LOOP!r})")
    assert "waiting: win_rate needs" in said, said[-6000:]
    candidate = team.store.latest(Candidate)
    assert candidate is not None
    assert candidate.losses[-1] < candidate.losses[0] / 2
    assert dict(team.store.records(TrainingSet)[-1].funnel)["not of users held out"] > 0


def test_the_judges_known_error_is_measured_and_the_gate_promotes_by_its_win_rate(
    team: Team,
) -> None:
    sheet = team.folder / "pairs.csv"
    team.ratchet("export", "label-sheet", "--out", sheet)
    team.compare(sheet)
    team.ratchet("review", "--sheet", sheet, "--by", "ana")
    said = team.run(f"cycle({LOOP!r})")
    decision = team.store.latest(Decision)
    assert decision is not None, said[-6000:]
    assert (decision.verdict, decision.primary_metric) == ("promote", "win_rate"), said[-6000:]
    validation = team.store.records(JudgeValidation)[-1]
    assert validation.decision == "usable"
    agreement = next(one for one in validation.figures if one.name == "agreement")
    assert agreement.lower is not None
    assert agreement.upper is not None
    assert agreement.lower <= JUDGE_RIGHT <= agreement.upper  # what was planted
    assert running_rollout(team.store) is not None, said[-6000:]


def test_users_get_the_challenger_by_stages_to_the_end(team: Team) -> None:
    team.serve("--workers", "1", "--load-adapters", "--rate", "0")
    shares = []
    for turn in range(6):
        replies = ask_all(team, 50_000 + turn * USERS)
        assert {reply.status for reply in replies} == {200}
        shares.append(sum(reply.version != BASE for reply in replies) / USERS)
        by_version = {reply.version != BASE: [] for reply in replies}
        for reply in replies:
            by_version[reply.version != BASE].append(is_good(reply.text))
        if {True, False} == by_version.keys():
            better = sum(by_version[True]) / len(by_version[True])
            assert better > sum(by_version[False]) / len(by_version[False])
        team.interactions()
        team.await_look(LAG)
        team.run("print('said', rollout())")
        if running_rollout(team.store) is None:
            break
    looks = [one.decision for one in team.store.records(RolloutLook) if one.decision != "wait"]
    assert looks == ["advance", "promote"], (looks, shares)
    assert 0.15 <= shares[0] <= 0.45  # the first stage's 30 %, within four standard errors
    release, decision = team.store.latest(Release), team.store.latest(Decision)
    assert release is not None
    assert decision is not None
    assert (release.champion, release.previous) == (decision.challenger, BASE)


def test_a_rollback_brings_back_what_was_adopted(team: Team) -> None:
    client = team.client()

    def version() -> str:
        text = question(99_000)
        return team.ask(client, "user-1", text, temperature=0.0, max_tokens=LONGEST).version

    assert version() != BASE
    team.ratchet("rollback", "--note", "a drill")
    until(lambda: version() == BASE, 20.0)
    assert BASE in team.ratchet("status")
