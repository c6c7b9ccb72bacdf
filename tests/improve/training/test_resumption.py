"""A run that is killed and started again ends as one that was not, in losses and weights."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ratchet.errors import ModelError
from ratchet.improve.training.callbacks import Checkpoints
from ratchet.improve.training.checkpoints import latest_checkpoint, refuse_pickles
from ratchet.improve.training.config import FinetuneConfig
from ratchet.improve.training.finetune import FinetuneResult, finetune
from ratchet.improve.training.run import prepare_job, train, work_folder
from tests.improve.training.cases import made_up

# Everything that could go differently: chance in the model, gradients that add up, a last step of
# an epoch with fewer rows, measurements in between.
CONFIG = FinetuneConfig(
    rank=4,
    alpha=8,
    dropout=0.2,
    epochs=3.0,
    learning_rate=1e-2,
    batch_size=8,
    micro_batch=4,
    warmup_steps=2,
    validation_share=0.2,
)
ROWS = 24
# The same machine computes the same; another build of torch may round differently.
EXACT = 1e-6


pytestmark = pytest.mark.usefixtures("one_thread")


def run(base: Path, home: Path, method: str, slow: bool = False) -> FinetuneResult:
    def report(step: int, values: object) -> None:
        print("at", step, flush=True)
        time.sleep(0.3 if slow else 0.0)  # for the one who kills

    return finetune(
        made_up(method, ROWS),
        CONFIG.model_copy(update={"method": method}),
        base=base,
        start_from=None,
        key="a" * 64,
        home=home,
        checkpoints=Checkpoints(seconds=1e9, steps=2),
        report=report,
        samples=2,
    )


def weights(home: Path, result: FinetuneResult) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(home / result.folder / "adapter_model.safetensors")
    return found


CHILD = """
import sys
from pathlib import Path
from tests.improve.training import test_resumption as tests
tests.run(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], slow=True)
"""


def run_and_kill(base: Path, home: Path, method: str, at: int) -> None:
    root = Path(__file__).parents[3]
    path = os.pathsep.join([str(root), str(root / "src"), os.environ.get("PYTHONPATH", "")])
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(base), str(home), method],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path, "TQDM_DISABLE": "1"},
    )
    output = []
    assert child.stdout is not None
    for line in child.stdout:
        output.append(line)
        if line.startswith(f"at {at}\n"):
            break
    assert output[-1].startswith(f"at {at}\n"), "".join(output)
    child.send_signal(signal.SIGKILL)
    child.wait()


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    [
        "sft",
        pytest.param("kto", marks=pytest.mark.slow),
        pytest.param("dpo", marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_ends_as_one_that_was_not(tiny_model, tmp_path, method):
    whole = run(tiny_model, tmp_path / "whole", method)
    home = tmp_path / "killed"
    run_and_kill(tiny_model, home, method, at=5)
    assert not (home / "adapters" / ("a" * 16)).exists()
    refuse_pickles(home)
    result = run(tiny_model, home, method)

    assert result.resumed_at == (4,)
    assert len(result.losses) == 9  # 20 rows or so in batches of 8, three times
    assert result.losses == pytest.approx(whole.losses, abs=EXACT)
    assert dict(result.validation) == pytest.approx(dict(whole.validation), abs=EXACT)
    assert result.tokens == whole.tokens
    assert [sample.before for sample in result.samples] == [s.before for s in whole.samples]
    expected = weights(tmp_path / "whole", whole)
    found = weights(home, result)
    assert set(found) == set(expected)
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], atol=EXACT, rtol=0.0)
    refuse_pickles(home)
    assert [path.name for path in (home / "adapters").iterdir()] == ["a" * 16]


@pytest.mark.mostly_slow("kto-1")
@pytest.mark.parametrize("pauses", [1, 4])
@pytest.mark.parametrize("method", ["sft", "kto", "dpo"])
def test_a_run_that_pauses_after_its_first_steps_is_the_same_run(
    tiny_model, tmp_path, method, pauses
):
    config = CONFIG.model_copy(update={"method": method, "epochs": 1.4})
    job = prepare_job(made_up(method, ROWS), config, base=tiny_model, start_from=None)
    job = replace(job, checkpoints=Checkpoints(seconds=1e9))
    histories, adapters = [], []
    for name, stops in (("whole", ()), ("paused", range(1, pauses + 1))):
        with work_folder(tmp_path / name, "b" * 64) as work:
            for step in stops:
                train(replace(job, pause_at=step), work)
                assert latest_checkpoint(work) == work / f"checkpoint-{step}"
            trained = train(job, work)
        losses = {entry["step"]: entry["loss"] for entry in trained.history if "loss" in entry}
        histories.append(losses)
        state = trained.trainer.model.state_dict()
        adapters.append({name: value for name, value in state.items() if "lora" in name})
    assert list(histories[0]) == [1, 2, 3, 4, 5]
    assert histories[1] == pytest.approx(histories[0], abs=EXACT)
    for name, tensor in adapters[1].items():
        torch.testing.assert_close(tensor, adapters[0][name], atol=EXACT, rtol=0.0)


def test_a_checkpoint_is_without_pickles_and_one_with_is_refused(tiny_model, tmp_path):
    job = prepare_job(made_up("sft", ROWS), CONFIG, base=tiny_model, start_from=None)
    with work_folder(tmp_path, "a" * 64) as work:
        train(replace(job, pause_at=2), work)
        folder = latest_checkpoint(work)
        assert folder is not None
        kinds = {path.suffix for path in folder.iterdir()}
        assert kinds == {".safetensors", ".json"}
        torch.save({}, folder / "optimizer.pt")
    with pytest.raises(ModelError, match=r"may be a pickle: optimizer\.pt"):
        run(tiny_model, tmp_path, "sft")


def test_a_checkpoint_of_other_steps_is_refused(tiny_model, tmp_path):
    job = prepare_job(made_up("sft", ROWS), CONFIG, base=tiny_model, start_from=None)
    fewer = CONFIG.model_copy(update={"batch_size": 4})
    with work_folder(tmp_path, "a" * 64) as work:
        train(replace(job, pause_at=2), work)
        with pytest.raises(ModelError, match="got 4 for checkpoint-2, which has 8"):
            train(replace(job, config=fewer), work)


def test_an_adapter_with_a_pickle_beside_it_is_no_start(tiny_model, tmp_path):
    first = run(tiny_model, tmp_path, "sft")
    (tmp_path / first.folder / "training_args.bin").write_bytes(b"\x80\x04")
    with pytest.raises(ModelError, match=r"may be a pickle: training_args\.bin"):
        finetune(
            made_up("sft", ROWS),
            CONFIG,
            base=tiny_model,
            start_from=tmp_path / first.folder,
            key="c" * 64,
            home=tmp_path,
        )


def test_a_run_that_nobody_went_on_with_for_weeks_is_forgotten(tiny_model, tmp_path):
    old, recent = (tmp_path / "adapters" / f"training-{name}" for name in ("old", "recent"))
    for folder in (old, recent):
        (folder / "checkpoint-1").mkdir(parents=True)
    month_ago = time.time() - 30 * 86_400
    for path in (old / "checkpoint-1", old):
        os.utime(path, (month_ago, month_ago))
    run(tiny_model, tmp_path, "sft")
    assert not old.exists()
    assert recent.exists()
