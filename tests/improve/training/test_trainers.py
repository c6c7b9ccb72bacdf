"""What the trainers of the three methods learn, and that the settings do what they say."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from trl import SFTTrainer
from trl.trainer.utils import add_fused_lm_head

from ratchet.errors import InvalidInputError
from ratchet.improve.training.config import FinetuneConfig
from ratchet.improve.training.devices import choose_device, load_base
from ratchet.improve.training.examples import examples
from ratchet.improve.training.finetune import finetune
from ratchet.improve.training.heads import score_answers_only
from ratchet.improve.training.run import prepare_job, train, work_folder
from ratchet.improve.training.trainers import Batches, _on_one_gpu, build_trainer, kto_weights
from ratchet.models import HuggingFaceModel
from tests.improve.training.cases import QUEUES, asked, banking, made_up, rows_of

METHODS = ("sft", "kto", "dpo")
QUICK = FinetuneConfig(rank=8, alpha=16, epochs=2.0, learning_rate=1e-2, warmup_steps=0)
REAL = {
    "sft": {"epochs": 8.0, "learning_rate": 1e-2},
    "kto": {"epochs": 10.0, "learning_rate": 5e-3, "beta": 1.0},
    "dpo": {"epochs": 5.0, "learning_rate": 5e-3, "beta": 1.0},
}
# Loss of each step on made-up rows, of TRL 1.16.0 by itself: its SFTTrainer, KTOTrainer and
# DPOTrainer with the same adapter, fed the same batches as one epoch of both passes in a row, with
# its own head, sampler and reference. The first of each has a closed form too, see below.
CURVES = {
    "sft": (6.9671, 6.6619, 6.4591, 6.3593),
    "kto": (0.5000, 0.5053, 0.4907, 0.4984),
    "dpo": (0.6931, 0.7286, 0.6902, 0.6861),
}


pytestmark = pytest.mark.usefixtures("one_thread")


def learn(tiny_model, home, method="sft", *, rows=None, validation=(), samples=0, **settings):
    config = QUICK.model_copy(update={"method": method, **settings})
    return finetune(
        made_up(method, 16) if rows is None else rows,
        config,
        base=tiny_model,
        start_from=None,
        key="a" * 64,
        home=home,
        validation=validation,
        samples=samples,
    )


@pytest.fixture(scope="module")
def plain(tiny_model, tmp_path_factory):
    """Return what one run of a method with nothing but `QUICK` gave, made when first asked for."""

    @cache
    def result(method="sft"):
        return learn(tiny_model, tmp_path_factory.mktemp(f"plain-{method}"), method)

    return result


def of_step(result, name):
    return [entry[name] for entry in result.history if name in entry]


# Learning -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_the_loss_curve_is_pinned(plain, method):
    result = plain(method)
    assert len(result.losses) == 4  # 16 rows in batches of 8, twice
    assert result.losses == pytest.approx(CURVES[method], abs=2e-3)
    assert result.losses[-1] < result.losses[0]


def test_the_first_losses_have_a_closed_form(plain):
    """A new adapter changes nothing: the start's word against itself.

    SFT: near ln(vocabulary), 6.9 for 1,000 even chances. DPO: -log sigmoid(0) = ln 2. KTO:
    1 - sigmoid(0) = 1/2 for each row, both kinds weighted alike.
    """
    first = {method: plain(method).losses[0] for method in METHODS}
    assert first["sft"] == pytest.approx(np.log(1000), abs=0.2)
    assert first["dpo"] == pytest.approx(np.log(2), abs=1e-4)
    assert first["kto"] == pytest.approx(0.5, abs=1e-4)


def real_rows(shared_data, method):
    asks = banking(shared_data, 200)
    return rows_of(method, asks[:120]), rows_of(method, asks[120:]), asks[120:]


def right_answers(model, asks):
    answers = model.generate([asked(text) for text, _ in asks], max_new_tokens=4)
    return np.mean([a.text == QUEUES[queue] for a, (_, queue) in zip(answers, asks, strict=True)])


@pytest.mark.slow
def test_sft_learns_to_answer_real_messages(tiny_model, shared_data, tmp_path):
    rows, held_out, asks = real_rows(shared_data, "sft")
    result = learn(
        tiny_model, tmp_path, rows=rows, validation=held_out, rank=16, alpha=32, **REAL["sft"],
        batch_size=20,
    )  # fmt: skip
    before = right_answers(HuggingFaceModel.load(tiny_model), asks)
    after = right_answers(HuggingFaceModel.load(tiny_model, tmp_path / result.folder), asks)
    assert before == 0.0
    assert after > 0.9
    assert result.validation[-1][1] < result.validation[0][1] - 0.3


@pytest.mark.slow
@pytest.mark.parametrize("method", [pytest.param("kto", marks=pytest.mark.slow), "dpo"])
def test_kto_and_dpo_tell_right_answers_to_real_messages_from_wrong_ones(
    tiny_model, shared_data, tmp_path, method
):
    rows, held_out, _ = real_rows(shared_data, method)
    result = learn(
        tiny_model, tmp_path, method, rows=rows, validation=held_out, rank=16, alpha=32,
        **REAL[method], batch_size=20,
    )  # fmt: skip
    # the reward is beta times the log-ratio to the start, so both are even before training
    margins = of_step(result, "eval_rewards/margins")
    assert margins[-1] > 2.0
    assert result.validation[-1][1] < {"kto": 0.2, "dpo": 0.2}[method]
    if method == "dpo":
        assert of_step(result, "eval_rewards/accuracies")[-1] > 0.9


def test_a_patient_run_stops_and_keeps_its_best_adapter(tiny_model, tmp_path, caplog):
    rows, noise = made_up("sft", 16), rows_of("sft", [(f"{n}?", n % 2) for n in range(12)])
    settings = {"epochs": 50.0, "patience": 2, "evaluations": 1}
    with caplog.at_level("INFO"):
        result = learn(tiny_model, tmp_path, rows=rows, validation=noise, **settings)
    steps = [step for step, _ in result.validation]
    assert result.stopped_early
    assert len(result.losses) < 100
    assert result.best_step == min(result.validation, key=lambda found: found[1])[0]
    assert steps.index(result.best_step) == len(steps) - 1 - 2
    assert "no lower validation loss in 2 measurements" in caplog.text
    model = HuggingFaceModel.load(tiny_model, tmp_path / result.folder)
    assert model.digest != HuggingFaceModel.load(tiny_model).digest


# Settings -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_fewer_at_once_at_the_same_examples_a_step_gives_the_same_losses(
    plain, tiny_model, tmp_path
):
    for method in ("sft", "dpo"):
        whole = plain(method)
        split = learn(tiny_model, tmp_path / f"{method}-2", method, micro_batch=2)
        assert (whole.batch, split.batch) == ((8, 8), (8, 2))
        assert split.losses == pytest.approx(whole.losses, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("above", "fit"), [(4, 4), pytest.param(1, 1, marks=pytest.mark.slow)])
def test_out_of_memory_is_tried_again_with_half_at_once(
    plain, tiny_model, tmp_path, monkeypatch, caplog, above, fit
):
    expected = plain()
    _runs_out_of_memory(monkeypatch, above=above)
    result = learn(tiny_model, tmp_path / "short")
    assert result.batch == (8, fit)
    assert result.losses == pytest.approx(expected.losses, abs=1e-4)
    assert f"out of memory; once more with {fit} examples at once" in caplog.text


@pytest.mark.slow
def test_where_one_example_does_not_fit_gradient_checkpointing_comes_first_and_then_an_error(
    tiny_model, tmp_path, monkeypatch, caplog
):
    _runs_out_of_memory(monkeypatch, above=0)
    with pytest.raises(torch.OutOfMemoryError):
        learn(tiny_model, tmp_path, batch_size=2)
    said = [line for line in caplog.messages if line.startswith("out of memory")]
    assert [line.removeprefix("out of memory; once more with ") for line in said] == [
        "1 examples at once",
        "gradient checkpointing",
        "1 examples at once",
    ]


@pytest.mark.slow
def test_gradient_checkpointing_begins_where_one_example_did_not_fit(
    plain, tiny_model, tmp_path, monkeypatch
):
    expected = plain()
    embedding = torch.nn.Embedding.forward
    failed = []

    def scarce(self, tokens):
        if len(failed) < 4:  # with 8, 4, 2 and 1 at once
            failed.append(len(tokens))
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.")
        return embedding(self, tokens)

    monkeypatch.setattr(torch.nn.Embedding, "forward", scarce)
    result = learn(tiny_model, tmp_path / "short")
    assert failed == [8, 4, 2, 1]
    assert result.batch == (8, 8)
    assert result.losses == pytest.approx(expected.losses, abs=1e-4)


def _runs_out_of_memory(monkeypatch, *, above):
    """Have torch run out of memory where more than so many examples are embedded at once."""
    embedding = torch.nn.Embedding.forward

    def scarce(self, tokens):
        if len(tokens) > above:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.")
        return embedding(self, tokens)

    monkeypatch.setattr(torch.nn.Embedding, "forward", scarce)


def test_with_a_base_in_4_bits_the_adapter_that_it_starts_from_is_trained(tiny_model, tmp_path):
    """The base is not in 4 bits here, which takes a GPU: what is built around it is the same."""
    first = learn(tiny_model, tmp_path)
    config = QUICK.model_copy(update={"quantize": True})
    device = choose_device(QUICK)
    base, tokenizer = load_base(tiny_model, QUICK, device)
    model = PeftModel.from_pretrained(base, tmp_path / first.folder, is_trainable=True)
    trainer = build_trainer(
        model, tokenizer, examples(made_up("sft", 8), "sft"), [],
        config=config, device=device, batches=Batches(8, 8, 1), work=tmp_path,
    )  # fmt: skip
    trained = [name for name, weight in trainer.model.named_parameters() if weight.requires_grad]
    assert len(trained) == 2 * 2 * 7  # A and B, layers, linear modules
    assert all("lora" in name for name in trained)


def test_a_process_that_sees_several_gpus_uses_one():
    seen = SimpleNamespace(n_gpu=4, _n_gpu=4)
    assert _on_one_gpu(seen)._n_gpu == 1
    none = SimpleNamespace(n_gpu=0, _n_gpu=0)
    assert _on_one_gpu(none)._n_gpu == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("sft", {"gradient_checkpointing": True}),
        pytest.param("sft", {"packing": True}, marks=pytest.mark.slow),
        pytest.param("sft", {"dora": True}, marks=pytest.mark.slow),
        pytest.param("kto", {}, marks=pytest.mark.slow),
        pytest.param("dpo", {}, marks=pytest.mark.slow),
    ],
)
def test_bfloat16_trains_measures_and_answers(tiny_model, tmp_path, method, settings):
    """What a GPU computes in: the layers' input is not widened in training, and is elsewhere."""
    common = {"validation_share": 0.25, "samples": 2, **settings}
    exact = learn(tiny_model, tmp_path / "exact", method, **common)
    narrow = learn(tiny_model, tmp_path / "narrow", method, precision="bfloat16", **common)
    assert narrow.losses == pytest.approx(exact.losses, rel=0.05)
    assert dict(narrow.validation) == pytest.approx(dict(exact.validation), rel=0.05)
    assert len(narrow.samples) == len(exact.samples) == 2


