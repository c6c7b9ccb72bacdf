"""A model folder as one file of llama.cpp's format, GGUF, by the writer of the package `gguf`.

    write_gguf(folder, Path("model.gguf"))         # weights in float16, vectors in float32

| model in `config.json` | in GGUF |
|---|---|
| `LlamaForCausalLM` (SmolLM2, Llama 3 with its scaling of RoPE), `MistralForCausalLM` | `llama` |
| `Qwen2ForCausalLM`, `Qwen3ForCausalLM` | `qwen2`, `qwen3` |

The tokenizer must be a BPE of bytes that llama.cpp splits as `tokenizers` does: those of GPT-2,
SmolLM, Llama 3 and Qwen. Any other model or tokenizer is refused: llama.cpp's own
`convert_hf_to_gguf.py` takes many more, from a folder that was exported as `merged`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ratchet.errors import ModelError

if TYPE_CHECKING:
    from gguf import GGUFWriter

_ARCHITECTURES = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SPLITS = {  # how a tokenizer splits text, by the name that llama.cpp has for it
    ("ByteLevel",): "gpt-2",
    ("Digits", "ByteLevel"): "smollm",
    (_WORDS + r"\p{N}{1,3}" + _REST, "ByteLevel"): "llama-bpe",
    (_WORDS + r"\p{N}" + _REST, "ByteLevel"): "qwen2",
}
_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5


def write_gguf(folder: Path, file: Path) -> None:
    """Write a model folder as a GGUF file.

    Args:
        folder: In Hugging Face format, weights in safetensors.
        file: Where to.

    Raises:
        ModelError: The model or its tokenizer is of a kind that is not written here.
    """
    import gguf
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    name = _architecture(config)
    writer = gguf.GGUFWriter(file, name)
    _add_settings(writer, config)
    _add_tokenizer(writer, folder, config.vocab_size)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    for tensor, values in _tensors(folder, config, name):
        writer.add_tensor(tensor, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _architecture(config: Any) -> str:
    (wanted, *_) = config.architectures or [type(config).__name__]
    name = _ARCHITECTURES.get(wanted)
    if name is None or (getattr(config, "sliding_window", None) and _slides(config)):
        raise ModelError(
            f"a GGUF file can be written of {', '.join(_ARCHITECTURES)} without sliding windows, "
            f"got {wanted}; export it as merged, and convert that with llama.cpp's "
            "convert_hf_to_gguf.py"
        )
    return name


def _slides(config: Any) -> bool:
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        return "sliding_attention" in kinds
    return bool(getattr(config, "use_sliding_window", True))


def _head(config: Any) -> int:
    return int(
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    )


def _add_settings(writer: GGUFWriter, config: Any) -> None:
    rope = config.rope_parameters
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(_head(config))
    writer.add_value_length(_head(config))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_dimension_count(_head(config))
    writer.add_vocab_size(config.vocab_size)
    if rope.get("rope_type", "default") not in ("default", "llama3"):
        raise ModelError(
            f"a GGUF file can be written of models whose RoPE is scaled as Llama 3's or not at "
            f"all, got {rope['rope_type']!r}; export it as merged, and convert that with "
            "llama.cpp's convert_hf_to_gguf.py"
        )


def _add_tokenizer(writer: GGUFWriter, folder: Path, size: int) -> None:
    from transformers import AutoTokenizer

    stored = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    split = _splits(stored)
    added = {token["id"]: token for token in stored["added_tokens"]}
    by_id = {place: token for token, place in stored["model"]["vocab"].items()}
    by_id |= {place: token["content"] for place, token in added.items()}
    tokens = [by_id.get(place, f"[PAD{place}]") for place in range(size)]
    kinds = [_kind(place, by_id, added) for place in range(size)]
    merges = [
        pair if isinstance(pair, str) else " ".join(pair) for pair in stored["model"]["merges"]
    ]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(split)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    for name in ("bos", "eos", "unk", "pad"):
        place = getattr(tokenizer, f"{name}_token_id")
        if place is not None:
            getattr(writer, f"add_{name}_token_id")(place)
    begun = tokenizer("x").input_ids[:1] == [tokenizer.bos_token_id]
    writer.add_add_bos_token(begun)
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)


def _kind(place: int, by_id: Mapping[int, str], added: Mapping[int, Mapping[str, Any]]) -> int:
    if place not in by_id:
        return _UNUSED
    if place not in added:
        return _NORMAL
    return _CONTROL if added[place]["special"] else _USER_DEFINED


def _splits(stored: Mapping[str, Any]) -> str:
    """Return llama.cpp's name for how a tokenizer splits text before its merges."""
    before = stored.get("pre_tokenizer") or {}
    parts = before.get("pretokenizers", [before])
    found = tuple(
        part["pattern"].get("Regex", "") if part.get("type") == "Split" else part.get("type", "")
        for part in parts
    )
    model = stored["model"]
    plain = model["type"] == "BPE" and not model.get("byte_fallback")
    spaced = any(part.get("add_prefix_space") for part in parts)
    digits = all(part.get("individual_digits", True) for part in parts)
    name = _SPLITS.get(found)
    if name is None or spaced or not plain or not digits:
        raise ModelError(
            "a GGUF file can be written with the tokenizers of GPT-2, SmolLM, Llama 3 and Qwen, "
            f"got {model['type']} that splits by {', '.join(found)[:80] or 'nothing'}; export it "
            "as merged, and convert that with llama.cpp's convert_hf_to_gguf.py"
        )
    return name


def _tensors(folder: Path, config: Any, name: str) -> Iterator[tuple[str, np.ndarray]]:
    import gguf
    from safetensors import safe_open

    architecture = {value: key for key, value in gguf.MODEL_ARCH_NAMES.items()}[name]
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    for file in sorted(folder.glob("model*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for key in tensors.keys():  # noqa: SIM118, what is open is no mapping
                wanted = names.get_name(key, try_suffixes=(".weight", ".bias"))
                if wanted is None:
                    raise ModelError(
                        f"every weight must have a place in GGUF, got {key!r} of {name}, which "
                        "has none; export the adapter as merged"
                    )
                values = tensors.get_tensor(key).float().numpy()
                heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
                part = wanted.split(".")[-2]
                if name == "llama" and part in heads:
                    values = _turned(values, heads[part])
                yield wanted, values.astype(np.float16) if values.ndim > 1 else values
    if config.rope_parameters.get("rope_type") == "llama3":
        yield "rope_freqs.weight", _slowed(config)


def _turned(values: np.ndarray, heads: int) -> np.ndarray:
    """Order the rows of queries and keys for llama.cpp's RoPE, which turns pairs and not halves."""
    halves = values.reshape(heads, 2, -1, *values.shape[1:])
    return halves.swapaxes(1, 2).reshape(values.shape)


def _slowed(config: Any) -> np.ndarray:
    """Return by how much Llama 3's scaling divides each frequency of RoPE."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    steps = np.arange(0, _head(config), 2, dtype=np.float64) / _head(config)
    plain = 1.0 / np.power(float(config.rope_parameters["rope_theta"]), steps)
    slowed: np.ndarray = (plain / scaled.double().numpy()).astype(np.float32)
    return slowed
