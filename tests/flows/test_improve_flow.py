"""The flow `improve` by SFT, KTO and DPO: real Prefect and MLflow, a tiny model, real messages.

A router of two queues got half of a bank's messages wrong. Users corrected what was wrong and gave
thumbs; a failure cluster asks for some of the examples.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from mlflow import MlflowClient

from ratchet.collect.ingest import ingest
from ratchet.improve.curation.dataset import read_any_rows
from ratchet.models import HuggingFaceModel, model_digest
from ratchet.records import (
    Candidate,
    Correction,
    Cycle,
    Feedback,
    Interaction,
    LabelledMessage,
    Thumbs,
    TrainingRequest,
    TrainingSet,
)
from ratchet.settings import Settings
from ratchet.simulation.routing import build_examples, conversation
from ratchet.store import EventStore
from ratchet.store.cycles import example_set, freeze_examples, open_cycle
from ratchet.tracking import Tracker
from tests.flows.bank import QUEUES, bank_messages
from tests.flows.prefect_home import new_home, python_process

# sets and training are tested without Prefect in tests/improve, in a loop in test_adopted_loop
pytestmark = pytest.mark.slow
MESSAGES, HELD_OUT = 240, 40
NOW = datetime(2026, 11, 2, tzinfo=UTC)
METHODS = ("sft", "kto", "dpo")
REQUESTED = tuple(f"i{number}" for number in range(1, 9, 2))
IMPORTS = "from ratchet.flows.improve import ImproveOptions, improve"
SLOTS = """
from prefect.client.orchestration import get_client
from ratchet.flows._training import gpu_slots
from ratchet.improve.training.devices import Device
gpus = Device("cuda", 2, "bfloat16", "two GPUs")
def taken():
    with get_client(sync_client=True) as client:
        (limit,) = client.read_global_concurrency_limits()
        return limit.name.startswith("ratchet-gpu-"), limit.limit, limit.active_slots
with gpu_slots(gpus, 2):
    print("inside", taken())
print("outside", taken())
with gpu_slots(Device("cpu", 0, "float32", "a CPU"), 1):
    print("none", taken())
