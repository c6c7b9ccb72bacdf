"""Scores of answers that call tools, and of answers that must have a form.

Calls stand in answers and targets as `ratchet.records.tool_calls` writes them. A target without a
call says that none is due. Several calls of one answer have no order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from jsonschema.validators import validator_for
from pydantic_core import from_json, to_json
from referencing import Registry
from referencing.exceptions import Unresolvable

from ratchet.evaluation.json_metrics import MISSING, Fields, f1_scored, fields_of, parse_json
from ratchet.evaluation.matching import normalise_answer
from ratchet.evaluation.scored import Answer, Scored, mean_scored
from ratchet.records import ToolCall
from ratchet.records.tool_calls import MARK, as_turn, read_calls

Definitions = Sequence[Mapping[str, Any]]
"""Tools as OpenAI's API names them: `{"type": "function", "function": {"name", "parameters"}}`."""


def tool_names(answers: Sequence[Answer], targets: Sequence[str | None]) -> Scored:
    """Score 1 where an answer calls the tools that its target calls, each as often, else 0."""
    return _against("tool_name_match", answers, targets, lambda call: call.name)


def exact_calls(answers: Sequence[Answer], targets: Sequence[str | None]) -> Scored:
    """Score 1 where an answer calls the same tools with the same arguments as its target, else 0.

    Arguments are compared as JSON: white space and the order of names do not count, 1 is 1.0, case
    counts. A call that cannot be read makes an answer wrong.
    """
    return _against("call_exact_match", answers, targets, exact_call)


def argument_f1(answers: Sequence[Answer], targets: Sequence[str | None]) -> Scored:
    """Score the arguments of an answer's calls against those of the target's, by F1.

    An argument is its tool, its path and its value, compared as `field_f1` does. The whole is micro
    F1. An answer without calls where none is due scores 1.
    """
    return f1_scored(
        "argument_f1",
        [
            None
            if answer is None or target is None
            else (_fields(read_calls(answer).calls), _fields(read_calls(target).calls))
            for answer, target in zip(answers, targets, strict=True)
        ],
    )


def needless_calls(answers: Sequence[Answer], targets: Sequence[str | None]) -> Scored:
    """Score 1 where an answer calls a tool, among those whose target calls none."""
    values = np.full(len(answers), np.nan)
    for place, (answer, target) in enumerate(zip(answers, targets, strict=True)):
        if answer is not None and target is not None and not read_calls(target).calls:
            called = read_calls(answer)
            values[place] = float(bool(called.calls) or called.unparsable > 0)
    return mean_scored("needless_call_rate", values)


def unparsable_calls(answers: Sequence[Answer]) -> Scored:
    """Score 1 where a call of an answer cannot be read, 0 where all can or there is none."""
    return _of_each("unparsable_call_rate", answers, lambda text: read_calls(text).unparsable > 0)


def call_counts(answers: Sequence[Answer]) -> Scored:
    """Count the calls of each answer."""
    return _of_each("tool_calls", answers, lambda text: len(read_calls(text).calls))


def call_validity(answers: Sequence[Answer], tools: Sequence[Definitions | None]) -> Scored:
    """Score 0 where a call names no tool of its example or its arguments do not fit, else 1.

    An answer to an example without tools has no score.
    """
    values = np.full(len(answers), np.nan)
    for place, (answer, known) in enumerate(zip(answers, tools, strict=True)):
        called = None if answer is None else read_calls(answer)
        if called is None or known is None:
            continue
        schemas = schemas_of(known)
        fits = [
            call.name in schemas and is_valid(call.arguments, schemas[call.name])
            for call in called.calls
        ]
        values[place] = float(all(fits) and not called.unparsable)
    return mean_scored("call_validity", values)


def format_validity(
    answers: Sequence[Answer], formats: Sequence[Mapping[str, Any] | None]
) -> Scored:
    """Score 1 where an answer has the form that its request asked for, else 0.

    `json_object` is any JSON object, `json_schema` what fits the schema. An answer to a request
    that asked for none, or for text, has no score.
    """
    values = np.full(len(answers), np.nan)
    for place, (answer, asked) in enumerate(zip(answers, formats, strict=True)):
        if answer is None or not has_form(asked):
            continue
        assert asked is not None
        value = parse_json(answer)
        if asked["type"] == "json_object":
            values[place] = float(isinstance(value, dict))
        else:
            schema = (asked.get("json_schema") or {}).get("schema") or {}
            values[place] = float(value is not MISSING and is_valid(value, schema))
    return mean_scored("format_validity", values)


