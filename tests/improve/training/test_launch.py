"""Several processes train one adapter, and the configurations that start them."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.utils import DistributedType
from pydantic import ValidationError
from safetensors.torch import load_file

from ratchet.errors import InvalidInputError, RatchetError
from ratchet.improve.training.callbacks import Checkpoints
from ratchet.improve.training.checkpoints import refuse_pickles
from ratchet.improve.training.config import FinetuneConfig
from ratchet.improve.training.finetune import finetune
from ratchet.improve.training.launch import LAUNCHERS, LaunchConfig, command, launched, launcher
from tests.improve.training.cases import made_up

CONFIG = FinetuneConfig(rank=4, alpha=8, epochs=2.0, learning_rate=1e-2, warmup_steps=0)
TWO = LaunchConfig(strategy="ddp", processes=2)
KINDS = {
    "ddp": DistributedType.MULTI_GPU,
    "ddp_cpu": DistributedType.MULTI_GPU,
    "fsdp": DistributedType.FSDP,
}
without_a_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="is about a machine without")


# The configurations -------------------------------------------------------------------------------


def test_every_shipped_configuration_is_seen_here():
    assert {path.stem for path in LAUNCHERS.iterdir()} == set(KINDS)
    assert len(KINDS) == 3


@pytest.mark.parametrize("name", KINDS)
def test_accelerate_reads_every_key_of_a_configuration(name):
    path = LAUNCHERS / f"{name}.yaml"
    written = yaml.safe_load(path.read_text("utf-8"))
    config = load_config_from_file(str(path))
    assert isinstance(config, ClusterConfig)
    assert config.distributed_type == KINDS[name]
    assert set(written) <= set(vars(config))  # accelerate knows each of them
    assert config.num_machines == 1
    assert config.use_cpu == (name == "ddp_cpu")
    assert config.mixed_precision == ("no" if name == "ddp_cpu" else "bf16")
    if name == "fsdp":
        # each process writes what it holds; the adapter alone is gathered
        assert config.fsdp_config["fsdp_version"] == 2
        assert config.fsdp_config["fsdp_state_dict_type"] == "SHARDED_STATE_DICT"


def test_the_configuration_follows_from_strategy_and_machine():
    assert launcher(TWO, gpu=True).name == "ddp.yaml"
    assert launcher(TWO, gpu=False).name == "ddp_cpu.yaml"
    spread = LaunchConfig(strategy="fsdp", processes=2)
    assert launcher(spread, gpu=True).name == "fsdp.yaml"
    with pytest.raises(InvalidInputError, match="'fsdp' needs GPUs, got none; use 'ddp'"):
        launcher(spread, gpu=False)
    asked = command(TWO, Path("spec.json"), gpu=True, bfloat16=True)
    assert asked[:4] == [sys.executable, "-P", "-m", "accelerate.commands.launch"]
    assert asked[asked.index("--num_processes") + 1] == "2"
    assert asked[asked.index("--mixed_precision") + 1] == "bf16"


@pytest.mark.parametrize(("strategy", "processes"), [("single", 2), ("ddp", 1)])
def test_strategy_and_processes_must_fit(strategy, processes):
    with pytest.raises(ValidationError, match="one process is 'single' and several are"):
        LaunchConfig(strategy=strategy, processes=processes)


# Running ------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _children_find_the_code(monkeypatch):
    root = Path(__file__).parents[3]
    path = [str(root / "src"), str(root), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("TQDM_DISABLE", "1")


def test_one_process_is_this_one(tiny_model, tmp_path):
    options = {"base": tiny_model, "start_from": None, "key": "a" * 64}
    result = launched(made_up("sft", 16), CONFIG, LaunchConfig(), home=tmp_path, **options)
    assert len(result.losses) == 4
    assert [path.name for path in (tmp_path / "adapters").iterdir()] == ["a" * 16]


@pytest.mark.slow
@without_a_gpu
@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_two_processes_over_gloo_learn_what_one_does(tiny_model, tmp_path, method, caplog):
    rows, config = made_up(method, 20), CONFIG.model_copy(update={"method": method})  # 16 to train
    config = config.model_copy(update={"validation_share": 0.2})
    options = {"base": tiny_model, "start_from": None, "key": "a" * 64}
    one = finetune(rows, config, home=tmp_path / "one", **options)
    with caplog.at_level("INFO"):
        two = launched(rows, config, TWO, home=tmp_path / "two", **options)
    assert "2 processes" in two.device
    assert two.batch == (8, 4)
    assert two.tokens == one.tokens
    assert two.losses == pytest.approx(one.losses, abs=1e-3)
    assert dict(two.validation) == pytest.approx(dict(one.validation), abs=1e-3)
    first, second = (
        load_file(tmp_path / name / result.folder / "adapter_model.safetensors")
        for name, result in (("one", one), ("two", two))
    )
    assert set(first) == set(second)
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, atol=1e-3, rtol=1e-2)
    refuse_pickles(tmp_path / "two")


@pytest.mark.slow
@without_a_gpu
def test_two_processes_go_on_together_after_they_were_stopped(tiny_model, tmp_path, monkeypatch):
    rows = made_up("sft", 24)
    config = CONFIG.model_copy(update={"dropout": 0.2, "epochs": 3.0})
    options = {"base": tiny_model, "start_from": None, "key": "a" * 64}
    every = Checkpoints(seconds=1e9, steps=2)
    whole = launched(rows, config, TWO, home=tmp_path / "whole", checkpoints=every, **options)
    # the child that dies: its training ends in an error after the checkpoint at step 4
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "sitecustomize.py").write_text(DIES_AT_STEP_5, "utf-8")
    home = tmp_path / "killed"
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{broken}{os.pathsep}{os.environ['PYTHONPATH']}")
        with pytest.raises(RatchetError, match="several processes ended with code"):
            launched(rows, config, TWO, home=home, checkpoints=every, **options)
    assert any((home / "adapters").glob("training-*/checkpoint-4"))
    again = launched(rows, config, TWO, home=home, checkpoints=every, **options)
    assert again.resumed_at == (4,)
    assert again.losses == pytest.approx(whole.losses, abs=1e-6)
    assert again.adapter_digest == whole.adapter_digest


DIES_AT_STEP_5 = """
import os, sys
if "RANK" in os.environ:
    import importlib.abc, importlib.machinery

    class Finder(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path, target=None):
            if name != "transformers.trainer_callback":
                return None
            sys.meta_path.remove(self)
            spec = importlib.machinery.PathFinder.find_spec(name, path)
            load = spec.loader.exec_module

            def exec_module(module):
                load(module)
                end = module.CallbackHandler.on_step_end

                def on_step_end(self, args, state, control):
                    if state.global_step == 5:
                        os.kill(os.getpid(), 9)
                    return end(self, args, state, control)

                module.CallbackHandler.on_step_end = on_step_end

            spec.loader.exec_module = exec_module
            return spec

    sys.meta_path.insert(0, Finder())
"""


@pytest.mark.slow
@without_a_gpu
def test_a_worker_that_fails_says_why(tmp_path):
    options = {"base": tmp_path / "nowhere", "start_from": None, "key": "a" * 64, "home": tmp_path}
    with pytest.raises(RatchetError, match="weights must be safetensors"):
        launched(made_up("sft", 16), CONFIG, TWO, **options)
    log = tmp_path / "adapters" / ("launch-" + "a" * 16) / "output.log"
    assert "ModelError" in log.read_text("utf-8")
    spec = json.loads((log.parent / "spec.json").read_text("utf-8"))
    assert spec["config"] == CONFIG.model_dump(mode="json")
