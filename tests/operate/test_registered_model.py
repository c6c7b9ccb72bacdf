"""A registered version is a model to MLflow: it loads it, and it answers as the gateway does."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient

from ratchet.errors import ModelError
from ratchet.gateway.options import GatewayOptions
from ratchet.models import adapter_digest, model_digest
from ratchet.records import Candidate
from ratchet.settings import Settings, load_settings
from ratchet.tracking import Tracker
from tests.gateway.conftest import routing, running
from tests.gateway.test_adapters import until
from tests.models.test_serving import adapters

__all__ = ["adapters"]
NAME, VERSION = "router", "router/1"
WORDS = ("parcel", "refund", "invoice", "password", "address", "coupon", "return", "size")


@dataclass
class Registered:
    settings: Settings
    client: MlflowClient
    tracker: Tracker
    base: Path
    folder: Path
    run_id: str
    model_id: str


@pytest.fixture
def registered(
    tmp_path: Path, tiny_model: Path, adapters, made_store: Path, monkeypatch
) -> Registered:
    """A champion that was trained, as the flow `improve` registers it."""
    environ = {
        "RATCHET_HOME": str(tmp_path / "home"), "RATCHET_BASE_MODEL": str(tiny_model),
        "RATCHET_MODEL_NAME": NAME,
    }  # fmt: skip
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    settings = load_settings(environ, tmp_path)
    settings.make_home()
    shutil.copyfile(made_store, settings.home / "store.db")
    tracker = Tracker(settings.tracking_uri, artifacts=settings.artifacts, model_name=NAME)
    folder, digest = adapters["router/2"], model_digest(tiny_model, adapters["router/2"])
    facts = {
        "base_model": str(tiny_model), "base_digest": model_digest(tiny_model),
        "chat_template": "", "digest": digest,
    }  # fmt: skip
    with tracker.run("ratchet", key="k", name="cycle 1 improve", tags={}) as run:
        rows = pd.DataFrame({"prompt": ["a"], "answer": ["b"]})
        run.dataset(rows, name="training-set", digest="d", source="here", context="training")
        model_id, source = run.model(folder, facts)
        assert run.model(folder, facts) == (model_id, source)  # a stage that goes on
        tracker.register_adapter(
            run.run_id, source, digest, adapter_digest=adapter_digest(folder), model_id=model_id
        )
    tracker.move_champion(VERSION, None)
    with tracker.run("ratchet", key="g", name="cycle 1 deploy", tags={}) as gate:
        gate.evaluated(tracker.version(VERSION).model_id, {"challenger_exact_match": 0.75}, "set-1")
    mlflow.set_tracking_uri(settings.tracking_uri)
    client = MlflowClient(settings.tracking_uri)
    return Registered(settings, client, tracker, tiny_model, folder, run.run_id, model_id)


def questions(count: int) -> list[list[dict[str, str]]]:
    return [
        [{"role": "user", "content": f"{WORDS[n % 8]} {WORDS[n // 8 % 8]} number {n}?"}]
        for n in range(count)
    ]


def test_the_champion_answers_a_hundred_questions_as_the_gateway_does(registered):
    asked = questions(100)
    model = mlflow.pyfunc.load_model(f"models:/{NAME}@champion")
    table = pd.DataFrame({"messages": asked})
    said = model.predict(table, params={"max_tokens": 12})
    with running(GatewayOptions(settings=registered.settings, max_tokens=12)) as gateway:
        path = "adapters/1"
        shutil.copytree(registered.folder, registered.settings.home / path)
        gateway.store.append(
            Candidate(
                id="1", cycle_id="c", created_at=datetime.now(UTC), model_name=NAME, version="1",
                adapter_digest="d", path=path, training_set_id="t", run_id="r", losses=(),
                training_seconds=1.0,
            )
        )  # fmt: skip
        base = [gateway.ask(messages=turns)["choices"][0] for turns in asked[:5]]
        gateway.store.append(routing((VERSION, 1.0)))
        until(lambda: gateway.app.state.gateway.router.state.routing is not None)
        answers = [gateway.ask(messages=turns) for turns in asked]
    assert {one["model"] for one in answers} == {VERSION}
    told = [one["choices"][0]["message"]["content"] for one in answers]
    equal = sum(a == b for a, b in zip(said, told, strict=True))
    assert equal == 100, f"{equal} of 100 answers are equal"
    assert len(set(told)) > 20, "the answers are all alike, which would show nothing"
    assert any(a["message"]["content"] != b for a, b in zip(base, told, strict=False))


def test_a_row_alone_its_example_and_its_signature_work(registered):
    model = mlflow.pyfunc.load_model(f"models:/{NAME}@champion")
    row = {"messages": questions(1)[0]}
    (alone,) = model.predict(row, params={"max_tokens": 6})
    assert [alone] == list(model.predict([row], params={"max_tokens": 6}))
    example = model.metadata.load_input_example()
    assert len(model.predict(example, params={"max_tokens": 3})) == 1
    signature = model.metadata.signature
    assert [column.name for column in signature.inputs.inputs] == ["messages"]
    assert {param.name for param in signature.params.params} == {"max_tokens", "temperature"}
    with pytest.raises(Exception, match="messages"):
        model.predict({"prompt": "hello"})
    needed = mlflow.pyfunc.get_model_dependencies(f"models:/{NAME}@champion")
    assert "ratchet-llm==" in Path(needed).read_text()


def test_it_is_linked_to_its_run_its_data_and_its_evaluation_and_copies_no_base(registered):
    client = registered.client
    champion = registered.tracker.champion()
    assert champion is not None
    assert champion.model_id == registered.model_id
    model = client.get_logged_model(registered.model_id)
    assert model.source_run_id == registered.run_id
    assert str(model.status) == "READY"
    run = client.get_run(registered.run_id)
    assert [one.model_id for one in run.outputs.model_outputs] == [registered.model_id]
    assert [one.dataset.name for one in run.inputs.dataset_inputs] == ["training-set"]
    measured = {one.key: (one.value, one.dataset_name) for one in model.metrics}
    assert measured == {"challenger_exact_match": (0.75, "set-1")}
    folder = Path(registered.tracker.version(VERSION).adapter)
    assert folder.is_dir()
    assert adapter_digest(folder) == adapter_digest(registered.folder)  # the adapter as it was
    sizes = {path.name: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    base = sum(path.stat().st_size for path in registered.base.glob("model*.safetensors"))
    assert "model.safetensors" not in sizes
    assert not [name for name in sizes if name.endswith((".pkl", ".pickle", ".bin", ".pt"))]
    assert sum(sizes.values()) < base
    assert json.loads((folder / "ratchet.json").read_text())["base_model"] == str(registered.base)


def test_another_base_is_refused(registered, tmp_path: Path, monkeypatch):
    other = tmp_path / "other"
    shutil.copytree(registered.base, other)
    weights = next(other.glob("model*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    monkeypatch.setenv("RATCHET_BASE_MODEL", str(other))
    with pytest.raises(ModelError, match="RATCHET_BASE_MODEL"):
        mlflow.pyfunc.load_model(f"models:/{NAME}@champion")
