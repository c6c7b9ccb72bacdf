"""Whether a model that was written in another form still answers as it did.

before = answers_of(HuggingFaceModel.load(base, adapter, one_line=False), prompts)
equal = Equality.of(before, gguf_answers(file, prompts))
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ratchet.errors import ModelError
from ratchet.models.base import LanguageModel
from ratchet.records import Message

_CONTEXT = 4_096


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is asked before and after.

    Attributes:
        messages: The turns.
        tools: Definitions of what may be called.
    """

    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...] | None = None


@dataclass(frozen=True, slots=True)
class Equality:
    """How many answers are the same, and the first that is not.

    Attributes:
        differs: Number of that prompt and both answers; None where all are the same.
    """

    equal: int
    asked: int
    differs: tuple[int, str, str] | None = None

    @classmethod
    def of(cls, before: Sequence[str], after: Sequence[str]) -> Self:
        """Compare answers, without spaces around them and half a character at the end."""
        pairs = [
            (place, _whole(one), _whole(other))
            for place, (one, other) in enumerate(zip(before, after, strict=True), start=1)
        ]
        others = [pair for pair in pairs if pair[1] != pair[2]]
        return cls(len(pairs) - len(others), len(pairs), others[0] if others else None)


def _whole(text: str) -> str:
    return text.rstrip("\ufffd").strip()


def answers_of(model: LanguageModel, prompts: Sequence[Prompt], max_new_tokens: int) -> list[str]:
    """Answer prompts greedily.

    Raises:
        ModelError: One cannot be answered.
    """
    completions = model.generate(
        [prompt.messages for prompt in prompts],
        max_new_tokens=max_new_tokens,
        tools=[prompt.tools for prompt in prompts],
    )
    for number, completion in enumerate(completions, start=1):
        if completion.error is not None:
            raise ModelError(
                f"prompts that a form is checked with must be answered, got {completion.error} "
                f"of prompt {number}; check with fewer by --prompts"
            )
    return [completion.text for completion in completions]


def gguf_answers(file: Path, prompts: Sequence[Prompt], max_new_tokens: int) -> list[str]:
    """Answer prompts greedily with llama.cpp, through the chat template in the file.

    Raises:
        ModelError: The package xllamacpp is not installed, or llama.cpp does not read the file.
    """
    xllamacpp = _llama_cpp()
    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.n_ctx = _CONTEXT
    params.n_parallel = 1
    # threads that wait for each other by spinning: on cores that others use too they come to a halt
    params.cpuparams.n_threads = max(1, (os.cpu_count() or 1) // 2)
    params.cpuparams.poll = 0
    params.verbosity = 0
    params.use_jinja = True
    params.warmup = False
    try:
        server = xllamacpp.Server(params)
    except Exception as error:  # what llama.cpp throws
        raise ModelError(
            f"llama.cpp must read a GGUF file, got: {error}; this is a defect, or the model is of "
            "a kind that cannot be written"
        ) from error
    return [_said(server, prompt, max_new_tokens) for prompt in prompts]


def _llama_cpp() -> Any:
    try:
        import xllamacpp
    except ImportError as error:
        raise ModelError(
            "a GGUF file is checked by llama.cpp, got no package xllamacpp; run: pip install "
            "xllamacpp, or leave the check out by --prompts 0"
        ) from error
    return xllamacpp


def _said(server: Any, prompt: Prompt, max_new_tokens: int) -> str:
    asked = {
        "messages": [turn.canonical() for turn in prompt.messages],
        "max_tokens": max_new_tokens,
        "temperature": 0.0,
    } | ({"tools": list(prompt.tools)} if prompt.tools else {})
    found = server.handle_chat_completions(asked)
    if "choices" not in found:
        raise ModelError(f"llama.cpp must answer a prompt, got {str(found)[:200]}")
    turn = found["choices"][0]["message"]
    return str(turn.get("content") or "")
