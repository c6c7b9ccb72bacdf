"""The benchmark for a GPU, each part of it at toy size on a processor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.flop_counter import FlopCounterMode

from tests.benchmarks.gpu import missing, run_apart, run_part, scale_of
from tests.benchmarks.gpu_flops import PEAKS, known_peak, training_flops
from tests.benchmarks.gpu_models import (
    SHAPES,
    draw_lengths,
    lengths_of,
    make_model,
    make_rows,
    make_tokenizer,
)
from tests.benchmarks.gpu_parts import PARTS
from tests.benchmarks.gpu_report import Outcome, write
from tests.benchmarks.gpu_training import (
    WARM_STEPS,
    Clock,
    TimeOverError,
    kernels,
    kind_of_kernel,
    on_device,
    ours,
    trls,
)

ROOT = Path(__file__).parents[2]
# What a bare machine lacks and must not need, hidden from every process as if not installed.
NOT_THERE = "prefect,mlflow,sklearn,sqlalchemy,scipy,rensa,matplotlib,fastapi,yarl,aiohttp"
HIDING = """
import os
from importlib.machinery import PathFinder

hidden = set(os.environ["HIDDEN_PACKAGES"].split(","))
found = PathFinder.find_spec
PathFinder.find_spec = staticmethod(
    lambda name, *more: None if name.partition(".")[0] in hidden else found(name, *more)
)
"""


@pytest.fixture
def toy(tmp_path):
    return scale_of(True, tmp_path)


def later(seconds=300.0):
    return time.monotonic() + seconds


# What is counted ----------------------------------------------------------------------------------


def test_shapes_have_as_many_weights_as_the_models_that_they_are_named_after():
    """The two numbers are those of the weights in the published files of both models."""
    assert SHAPES["1b"].weights == 1_235_814_400
    assert SHAPES["8b"].weights == 8_030_261_248
    model = make_model("toy", "cpu", torch.float32)
    assert SHAPES["toy"].weights == sum(weight.numel() for weight in model.parameters())
    adapted = get_peft_model(model, LoraConfig(r=16, target_modules="all-linear"))
    trained = sum(weight.numel() for weight in adapted.parameters() if weight.requires_grad)
    assert SHAPES["toy"].adapter_weights(16) == trained


def test_model_flops_are_those_that_torch_counts():
    """Of the products alone; attention is compared by its own formula, see the module's table."""
    shape, rank, tokens = SHAPES["toy"], 4, 48
    model = make_model("toy", "cpu", torch.float32)
    adapted = get_peft_model(model, LoraConfig(r=rank, target_modules="all-linear"))
    ids = torch.randint(3, 900, (2, tokens))
    with FlopCounterMode(display=False) as counter:
        adapted(input_ids=ids, labels=ids).loss.backward()
    counted = counter.get_flop_counts()["Global"]
    products = sum(value for op, value in counted.items() if "attention" not in str(op))
    attention = 6 * shape.layers * shape.hidden * 2 * tokens**2
    expected = training_flops(shape, rank, [tokens, tokens], 2 * tokens) - attention
    # The first layer's q, k and v get an input that needs no gradient: neither their weights nor
    # the first matrices of their adapters multiply one.
    ends = shape.linears[:3]
    unneeded = sum(one * two for one, two in ends) + rank * sum(one for one, _ in ends)
    assert products == expected - 2 * unneeded * 2 * tokens


def test_cards_are_known_by_their_names():
    assert known_peak("NVIDIA H100 80GB HBM3") == 989e12
    assert known_peak("NVIDIA H100 PCIe") == 756e12
    assert known_peak("NVIDIA H200") == 989e12
    assert known_peak("NVIDIA A100-SXM4-80GB") == 312e12
    assert known_peak("NVIDIA L40S") == 362e12
    assert known_peak("NVIDIA L4") == 121e12
    assert known_peak("NVIDIA GeForce RTX 4090") == 165e12
    assert known_peak("Some other card") is None
    names = [name for name, _ in PEAKS]
    hidden = [b for at, a in enumerate(names) for b in names[at + 1 :] if a in b]
    assert hidden == []  # no name hides a longer one that comes after it


