"""Ids of the Hub: resolved once in a cache of huggingface_hub's layout, without a network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from ratchet.files.hub_ids import is_hub_id
from ratchet.improve.training.config import FinetuneConfig
from ratchet.improve.training.finetune import finetune
from ratchet.models.hub import origin_of
from ratchet.settings import load_settings
from tests.improve.training.cases import made_up
from tests.models.hub_cache import write_to_cache

ROOT = Path(__file__).parents[2]
PREPARE = """
import json, sys
from pathlib import Path
from ratchet.models import HuggingFaceModel, model_digest, prepare_base_model
from ratchet.models.hub import origin_of
folder = prepare_base_model(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
found = origin_of(folder)
print(json.dumps([model_digest(folder), found.name, found.revision]))
"""


def prepared(home: Path, name: str, cache: Path, template: str = "") -> list[str]:
    environment = {name: value for name, value in os.environ.items() if name[:3] != "HF_"}
    path = os.pathsep.join([str(ROOT / "src"), environment.get("PYTHONPATH", "")])
    environment |= {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-c", PREPARE, name, str(cache), template],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise AssertionError(done.stderr.strip().splitlines()[-1])
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


def changed(model: Path, folder: Path) -> Path:
    """Return a copy of a model with other weights."""
    shutil.copytree(model, folder)
    tensors = load_file(folder / "model.safetensors")
    save_file({name: value * 2 for name, value in tensors.items()}, folder / "model.safetensors")
    return folder


def test_an_id_stays_at_the_revision_that_it_was_first_resolved_to(
    tmp_path: Path, tiny_model: Path
) -> None:
    home, cache = tmp_path / "hf", tmp_path / "cache"
    first = write_to_cache(home, "model", "team/small", tiny_model)
    digest, name, revision = prepared(home, "team/small", cache)
    assert (name, revision) == ("team/small", first)
    assert (cache / "hub" / "models--team--small").read_text("utf-8").strip() == first

    second = write_to_cache(home, "model", "team/small", changed(tiny_model, tmp_path / "new"))
    assert second != first
    assert prepared(home, "team/small", cache) == [digest, "team/small", first]
    # one that is named stays too, and is noted apart
    newer = prepared(home, f"team/small@{second}", cache)
    assert newer[1:] == ["team/small", second]
    assert newer[0] != digest
    (cache / "hub" / "models--team--small").unlink()
    assert prepared(home, "team/small", cache) == newer


def test_a_model_of_the_hub_is_known_under_a_template_that_was_given(
    tmp_path: Path, tiny_model: Path
) -> None:
    home, cache = tmp_path / "hf", tmp_path / "cache"
    commit = write_to_cache(home, "model", "team/small", tiny_model)
    assert prepared(home, "team/small", cache, "hermes")[1:] == ["team/small", commit]
    assert origin_of(tiny_model) is None


def test_an_adapter_names_the_model_of_the_hub_and_its_revision(
    tmp_path: Path, tiny_model: Path
) -> None:
    commit = write_to_cache(tmp_path / "hf", "model", "team/small", tiny_model)
    base = tmp_path / "hf" / "hub" / "models--team--small" / "snapshots" / commit
    result = finetune(
        made_up("sft", 8), FinetuneConfig(rank=2, epochs=1.0), base=base, start_from=None,
        key="a" * 64, home=tmp_path,
    )  # fmt: skip
    text = (tmp_path / result.folder / "adapter_config.json").read_text("utf-8")
    config = json.loads(text)
    assert (config["base_model_name_or_path"], config["revision"]) == ("team/small", commit)
    assert str(tmp_path) not in text


def test_a_name_that_is_no_folder_and_not_on_the_hub_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"'team/none' must be a folder, or a model on the Hu"):
        prepared(tmp_path / "hf", "team/none", tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_folder_that_is_there_is_no_id(tmp_path: Path) -> None:
    (tmp_path / "models" / "mine").mkdir(parents=True)
    assert not is_hub_id("models/mine", tmp_path)
    assert is_hub_id("models/other", tmp_path)
    assert not is_hub_id("/models/other", tmp_path)
    assert not is_hub_id("~/other", tmp_path)
    assert not is_hub_id("smollm2", tmp_path)
    for said, meant in (("models/mine", str(tmp_path / "models" / "mine")), ("a/b@v1", "a/b@v1")):
        environment = {"RATCHET_BASE_MODEL": said, "HOME": str(tmp_path)}
        assert load_settings(environment, tmp_path).base_model == meant
