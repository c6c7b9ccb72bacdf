"""An adapter goes from the machine that trained it through a real MLflow server to the backend.

The trainer's home and the home that routes share the address of MLflow and the store alone.
"""

from __future__ import annotations

import shutil

import pytest
from mlflow import MlflowClient
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from ratchet.deploy.adapters import AdapterShelf
from ratchet.deploy.answering import Answering
from ratchet.errors import TrackingError
from ratchet.models import HuggingFaceModel, adapter_digest
from ratchet.records import Message
from ratchet.tracking import Tracker
from tests.deploy.adapter_files import candidate, register
from tests.servers.mlflow_server import running_mlflow
from tests.servers.vllm_server import VllmServer

pytestmark = pytest.mark.slow  # test_adapters.py tests the same beside a registry in a file


@pytest.fixture(scope="module")
def mlflow_server(tmp_path_factory, mlflow_database):
    """A server that takes artifacts itself; yields its address and where it keeps them."""
    with running_mlflow(tmp_path_factory.mktemp("mlflow-server"), mlflow_database) as found:
        yield found


@pytest.fixture
def over_http(mlflow_server, tmp_path, request):
    name = request.node.name[:50].replace("[", "-").replace("]", "")
    return Tracker(mlflow_server[0], artifacts=tmp_path / "unused", model_name=name)


def train(base, folder):
    """Write a LoRA adapter that changes what the model says."""
    import torch

    torch.manual_seed(7)
    config = LoraConfig(
        r=4, lora_alpha=64, target_modules=["q_proj", "v_proj"], init_lora_weights=False
    )
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(folder)
    return folder


def test_what_one_machine_trained_another_one_serves(
    over_http, mlflow_server, store, tiny_model, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "trainer"
    folder = train(tiny_model, home / "adapters" / "k")
    digest = adapter_digest(folder)
    ask = [(Message(role="user", content="where is it"),)]
    wanted = HuggingFaceModel.load(tiny_model, folder).generate(ask, max_new_tokens=8)
    version = register(over_http, folder)
    candidate(store, version.reference, digest, "adapters/k")
    assert str(version.adapter).startswith("mlflow-artifacts:")
    beside = {path.name for path in tmp_path.iterdir() if not path.name.startswith("store.db")}
    assert beside == {"trainer"}
    shutil.rmtree(home)  # another machine's disk

    shared = tmp_path / "shared"
    seen = {"/models": shared}
    with VllmServer("org/base", mounts=seen) as one, VllmServer("org/base", mounts=seen) as two:
        answering = Answering(
            store, lambda: over_http, AdapterShelf(tmp_path / "router", shared, "/models"),
            (one.url, two.url),
        )  # fmt: skip
        answering.require(version.reference)
        (placed,) = shared.iterdir()
        assert adapter_digest(placed) == digest
        assert one.adapters == two.adapters == {version.reference: f"/models/{placed.name}"}
        one.restart()
        answering.require(version.reference)
        assert one.answers[-1] == (200, version.reference)
    found = HuggingFaceModel.load(tiny_model, placed).generate(ask, max_new_tokens=8)
    plain = HuggingFaceModel.load(tiny_model).generate(ask, max_new_tokens=8)
    assert found[0].text == wanted[0].text != plain[0].text


def test_an_artifact_that_was_changed_on_the_server_is_refused(
    over_http, mlflow_server, store, tiny_model, tmp_path
):
    folder = train(tiny_model, tmp_path / "trainer" / "adapters" / "k")
    version = register(over_http, folder)
    candidate(store, version.reference, adapter_digest(folder), "adapters/k")
    shutil.rmtree(tmp_path / "trainer")
    run = MlflowClient(mlflow_server[0]).get_run(version.run_id)
    (artifact,) = mlflow_server[1].rglob(f"*{run.info.run_id}*/**/adapter_model.safetensors")
    changed = bytearray(artifact.read_bytes())
    changed[-1] ^= 1
    artifact.write_bytes(changed)
    shared = tmp_path / "shared"
    with VllmServer("org/base") as server:
        answering = Answering(
            store, lambda: over_http, AdapterShelf(tmp_path / "router", shared), (server.url,)
        )
        said = answering.problem(version.reference)
    assert f"must have the digest {adapter_digest(train(tiny_model, folder))[:12]}" in said
    assert "which was changed since" in said
    assert list(shared.iterdir()) == []
    assert server.calls == []


def test_no_artifact_is_written_where_a_home_elsewhere_keeps_them(
    over_http, mlflow_server, tmp_path
):
    client = MlflowClient(mlflow_server[0])
    elsewhere = tmp_path / "gone" / "home" / "artifacts"
    client.create_experiment("of a home", artifact_location=elsewhere.as_uri())
    with over_http.run("of a home", key="k", name="n", tags={}) as run:
        run.text("hello", "words.txt")
    with over_http.run("of a home", key="k", name="n", tags={}) as again:
        assert again.run_id == run.run_id
    assert not elsewhere.parent.exists()
    assert client.get_experiment(run.experiment_id).name == "of a home (served)"
    (kept,) = mlflow_server[1].rglob("words.txt")
    assert kept.read_text() == "hello"


def test_a_server_that_takes_no_artifacts_is_an_error_with_the_way_out(
    over_http, mlflow_server, tmp_path
):
    client = MlflowClient(mlflow_server[0])
    for name in ("plain", "plain (served)"):
        client.create_experiment(name, artifact_location=(tmp_path / "a" / "b" / name).as_uri())
    with (
        pytest.raises(TrackingError, match="--serve-artifacts --artifacts-destination"),
        over_http.run("plain", key="k", name="n", tags={}),
    ):
        pass