def test_gradient_checkpointing_changes_no_loss(plain, tiny_model, tmp_path):
    spared = learn(tiny_model, tmp_path / "spared", gradient_checkpointing=True)
    assert spared.losses == pytest.approx(plain().losses, abs=1e-5)


@pytest.mark.slow
def test_packed_examples_do_not_see_each_other(tiny_model, tmp_path):
    """One step over all rows: the loss is the mean over answer tokens, packed or not."""
    one = {"epochs": 1.0, "batch_size": 16}
    plain = learn(tiny_model, tmp_path / "plain", **one)
    packed = learn(tiny_model, tmp_path / "packed", **one, packing=True, maximum_tokens=128)
    assert packed.tokens == plain.tokens
    assert packed.losses == pytest.approx(plain.losses, abs=1e-4)
    assert len(packed.losses) == 1


def tensors(folder):
    with safe_open(folder / "adapter_model.safetensors", "pt") as file:
        return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118


def test_the_adapter_is_as_configured(tiny_model, tmp_path):
    result = learn(
        tiny_model,
        tmp_path,
        rank=4,
        alpha=8,
        targets=("q_proj", "v_proj"),
        dora=True,
        rslora=True,
        dropout=0.1,
    )
    folder = tmp_path / result.folder
    config = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    assert sorted(config["target_modules"]) == ["q_proj", "v_proj"]
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (4, 8, 0.1)
    assert config["use_dora"]
    assert config["use_rslora"]
    names = tensors(folder)
    assert sum("lora_magnitude_vector" in name for name in names) == 2 * 2  # layers x modules
    assert {shape[0] for name, shape in names.items() if "lora_A" in name} == {4}
    every = tensors(tmp_path / "all" / learn(tiny_model, tmp_path / "all").folder)
    assert sum("lora_A" in name for name in every) == 2 * 7  # layers x linear modules
    assert not any("lm_head" in name or "embed" in name for name in every)


