import pytest
from pydantic import ValidationError

from ratchet.errors import InvalidInputError
from ratchet.improve.training.config import (
    FinetuneConfig,
    effective_batch,
    finetune_key,
    micro_batch,
    token_limit,
)
from ratchet.records import digest


def test_each_method_has_its_learning_rate_unless_one_is_given():
    assert FinetuneConfig().peak_learning_rate == 1e-3
    assert FinetuneConfig(method="kto").peak_learning_rate == 5e-5
    assert FinetuneConfig(method="dpo").peak_learning_rate == 5e-5
    assert FinetuneConfig(method="dpo", learning_rate=1e-4).peak_learning_rate == 1e-4
    assert FinetuneConfig(method="kto").resolved()["learning_rate"] == 5e-5
    assert set(FinetuneConfig().resolved()) == set(FinetuneConfig.model_fields)


def test_settings_that_do_not_hold_together_are_refused():
    with pytest.raises(ValidationError, match="packing is for method 'sft', got 'dpo'"):
        FinetuneConfig(method="dpo", packing=True)
    with pytest.raises(ValidationError, match="KTO needs batches of at least 2, got 1"):
        FinetuneConfig(method="kto", micro_batch=1)


def test_the_key_changes_with_every_setting_and_survives_json():
    config = FinetuneConfig()
    changed = {
        "method": "dpo",
        "rank": 8,
        "alpha": 8,
        "dropout": 0.1,
        "targets": ("q_proj",),
        "dora": True,
        "rslora": True,
        "quantize": True,
        "epochs": 1.0,
        "learning_rate": 1e-4,
        "batch_size": 4,
        "micro_batch": 2,
        "warmup_steps": 0,
        "weight_decay": 0.1,
        "maximum_tokens": 64,
        "token_ceiling": 1024,
        "packing": True,
        "gradient_checkpointing": True,
        "precision": "float32",
        "multiply": "medium",
        "beta": 0.2,
        "desirable_weight": 2.0,
        "validation_share": 0.1,
        "evaluations": 4,
        "patience": 3,
        "seed": 1,
    }
    assert set(changed) == set(FinetuneConfig.model_fields)
    keys = {
        finetune_key("data", FinetuneConfig(**{name: value}), "base", None)
        for name, value in changed.items()
    }
    key = finetune_key("data", config, "base", None)
    assert len(keys | {key}) == len(changed) + 1
    again = FinetuneConfig.model_validate_json(config.model_dump_json())
    assert finetune_key("data", again, "base", None) == key


@pytest.mark.parametrize(
    ("asked", "longest", "context", "expected"),
    [
        ({}, 100, 8192, 128),  # the next multiple of 64
        ({}, 128, 8192, 128),
        ({}, 9000, 8192, 4096),  # the ceiling
        ({}, 9000, 2048, 2048),  # the model's own
        ({}, 9000, None, 4096),
        ({"token_ceiling": 16_384}, 9000, 32_768, 9024),
        ({"packing": True}, 100, 8192, 512),  # a pack holds several rows
        ({"packing": True}, 700, 8192, 704),
        ({"maximum_tokens": 9000}, 100, 2048, 9000),  # what is asked for stands
    ],
)
def test_the_limit_of_tokens_follows_the_longest_row(asked, longest, context, expected):
    assert token_limit(FinetuneConfig(**asked), longest, context) == expected


def test_a_limit_that_is_given_has_the_key_that_it_had_before_there_was_a_ceiling():
    config = FinetuneConfig(maximum_tokens=512)
    dumped = config.model_dump(mode="json")
    assert dumped.pop("token_ceiling") == 4096
    assert finetune_key("data", config, "base", None) == digest(["data", dumped, "base", None])
    raised = config.model_copy(update={"token_ceiling": 8192})  # means nothing beside a limit
    assert finetune_key("data", raised, "base", None) == finetune_key("data", config, "base", None)


@pytest.mark.parametrize(
    ("asked", "examples", "processes", "most", "expected"),
    [
        ({}, 100, 1, None, (8, 8)),
        ({"micro_batch": 4}, 100, 1, None, (8, 4)),
        ({"micro_batch": 3}, 100, 1, None, (8, 2)),  # the largest divisor of 8 up to 3
        ({}, 100, 1, 4, (8, 4)),  # 8 ran out of memory
        ({}, 5, 1, None, (5, 5)),  # fewer examples than a step would have
        ({}, 5, 2, None, (4, 2)),
        ({}, 100, 2, None, (8, 4)),
        ({"batch_size": 12, "micro_batch": 2}, 100, 2, None, (12, 2)),
    ],
)
def test_a_step_is_spread_evenly(asked, examples, processes, most, expected):
    config = FinetuneConfig(**asked)
    found = (
        effective_batch(config, examples, processes),
        micro_batch(config, examples, processes, most),
    )
    assert found == expected


def test_a_step_that_processes_cannot_share_is_refused():
    with pytest.raises(InvalidInputError, match="multiple of the processes, got 8 for 3; use 9"):
        effective_batch(FinetuneConfig(), 100, 3)
