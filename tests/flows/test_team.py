"""A team that serves an assistant by vLLM puts Ratchet in front of it and goes once round the loop.

The servers are two replicas that load adapters, forget them at a restart and answer 404 for a name
they do not have. Each test is a step and stands on those before it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ratchet.deploy.routing import running_rollout
from ratchet.models.serving import AdapterModel
from ratchet.records import (
    Analysis,
    Candidate,
    Decision,
    ExampleSet,
    JudgeValidation,
    Release,
    RolloutLook,
)
from tests.flows.desk_model import write_desk_model
from tests.flows.team import (
    BASE,
    PIXEL,
    TOOL,
    ScriptedServer,
    Team,
    good_answer,
    judge_right_in,
    orders,
    question,
    until,
)
from tests.servers.judge_endpoint import JudgeEndpoint
from tests.servers.model_server import ModelServer
from tests.servers.vllm_server import VllmServer

USERS, OLD, LAG = 300, 120, 10
SPOKEN = 20
"""After so many answers users say what they think of them: later than LAG it would not count."""
LOOP = {
    "analyze": {"judges": {}},
    "improve": {
        "finetune": {"epochs": 2.0, "rank": 8, "learning_rate": 0.005},
        "curation": {"maximum_examples": 200},
    },
    "deploy": {
        "win_rate": {"labels": 100, "minimum_labels": 60, "bar": {"kappa": 0.4, "agreement": 0.7}},
        "rollout": {
            "stages": [
                {"share": 0.3, "hours": 0.0001, "slack": 8.0, "imbalance": 4.0},
                {"share": 0.5, "hours": 0.0001, "slack": 6.0, "imbalance": 2.0},
            ],
            "lag_seconds": LAG, "settle_seconds": 0, "minimum_users": 20,
            "signals": [
                {"name": "thumbs_down", "margin": 0.02, "primary": True},
                {"name": "failed", "margin": 0.005},
            ],
        },
    },
}  # fmt: skip
"""A small training, a judge whose bar 100 labels can show, stages that pass in seconds.

