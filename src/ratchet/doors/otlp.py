"""OpenTelemetry: spans and log records as OTLP writes them, in files or sent to the gateway.

A row is an export request in OTLP's JSON (what the collector's file exporter writes a line), or a
span or record of one (`ratchet.doors.otlp_spans`). A span on which a model answered is an
interaction (`ratchet.doors.otlp_answers`), an event `gen_ai.evaluation.result` feedback. All else
is passed over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ratchet.doors.door import Door, Given, Refused, Translation
from ratchet.doors.otlp_answers import NAME, events_of_item
from ratchet.doors.otlp_spans import LOGS, SPANS, items_of
from ratchet.errors import InvalidInputError
from ratchet.files.text import printable

ITEM = "otlp"
"""The key of a row that is one span or record, not a whole request."""


def _recognises(row: Mapping[str, Any]) -> bool:
    return isinstance(row.get(SPANS[0]), list) or isinstance(row.get(LOGS[0]), list)


def _translate(row: Mapping[str, Any], given: Given) -> Iterator[Translation]:
    """Yield what a request, or an item of one under `ITEM`, becomes."""
    items = (row[ITEM],) if ITEM in row else items_of(row)
    for item in items:
        place = f"record of span {item.span}" if item.is_record else f"span {item.span}"
        try:
            yield from events_of_item(item, given)
        except InvalidInputError as error:
            yield Refused(str(error), place)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            reason = (
                "a span must be written as the conventions have it, got "
                f"{type(error).__name__}: {printable(str(error), 80)}; check the instrumentation"
            )
            yield Refused(reason, place)


DOOR = Door(
    name=NAME,
    holds="OpenTelemetry: spans and log records in OTLP's JSON",
    recognises=_recognises,
    translate=_translate,
    mapping={
        "id": "traceId and spanId",
        "session_id": "gen_ai.conversation.id, session.id, else the trace",
        "user_id": "user.id, enduser.id",
        "created_at": "the span's end",
        "model_version": "gen_ai.response.model, gen_ai.request.model, llm.model_name",
        "messages": "gen_ai.system_instructions and gen_ai.input.messages, gen_ai.prompt, events "
        "gen_ai.user.message, llm.input_messages, input.value",
        "response, tool_calls": "gen_ai.output.messages, gen_ai.completion, gen_ai.choice, "
        "llm.output_messages, output.value",
        "error": "the span's status",
        "latency_seconds": "the span's time",
        "tools": "gen_ai.tool.definitions, llm.tools",
        "metadata": "usage, sampling, finish reasons, service.name, tags, metadata",
        "feedback": "gen_ai.evaluation.result: score.value, else score.label, by name; and its "
        "explanation; on the span, on gen_ai.response.id, else on the trace's last answer",
    },
    is_timeless=True,
)
