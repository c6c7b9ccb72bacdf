"""An adapter belongs to the base model that it was trained on, wherever it is read."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from ratchet.errors import ModelError
from ratchet.improve.training.config import FinetuneConfig
from ratchet.improve.training.finetune import finetune
from ratchet.models import HuggingFaceModel, model_digest
from ratchet.models.own_base import BASE_FILE, belongs_to
from ratchet.models.serving import AdapterModel
from ratchet.operate.base_model import base_of
from ratchet.settings import Settings, load_settings
from ratchet.tracking import Tracker
from tests.improve.training.cases import made_up

pytestmark = pytest.mark.usefixtures("one_thread")
CONFIG = FinetuneConfig(rank=2, epochs=1.0, batch_size=8)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    home = tmp_path_factory.mktemp("adapter")
    result = finetune(
        made_up("sft", 16), CONFIG, base=tiny_model, start_from=None, key="a" * 64, home=home
    )
    return home / result.folder


@pytest.fixture
def other(tmp_path: Path, tiny_model: Path) -> Path:
    """A model of the same shapes with other weights, and its own chat template."""
    folder = tmp_path / "other"
    shutil.copytree(tiny_model, folder)
    tensors = load_file(folder / "model.safetensors")
    save_file({name: value * 0.5 for name, value in tensors.items()}, folder / "model.safetensors")
    return folder


def test_an_adapter_of_other_weights_of_the_same_shapes_is_refused(
    adapter: Path, other: Path, tiny_model: Path
) -> None:
    assert belongs_to(tiny_model, adapter)
    assert HuggingFaceModel.load(tiny_model, adapter).digest == model_digest(tiny_model, adapter)
    said = "must be read over the base model that it was trained on"
    with pytest.raises(ModelError, match=said):
        HuggingFaceModel.load(other, adapter)
    serving = AdapterModel.load(other)
    with pytest.raises(ModelError, match=said):
        serving.add_adapter("router/2", adapter)
    with pytest.raises(ModelError, match=said):
        finetune(
            made_up("sft", 16), CONFIG, base=other, start_from=adapter, key="b" * 64,
            home=other.parent,
        )  # fmt: skip
    (adapter / BASE_FILE).rename(adapter / "aside")  # of an earlier version
    try:
        assert HuggingFaceModel.load(other, adapter)
    finally:
        (adapter / "aside").rename(adapter / BASE_FILE)


def settings(folder: Path, base: Path) -> Settings:
    return load_settings({"RATCHET_HOME": str(folder), "RATCHET_BASE_MODEL": str(base)}, folder)


def test_a_version_is_read_over_its_own_base_whatever_the_settings_name(
    adapter: Path, other: Path, tiny_model: Path, tracker: Tracker, tmp_path: Path
) -> None:
    first = tracker.register_base(str(tiny_model), model_digest(tiny_model))
    with tracker.run("ratchet", key="k", name="n", tags={}) as run:
        source = run.folder(adapter, "adapter")
    digest = model_digest(tiny_model, adapter)
    second = tracker.register_adapter(run.run_id, source, digest, base=str(tiny_model))
    third = tracker.register_base(str(other), model_digest(other))
    today = settings(tmp_path, other)
    assert base_of(today, tracker.version(first.reference), None) == tiny_model
    assert base_of(today, tracker.version(second.reference), adapter) == tiny_model
    assert base_of(today, tracker.version(third.reference), None) == other
    # the same weights at another place are the same base model
    moved = tmp_path / "moved"
    shutil.copytree(tiny_model, moved)
    assert base_of(settings(tmp_path, moved), second, adapter) == moved


def test_a_base_model_that_is_gone_is_named(
    other: Path, tiny_model: Path, tracker: Tracker, tmp_path: Path
) -> None:
    gone = tmp_path / "gone"
    shutil.copytree(tiny_model, gone)
    version = tracker.register_base(str(gone), model_digest(gone))
    shutil.rmtree(gone)
    with pytest.raises(ModelError, match=rf"own base model, {gone}, .*bring the weights back"):
        base_of(settings(tmp_path, other), version, None)
