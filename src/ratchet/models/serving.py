"""One base model in memory with several LoRA adapters beside each other, answering as it goes.

    model = AdapterModel.load(base)
    model.add_adapter("router/2", folder)
    model.submit(Generation(conversation, adapter="router/2"), on_text=print, on_end=print)

A thread answers what waits in batches; a batch may mix adapters, since PEFT applies each row's own.
Every answer is told piece by piece. For a machine of one's own; vLLM does it faster, on GPUs.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ratchet.models.base import Conversation, Tools
from ratchet.models.given_template import check_template
from ratchet.models.local import load_pretrained
from ratchet.models.own_base import check_base
from ratchet.models.prefix_cache import PrefixCache
from ratchet.models.templates import ChatTemplate, context_of
from ratchet.models.weights import require_safetensors

logger = logging.getLogger(__name__)

_BASE = "__base__"  # PEFT's name for no adapter
_MOST_TOGETHER = 16
_MOST_TOKENS = 4_096  # of an answer without a limit, where the model names none either
_UNFINISHED = "\ufffd"  # what a decoder shows of a character whose last token is to come


@dataclass(frozen=True, slots=True)
class Generation:
    """What to answer, and how.

    Attributes:
        conversation: The turns so far.
        adapter: Name of an adapter; None for the base model.
        max_new_tokens: Longest answer; as long as the model can hold where it is negative.
        temperature: 0 decodes greedily.
        top_p: Share of the probability that is drawn from; 0 decodes greedily.
        stop: Texts that end the answer and are not part of it.
        seed: Makes a sampled answer repeatable, where it is answered alone.
        tools: Definitions of what it may call; calls stand in the answer's text.
    """

    conversation: Conversation
    adapter: str | None = None
    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    tools: Tools = ()

    @property
    def decoding(self) -> tuple[float, float, int | None]:
        """What all rows of a batch must share."""
        greedy = self.temperature == 0 or self.top_p == 0
        return (0.0, 1.0, None) if greedy else (self.temperature, self.top_p, self.seed)


@dataclass(frozen=True, slots=True)
class Ending:
    """How an answer ended.

    Attributes:
        reason: "stop" or "length"; "error" with what happened.
        prompt_tokens: Tokens read.
        completion_tokens: Tokens written.
    """

    reason: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    error: str | None = None


@dataclass(slots=True)
class ServingJob:
    """An answer in the making; set `cancelled` when nobody wants it any more.

    Attributes:
        prompt: The tokens that it answers.
        longest: Tokens that it may have.
    """

    generation: Generation
    prompt: list[int]
    longest: int
    on_text: Callable[[str], None]
    on_end: Callable[[Ending], None]
    cancelled: bool = False
    tokens: list[int] = field(default_factory=list)
    told: int = 0
    reason: str | None = None

    def take(self, token: int, decode: Callable[[list[int]], str], ends: frozenset[int]) -> None:
        """Add a token and tell what is new of the text."""
        if self.reason is not None:
            return
        if token in ends:
            self.reason = "stop"
        else:
            self.tokens.append(token)
            if len(self.tokens) >= self.longest:
                self.reason = "length"
        text = decode(self.tokens).lstrip()
        cut = min((at for stop in self.generation.stop if (at := text.find(stop)) >= 0), default=-1)
        if cut >= 0:
            text, self.reason = text[:cut], "stop"
        self._tell(text)

    def _tell(self, text: str) -> None:
        end = len(text)
        if self.reason is None:
            # what could still become a stop text, or is half a character, is held back
            end -= max((len(stop) - 1 for stop in self.generation.stop), default=0)
            end = min(end, len(text.rstrip(_UNFINISHED)))
        if end > self.told:
            self.on_text(text[self.told : end])
            self.told = end


class AdapterModel:
    """See the module's text. Safe to use from several threads."""

    def __init__(
        self, model: Any, tokenizer: Any, base: Path, *, together: int = _MOST_TOGETHER
    ) -> None:
        self._model, self._tokenizer, self._together = model, tokenizer, together
        self._base = base
        self._template, self._context = ChatTemplate(tokenizer), context_of(model)
        self._prefix_cache, self._adapters = PrefixCache(tokenizer.pad_token_id), set[str]()
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[ServingJob | None] = queue.SimpleQueue()
        self._later: list[ServingJob] = []
        self._ends = _end_tokens(model, tokenizer)
        self._thread = threading.Thread(target=self._work, name="generate", daemon=True)
        self._thread.start()

    @classmethod
    def load(cls, base: Path, *, together: int = _MOST_TOGETHER) -> AdapterModel:
        """Load a model folder.

        Raises:
            ModelError: The folder holds no safetensors.
        """
        require_safetensors(base, "model*.safetensors")
        model, tokenizer = load_pretrained(base)
        return cls(model.eval(), tokenizer, base, together=together)

    def add_adapter(self, name: str, folder: Path) -> None:
        """Load an adapter beside the others, once; waits for the batch in the making.

        Raises:
            ModelError: The folder holds no safetensors, or was trained with another chat template
                or on another base model.
        """
        if name in self._adapters:
            return
        require_safetensors(folder, "adapter_model.safetensors")
        check_base(self._base, folder)
        check_template(self._tokenizer, folder)
        from peft import PeftModel

        with self._lock:
            if name in self._adapters:
                return
            inner = _inner_name(name)
            if isinstance(self._model, PeftModel):
                self._model.load_adapter(str(folder), adapter_name=inner)
            else:
                self._model = PeftModel.from_pretrained(
                    self._model, str(folder), adapter_name=inner
                )
            self._model.eval()
            self._adapters.add(name)

    def has_adapter(self, name: str) -> bool:
        """Tell whether an adapter is loaded."""
        return name in self._adapters

    def submit(
        self,
        generation: Generation,
        on_text: Callable[[str], None],
        on_end: Callable[[Ending], None],
    ) -> ServingJob:
        """Queue an answer; the two are called from the model's thread.

        Raises:
            InvalidInputError: The model cannot be asked this: its chat template refuses the turns
                or the tools, or they fill its context.
        """
        turns = [turn.canonical() for turn in generation.conversation]
        prompt = self._template.encode(turns, context=self._context, tools=generation.tools)
        longest = generation.max_new_tokens
        if self._context is not None:
            room = self._context - len(prompt)
            longest = min(longest, room) if longest >= 0 else room
        elif longest < 0:
            longest = _MOST_TOKENS
        job = ServingJob(generation, prompt, longest, on_text, on_end)
        self._jobs.put(job)
        return job

    def close(self) -> None:
        """Finish the batch in the making and stop."""
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (batch := self._next_batch()) is not None:
            try:
                with self._lock:
                    self._answer(batch)
            except Exception as error:
                logger.exception("the local model failed")
                ending = Ending("error", error=f"{type(error).__name__}: {error}")
                for job in batch:
                    job.on_end(ending)

    def _next_batch(self) -> list[ServingJob] | None:
        """Return the oldest that waits with what goes best with it: adapter, length."""
        waiting, self._later = self._later, []
        while not waiting or not self._jobs.empty():
            job = self._jobs.get()
            if job is None:
                return None
            waiting.append(job)
        oldest, batch = waiting[0], list[ServingJob]()
        # one adapter reads what prompts begin with once, and rows are padded to one length
        for job in sorted(waiting, key=lambda job: _apart(job, oldest)):
            alike = job.generation.decoding == oldest.generation.decoding
            if alike and len(batch) < self._together and self._fits([*batch, job]):
                batch.append(job)
        taken = set(map(id, batch))
        self._later = [job for job in waiting if id(job) not in taken and not job.cancelled]
        return batch

    def _fits(self, jobs: Sequence[ServingJob]) -> bool:
        """Tell whether jobs fit into the context together: their rows are padded to one length."""
        longest = max(len(job.prompt) for job in jobs) + max(job.longest for job in jobs)
        return self._context is None or longest <= self._context or len(jobs) == 1

    def _answer(self, jobs: Sequence[ServingJob]) -> None:
        import torch
        from transformers import StoppingCriteriaList

        options: dict[str, Any] = {
            "max_new_tokens": max(job.longest for job in jobs),
            "pad_token_id": self._tokenizer.pad_token_id,
            "streamer": _Streamer(jobs, self._decode, self._ends),
            "stopping_criteria": StoppingCriteriaList([_finished_rows(jobs)]),
            **_sampling(jobs[0].generation),
        }
        names = [_inner_name(job.generation.adapter) for job in jobs]
        if self._adapters:
            options["adapter_names"] = names
        encoded = self._prefix_cache.inputs(
            self._model,
            [job.prompt for job in jobs],
            adapters=names if self._adapters else None,
        )
        with torch.inference_mode(), torch.random.fork_rng(devices=[]):
            if (seed := jobs[0].generation.decoding[2]) is not None:
                torch.manual_seed(seed)
            self._model.generate(**encoded, **options)
        for job in jobs:
            job.on_end(Ending(job.reason or "length", len(job.prompt), len(job.tokens)))

    def _decode(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True))


