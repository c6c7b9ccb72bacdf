"""What a cycle of recorded traffic waits for: said at once, and each way out ends one wait."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from ratchet.analyze.failures.traffic_sample import SampleRules
from ratchet.errors import InsufficientDataError, InvalidInputError, ModelError
from ratchet.operate.base_model import (
    check_answers_here,
    check_stated,
    check_weights,
    refuse_as_champion,
)
from ratchet.operate.readiness import NextCycle, lacks, refuse_incomplete, warns
from ratchet.records import Adoption, Candidate, Cycle, Interaction, Message, Release
from ratchet.settings import load_settings
from ratchet.store.cycles import cycle_window, open_cycle
from tests.servers.vllm_server import VllmServer

BASE = "org/base"
POLICY = "primary: {metric: win_rate, higher_is_better: true}\n"
JUDGES = """
judges:
  - name: pairs
    mode: pairwise
    dimension: helpfulness
    endpoint: {url: "http://127.0.0.1:9", model: judge}
"""
LATER = timedelta(minutes=1)


@pytest.fixture
def server():
    with VllmServer(BASE) as started:
        yield started


@pytest.fixture
def environ(tmp_path, server):
    return {"RATCHET_HOME": str(tmp_path / "home"), "RATCHET_BACKEND": server.url}


def adopt(store, now, *, also=(), parent=None):
    store.append(Adoption(id=f"a{also}", created_at=now, version=BASE, also=also, parent=parent))
    if not store.records(Release):
        store.append(
            Release(id="r", created_at=now, action="adopt", champion=BASE, previous=None)
        )  # fmt: skip


def answered(store, version, now, count=3, user="u"):
    store.add_interactions(
        [
            Interaction(
                id=f"{version}-{number}", session_id="s", user_id=user.format(number),
                model_version=version,
                created_at=now - (number + 1) * LATER, response="x", latency_seconds=0.1,
                messages=(Message(role="user", content="hello"),),
            )
            for number in range(count)
        ]
    )  # fmt: skip


def weights(folder):
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"")
    return folder


def said(store, environ, folder, now, wanted=None):
    settings = load_settings(environ, folder)
    return lacks(settings, store, wanted or NextCycle(), environ=environ, now=now)


def test_all_that_is_missing_is_said_at_once_and_nothing_once_all_is_there(
    store, environ, server, tmp_path, now
):
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    server.base = "org/other"
    adopt(store, now)
    lines = said(store, environ, tmp_path, now, NextCycle(policy=policy))
    assert [line.partition(":")[0] for line in lines] == [
        "answers that no cycle had",
        "examples that both models answer at the gate",
        "a judge of pairs, since the policy is on win_rate",
        "the champion at the backend",
        "a base model to train from",
    ]
    with pytest.raises(InsufficientDataError) as raised:
        refuse_incomplete(lines)
    assert all(f"\n- {line}" in str(raised.value) for line in lines)

    server.base = BASE
    answered(store, BASE, now)
    examples, judges = tmp_path / "examples.jsonl", tmp_path / "judges.yaml"
    examples.write_text(json.dumps({"id": "1", "prompt": "x", "target": "y"}))
    judges.write_text(JUDGES)
    environ |= {
        "RATCHET_JUDGES": str(judges),
        "RATCHET_BASE_MODEL": str(weights(tmp_path / "weights")),
    }
    assert said(store, environ, tmp_path, now, NextCycle(examples=examples, policy=policy)) == []
    refuse_incomplete([])


def test_a_home_without_a_champion_is_told_to_adopt(store, environ, tmp_path, now):
    lines = said(store, environ, tmp_path, now)
    assert lines[0].startswith("a champion: got none in front of ")
    assert "`ratchet adopt --backend URL`" in lines[0]


@pytest.mark.parametrize("version", ["smollm2", "support-router/1"])
def test_a_home_whose_own_model_answers_lacks_no_champion_as_its_base_model_becomes_it(
    store, tmp_path, now, version
):
    environ = {"RATCHET_HOME": str(tmp_path / "home")}
    answered(store, version, now)
    assert not [one for one in said(store, environ, tmp_path, now) if "a champion:" in one]
    answered(store, "gpt-4o", now)
    (line,) = [one for one in said(store, environ, tmp_path, now) if "a champion:" in one]
    assert "got none in a home with answers of gpt-4o; make what answers your users" in line


@pytest.mark.parametrize("target", [None, "y"])
def test_open_questions_need_a_judge_whether_they_are_drawn_or_in_a_file(
    store, environ, tmp_path, now, target
):
    drawn = said(store, environ, tmp_path, now)
    assert [one for one in drawn if one.startswith("a judge of pairs")]
    file = tmp_path / "examples.jsonl"
    file.write_text(json.dumps({"id": "1", "prompt": "x", "target": target}))
    found = said(store, environ, tmp_path, now, NextCycle(examples=file))
    assert bool([one for one in found if "judge of pairs" in one]) == (target is None)


def test_examples_are_drawn_as_soon_as_there_can_be_enough_of_real_users(
    store, environ, tmp_path, now
):
    few = SampleRules(examples=30, minimum=30, user_share=0.5)

    def examples():
        lines = said(store, environ, tmp_path, now, NextCycle(sample=few))
        return [line for line in lines if line.startswith("examples")]

    with store.simulating():
        answered(store, "simulated", now, count=60)
    answered(store, BASE, now, count=59)
    (line,) = examples()
    assert "they need 60 answers at least, got 59" in line
    answered(store, BASE, now, count=60)
    assert examples() == []


@pytest.mark.parametrize(
    ("rules", "enough"),
    # 0.95^59 is below 5 %, 0.95^58 is not; a fifth, and a half, of these users ask
    [(SampleRules(minimum=30), 295), (SampleRules(minimum=30, user_share=0.5), 118)],
)
def test_too_few_users_for_the_guardrails_of_open_answers_are_said_before_anything_is_trained(
    store, now, rules, enough
):
    answered(store, BASE, now, count=enough - 1, user="u{}")
    (line,) = warns(store, NextCycle(sample=rules))
    assert "needs 59 of them" in line
    assert f"{enough} users in all, got {enough - 1}" in line
    answered(store, BASE, now, count=enough, user="u{}")
    assert warns(store, NextCycle(sample=rules)) == []


def test_where_examples_come_from_a_file_or_no_margin_is_to_be_shown_no_users_are_wanted(
    store, tmp_path, now
):
    few = SampleRules(minimum=30, user_share=0.5)
    answered(store, BASE, now, count=60)
    assert warns(store, NextCycle(sample=few)), "there is one user"
    assert warns(store, NextCycle(tmp_path / "examples.jsonl", few)) == []
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    assert warns(store, NextCycle(sample=few, policy=policy)) == []


def test_files_that_are_not_there_are_named(store, environ, tmp_path, now):
    environ["RATCHET_BASE_MODEL"] = str(tmp_path / "nowhere")
    wanted = NextCycle(examples=tmp_path / "gone.jsonl", policy=tmp_path / "gone.yaml")
    lines = "\n".join(said(store, environ, tmp_path, now, wanted))
    assert "there is no file 'gone.jsonl'" in lines
    assert "a policy: " in lines
    assert "a base model to train from: weights must be safetensors" in lines


def test_a_backend_that_is_down_is_said_and_does_not_hide_the_rest(
    store, environ, server, tmp_path, now
):
    adopt(store, now)
    server.stop()
    lines = said(store, environ, tmp_path, now)
    assert any(line.startswith(f"the backend: {server.url} cannot be asked") for line in lines)
    assert len(lines) == 5
    server.start()


def test_a_backend_that_loads_no_adapters_is_said_where_the_gate_asks_it(
    store, environ, tmp_path, now
):
    adopt(store, now)
    with VllmServer(BASE, updating=False) as fixed:
        environ["RATCHET_BACKEND"] = fixed.url
        (line,) = [one for one in said(store, environ, tmp_path, now) if "adapters" in one]
        assert f"{fixed.url} does not load any while it runs" in line
        assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True" in line
        elsewhere = NextCycle(by="process")
        assert "adapters" not in "".join(said(store, environ, tmp_path, now, elsewhere))


def test_a_backend_elsewhere_needs_a_folder_of_adapters_that_both_see(
    store, environ, tmp_path, now
):
    # other names for this machine, as a container's: whose disk it reads is not known
    adopt(store, now)
    address = environ["RATCHET_BACKEND"]
    for name in ("127.0.0.1", "localhost"):
        environ["RATCHET_BACKEND"] = address.replace("127.0.0.1", name)
        assert "a folder of adapters" not in "".join(said(store, environ, tmp_path, now))
    environ["RATCHET_BACKEND"] = address.replace("127.0.0.1", "0.0.0.0")
    (line,) = [one for one in said(store, environ, tmp_path, now) if "a folder of adapters" in one]
    assert "set RATCHET_ADAPTER_ROOT to the folder that both share" in line
    assert str(tmp_path / "home" / "adapters") in line
    environ["RATCHET_ADAPTER_ROOT"] = str(tmp_path)
    assert "a folder of adapters" not in "".join(said(store, environ, tmp_path, now))
    del environ["RATCHET_ADAPTER_ROOT"]
    for record in (
        Candidate(
            id="c", cycle_id="c", created_at=now, model_name="org/base", version="2",
            adapter_digest="d", path="adapters/x", training_set_id="t", run_id="r", losses=(1.0,),
            training_seconds=1.0,
        ),
        Release(
            id="p", created_at=now, action="promote", champion="org/base/2", previous=BASE
        ),
    ):  # fmt: skip
        store.append(record)
    assert "a folder of adapters" not in "".join(said(store, environ, tmp_path, now))


def test_a_key_is_sent_and_never_shown(store, environ, server, tmp_path, now):
    server.stop()
    environ["RATCHET_BACKEND_KEY"] = "open-sesame"
    assert "open-sesame" not in "".join(said(store, environ, tmp_path, now))
    server.start()


def test_an_adopted_model_without_an_address_is_said(store, environ, tmp_path, now):
    adopt(store, now)
    del environ["RATCHET_BACKEND"]
    assert any("set RATCHET_BACKEND" in line for line in said(store, environ, tmp_path, now))


# Traffic of other names ---------------------------------------------------------------------------


def test_traffic_under_another_name_alone_is_said_with_the_command_that_gives_it_to_the_champion(
    store, environ, tmp_path, now
):
    adopt(store, now)
    answered(store, "gpt-4o", now, 5)
    (line,) = [one for one in said(store, environ, tmp_path, now) if one.startswith("answers")]
    assert "got none of org/base and 5 of gpt-4o" in line
    assert "`ratchet adopt --also gpt-4o`" in line
    adopt(store, now, also=("gpt-4o",))
    assert not [one for one in said(store, environ, tmp_path, now) if one.startswith("answers")]


def test_a_cycle_of_the_champion_has_what_was_recorded_under_its_other_names(store, now):
    answered(store, BASE, now, 2)
    answered(store, "gpt-4o", now, 5)
    answered(store, "unrelated", now, 7)
    cycle = open_cycle(
        store, champion=BASE, options_digest="d", seed=0, example_set_id="e", now=now,
        also=("gpt-4o",),
    )  # fmt: skip
    assert store.get(Cycle, cycle.id) == cycle
    assert store.interactions(cycle_window(cycle)).num_rows == 14
    assert store.interactions(cycle_window(cycle, BASE)).num_rows == 7
    assert store.interactions(cycle_window(cycle, "unrelated")).num_rows == 7


# The base model -----------------------------------------------------------------------------------


def test_no_base_model_becomes_the_champion_in_front_of_a_server(store, environ, tmp_path, now):
    environ["RATCHET_BASE_MODEL"] = "smollm2"
    with pytest.raises(InvalidInputError, match="ratchet adopt --backend URL"):
        refuse_as_champion(load_settings(environ, tmp_path), store, now)


def test_nor_where_another_model_answered_unless_somebody_names_the_base(store, tmp_path, now):
    answered(store, "gpt-4o", now)
    environ = {"RATCHET_HOME": str(tmp_path / "home")}
    with pytest.raises(InvalidInputError, match=r"answers of gpt-4o; .*ratchet adopt"):
        refuse_as_champion(load_settings(environ, tmp_path), store, now)
    environ["RATCHET_BASE_MODEL"] = str(tmp_path)
    refuse_as_champion(load_settings(environ, tmp_path), store, now)


@pytest.mark.parametrize("version", [None, "support-router/1", "smollm2"])
def test_a_home_whose_own_model_answered_begins_with_the_base_model(store, tmp_path, now, version):
    if version is not None:
        answered(store, version, now)
    refuse_as_champion(load_settings({"RATCHET_HOME": str(tmp_path)}, tmp_path), store, now)


def test_the_default_is_not_taken_for_the_weights_of_an_adopted_model(store, tmp_path, now):
    environ = {"RATCHET_HOME": str(tmp_path / "home")}
    check_stated(load_settings(environ, tmp_path), store)
    adopt(store, now)
    with pytest.raises(InvalidInputError, match=r"weights of org/base .*set it to their folder"):
        check_stated(load_settings(environ, tmp_path), store)
    # neither in a process that is given every setting
    child = load_settings(environ, tmp_path).environment()
    with pytest.raises(InvalidInputError, match="RATCHET_BASE_MODEL"):
        check_stated(load_settings(child, tmp_path), store)
    environ["RATCHET_BASE_MODEL"] = str(weights(tmp_path / "weights"))
    check_weights(load_settings(environ, tmp_path), store)
    check_stated(load_settings(load_settings(environ, tmp_path).environment(), tmp_path), store)
    (tmp_path / "weights" / "config.json").unlink()
    with pytest.raises(ModelError, match=r"config\.json"):
        check_weights(load_settings(environ, tmp_path), store)


def test_an_adapter_that_only_the_server_has_does_not_answer_in_this_process(store, now):
    check_answers_here(store, BASE)
    adopt(store, now)
    check_answers_here(store, BASE)
    adopt(store, now, also=("x",), parent="org/root")
    with pytest.raises(InvalidInputError, match="adapter of org/root"):
        check_answers_here(store, BASE)