def schemas_of(tools: Definitions) -> dict[str, Mapping[str, Any]]:
    """Return the JSON Schema of each tool's arguments, by the tool's name."""
    return dict(map(_named, tools))


CallFault = Literal["unreadable", "unknown tool", "unfitting arguments"]


def call_fault(text: str, tools: Definitions) -> CallFault | None:
    """Return what is wrong with the calls of a text that is to be a right answer; None if nothing.

    Args:
        text: The answer.
        tools: What its request let the model call.
    """
    if MARK not in text:
        return None
    turn = as_turn(text)
    if not turn.tool_calls:
        return "unreadable"
    schemas = schemas_of(tools)
    if any(call.name not in schemas for call in turn.tool_calls):
        return "unknown tool"
    fits = (is_valid(call.arguments, schemas[call.name]) for call in turn.tool_calls)
    return None if all(fits) else "unfitting arguments"


def comparable(answer: str) -> str:
    """Return an answer in the form in which answers are compared.

    Words are compared as `normalise_answer` does, calls by tool and arguments: case and digits
    count in these.
    """
    turn = as_turn(answer)
    if not turn.tool_calls:
        return normalise_answer(answer)
    calls = (" ".join(exact_call(call)) for call in turn.tool_calls)
    return "\n".join([normalise_answer(turn.text), *calls])


def has_form(asked: Mapping[str, Any] | None) -> bool:
    """Tell whether a response format asks for JSON."""
    return asked is not None and asked.get("type") in ("json_object", "json_schema")


def is_valid(value: Any, schema: Mapping[str, Any]) -> bool:
    """Tell whether a JSON value fits a JSON Schema; nothing fits one that cannot be used.

    A schema that refers to an address is one: nothing is fetched.
    """
    validator = _validator(to_json(schema))
    try:
        return validator is not None and bool(validator.is_valid(value))
    except (Unresolvable, RecursionError):
        return False


@lru_cache(maxsize=512)
def _validator(schema: bytes) -> Any:
    read = from_json(schema)
    found = validator_for(read, default=Draft202012Validator)
    try:
        found.check_schema(read)
    except (SchemaError, RecursionError):
        return None
    return found(read, registry=Registry())  # an empty one, so that nothing is fetched


def _against(
    name: str,
    answers: Sequence[Answer],
    targets: Sequence[str | None],
    of: Callable[[ToolCall], Hashable],
) -> Scored:
    values = np.full(len(answers), np.nan)
    for place, (answer, target) in enumerate(zip(answers, targets, strict=True)):
        if answer is None or target is None:
            continue
        called, due = read_calls(answer), read_calls(target)
        same = Counter(map(of, called.calls)) == Counter(map(of, due.calls))
        values[place] = float(same and not called.unparsable)
    return mean_scored(name, values)


def _of_each(name: str, answers: Sequence[Answer], of: Callable[[str], float]) -> Scored:
    return mean_scored(name, [np.nan if text is None else float(of(text)) for text in answers])


def exact_call(call: ToolCall) -> tuple[str, str]:
    """Return what calls are compared by: the tool, and the arguments as JSON in one form."""
    return call.name, to_json(_plain(call.arguments)).decode()


def _plain(value: Any) -> Any:
    """Return a JSON value by which equal ones are known: names in order, whole numbers as such."""
    if isinstance(value, Mapping):
        return {name: _plain(value[name]) for name in sorted(value)}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _fields(calls: Sequence[ToolCall]) -> Fields:
    fields: Fields = Counter()
    for call in calls:
        if call.arguments:
            fields += fields_of(call.arguments, (call.name,))
    return fields


def _named(tool: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    function = tool.get("function")
    named = function if isinstance(function, Mapping) else tool
    return str(named.get("name")), named.get("parameters") or {}