class _Streamer:
    """Hands each new token to its row's job; `generate` calls it with (n,) tokens a step."""

    def __init__(
        self, jobs: Sequence[ServingJob], decode: Callable[[list[int]], str], ends: frozenset[int]
    ) -> None:
        self._jobs, self._decode, self._ends = jobs, decode, ends
        self._prompt = True

    def put(self, value: Any) -> None:
        """Take the prompts first, then one token a row."""
        if self._prompt:
            self._prompt = False
            return
        for job, token in zip(self._jobs, value.tolist(), strict=True):
            job.take(token, self._decode, self._ends)

    def end(self) -> None:
        """Nothing is left to do: endings are told with their counts."""


def _apart(one: ServingJob, other: ServingJob) -> tuple[bool, bool, int]:
    """Tell how costly two jobs are together: by adapter, then by length; the same job first."""
    adapters = one.generation.adapter, other.generation.adapter
    return one is not other, adapters[0] != adapters[1], abs(len(one.prompt) - len(other.prompt))


def _finished_rows(jobs: Sequence[ServingJob]) -> Callable[..., Any]:
    def finished(input_ids: Any, _scores: Any, **_: Any) -> Any:
        import torch

        done = [job.reason is not None or job.cancelled for job in jobs]
        return torch.tensor(done, device=input_ids.device)

    return finished


def _sampling(generation: Generation) -> dict[str, Any]:
    temperature, top_p, _ = generation.decoding
    if temperature == 0:
        return {"do_sample": False}
    return {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0}


def _inner_name(adapter: str | None) -> str:
    """PEFT's modules take no dots in a name, and the base has one of its own."""
    return _BASE if adapter is None else adapter.replace(".", "_").replace("/", "-")


def _end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    named: int | Iterable[int] | None = getattr(model.generation_config, "eos_token_id", None)
    ends = {named} if isinstance(named, int) else set(named or ())
    if tokenizer.eos_token_id is not None:
        ends.add(tokenizer.eos_token_id)
    return frozenset(ends)
