import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ratchet.errors import BusyError, ModelError
from ratchet.improve.training.checkpoints import (
    await_processes,
    latest_checkpoint,
    load_optimizer,
    load_random,
    optimizer_state,
    refuse_pickles,
    save_optimizer,
    save_random,
    seal,
    sole_process,
)


def checkpoint(run, step, content="x"):
    folder = run / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_text(content)
    return folder


def test_only_a_sealed_checkpoint_counts_and_an_unfinished_one_is_removed(tmp_path):
    assert latest_checkpoint(tmp_path) is None
    first, second, third = (checkpoint(tmp_path, step) for step in (9, 10, 11))
    seal(first)
    seal(second)
    assert latest_checkpoint(tmp_path) == second  # 10 is after 9, though not as text
    assert not third.exists()
    assert first.exists()


def test_a_checkpoint_that_was_changed_is_refused(tmp_path):
    folder = checkpoint(tmp_path, 1)
    seal(folder)
    (folder / "adapter_model.safetensors").write_text("y")
    with pytest.raises(ModelError, match=r"as it was sealed, got a changed or missing adapter"):
        latest_checkpoint(tmp_path)
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match="changed or missing"):
        latest_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "name", ["optimizer.pt", "rng_state_0.pth", "training_args.bin", "a/b.pkl"]
)
def test_what_is_named_like_a_pickle_is_refused(tmp_path, name):
    folder = checkpoint(tmp_path, 1)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("harmless")
    with pytest.raises(ModelError, match=f"may be a pickle: {name}"):
        refuse_pickles(folder)
    seal(folder)
    with pytest.raises(ModelError, match="may be a pickle"):
        latest_checkpoint(tmp_path)


@pytest.mark.parametrize("protocol", [2, 5, "zip"])
def test_a_pickle_under_another_name_is_refused(tmp_path, protocol):
    """Written by a child, as torch and Python write them; nothing here reads one."""
    path = tmp_path / "optimizer.safetensors"
    code = (
        "import sys, torch; torch.save({'a': torch.zeros(1)}, sys.argv[1])"
        if protocol == "zip"
        else f"import sys, pickle; pickle.dump([1], open(sys.argv[1], 'wb'), {protocol})"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    with pytest.raises(ModelError, match=r"may be a pickle: optimizer\.safetensors"):
        refuse_pickles(tmp_path)


def test_a_folder_of_safetensors_and_json_is_accepted(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(3)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    refuse_pickles(tmp_path)


def steps(model, optimizer, schedule, count):
    losses = []
    for _ in range(count):
        loss = model(torch.randn(4, 3)).square().mean()
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def fresh(seed):
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Dropout(0.5), torch.nn.Linear(4, 1))
    model[0].bias.requires_grad_(False)  # a frozen parameter has no state
    return model, *optimized(model)


def optimized(model):
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step)


def test_optimizer_schedule_and_generators_go_on_exactly(tmp_path):
    model, optimizer, schedule = fresh(0)
    steps(model, optimizer, schedule, 3)
    save_optimizer(optimizer_state(model, optimizer), schedule, tmp_path)
    save_random(tmp_path, 0)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    expected = steps(model, optimizer, schedule, 3)

    other, again, afterwards = fresh(1)
    other.load_state_dict(weights)
    load_optimizer(other, again, afterwards, tmp_path)
    load_random(tmp_path, 0, 1, bound=True)
    assert steps(other, again, afterwards, 3) == expected
    assert afterwards.get_last_lr() == schedule.get_last_lr()
    refuse_pickles(tmp_path)


def test_every_generator_goes_on_where_it_was(tmp_path):
    random.gauss(0.0, 1.0)  # leaves half of a pair in the generator
    np.random.standard_normal()  # noqa: NPY002
    save_random(tmp_path, 0)
    drawn = [random.gauss(0.0, 1.0), np.random.standard_normal(), torch.rand(1).item()]  # noqa: NPY002
    load_random(tmp_path, 0, 1, bound=True)
    again = [random.gauss(0.0, 1.0), np.random.standard_normal(), torch.rand(1).item()]  # noqa: NPY002
    assert again == drawn
    json.loads((tmp_path / "random-0.json").read_text("utf-8"))


