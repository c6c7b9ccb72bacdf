"""GGUF files of every kind of model that is written: llama.cpp answers as transformers does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from ratchet.errors import ModelError
from ratchet.models import HuggingFaceModel
from ratchet.models.equal_answers import Equality, Prompt, answers_of, gguf_answers
from ratchet.models.gguf_file import write_gguf
from ratchet.records import Message

pytestmark = pytest.mark.usefixtures("one_thread")
TEXTS = (
    "Where is my card?",
    "I paid 120.50 € twice…",
    "  two  spaces",
    "Ünïcode, 你好 🙂",
    "\n\nx",
)
PROMPTS = [Prompt((Message(role="user", content=text),)) for text in TEXTS]
SIZES = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 1024,
    "initializer_range": 0.3,
}  # fmt: skip
SCALED = {
    "rope_type": "llama3", "rope_theta": 10_000.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 32,
}  # fmt: skip
KINDS = {
    "llama": (LlamaConfig, LlamaForCausalLM, {}),
    "llama, tied": (LlamaConfig, LlamaForCausalLM, {"tie_word_embeddings": True}),
    "llama, scaled": (LlamaConfig, LlamaForCausalLM, {"rope_parameters": SCALED}),
    "mistral": (MistralConfig, MistralForCausalLM, {"sliding_window": None}),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {}),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {"head_dim": 32}),
}


def made(tiny: Path, folder: Path, kind: str) -> Path:
    """Write a model with large random weights, so that no two tokens are about as likely."""
    config_type, model_type, more = KINDS[kind]
    shutil.copytree(tiny, folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    size = json.loads((tiny / "config.json").read_text("utf-8"))["vocab_size"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = model_type(config_type(vocab_size=size, **SIZES, **more))
        for name, value in model.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(value, std=0.3)
    model.generation_config.eos_token_id = model.generation_config.pad_token_id = None
    model.save_pretrained(str(folder))
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_llama_cpp_answers_as_transformers_does(tiny_model, tmp_path, kind) -> None:
    folder = made(tiny_model, tmp_path / "model", kind)
    write_gguf(folder, tmp_path / "model.gguf")
    before = answers_of(HuggingFaceModel.load(folder, one_line=False), PROMPTS, 6)
    after = gguf_answers(tmp_path / "model.gguf", PROMPTS, 6)
    assert len(set(before)) > 1
    found = Equality.of(before, after)
    assert found.equal >= len(PROMPTS) - 1, found.differs  # one tie within float16's rounding


def test_a_model_without_a_place_in_gguf_is_refused(tiny_model, tmp_path) -> None:
    folder = made(tiny_model, tmp_path / "model", "llama")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    for changed, words in (
        ({"architectures": ["GemmaForCausalLM"]}, "got GemmaForCausalLM; export it as merged"),
        ({"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}}, "linear"),
    ):
        (folder / "config.json").write_text(json.dumps(config | changed), "utf-8")
        with pytest.raises(ModelError, match=words):
            write_gguf(folder, tmp_path / "model.gguf")
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    tokenizer = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    tokenizer["pre_tokenizer"] = {"type": "Whitespace"}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), "utf-8")
    with pytest.raises(ModelError, match="got BPE that splits by Whitespace"):
        write_gguf(folder, tmp_path / "model.gguf")