def test_rows_have_the_lengths_that_were_drawn():
    rng = np.random.default_rng(0)
    drawn = draw_lengths(rng, 4000, 1.0)
    answers = [answer for _, answer in drawn]
    prompts = [prompt for prompt, _ in drawn]
    assert max(one + two for one, two in drawn) <= 1000
    assert 250 < np.mean(answers) < 441  # the longest are drawn again
    assert np.median(prompts) < np.mean(prompts) / 1.5  # many short, few long
    rows = make_rows("sft", 40)
    found = lengths_of(rows)
    wanted = sum(one + two for one, two in draw_lengths_of(40))
    assert max(found.rows) <= 1024
    assert found.tokens == pytest.approx(wanted, rel=0.15)
    assert 0.5 < found.answers / found.tokens < 0.95
    assert [row.target for row in make_rows("sft", 40)] == [row.target for row in rows]


def draw_lengths_of(count):
    return draw_lengths(np.random.default_rng(0), count, 1.0)


def test_the_clock_leaves_the_first_steps_out_and_ends_the_run():
    clock = Clock(until=time.monotonic() + 100.0)
    for step in range(WARM_STEPS + 2):
        clock(step, {"loss": 1.0, "num_tokens": 10.0 * (step + 1)})
    clock(99, {"train_runtime": 1.0})
    steps, seconds, tokens = clock.timed
    assert (steps, tokens) == (2, 20.0)
    assert seconds >= 0.0
    late = Clock(until=0.0)
    for step in range(WARM_STEPS + 1):
        late(step, {"loss": 1.0})
    with pytest.raises(TimeOverError):
        late(99, {"loss": 1.0})
    assert late.timed[0] == 2


def test_kernels_are_told_apart_by_their_names():
    assert kind_of_kernel("flash_fwd_kernel<...>") == "attention"
    assert kind_of_kernel("nvjet_tst_256x128_64x4_1x2_h_bz_coopA_NTT") == "product"
    assert kind_of_kernel("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n") == "product"
    assert kind_of_kernel("vectorized_elementwise_kernel<4, at::native::MulFunctor>") == (
        "element by element"
    )
    assert kind_of_kernel("Memcpy DtoD (Device -> Device)") == "copy or cast"


def test_of_a_gpus_profile_the_kernels_count_and_not_the_operators_that_launch_them():
    from types import SimpleNamespace

    from torch.autograd import DeviceType

    def event(key, kind, micros, annotation=False):
        return SimpleNamespace(
            key=key, device_type=kind, self_device_time_total=micros, self_cpu_time_total=1.0,
            count=3, is_user_annotation=annotation,
        )  # fmt: skip

    events = [
        event("aten::mm", DeviceType.CPU, 75.0),
        event("nvjet_tst", DeviceType.CUDA, 75.0),
        event("flash_fwd", DeviceType.CUDA, 25.0),
        event("Optimizer.step", DeviceType.CUDA, 100.0, annotation=True),
    ]
    clock = Clock(until=later(), profile=2)
    clock.marks = [(float(n) * 1e-4, 0.0) for n in range(WARM_STEPS + 2)]
    clock.profiler = SimpleNamespace(key_averages=lambda: events)
    found = kernels(clock, gpu=True)
    assert [(one["kernel"], one["share"]) for one in found["kernels"]] == [
        ("nvjet_tst", 0.75),
        ("flash_fwd", 0.25),
    ]
    assert found["busy"] == pytest.approx(0.5)  # 100 of 200 microseconds


# Both sides train the same ------------------------------------------------------------------------


def test_both_sides_see_the_same_tokens(toy):
    rows = toy.rows(steps=5)
    one, two = Clock(later()), Clock(later())
    ours(toy, "toy", rows, one)
    trls(toy, "toy", rows, two)
    assert one.marks[-1][1] == two.marks[-1][1] == lengths_of(rows).tokens
    assert len(one.marks) == len(two.marks) == 5


def test_a_base_that_is_made_on_the_device_is_the_same_each_time():
    from ratchet.improve.training.config import FinetuneConfig
    from ratchet.improve.training.devices import choose_device

    config = FinetuneConfig()
    one, tokenizer = on_device("toy")(Path("x"), config, choose_device(config))
    two = make_model("toy", "cpu", torch.float32)
    assert all(map(torch.equal, one.parameters(), two.parameters()))
    assert tokenizer.pad_token_id == make_tokenizer().pad_token_id == one.config.pad_token_id


