"""Two nodes train one adapter: two launchers of torchrun on loopback, gloo, one process each."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from typer.testing import CliRunner

from ratchet.cli import app
from ratchet.errors import InvalidInputError, RatchetError
from ratchet.improve.training.callbacks import Checkpoints
from ratchet.improve.training.checkpoints import refuse_pickles
from ratchet.improve.training.config import FinetuneConfig
from ratchet.improve.training.finetune import FinetuneResult, finetune
from ratchet.improve.training.launch import (
    LaunchConfig,
    Nodes,
    Spec,
    _accelerate_variables,
    launched,
    torchrun,
)
from ratchet.improve.training.nodes import join
from tests.improve.training.cases import made_up
from tests.improve.training.test_launch import DIES_AT_STEP_5

CONFIG = FinetuneConfig(rank=4, alpha=8, epochs=3.0, learning_rate=1e-2, warmup_steps=0)
ROWS = made_up("sft", 24)  # nine steps of eight
KEY = "a" * 64
EVERY = Checkpoints(seconds=1e9, steps=2)
# A step's loss is the mean of two means here and one mean there: the same but for rounding, which
# nine steps of Adam at 1e-2 amplify.
LOSS_TOLERANCE, WEIGHT_TOLERANCE = 1e-3, 1e-3
without_a_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="is about a machine without")


def nodes(folder: Path, **more: object) -> Nodes:
    return Nodes.model_validate({"count": 2, "folder": folder, **more})


# What is asked for --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"count": 1}, "greater than or equal to 2"),
        ({"folder": "shared"}, "absolute path that every node sees, got 'shared'"),
        ({"endpoint": "node0"}, "match pattern"),
        ({"endpoint": "node0:0"}, "port below 65536, got 'node0:0'"),
        ({"endpoint": "node0:70000"}, "port below 65536"),
        ({"wait_seconds": 0}, "greater than 0"),
        ({"rank": 1}, "Extra inputs are not permitted"),
    ],
)
def test_settings_that_mean_nothing_are_refused(tmp_path, given, message):
    with pytest.raises(ValidationError, match=message):
        nodes(**{"folder": tmp_path} | given)


def test_processes_count_on_every_node(tmp_path):
    spread = LaunchConfig(strategy="fsdp", processes=8, nodes=nodes(tmp_path))
    assert spread.in_all == 16
    assert LaunchConfig.model_validate(spread.model_dump(mode="json")) == spread
    assert LaunchConfig(strategy="ddp", nodes=nodes(tmp_path)).in_all == 2
    with pytest.raises(ValidationError, match="several are 'ddp' or 'fsdp', got 'single' with 2"):
        LaunchConfig(nodes=nodes(tmp_path))


def test_torchrun_meets_at_the_endpoint_by_the_attempts_name(tiny_model, tmp_path):
    launch = LaunchConfig(strategy="ddp", processes=3, nodes=nodes(tmp_path, wait_seconds=90))
    spec = Spec(
        rows="rows.jsonl",
        validation=None,
        config=CONFIG,
        base="",
        start_from=None,
        key=KEY,
        home="../..",
        checkpoint_seconds=60.0,
        launch=launch,
        endpoint="127.0.0.1:29400",
        job="aaaa-1",
    )
    commands = [
        torchrun(spec, tmp_path / "spec.json", tiny_model, host=host) for host in (True, False)
    ]
    assert commands[0][:4] == [sys.executable, "-P", "-m", "torch.distributed.run"]
    shared = {
        "--nnodes=2",
        "--nproc-per-node=3",
        "--rdzv-backend=c10d",
        "--rdzv-endpoint=127.0.0.1:29400",
        "--rdzv-id=aaaa-1",
        "--max-restarts=0",
        "--local-addr=127.0.0.1",
    }
    assert all(shared <= set(asked) for asked in commands)
    assert "--rdzv-conf=is_host=1,join_timeout=90" in commands[0]
    assert "--rdzv-conf=is_host=0,join_timeout=90" in commands[1]
    assert commands[0][-4:-1] == [
        "ratchet.improve.training.worker", str(tmp_path / "spec.json"), str(tiny_model),
    ]  # fmt: skip
    nowhere = spec.model_copy(update={"endpoint": "no-such-host.invalid:29400"})
    with pytest.raises(InvalidInputError, match="endpoint must be reached from each of them"):
        torchrun(nowhere, tmp_path / "spec.json", tiny_model, host=False)


def test_workers_on_nodes_are_told_what_accelerate_tells_them_on_one(tmp_path):
    spread = LaunchConfig(strategy="fsdp", processes=2, nodes=nodes(tmp_path))
    told = _accelerate_variables(spread, gpu=True, bfloat16=True)
    assert told["ACCELERATE_USE_FSDP"] == "true"
    assert told["ACCELERATE_MIXED_PRECISION"] == "bf16"
    assert told["FSDP_VERSION"] == "2"
    assert told["FSDP_STATE_DICT_TYPE"] == "SHARDED_STATE_DICT"
    copies = LaunchConfig(strategy="ddp", processes=2, nodes=nodes(tmp_path))
    assert "ACCELERATE_USE_FSDP" not in _accelerate_variables(copies, gpu=False, bfloat16=False)


def test_a_node_needs_the_folder_and_no_options(tiny_model, tmp_path):
    with pytest.raises(InvalidInputError, match="must be there on every node, got none at"):
        join(tmp_path / "nowhere", tiny_model)
    refused = CliRunner().invoke(app, ["train", "--join", str(tmp_path), "--dry-run"])
    assert refused.exit_code != 0
    assert "a further node is told everything" in str(refused.exception) + refused.output


# Two nodes ----------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _children_find_the_code(monkeypatch):
    root = Path(__file__).parents[3]
    path = [str(root / "src"), str(root), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("TQDM_DISABLE", "1")


@contextmanager
def joined(folder: Path, base: Path, log: Path, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """A second node, as a user starts it, with a home of its own."""
    told = {"RATCHET_HOME": str(log.parent / "second"), "RATCHET_BASE_MODEL": str(base)} | environ
    with log.open("w", encoding="utf-8") as file:
        child = subprocess.Popen(
            [sys.executable, "-m", "ratchet.cli", "train", "--join", str(folder)],
            env=os.environ | told,
            stdout=file,
            stderr=subprocess.STDOUT,
            text=True,
        )
    try:
        yield child
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGINT)
        child.wait(60)


def two_nodes(folder: Path) -> LaunchConfig:
    folder.mkdir(exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    met = nodes(folder, endpoint=f"127.0.0.1:{port}", wait_seconds=60)
    return LaunchConfig(strategy="ddp", nodes=met)


def same_adapter(one: Path, two: Path, first: FinetuneResult, second: FinetuneResult) -> None:
    expected, found = (
        load_file(home / result.folder / "adapter_model.safetensors")
        for home, result in ((one, first), (two, second))
    )
    assert set(found) == set(expected)
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], atol=WEIGHT_TOLERANCE, rtol=1e-2)


@pytest.mark.slow
@without_a_gpu
def test_two_nodes_learn_what_one_process_does(tiny_model, tmp_path, caplog):
    options = {"base": tiny_model, "start_from": None, "key": KEY}
    one = finetune(ROWS, CONFIG, home=tmp_path / "one", **options)
    shared, home = tmp_path / "shared", tmp_path / "two"
    launch, log = two_nodes(shared), tmp_path / "second.log"
    with joined(shared, tiny_model, log), caplog.at_level("INFO"):
        two = launched(ROWS, CONFIG, launch, home=home, checkpoints=EVERY, **options)
        until = time.monotonic() + 30
        while "has ended" not in log.read_text("utf-8") and time.monotonic() < until:
            time.sleep(0.1)
    assert two.device.endswith("2 processes on 2 nodes")
    assert two.batch == (8, 4)
    assert two.tokens == one.tokens
    assert len(one.losses) == 9
    assert two.losses == pytest.approx(one.losses, abs=LOSS_TOLERANCE)
    same_adapter(tmp_path / "one", home, one, two)
    refuse_pickles(shared)
    # the adapter is in the first node's home; no row stays in the folder, nothing on the second
    left = {path.name for path in shared.rglob("*") if path.is_file()}
    assert all(name.startswith("output-") for name in left)
    assert [path.name for path in (home / "adapters").iterdir()] == [KEY[:16]]
    assert not list((tmp_path / "second").rglob("*.safetensors"))
    told = log.read_text("utf-8")
    assert "taking part in training" in told
    assert "has ended" in told
    assert any("training step 9 of 9" in record.message for record in caplog.records)


@pytest.mark.slow
@without_a_gpu
def test_a_node_that_is_killed_ends_the_training_and_it_goes_on_from_the_seal(tiny_model, tmp_path):
    options = {"base": tiny_model, "start_from": None, "key": KEY}
    one = finetune(ROWS, CONFIG, home=tmp_path / "one", **options)
    shared, home = tmp_path / "shared", tmp_path / "two"
    dying = tmp_path / "dying"
    dying.mkdir()
    (dying / "sitecustomize.py").write_text(
        DIES_AT_STEP_5.replace(
            "os.kill(os.getpid(), 9)",
            "import psutil; node = psutil.Process().parents()[:2]\n"
            "                        [process.kill() for process in node]; psutil.Process().kill()",
        ),
        "utf-8",
    )
    path = f"{dying}{os.pathsep}{os.environ['PYTHONPATH']}"
    launch, log = two_nodes(shared), tmp_path / "second.log"
    with joined(shared, tiny_model, log, PYTHONPATH=path) as second:
        began = time.monotonic()
        with pytest.raises(RatchetError) as broke:
            launched(ROWS, CONFIG, launch, home=home, checkpoints=EVERY, **options)
        assert second.wait(30) == -signal.SIGKILL  # agent, worker and command: the whole node
    assert time.monotonic() - began < 120.0
    said = str(broke.value)
    assert "training on 2 nodes must go on on all of them until its end, but broke" in said
    assert "the connection to another node broke: it is gone" in said
    assert "started again, it goes on after step 4, the last sealed checkpoint" in said
    assert not [child for child in psutil.Process().children(recursive=True) if child.is_running()]
    assert not (home / "adapters").exists()

    # again on two nodes, and beside it on one: nothing is drawn, so any number goes on
    alone = tmp_path / "alone"
    for file in (found := shared / "adapters" / f"training-{KEY[:16]}").rglob("*"):
        if file.is_file():
            copy = alone / "adapters" / found.name / file.relative_to(found)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
    launch = two_nodes(shared)
    with joined(shared, tiny_model, tmp_path / "again.log"):
        again = launched(ROWS, CONFIG, launch, home=home, checkpoints=EVERY, **options)
    on_one = finetune(ROWS, CONFIG, home=alone, **options)
    for result, of in ((again, home), (on_one, alone)):
        assert result.resumed_at == (4,)
        assert result.losses == pytest.approx(one.losses, abs=LOSS_TOLERANCE)
        same_adapter(tmp_path / "one", of, one, result)


@pytest.mark.slow
@without_a_gpu
def test_a_node_with_another_base_model_is_refused_on_both(tiny_model, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    other = tmp_path / "other"
    model = AutoModelForCausalLM.from_pretrained(str(tiny_model))
    with torch.no_grad():
        model.lm_head.weight.add_(1.0)
    model.save_pretrained(str(other))
    AutoTokenizer.from_pretrained(str(tiny_model)).save_pretrained(str(other))
    shared = tmp_path / "shared"
    launch, log = two_nodes(shared), tmp_path / "second.log"
    with (
        joined(shared, other, log),
        pytest.raises(RatchetError, match="must have the same code and base model, got base model"),
    ):
        launched(
            ROWS, CONFIG, launch, home=tmp_path / "two", base=tiny_model, start_from=None, key=KEY
        )
    assert not (tmp_path / "two" / "adapters").exists()
