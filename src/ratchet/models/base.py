"""What every language model is, an OpenAI-compatible one, and one with scripted answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import httpx

from ratchet.records import Message, digest

if TYPE_CHECKING:
    pass


Conversation: TypeAlias = Sequence[Message]


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
        self,
        conversations: Sequence[Conversation],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int | None = None,
    ) -> list[Completion]:
        """Answer every conversation, in order.

        Args:
            conversations: What is asked.
            max_new_tokens: Longest answer.
            temperature: 0 for greedy decoding; above it answers are sampled.
            seed: Of the sampling; each conversation's own randomness follows from it.
        """
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
        self,
        conversations: Sequence[Conversation],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int | None = None,
    ) -> list[Completion]:
        """Answer every conversation by the function, cut to `max_new_tokens` words."""
        del temperature, seed  # a script does not sample
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
        self,
        conversations: Sequence[Conversation],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int | None = None,
    ) -> list[Completion]:
        """Answer in parallel; a request that fails for good is a completion with its error."""

        def decoding(place: int) -> dict[str, float]:
            return {"temperature": temperature} | ({} if seed is None else {"seed": seed + place})

        with ThreadPoolExecutor(self._concurrency) as pool:
            return list(
                pool.map(
                    lambda place: self._complete(
                        conversations[place], max_new_tokens, decoding(place)
                    ),
                    range(len(conversations)),
                )
            )

    def _complete(
        self, conversation: Conversation, max_new_tokens: int, decoding: dict[str, float]
    ) -> Completion:
        started = time.monotonic()
        body = {
            "model": self._model,
            "messages": [message.canonical() for message in conversation],
            "max_tokens": max_new_tokens,
            **decoding,
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