# Parts --------------------------------------------------------------------------------------------


def rows_of(name, scale):
    return list(PARTS[name].measure(scale, later()))


def test_the_machine_part_names_the_peak(toy):
    (row,) = rows_of("machine", toy)
    assert row["peak"] == row["flops_per_second"] > 0.0
    assert "not in the table" in row["peak_from"]
    assert row["versions"]["torch"] == torch.__version__


def test_lora_is_timed_on_both_sides_and_profiled_where_it_is_slow(toy):
    first, second, profile = rows_of("lora-8b", toy)
    assert (first["who"], second["who"]) == ("Ratchet", "TRL")
    for row in (first, second):
        assert row["tokens_per_second"] > 0.0
        assert row["flops_per_second"] > 0.0
        assert row["at_once"] == 8
    assert any(one["kind"] == "product" for one in profile["kernels"])
    assert sum(one["share"] for one in profile["kernels"]) <= 1.0 + 1e-9


@pytest.mark.slow
def test_variants_have_packing_and_gradient_checkpointing_on_both_sides(toy):
    rows = rows_of("variants-8b", toy)
    assert [row["who"] for row in rows].count("Ratchet") == 3
    assert all("note" not in row and row["tokens_per_second"] > 0.0 for row in rows)
    packed = [row for row in rows if "packing" in row["what"]]
    assert {row["attention"] for row in packed} == {"ratchet_packed", "sdpa"}


@pytest.mark.slow
def test_a_killed_run_goes_on_with_equal_losses(toy):
    (row,) = rows_of("resume", toy)
    assert row["equal"]
    assert row["what"] == "killed after step 5, resumed after (4,)"


@pytest.mark.slow
def test_preferences_are_timed(toy):
    assert [row["what"] for row in rows_of("preferences", toy)] == ["DPO", "KTO"]


def test_two_adapters_answer_in_one_batch(toy):
    one, two = rows_of("generation", toy)
    assert one["different_answers"] == 1
    assert two["different_answers"] == 2


def test_a_part_whose_package_is_missing_is_skipped_by_name(tmp_path):
    assert missing("qlora") in ([], ["bitsandbytes"])
    if missing("qlora"):
        into = tmp_path / "qlora.jsonl"
        run_part("qlora", into, tmp_path, toy=True, seconds=60.0)
        said = json.loads(into.read_text("utf-8"))
        assert said == {"status": "skipped", "why": "not installed: bitsandbytes"}


def test_a_run_that_fails_leaves_its_reason_in_its_row_and_the_others_go_on(toy, monkeypatch):
    import tests.benchmarks.gpu_training as training

    def fails(*_args, **_changes):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.")

    monkeypatch.setattr(training, "ours", fails)
    monkeypatch.setattr(training, "trls", lambda *_args, **_changes: {"tokens_per_second": 1.0})
    first, second = rows_of("lora-1b", toy)
    assert "out of memory" in first["note"]
    assert second["tokens_per_second"] == 1.0


# The command --------------------------------------------------------------------------------------


def run(tmp_path, *arguments, hidden=NOT_THERE):
    (tmp_path / "hide").mkdir()
    (tmp_path / "hide" / "sitecustomize.py").write_text(HIDING, "utf-8")
    path = os.pathsep.join([str(tmp_path / "hide"), str(ROOT / "src"), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.gpu", "--toy", "--out", str(tmp_path), *arguments],
        env=os.environ | {"PYTHONPATH": path, "HIDDEN_PACKAGES": hidden},
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "gpu.json").read_text("utf-8"))
    table = (tmp_path / "gpu.md").read_text("utf-8")
    assert table.strip() in done.stdout
    return {part["part"]: part for part in found["parts"]}, table