@pytest.mark.mostly_slow("kto")
@pytest.mark.parametrize("method", ["kto", "dpo"])
def test_what_goes_on_from_an_adapter_stays_near_that_one(tiny_model, tmp_path, method):
    """Its first loss is that of no difference, though the adapter is far from the base."""
    start = tmp_path / learn(tiny_model, tmp_path).folder
    config = QUICK.model_copy(update={"method": method, "epochs": 1.0})
    result = finetune(
        made_up(method, 16), config, base=tiny_model, start_from=start, key="b" * 64, home=tmp_path
    )
    assert result.losses[0] == pytest.approx({"dpo": np.log(2), "kto": 0.5}[method], abs=1e-4)
    assert set(tensors(tmp_path / result.folder)) == set(tensors(start))


def test_a_target_that_the_model_does_not_have_is_one_error(tiny_model, tmp_path):
    config = FinetuneConfig(targets=("q_proj", "query"))
    with pytest.raises(InvalidInputError, match=r"got query; choose from .*q_proj") as refused:
        finetune(
            made_up("sft", 4), config, base=tiny_model, start_from=None, key="t" * 64, home=tmp_path
        )
    assert "embed" not in str(refused.value)


def test_kto_weights_make_both_thumbs_count_the_same():
    """Equation 8 of the KTO paper: wanted weight x wanted = unwanted weight x unwanted."""
    rows = examples(made_up("kto", 40), "kto")
    up = [example for example in rows if example["label"]]
    down = [example for example in rows if not example["label"]]
    config = FinetuneConfig(method="kto")
    for some in (up + down[:5], up[:5] + down, rows):
        wanted, unwanted = kto_weights(config, some)
        number = sum(example["label"] for example in some)
        assert wanted * number == pytest.approx(unwanted * (len(some) - number))
        assert min(wanted, unwanted) == 1.0
    assert kto_weights(config.model_copy(update={"desirable_weight": 3.0}), rows) == (3.0, 1.0)