How long answers take is not watched: an adapter beside its base is slower on a processor that other
tests share."""
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
REFUSING = {f"user-{number}" for number in range(0, USERS, 20)}


@contextmanager
def scripted(weights: Path) -> Iterator[Sequence[VllmServer]]:
    """Answers of a script; the training is real and of no consequence."""
    with ScriptedServer(BASE) as one, ScriptedServer(BASE) as other:
        yield one, other


@contextmanager
def answered_by_a_model(weights: Path) -> Iterator[Sequence[VllmServer]]:
    """Answers of these weights, and of what is trained from them."""
    model = AdapterModel.load(weights)
    with ModelServer(BASE, model) as one, ModelServer(BASE, model) as other:
        yield one, other
    model.close()


@pytest.fixture(scope="module", params=["scripted servers", "a real model"])
def team(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    served_once: Path,
    tiny_model: Path,
) -> Iterator[Team]:
    folder, weights, serving = tmp_path_factory.mktemp("team"), tiny_model, scripted
    if request.param == "a real model":
        weights, serving = folder / "weights", answered_by_a_model
        write_desk_model(weights, tiny_model)
    with (
        serving(weights) as servers,
        JudgeEndpoint(judge_right_in(0.85)) as judge,
        Team(folder, served_once, servers, judge, weights) as made,
    ):
        yield made


def test_what_is_served_is_adopted_under_its_own_name(team: Team) -> None:
    addresses = [word for server in team.servers for word in ("--backend", server.url)]
    said = team.ratchet("adopt", *addresses, "--dry-run")
    assert BASE in said
    assert not (team.settings.home / "home.json").exists()
    team.ratchet("adopt", *addresses)
    release = team.store.latest(Release)
    assert release is not None
    assert release.champion == BASE
    assert team.settings.backend == tuple(server.url for server in team.servers)


def test_users_are_answered_and_what_their_clients_say_is_kept(team: Team) -> None:
    team.serve("--workers", "2", "--load-adapters", "--rate", "0")
    client, said = team.client(), []
    for number in range(2 * USERS):
        user, text = f"user-{number % USERS}", question(number)
        metadata = {"segment": "shop" if number % 3 else "app"}
        if user in REFUSING:
            metadata["training_consent"] = "no"
        reply = team.ask(
            client, user, text, stream=number % 2 == 1, metadata=metadata, temperature=0.7
        )
        assert reply.status == 200
        said += team.react(reply, text)
        if number % SPOKEN == SPOKEN - 1:
            team.feedback(*said)
            said.clear()
    for content in (
        [
            {"type": "text", "text": "What is this?"},
            {"type": "image_url", "image_url": {"url": PIXEL}},
        ],
        "Where is my order?",
    ):
        assert team.ask(client, "user-1", content, tools=[TOOL]).status == 200
    stored = team.interactions()
    assert len(stored) == 2 * USERS + 2
    assert {row.model_version for row in stored} == {BASE}
    assert {row.segment for row in stored if row.user_id == "user-4"} <= {"shop", "app"}
    assert {row.metadata.get("training_consent") for row in stored if row.user_id in REFUSING} == {
        "no"
    }


def test_an_old_log_comes_in_once_though_it_overlaps_another_export(team: Team) -> None:
    now = datetime.now(UTC) - timedelta(days=40)
    for name, first in (("old", 0), ("again", OLD // 2)):
        rows = []
        for number in range(first, first + OLD):
            at = now + timedelta(minutes=number, microseconds=number)
            text, key = question(10_000 + number), f"{name}-{number}"
            rows += [
                {
                    "id": key, "session_id": f"s{number}",
                    "user_id": f"old-{number % 40}", "created_at": at.isoformat(),
                    "model_version": BASE, "messages": [{"role": "user", "content": text}],
                    "response": good_answer(text), "latency_seconds": 0.4,
                },
                {
                    "id": f"{key}-t", "interaction_id": key, "kind": "thumbs",
                    "value": "up", "created_at": (at + timedelta(minutes=1)).isoformat(),
                },
            ]  # fmt: skip
        path = team.folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        team.ratchet("ingest", path)
    old = [row for row in team.interactions() if (row.user_id or "").startswith("old-")]
    assert len(old) == OLD + OLD // 2


def test_the_first_loop_trains_and_waits_for_people_who_compare_answers(team: Team) -> None:
    said = team.run(f"cycle({LOOP!r})")
    assert "waiting: win_rate needs" in said, said[-6000:]
    candidate = team.store.latest(Candidate)
    assert candidate is not None
    calls = [call for server in team.servers for call in server.calls]
    assert {kind for kind, _ in calls} == {"load", "unload"}
    assert {name for _, name in calls} == {f"gate-{candidate.model_name}/{candidate.version}"}
    rows = team.trained()
    assert len(rows) >= 16
    assert not {row for row in rows if team.user_of(row) in REFUSING}
    assert "waits for" in team.ratchet("status")


def test_people_label_a_sheet_and_the_loop_goes_on_to_a_rollout(team: Team) -> None:
    sheet = team.folder / "pairs.csv"
    team.ratchet("export", "label-sheet", "--out", sheet)
    team.compare(sheet)
    team.ratchet("review", "--sheet", sheet, "--by", "ana")
    asked = sum(len(server.bodies) for server in team.servers)
    said = team.run(f"cycle({LOOP!r})")
    decision = team.store.latest(Decision)
    assert decision is not None, said[-6000:]
    assert (decision.verdict, decision.primary_metric) == ("promote", "win_rate"), said[-6000:]
    assert team.store.records(JudgeValidation)[-1].decision == "usable"
    assert running_rollout(team.store) is not None
    probes = sum(len(server.bodies) for server in team.servers) - asked
    assert probes <= 8, "models were asked again"


def test_users_get_the_challenger_by_stages_and_then_it_is_promoted_by_the_rule(
    team: Team,
) -> None:
    client, said, decided, printed = team.client(), [], [], []
    for turn in range(8):
        for number in range(USERS):
            text = question(50_000 + turn * USERS + number)
            reply = team.ask(client, f"user-{number}", text, temperature=0.7)
            said += team.react(reply, text)
            if number % SPOKEN == SPOKEN - 1:
                team.feedback(*said)
                said.clear()
        team.interactions()
        team.await_look(LAG)
        printed.append(team.run("print('said', rollout())"))
        decided.append(printed[-1].split("said ")[-1].split()[0])
        if running_rollout(team.store) is None:
            break
    release = team.store.latest(Release)
    decision = team.store.latest(Decision)
    assert release is not None
    assert decision is not None
    assert release.champion == decision.challenger, decided
    assert release.previous == BASE
    # what was decided is told when it is, and not again at every look that follows
    looks = team.store.records(RolloutLook)
    assert [one.decision for one in looks if one.decision != "wait"] == ["advance", "promote"]
    assert "".join(printed).count("- advance: ") == 1
    assert {reply.status for reply in team.replies} == {200}


def test_a_server_that_is_killed_and_forgets_its_adapters_costs_no_user_an_answer(
    team: Team,
) -> None:
    client, before = team.client(), len(team.replies)
    one = team.servers[0]
    for number in range(120):
        if number == 20:
            one.stop()
        if number == 60:
            one.start()
        team.ask(client, f"user-{number}", question(90_000 + number), temperature=0.7)
    assert [reply.status for reply in team.replies[before:]] == [200] * 120
    release = team.store.latest(Release)
    assert release is not None
    until(lambda: release.champion in one.adapters, 20.0)
    failed = [row.error or "" for row in team.interactions() if row.error is not None]
    assert any("cannot be asked" in error for error in failed)


def test_a_rollback_brings_back_what_was_adopted(team: Team) -> None:
    client = team.client()
    team.ratchet("rollback", "--note", "a drill")
    until(lambda: team.ask(client, "user-1", question(99_000)).version == BASE, 10.0)
    assert BASE in team.ratchet("status")


def test_in_the_end_nobody_saw_an_error_nobody_who_refused_is_in_a_file_and_failures_are_stored(
    team: Team,
) -> None:
    assert {reply.status for reply in team.replies} == {200}
    team.ratchet("export", "dataset", "--out", team.folder / "export.jsonl")
    stored = team.interactions()
    theirs = {word for row in stored if row.user_id in REFUSING for word in orders(row.prompt)}
    others = {word for row in stored if row.user_id not in REFUSING for word in orders(row.prompt)}
    assert len(theirs) >= 2 * len(REFUSING)
    # consent is about training: an analysis shows what went wrong, whoever said it
    theirs -= orders(" ".join(one.model_dump_json() for one in team.store.records(Analysis)))
    assert len(theirs) >= len(REFUSING)
    said = {path: team.text_of(path) for path in team.files_beside_the_store()}
    assert not {path: found for path in said if (found := theirs & orders(said[path]))}
    assert set().union(*map(orders, said.values())) & others, "texts are found where they are"
    asked = [one.prompt for one in team.store.records(ExampleSet) for one in one.examples]
    assert asked
    assert not theirs & orders(" ".join(asked))
    failed = [row.error or "" for row in stored if row.error is not None]
    refused = [name for server in team.servers for status, name in server.answers if status != 200]
    assert len([error for error in failed if "404" in error]) == len(refused)
