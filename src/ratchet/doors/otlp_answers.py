"""What a span of OpenTelemetry becomes: an answer, feedback, or nothing.

Attributes are named as by the conventions for generative AI, the new ones and those before, by
OpenLLMetry, and by OpenInference; `ratchet.doors.otlp_messages` reads the turns of each. Names of
attributes are written down here: the conventions' package calls its own deprecated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ratchet.collect.batches import Passed
from ratchet.doors.door import (
    OTHER,
    PLACE,
    UNKNOWN_MODEL,
    UNKNOWN_USER,
    Given,
    Translation,
    door_id,
)
from ratchet.doors.metadata import texts_of
from ratchet.doors.otlp_messages import Said, said_on, tools_of
from ratchet.doors.otlp_spans import Item
from ratchet.doors.scores import feedback_of
from ratchet.doors.times import moment
from ratchet.doors.turns import parsed
from ratchet.errors import InvalidInputError
from ratchet.records import derive_id
from ratchet.records.asking import FINISH_REASON, FIRST_TOKEN_SECONDS, sampling_of

NAME = "otlp"
_OPERATION, _KIND, _TYPE = "gen_ai.operation.name", "openinference.span.kind", "llm.request.type"
_ANSWERS = frozenset({"chat", "text_completion", "generate_content", "completion", "response"})
_EVALUATION, _DETAILS = "gen_ai.evaluation.result", "gen_ai.client.inference.operation.details"
_RESPONSE_ID = ("gen_ai.response.id", "llm.response.id")
_MODEL = ("gen_ai.response.model", "llm.response.model_name", "llm.model_name",
          "gen_ai.request.model", "llm.request.model_name")  # fmt: skip
_SAMPLING = {
    "gen_ai.request.max_tokens": "max_tokens", "gen_ai.request.temperature": "temperature",
    "gen_ai.request.top_p": "top_p", "gen_ai.request.top_k": "top_k",
    "gen_ai.request.seed": "seed", "gen_ai.request.choice.count": "n",
    "gen_ai.request.stop_sequences": "stop",
    "gen_ai.request.presence_penalty": "presence_penalty",
    "gen_ai.request.frequency_penalty": "frequency_penalty",
    "gen_ai.request.reasoning.level": "reasoning_effort",
}  # fmt: skip
_USAGE = {
    "prompt_tokens": ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens",
                      "llm.token_count.prompt"),
    "completion_tokens": ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens",
                          "llm.token_count.completion"),
    "cached_tokens": ("gen_ai.usage.cache_read.input_tokens",
                      "llm.token_count.prompt_details.cache_read"),
    "reasoning_tokens": ("gen_ai.usage.reasoning.output_tokens",
                         "llm.token_count.completion_details.reasoning"),
    "cost": ("gen_ai.usage.cost", "llm.cost.total"),
    FIRST_TOKEN_SECONDS: ("gen_ai.response.time_to_first_chunk",
                          "gen_ai.server.time_to_first_token"),
}  # fmt: skip
_LABELS = {
    "service.name": "service", "service.version": "service_version",
    "deployment.environment.name": "environment", "gen_ai.provider.name": "provider",
    "gen_ai.agent.name": "agent", "tag.tags": "tags", "prompt.version": "prompt_version",
}  # fmt: skip
_LONGEST_NAME = 200
NO_ANSWER = "a span that is no answer of a model: a step of the application"
NO_CONTENT = (
    "a model's span without what was said, which instrumentations send where they are told to "
    "(OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT)"
)
NO_EVENT = "a log record that is neither an answer nor an evaluation"
APART = (
    "a message in a log record, apart from its span; messages come with the span where "
    "OTEL_SEMCONV_STABILITY_OPT_IN is gen_ai_latest_experimental"
)


def events_of_item(item: Item, given: Given) -> Iterator[Translation]:
    """Yield what a span or a log record becomes.

    Raises:
        InvalidInputError: It is an answer that cannot be stored. Feedback comes before that.
    """
    for number, (name, at, attributes) in enumerate(item.events):
        if name == _EVALUATION:
            yield from _evaluation(item, attributes, at or item.end, number, given)
    if item.is_record and item.name == _EVALUATION:
        body = item.body if isinstance(item.body, Mapping) else {}
        yield from _evaluation(item, {**body, **item.attributes}, item.end, 0, given)
        return
    if item.is_record and item.name != _DETAILS:
        is_message = item.name.startswith("gen_ai.")
        yield Passed(APART if is_message else NO_EVENT)
        return
    if not (item.is_record or _is_answer(item)):
        yield Passed(NO_ANSWER)
        return
    said = said_on(item.attributes, item.events)
    if not said.asked and said.answer is None:
        yield Passed(NO_CONTENT)
        return
    yield _interaction(item, said, given)


def span_name(item: Item, span: str) -> str:
    """Return the id of the interaction that a span is."""
    return door_id(NAME, item.trace, span)


def response_name(response_id: str) -> str:
    """Return the name by which feedback calls an answer that a server gave an id."""
    return door_id(NAME, "response", response_id)


def _is_answer(item: Item) -> bool:
    found = item.attributes
    if found.get(_OPERATION):
        return str(found[_OPERATION]) in _ANSWERS
    if found.get(_KIND):
        return str(found[_KIND]).upper() == "LLM"
    if found.get(_TYPE):
        return str(found[_TYPE]) in _ANSWERS
    return any(name in found for name in _MODEL) and not found.get("gen_ai.tool.name")


def _interaction(item: Item, said: Said, given: Given) -> Translation:
    if not said.asked:
        raise InvalidInputError(
            "an answer must have a question, got a span with an answer alone; let the "
            "instrumentation record its input too"
        )
    if said.answer is None and item.error is None:
        raise InvalidInputError(
            "an answer must have words, calls, a refusal or an error, got a span with a question "
            "alone; let the instrumentation record its output too"
        )
    answered = {"response": ""} if said.answer is None else said.answer.fields()
    made: dict[str, Any] = {
        "id": span_name(item, item.span) if item.span else derive_id(NAME, repr(item)),
        "session_id": (item.session or item.trace or "unknown")[:_LONGEST_NAME],
        "user_id": (item.user or UNKNOWN_USER)[:_LONGEST_NAME],
        "created_at": moment(item.end or item.start) or given.at,
        "model_version": str(_first(item.attributes, _MODEL) or UNKNOWN_MODEL),
        "messages": said.asked,
        **answered,
        PLACE: f"span {item.span}",
    }
    if item.error is not None:
        made["error"] = item.error
    if item.start and item.end > item.start:
        made["latency_seconds"] = (item.end - item.start) / 1e9
    if tools := tools_of(item.attributes):
        made["tools"] = tools
    if metadata := _metadata(item, said):
        made["metadata"] = metadata
    response_id = _first(item.attributes, _RESPONSE_ID)
    names = [response_name(str(response_id))] if response_id else []
    if item.trace:
        names.append(door_id(NAME, "of trace", item.trace))
    return made | {OTHER: tuple(names)}


def _metadata(item: Item, said: Said) -> dict[str, str]:
    found = texts_of(item.attributes.get("metadata"))
    everything = {**item.resource, **item.attributes}
    found |= texts_of({ours: everything.get(name) for name, ours in _LABELS.items()})
    asked = parsed(item.attributes.get("llm.invocation_parameters"))
    asked = dict(asked) if isinstance(asked, Mapping) else {}
    asked |= {
        ours: item.attributes[name] for name, ours in _SAMPLING.items() if name in item.attributes
    }
    found |= sampling_of(asked)
    found |= texts_of({ours: _first(item.attributes, names) for ours, names in _USAGE.items()})
    reasons = item.attributes.get("gen_ai.response.finish_reasons")
    reason = said.finish_reason or item.attributes.get("llm.finish_reason")
    reason = reason or (reasons[0] if isinstance(reasons, list) and reasons else None)
    return found | ({FINISH_REASON: str(reason)[:100]} if reason else {})


def _evaluation(
    item: Item, given_of: Mapping[str, Any], at: int, number: int, given: Given
) -> Iterator[Translation]:
    """Yield the feedback that an evaluation is."""
    name = str(given_of.get("gen_ai.evaluation.name") or "evaluation")[:_LONGEST_NAME]
    value = given_of.get("gen_ai.evaluation.score.value")
    if value is None:
        value = given_of.get("gen_ai.evaluation.score.label")
    about = [response_name(str(key))] if (key := _first(given_of, _RESPONSE_ID)) else []
    if not about:  # else it says itself which answer it is about
        about += [span_name(item, one) for one in (item.span, item.parent) if one]
        about += [door_id(NAME, "of trace", item.trace)] if item.trace else []
    if not about:
        raise InvalidInputError(
            "an evaluation must be of a span or name a gen_ai.response.id, got one of neither; "
            "send it in the context of the span that it is about"
        )
    event = {
        "id": door_id(NAME, "evaluation", item.trace, item.span, about[0], name, at, number),
        "interaction_id": about[0],
        "created_at": moment(at) or given.at,
        "user_id": _first(given_of, ("user.id", "enduser.id")) or item.user,
        OTHER: tuple(about[1:]) or None,
        PLACE: f"evaluation of span {item.span}",
    }
    comment = given_of.get("gen_ai.evaluation.explanation")
    yield from feedback_of(name, value, event, comment=comment, kinds=given.scores)


def _first(values: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((values[name] for name in names if values.get(name) not in (None, "")), None)
