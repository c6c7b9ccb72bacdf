"""`ratchet train --dataset`, the gate and the release, in a home that never answered anybody."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ratchet.improve.curation.dataset import read_any_rows
from ratchet.records import Candidate, Cycle, CycleEnd, Decision, TrainingSet
from ratchet.store.cycles import example_set
from tests.conftest import write_tiny_model
from tests.flows.bank import bank_messages
from tests.flows.prefect_home import PrefectHome, new_home, python_process

FIRST = "from ratchet.flows._command import main"
pytestmark = pytest.mark.slow  # reading data sets is tested in tests/improve/curation


def stage(run, name: str, **options: object) -> tuple[int, str]:
    given = json.dumps(options)
    said = run(f"print('ended with', main([{name!r}, {given!r}]))")
    return int(said.rsplit("ended with ", 1)[1]), said


TRAIN = {"finetune": {"epochs": 6.0, "rank": 16, "learning_rate": 1e-2}}


@pytest.fixture(scope="module")
def released(
    tmp_path_factory: pytest.TempPathFactory,
    served_once: Path,
    shared_data: Path,
    tiny_model: Path,
) -> tuple[PrefectHome, dict[str, str]]:
    folder = tmp_path_factory.mktemp("dataset")
    path = folder / "queues.jsonl"
    bank = [{"prompt": text, "completion": queue} for text, queue in bank_messages(shared_data)]
    given = [*bank[:400], {"prompt": "and nothing"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in given), "utf-8")
    home = new_home(folder, served_once, RATCHET_BASE_MODEL=str(tiny_model))
    told: dict[str, str] = {}
    with home.serving() as environment, python_process(environment, FIRST) as run:
        for name, options in (
            ("train", {"dataset": str(path), **TRAIN}),
            ("again", {"dataset": str(path), **TRAIN}),
            ("gate", {}),
            ("after", {"dataset": str(path), **TRAIN}),
            ("collect", {}),
        ):
            known = {"again": "train", "after": "train"}.get(name, name)
            code, told[name] = stage(run, known, **options)
            assert code == 0, told[name]
        # the next base model: kept rows, the gate's old questions
        other = folder / "wider"
        write_tiny_model(other, width=96)
        kept = home.settings.home / home.store.records(TrainingSet)[0].path
        again = {"dataset": {"source": str(kept), "examples": "latest"}, **TRAIN}
        changed = environment | {"RATCHET_BASE_MODEL": str(other)}
        with python_process(changed, FIRST) as wider:
            for name, stage_name, options in (("retrain", "train", again), ("regate", "gate", {})):
                code, told[name] = stage(wider, stage_name, **options)
                assert code == 0, told[name]
    return home, told


def test_rows_of_a_file_are_trained_gated_and_released_without_any_traffic(released) -> None:
    home, told = released
    store = home.store
    cycle, candidate = store.records(Cycle)[0], store.records(Candidate)[0]
    training_set = store.get(TrainingSet, candidate.training_set_id)
    examples = example_set(store, cycle.example_set_id).examples
    assert (cycle.source, training_set.origin, len(examples)) == ("dataset", "queues.jsonl", 100)
    assert store.counts()["interactions"] == 0
    folder = home.settings.home / training_set.path
    trained = [*read_any_rows(folder), *read_any_rows(folder, "validation")]
    assert {row.source for row in trained} == {"dataset"}
    assert {one.prompt for one in examples}.isdisjoint(row.messages[-1].text for row in trained)

    assert "training examples from queues.jsonl" in told["train"]
    assert "set aside, 1 row: a conversation must end with a turn of the assist" in told["train"]
    decision = store.records(Decision)[0]
    assert decision.verdict == "promote", told["gate"]
    assert "champion is now support-router/2" in told["gate"]
    assert store.get(CycleEnd, cycle.id).outcome == "finished"


def test_the_same_command_again_goes_on_with_the_cycle_and_trains_once(released) -> None:
    home, told = released
    assert len(home.store.records(Cycle)) == 2
    assert "support-router/2" in told["again"]
    # after the release the same rows have nothing new for the new champion
    assert "nothing new to learn: support-router/2 was trained on the same" in told["after"]


def test_a_data_set_is_no_traffic(released) -> None:
    _, told = released
    assert "nothing to do yet: " in told["collect"]


def test_another_base_model_is_trained_on_kept_rows_and_gated_against_the_champion(
    released,
) -> None:
    home, told = released
    first, second = home.store.records(Candidate)
    assert "support-router/2 is of another base model" in told["retrain"]
    kept, again = home.store.records(TrainingSet)[0], home.store.records(TrainingSet)[-1]
    assert kept.kind == again.kind
    rows = {row.interaction_id for row in read_any_rows(home.settings.home / kept.path)}
    assert rows == {row.interaction_id for row in read_any_rows(home.settings.home / again.path)}
    before, after = home.store.records(Decision)
    assert (after.champion, after.challenger) == ("support-router/2", "support-router/3")
    # the champion answers as it did, over its own base model
    assert after.example_set_id == before.example_set_id
    assert after.champion_value == before.challenger_value
    config = json.loads(
        (home.settings.home / second.path / "adapter_config.json").read_text("utf-8")
    )
    assert config["base_model_name_or_path"] == "wider"
    assert first.adapter_digest != second.adapter_digest
