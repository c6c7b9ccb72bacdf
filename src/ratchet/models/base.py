"""What every language model is, and one with scripted answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypedDict

from ratchet.records import Message, digest
from ratchet.records.asking import Usage

Conversation: TypeAlias = Sequence[Message]
Tools: TypeAlias = Sequence[Mapping[str, Any]]
"""Definitions of what a model may call, as OpenAI's API has them."""
Offered: TypeAlias = Sequence[Tools | None]
"""The tools of each conversation; None of one that has none."""
Formats: TypeAlias = Sequence[Mapping[str, Any] | None]
"""The `response_format` of each conversation; None of one that wants none."""


class AskedWith(TypedDict, total=False):
    """What `LanguageModel.generate` takes beside conversations."""

    tools: Offered
    response_formats: Formats


def only_given(tools: Offered, response_formats: Formats) -> AskedWith:
    """Return tools and forms as `generate` takes them, without what no conversation has."""
    found: AskedWith = {}
    if any(tools):
        found["tools"] = tools
    if any(form is not None for form in response_formats):
        found["response_formats"] = response_formats
    return found


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer, or the error that took its place.

    Attributes:
        latency_seconds: Wall time of its request, or of the batch that a local model made it in.
        error: Why there is no text; None where there is one.
        usage: Tokens of request and answer, and cost, as far as they are known.
    """

    text: str
    latency_seconds: float
    error: str | None = None
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an answer's tokens are chosen; what is None is left to whoever answers.

    Attributes:
        temperature: 0 for greedy decoding.
        top_p: Share of the probability that is drawn from.
    """

    temperature: float | None = None
    top_p: float | None = None


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
        tools: Offered | None = None,
        response_formats: Formats | None = None,
    ) -> list[Completion]:
        """Answer every conversation, in order.

        Args:
            conversations: What is asked.
            max_new_tokens: Longest answer.
            temperature: 0 for greedy decoding; above it answers are sampled.
            seed: Of the sampling; each conversation's own randomness follows from it.
            tools: What may be called, by conversation. Calls stand in the answer's text, as
                `ratchet.records.tool_calls` writes them.
            response_formats: The form that a server is asked for, by conversation; a model in this
                process is not bound to it.
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
        tools: Offered | None = None,
        response_formats: Formats | None = None,
    ) -> list[Completion]:
        """Answer every conversation by the function, cut to `max_new_tokens` words."""
        del temperature, seed, tools, response_formats  # a script says what it says
        answers = [self._answer(conversation) for conversation in conversations]
        return [Completion(" ".join(text.split()[:max_new_tokens]), 0.0) for text in answers]
