"""Recorded answers held against what their requests came with, by the metrics of the gate.

    measure_answers(calls, said, tools, formats)["call_validity"]    # 1, 0, or nan for not known

So a share on a board or in an analysis says of traffic what the metric of the same name says of
answers to examples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import ValidationError
from pydantic_core import from_json

from ratchet.evaluation.call_metrics import (
    call_counts,
    call_validity,
    format_validity,
    unparsable_calls,
)
from ratchet.records import Message
from ratchet.records.tool_calls import written
from ratchet.stats.arrays import FloatArray

_CUSTOM = "custom"


def measure_answers(
    calls: Sequence[str | None],
    said: Sequence[str | None],
    tools: Sequence[Any],
    formats: Sequence[Any],
) -> dict[str, FloatArray]:
    """Return what recorded answers called, and whether it was what it was to be.

    An answer that was given no tools and calls none says nothing of calls. Calls of custom tools
    are counted; their input is free text, which fits always. An answer that calls a tool owes its
    form to the turn that follows the result, not yet itself.

    Args:
        calls: The calls of each answer as JSON; None for none.
        said: Its words where it has tools or was to have a form, else None.
        tools: What it was given; None for none, or for none that is known.
        formats: The form that it was asked for, likewise.

    Returns:
        `tool_calls`, how many; `call_validity`, `unparsable_call` and `format_validity`, 1 or 0;
        nan where it is not known, each of shape (n,).
    """
    answers = [_answer(*row) for row in zip(calls, said, strict=True)]
    known = [_definitions(body) for body in tools]
    texts = [None if turn is None else written(turn) for turn in answers]
    with_tools = [
        text if body is not None or (turn is not None and turn.tool_calls) else None
        for text, turn, body in zip(texts, answers, tools, strict=True)
    ]
    checked = [
        None if text is None or turn is None else written(_without_custom(turn))
        for text, turn in zip(with_tools, answers, strict=True)
    ]
    asked = [
        None if turn is None or turn.tool_calls or not isinstance(form, Mapping) else turn.text
        for turn, form in zip(answers, formats, strict=True)
    ]
    shaped = [form if isinstance(form, Mapping) else None for form in formats]
    return {
        "tool_calls": _values(call_counts, checked) + _custom(answers),
        "call_validity": call_validity(checked, known).values,
        "unparsable_call": _values(unparsable_calls, checked),
        "format_validity": format_validity(asked, shaped).values,
    }


def _answer(calls: str | None, said: str | None) -> Message | None:
    """Return an answer as a turn; None where its calls are no calls."""
    turn = {"role": "assistant", "content": said or ""}
    if calls is None:
        return Message.model_validate(turn)
    try:
        return Message.model_validate(turn | {"tool_calls": from_json(calls)})
    except (ValidationError, ValueError):
        return None


def _without_custom(turn: Message) -> Message:
    kept = tuple(call for call in turn.tool_calls if call.type != _CUSTOM)
    return turn.model_copy(update={"tool_calls": kept})


def _custom(answers: Sequence[Message | None]) -> FloatArray:
    """Count the calls of custom tools, which no text holds."""
    return np.array(
        [
            sum(call.type == _CUSTOM for call in turn.tool_calls) if turn is not None else 0
            for turn in answers
        ],
        dtype=np.float64,
    )


def _definitions(body: Any) -> list[Mapping[str, Any]] | None:
    """Return the tools of a request that are functions; None where it came with none."""
    if not isinstance(body, list):
        return None
    return [tool for tool in body if isinstance(tool, Mapping)]


def _values(
    scorer: Callable[[Sequence[str | None]], Any], answers: Sequence[str | None]
) -> FloatArray:
    return np.asarray(scorer(answers).values, dtype=np.float64)