def test_every_number_of_a_run_is_kept_and_reported(tiny_model, tmp_path):
    told = []
    config = QUICK.model_copy(update={"validation_share": 0.25, "epochs": 1.0})
    result = finetune(
        made_up("sft", 16),
        config,
        base=tiny_model,
        start_from=None,
        key="a" * 64,
        home=tmp_path,
        report=lambda step, values: told.append((step, dict(values))),
        samples=3,
    )
    assert [step for step, values in told if "loss" in values] == [1, 2]
    assert {"loss", "learning_rate", "grad_norm", "num_tokens"} <= set(told[0][1])
    assert of_step(result, "learning_rate") == pytest.approx([1e-2, 5e-3])
    assert [step for step, _ in result.validation] == [1, 2]
    assert result.tokens_per_second == result.tokens / result.seconds
    assert result.environment["torch"] == torch.__version__
    assert len(result.samples) == 3
    for sample in result.samples:
        assert sample.wanted in QUEUES
        assert sample.before != sample.after


# The order, the answers, the head -----------------------------------------------------------------


@pytest.fixture
def built(tiny_model, tmp_path):
    def build(method="sft", **settings):
        config = QUICK.model_copy(update={"method": method, "epochs": 1.0, **settings})
        job = prepare_job(made_up(method, 16), config, base=tiny_model, start_from=None)
        with work_folder(tmp_path, "c" * 64) as work:
            return train(replace(job, pause_at=1), work).trainer

    return build


