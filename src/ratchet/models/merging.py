"""An adapter and its base model as one model, in a folder that transformers loads by itself."""

from __future__ import annotations

from pathlib import Path

from ratchet.models.given_template import check_template
from ratchet.models.own_base import check_base
from ratchet.models.weights import quiet_transformers, require_safetensors


def write_merged(base: Path, adapter: Path, folder: Path) -> None:
    """Write the model that an adapter makes of its base, in float32, with its tokenizer.

    Args:
        base: Folder of the base model.
        adapter: Folder of the adapter.
        folder: Where to; it is there and empty.

    Raises:
        ModelError: A folder holds no safetensors, or the adapter is of another base or template.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    require_safetensors(base, "model*.safetensors")
    require_safetensors(adapter, "adapter_model.safetensors")
    check_base(base, adapter)
    with quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(str(base), trust_remote_code=False)
        check_template(tokenizer, adapter)
        model = AutoModelForCausalLM.from_pretrained(
            str(base), dtype=torch.float32, use_safetensors=True, trust_remote_code=False
        )
        merged = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
        merged.save_pretrained(str(folder))
        tokenizer.save_pretrained(str(folder))