@pytest.mark.parametrize(("written", "now"), [(1, 2), (2, 1)])
def test_a_run_that_draws_goes_on_with_as_many_processes_as_before(tmp_path, written, now):
    for process in range(written):
        save_random(tmp_path, process)
    expected = rf"as many processes .* got {now} .* which {written} wrote; start it with {written}"
    with pytest.raises(ModelError, match=expected):
        load_random(tmp_path, 0, now, bound=True)
    before = torch.random.get_rng_state()
    load_random(tmp_path, 0, now, bound=False)  # nothing is drawn, so that no state is missed
    assert torch.equal(torch.random.get_rng_state(), before)


def test_what_another_process_wrote_must_be_seen_before_a_checkpoint_is_sealed(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("ratchet.improve.training.checkpoints._SEEN_SECONDS", 0.2)
    save_random(tmp_path, 0)
    await_processes(tmp_path, 1)
    with pytest.raises(ModelError, match=r"one folder that all of them see, got no random-1\.json"):
        await_processes(tmp_path, 2)
    save_random(tmp_path, 1)
    await_processes(tmp_path, 2)


SPREAD = """
import sys
from pathlib import Path
import torch, torch.distributed as together
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from ratchet.improve.training.checkpoints import (
    load_optimizer, optimizer_state, save_optimizer, save_optimizer_shards
)
from tests.improve.training.test_checkpoints import fresh, optimized, steps

together.init_process_group("gloo")
first = together.get_rank() == 0
model, _, _ = fresh(0)
model[1].p = 0.0  # each process draws for itself
fully_shard(model, mesh=init_device_mesh("cpu", (together.get_world_size(),)))
optimizer, schedule = optimized(model)
folder, whole = Path(sys.argv[2]), Path(sys.argv[3])
if sys.argv[1] == "write":
    torch.manual_seed(5)
    steps(model, optimizer, schedule, 3)
    save_optimizer_shards(model, optimizer, schedule, folder, first=first)
else:
    load_optimizer(model, optimizer, schedule, folder)
state = optimizer_state(model, optimizer)
if first:
    whole.mkdir()
    save_optimizer(state, schedule, whole)
together.destroy_process_group()
"""


@pytest.mark.slow
def test_moments_of_a_spread_model_are_written_in_shards_and_read_by_any_number(tmp_path):
    """FSDP2 over gloo: two processes write, three read, and so does one that has all of it."""
    folder = tmp_path / "checkpoint-3"
    folder.mkdir()
    root = str(Path(__file__).parents[3])
    path = os.pathsep.join([root, f"{root}/src", os.environ.get("PYTHONPATH", "")])
    for what, processes in (("write", 2), ("read", 3)):
        arguments = ["--standalone", f"--nproc-per-node={processes}", "--no-python"]
        program = [sys.executable, "-c", SPREAD, what, str(folder), str(tmp_path / what)]
        subprocess.run(
            [sys.executable, "-m", "torch.distributed.run", *arguments, *program],
            check=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        )
    shards = [load_file(shard) for shard in sorted((folder / "optimizer").iterdir())]
    assert len(shards) == 2
    expected = load_file(tmp_path / "write" / "optimizer.safetensors")
    moments = [name for name in expected if name.endswith("exp_avg")]
    assert len(moments) == 3
    assert not (folder / "optimizer.safetensors").exists()  # nobody held all of it
    held = [sum(shard[name].numel() for name in moments if name in shard) for shard in shards]
    assert max(held) < sum(held) == sum(expected[name].numel() for name in moments)

    model, optimizer, schedule = fresh(1)
    load_optimizer(model, optimizer, schedule, folder)
    save_optimizer(optimizer_state(model, optimizer), schedule, tmp_path)
    read = load_file(tmp_path / "read" / "optimizer.safetensors")
    alone = load_file(tmp_path / "optimizer.safetensors")
    assert set(read) == set(alone) == set(expected)
    for name, tensor in expected.items():
        assert tensor.abs().sum() > 0.0
        assert torch.equal(read[name], tensor)
        assert torch.equal(alone[name], tensor)
    assert schedule.get_last_lr() == [0.1 * 0.9**3]
    refuse_pickles(folder)
    seal(folder)
    assert latest_checkpoint(tmp_path) == folder
    (folder / "optimizer" / "shard-00002-model-00001-of-00001.safetensors").unlink()
    with pytest.raises(ModelError, match="changed or missing optimizer/shard-00002"):
        latest_checkpoint(tmp_path)


def test_a_work_folder_is_held_by_one_process(tmp_path):
    with (
        sole_process(tmp_path),
        pytest.raises(BusyError, match="one process at a time"),
        sole_process(tmp_path),
    ):
        pass
    with sole_process(tmp_path):
        pass