def test_the_loss_is_on_the_answer_alone(built):
    trainer = built()
    tokenizer = trainer.processing_class
    rows = [trainer.train_dataset[place] for place in range(16)]
    batch = trainer.data_collator(rows)
    for place, row in enumerate(made_up("sft", 16)):
        labels = batch["labels"][place]
        learnt = tokenizer.decode(labels[labels != -100])
        assert learnt.replace("<|im_end|>", "").strip() == row.target
        assert tokenizer.eos_token_id in labels.tolist()
        whole = tokenizer.decode(batch["input_ids"][place])
        assert "Answer with the queue." in whole
        assert row.messages[-1].content in whole


def test_the_order_follows_from_seed_and_epoch_alone(built):
    trainer = built()
    order = trainer.order
    torch.manual_seed(0)
    order.set_epoch(0)
    first = list(order)
    torch.manual_seed(99)
    assert list(order) == first
    assert sorted(first) == list(range(16))
    order.set_epoch(1)
    assert list(order) != first
    lengths = [len(trainer.train_dataset[place]["input_ids"]) for place in first]
    assert lengths[:8] == sorted(lengths[:8], reverse=True)  # similar lengths go together


def test_the_head_for_answers_alone_gives_what_trl_gives(tiny_model):
    from transformers import AutoModelForCausalLM

    def scored(*, ours):
        model = AutoModelForCausalLM.from_pretrained(tiny_model)
        add_fused_lm_head(model, outputs=("log_probs", "entropy", "mean_logits", "is_top1"))
        assert not ours or score_answers_only(model)
        out = model(input_ids=tokens, labels=labels, fused_lm_head=True)
        out.loss.backward()
        return out, model.model.layers[0].self_attn.q_proj.weight.grad

    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 1000, (3, 20), generator=generator)
    labels = tokens.masked_fill(torch.arange(20) < torch.tensor([[15], [12], [3]]), -100)
    (trl, trl_gradient), (own, gradient) = scored(ours=False), scored(ours=True)
    for name in ("loss", "log_probs", "entropy", "mean_logits", "is_top1", "label_mask"):
        torch.testing.assert_close(own[name], trl[name], msg=name)
    torch.testing.assert_close(gradient, trl_gradient)


def test_the_head_leaves_everything_else_to_the_model(tiny_model):
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(tiny_model)
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    add_fused_lm_head(model)
    score_answers_only(model)
    tokens = torch.arange(10)[None]
    torch.testing.assert_close(model(tokens).logits, plain(tokens).logits)
    torch.testing.assert_close(
        model.generate(tokens, max_new_tokens=4, do_sample=False),
        plain.generate(tokens, max_new_tokens=4, do_sample=False),
    )
    nothing = torch.full_like(tokens, -100)
    assert model(input_ids=tokens, labels=nothing, fused_lm_head=True).loss.item() == 0.0


def test_trl_keeps_its_names_that_are_replaced_here(built):
    """What the derived trainer overrides must be there to be overridden."""
    trainer = built()
    for name in (
        "_get_train_sampler",
        "_send_telemetry",
        "_save_optimizer_and_scheduler",
        "_save_rng_state",
        "_save_checkpoint",
        "_load_from_checkpoint",
        "_load_optimizer_and_scheduler",
        "_load_rng_state",
    ):
        assert name in vars(type(trainer))
        assert hasattr(SFTTrainer, name), name
