"""Language models behind one protocol: local Hugging Face, OpenAI-compatible HTTP, scripted.

    base = prepare_base_model("smollm2", cache)
    model = HuggingFaceModel.load(base, adapter=Path("adapter"))
    completions = model.generate([conversation], max_new_tokens=16)

    encoder = SentenceEncoder.load(MINILM)              # texts as vectors
    vectors = encoder.encode(["where is my card"])

Weights are read from safetensors only; a pickle is refused.
"""

from ratchet.files.whole import file_digest
from ratchet.models.base import Completion, Conversation, LanguageModel, Sampling, ScriptedModel
from ratchet.models.encoders import MINILM, Encoder, SentenceEncoder
from ratchet.models.local import HuggingFaceModel, load_pretrained
from ratchet.models.openai_compatible import OpenAICompatibleModel
from ratchet.models.served_encoder import ServedEncoder
from ratchet.models.weights import (
    SMOLLM2,
    adapter_digest,
    model_digest,
    prepare_base_model,
    quiet_transformers,
    require_safetensors,
)

__all__ = [
    "MINILM",
    "SMOLLM2",
    "Completion",
    "Conversation",
    "Encoder",
    "HuggingFaceModel",
    "LanguageModel",
    "OpenAICompatibleModel",
    "Sampling",
    "ScriptedModel",
    "SentenceEncoder",
    "ServedEncoder",
    "adapter_digest",
    "file_digest",
    "load_pretrained",
    "model_digest",
    "prepare_base_model",
    "quiet_transformers",
    "require_safetensors",
]