@pytest.mark.slow
@pytest.mark.parametrize(
    "parts",
    [("machine", "lora-1b"), ("machine", "lora-1b", "resume", "generation")],
    ids=len,
)
def test_the_command_runs_without_what_a_bare_machine_lacks(tmp_path, parts):
    found, table = run(tmp_path, "--one-process", "--parts", *parts)
    assert {name: part["status"] for name, part in found.items()} == dict.fromkeys(parts, "done")
    assert "| lora-1b | toy | Ratchet | defaults |" in table
    assert found["lora-1b"]["rows"][0]["share_of_peak"] > 0.0


@pytest.mark.slow
def test_without_trl_the_parts_that_train_are_skipped_by_name(tmp_path):
    parts = ["lora-1b", "generation", "qlora"]
    found, table = run(tmp_path, "--one-process", "--parts", *parts, hidden=f"{NOT_THERE},trl")
    assert found["generation"]["status"] == "done"
    assert (found["lora-1b"]["status"], found["lora-1b"]["why"]) == (
        "skipped",
        "not installed: trl",
    )
    assert "| lora-1b | | | skipped |" in table
    assert "trl" in found["qlora"]["why"]


def test_what_is_hidden_in_these_tests_is_hidden(tmp_path):
    found, _ = run(tmp_path, "--one-process", "--parts", "machine", hidden="torch")
    assert found["machine"]["why"] == "not installed: torch"


def test_a_part_is_ended_when_its_time_is_over(tmp_path):
    outcome = Outcome("lora-1b", "running")
    run_apart(
        "lora-1b", outcome, tmp_path / "a.jsonl", tmp_path, toy=True, seconds=1.0, update=list
    )
    assert (outcome.status, outcome.why) == ("out of time", "after 1 s")


def test_no_part_begins_without_time(tmp_path):
    found, _ = run(tmp_path, "--minutes", "0.2", "--parts", "machine", "lora-8b")
    assert {part["why"] for part in found.values()} == {"no time was left"}


def test_what_is_worth_most_fits_into_nine_minutes_at_its_slowest():
    worth = ["machine", "lora-1b", "lora-8b", "variants-8b", "resume", "preferences"]
    assert list(PARTS)[: len(worth)] == worth
    assert sum(PARTS[name].seconds for name in worth) < 9 * 60 - 10


@pytest.mark.slow
def test_every_part_runs_in_a_process_of_its_own(tmp_path):
    found, table = run(tmp_path, "--minutes", "60")
    states = {name: part["status"] for name, part in found.items()}
    assert states.pop("qlora") in ("done", "skipped", "failed")  # needs a GPU
    assert set(states.values()) == {"done"}
    assert list(found) == list(PARTS)
    assert table.count("TRL") > 5


def test_the_table_has_shares_and_speeds_beside_trl(tmp_path):
    machine = Outcome("machine", "done", rows=[
        {"what": "product", "peak": 1e15, "peak_from": "data sheet", "versions": {"torch": "2.11"},
         "flops_per_second": 8e14},
    ])  # fmt: skip
    lora = Outcome("lora-8b", "done", rows=[
        {"what": "defaults", "who": "Ratchet", "model": "8b", "tokens_per_second": 12_000.0,
         "flops_per_second": 4.2e14, "memory_gb": 70.0, "at_once": 8, "seconds_a_step": 0.3,
         "steps": 20, "attention": "sdpa"},
        {"what": "defaults", "who": "TRL", "model": "8b", "tokens_per_second": 8000.0},
        {"what": "profile", "who": "Ratchet", "model": "8b",
         "kernels": [{"kernel": "a|b", "kind": "product", "share": 0.5, "calls": 3}]},
    ])  # fmt: skip
    late = Outcome("resume", "out of time", "after 80 s")
    write([machine, lora, late], tmp_path, "2026-11-30 at commit abc")
    table = (tmp_path / "gpu.md").read_text("utf-8")
    assert "Peak: 1000 TFLOP/s by data sheet. torch 2.11." in table
    assert "| 12,000 | 1.50 | 420 | 42.0% | 70.0 | 8 | 0.300 s a step, 20 steps; sdpa |" in table
    assert "| resume | | | out of time | | | | | | | after 80 s |" in table
    assert "| `a/b` | product | 50.0% | 3 |" in table
    found = json.loads((tmp_path / "gpu.json").read_text("utf-8"))
    assert found["parts"][1]["rows"][0]["share_of_peak"] == pytest.approx(0.42)
