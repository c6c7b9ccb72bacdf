import pytest
import torch

from ratchet.errors import InvalidInputError
from ratchet.improve.training.config import FinetuneConfig
from ratchet.improve.training.devices import (
    choose_device,
    environment,
    multiplying,
    peak_memory_megabytes,
)

on_a_cpu = pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@on_a_cpu
def test_a_cpu_computes_in_float32_and_says_why():
    device = choose_device(FinetuneConfig())
    assert (device.kind, device.count, device.precision) == ("cpu", 0, "float32")
    assert device.words == (
        f"CPU, {torch.get_num_threads()} threads, float32 (exact, and fast on any CPU)"
    )
    asked = choose_device(FinetuneConfig(precision="bfloat16"))
    assert asked.precision == "bfloat16"
    assert "as asked for" in asked.words
    assert "products at 'medium'" in choose_device(FinetuneConfig(multiply="medium")).words


@on_a_cpu
def test_qlora_without_a_gpu_is_refused_before_anything_is_loaded():
    with pytest.raises(InvalidInputError, match="this machine lacks a GPU"):
        choose_device(FinetuneConfig(quantize=True))


@on_a_gpu
def test_a_gpu_computes_in_bfloat16_where_it_can():
    device = choose_device(FinetuneConfig())
    assert device.kind == "cuda"
    able = torch.cuda.is_bf16_supported(including_emulation=False)
    assert device.precision == ("bfloat16" if able else "float32")
    assert choose_device(FinetuneConfig(precision="float32")).precision == "float32"


def test_the_precision_of_products_is_as_before_afterwards():
    before = torch.get_float32_matmul_precision()
    with multiplying("medium"):
        assert torch.get_float32_matmul_precision() == "medium"
    assert torch.get_float32_matmul_precision() == before


def test_the_environment_names_versions_and_machine():
    found = environment()
    assert found["torch"] == torch.__version__
    assert {"python", "system", "threads", "transformers", "trl", "peft"} <= set(found)
    assert peak_memory_megabytes(choose_device(FinetuneConfig())) > 50.0
