"""How an answer was asked for, how it ended and what it took, in the metadata of an interaction.

Metadata is text by name, so that any log can hold it. These names mean the same wherever an
interaction comes from; the gateway writes them, and imports that know the values do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field, JsonValue

from ratchet.records.base import Record

FINISH_REASON, PROMPT_VERSION = "finish_reason", "prompt_version"
MLFLOW_TRACE = "mlflow_trace_id"
"""The MLflow trace that an interaction came from, to which verdicts and labels are written."""
WRITTEN_BY = "written_by"
"""In the metadata of such a verdict: that Ratchet wrote it, so that no import takes it for news."""
REASONING, AUDIO, AUDIO_ID = "answer_reasoning", "answer_audio", "answer_audio_id"
"""What a model thought before it answered, and the sound of the answer, by reference. They are kept
with the answer, and are neither trained on nor shown to judges: they are no part of its turn."""
FIRST_TOKEN_SECONDS = "first_token_seconds"
"""From the request to the first word, call or refusal of a stream."""
SAMPLING = (
    "max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k", "min_p", "seed", "n",
    "stop", "presence_penalty", "frequency_penalty", "repetition_penalty", "reasoning_effort",
    "tool_choice", "parallel_tool_calls",
)  # fmt: skip
"""Parameters that are kept as they were sent; what is no text as JSON."""
_LONGEST = 2_000


class Usage(Record):
    """What an answer took; None where it is not known.

    Attributes:
        prompt_tokens: Of the request.
        completion_tokens: Of the answer, reasoning included.
        cached_tokens: Of those of the request, the ones that a cache held.
        reasoning_tokens: Of those of the answer, the ones that nobody is shown.
        cost: In the currency of whoever serves the model, as it says it.
    """

    prompt_tokens: int | None = Field(default=None, ge=0)
    completion_tokens: int | None = Field(default=None, ge=0)
    cached_tokens: int | None = Field(default=None, ge=0)
    reasoning_tokens: int | None = Field(default=None, ge=0)
    cost: float | None = Field(default=None, ge=0.0, allow_inf_nan=False)

    @classmethod
    def of(cls, metadata: Mapping[str, str]) -> Self:
        """Return what an interaction's metadata say; what is no number is not known."""
        return cls(
            **{
                name: said_number(metadata.get(name), is_amount=name == "cost")
                for name in cls.model_fields
            }
        )


def reported_usage(usage: object) -> dict[str, str]:
    """Return what a server reports, of a chat completion or a response, as metadata."""
    if not isinstance(usage, Mapping):
        return {}
    asked = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
    told = usage.get("completion_tokens_details") or usage.get("output_tokens_details")
    counts = {
        "prompt_tokens": usage.get("prompt_tokens", usage.get("input_tokens")),
        "completion_tokens": usage.get("completion_tokens", usage.get("output_tokens")),
        "cached_tokens": asked.get("cached_tokens") if isinstance(asked, Mapping) else None,
        "reasoning_tokens": told.get("reasoning_tokens") if isinstance(told, Mapping) else None,
    }
    found = {name: str(count) for name, count in counts.items() if _count(count) is not None}
    cost = _amount(usage.get("cost", usage.get("total_cost")))
    return found if cost is None else found | {"cost": format(cost, ".12g")}


def sampling_of(body: Mapping[str, Any]) -> dict[str, str]:
    """Return the parameters of a request as metadata."""
    return {name: _said(value) for name in SAMPLING if (value := body.get(name)) is not None}


def _said(value: object) -> str:
    if isinstance(value, str):
        return value
    return str(value) if type(value) is int else json.dumps(value)[:_LONGEST]


def asked_with(metadata: Mapping[str, str]) -> dict[str, JsonValue]:
    """Return the parameters that an interaction was asked for with."""
    return {name: _parsed(metadata[name]) for name in SAMPLING if name in metadata}


def _parsed(text: str) -> JsonValue:
    try:
        value: JsonValue = json.loads(text)
    except ValueError:
        return text
    return value


def _count(value: object) -> int | None:
    return value if type(value) is int and value >= 0 else None


def _amount(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value < float("inf") else None


def said_number(text: str | None, *, is_amount: bool) -> int | float | None:
    """Return a number that metadata say: a count, or an amount; None where it is neither."""
    try:
        value = json.loads(text or "")
    except ValueError:
        return None
    return _amount(value) if is_amount else _count(value)