"""


@dataclass(frozen=True)
class Improved:
    """What the flow left for each method, one after the other."""

    settings: Settings
    candidates: dict[str, Candidate]
    base: Path
    slots: str

    @property
    def store(self) -> EventStore:
        return EventStore.open(self.settings.store_url)

    def rows(self, method: str) -> tuple[list[object], list[object]]:
        found = self.store.get(TrainingSet, self.candidates[method].training_set_id)
        assert found is not None
        folder = self.settings.home / found.path
        return list(read_any_rows(folder)), list(read_any_rows(folder, "validation"))


def _fill(store: EventStore, tracker: Tracker, base: Path, messages: list[tuple[str, str]]) -> None:
    events: list[Feedback] = []
    interactions: list[Interaction] = []
    for number, (text, queue) in enumerate(messages[:MESSAGES]):
        right = number % 2 == 0
        at = NOW - timedelta(hours=20) + timedelta(minutes=number)
        key, user = f"i{number}", f"u{number % 60}"
        interactions.append(
            Interaction(
                id=key,
                session_id=f"s{number}",
                user_id=user,
                created_at=at,
                model_version="support-router/1",
                messages=conversation(QUEUES, text),
                response=queue if right else QUEUES[queue == "cards"],
                latency_seconds=0.1,
            )
        )
        about = {"interaction_id": key, "created_at": at + timedelta(minutes=1), "user_id": user}
        events.append(Thumbs(id=f"t{number}", value="up" if right else "down", **about))
        if not right:
            events.append(Correction(id=f"c{number}", value=queue, **about))
    ingest([*interactions, *events], store, source="test", now=NOW)
    held = [LabelledMessage(text=text, label=queue) for text, queue in messages[MESSAGES:]]
    examples = freeze_examples(store, "held-out", build_examples(held, QUEUES), NOW)
    champion = tracker.register_base(str(base), model_digest(base))
    cycle = open_cycle(
        store, champion=champion.reference, options_digest="d", seed=0,
        example_set_id=examples.id, now=NOW,
    )  # fmt: skip
    store.append(
        TrainingRequest(
            id="asked", created_at=NOW, cycle_id=cycle.id, cluster_id="late cards",
            name="late cards", wanted=4, interaction_ids=REQUESTED, regression_set_id=None,
        )
    )  # fmt: skip


@pytest.fixture(scope="module")
def improved(
    tmp_path_factory: pytest.TempPathFactory,
    served_once: Path,
    shared_data: Path,
    tiny_model: Path,
) -> Improved:
    folder = tmp_path_factory.mktemp("improve")
    home = new_home(folder, served_once, RATCHET_BASE_MODEL=str(tiny_model))
    tracker = Tracker(
        home.settings.tracking_uri,
        artifacts=home.settings.artifacts,
        model_name=home.settings.model_name,
    )
    _fill(home.store, tracker, tiny_model, bank_messages(shared_data)[: MESSAGES + HELD_OUT])
    options = [
        {
            "finetune": {"method": method, "epochs": 1.0, "rank": 8},
            "training": {"samples": 2},
        }
        for method in METHODS
    ]
    with home.serving() as environment, python_process(environment, IMPORTS) as run:
        for chosen in options:
            run(f"improve(ImproveOptions.model_validate({chosen}))")
        slots = run(SLOTS)
    found = dict(zip(METHODS, home.store.records(Candidate), strict=True))
    return Improved(home.settings, found, tiny_model, slots)


@pytest.mark.parametrize("method", METHODS)
def test_each_method_trains_on_rows_of_its_kind_and_registers_a_challenger(improved, method):
    candidate = improved.candidates[method]
    train, validation = improved.rows(method)
    kind = {"sft": "TrainingRow", "kto": "LabelledRow", "dpo": "PreferenceRow"}[method]
    assert {type(row).__name__ for row in (*train, *validation)} == {kind}
    assert len(train) > 80
    assert validation
    assert candidate.losses[-1] < candidate.losses[0]
    model = HuggingFaceModel.load(improved.base, improved.settings.home / candidate.path)
    assert model.generate([conversation(QUEUES, "where is my card")], max_new_tokens=4)


def test_nobody_who_is_trained_on_validates(improved):
    train, validation = improved.rows("sft")
    by_id = {f"i{number}": f"u{number % 60}" for number in range(MESSAGES)}
    trained = {by_id[row.interaction_id] for row in train}
    assert trained.isdisjoint(by_id[row.interaction_id] for row in validation)


def test_no_held_out_message_is_trained_on(improved):
    store = improved.store
    cycle = store.latest(Cycle)
    held = {example.prompt for example in example_set(store, cycle.example_set_id).examples}
    for method in METHODS:
        rows = [row for part in improved.rows(method) for row in part]
        assert held.isdisjoint(row.messages[-1].content for row in rows)


def test_what_a_failure_cluster_asked_for_is_in_the_set(improved):
    train, validation = improved.rows("sft")
    assert set(REQUESTED) <= {row.interaction_id for row in (*train, *validation)}


@pytest.mark.parametrize("method", METHODS)
def test_mlflow_holds_the_data_the_configuration_and_the_course_of_the_run(improved, method):
    client = MlflowClient(improved.settings.tracking_uri)
    run = client.get_run(improved.candidates[method].run_id)
    assert run.data.params["method"] == method
    assert run.data.params["learning_rate"] == ("0.001" if method == "sft" else "5e-05")
    assert run.data.metrics["tokens_per_second"] > 0
    most = int(run.data.params["maximum_tokens"])  # of the rows, not a default
    assert most < 512
    assert most % 64 == 0
    assert run.data.metrics["rows_too_long"] == 0
    assert run.data.tags["ratchet.rows_too_long"] == "0"
    said = f"Training: no row was too long (limit: {most} tokens)."
    assert run.data.tags["mlflow.note.content"] == said
    assert any(name.startswith("environment.") for name in run.data.params)
    (data,) = run.inputs.dataset_inputs
    found = improved.store.get(TrainingSet, improved.candidates[method].training_set_id)
    assert data.dataset.digest == found.digest[:36]
    losses = client.get_metric_history(run.info.run_id, "loss")
    assert len(losses) == len(improved.candidates[method].losses)
    artifacts = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert {"training_set", "config.json", "samples.json", "plots"} <= artifacts
    (model,) = run.outputs.model_outputs  # what MLflow loads: tests/operate/test_registered_model
    kept = {item.path for item in client.list_logged_model_artifacts(model.model_id)}
    assert {"adapter_model.safetensors", "MLmodel", "ratchet.json"} <= kept


def test_a_run_holds_a_slot_for_each_gpu_while_it_trains(improved):
    assert "inside (True, 2, 2)" in improved.slots
    assert "outside (True, 2, 0)" in improved.slots
    assert "none (True, 2, 0)" in improved.slots
