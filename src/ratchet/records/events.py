"""Interactions and the feedback on them, as they are stored.

What each kind of feedback means is declared in `ratchet.records.signals`.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, Field, JsonValue

from ratchet.records.base import (
    Digest,
    Identifier,
    Record,
    Text,
    UtcTime,
    digest,
    no_surrogates,
)
from ratchet.records.conversations import Message, ToolCall, last_said
from ratchet.records.given_answers import GivenAnswer

ORIGIN, SIMULATED = "ratchet.origin", "simulated"
"""Key and value of the metadata of a simulated user's interaction, which exports carry along."""


class Interaction(Record):
    """One answer of the model, as a user saw it. Never changed once stored.

    Attributes:
        messages: The conversation up to the answer, system prompt first.
        response: The words of the answer; empty when `error` says why there is none, and where the
            model only calls tools or refuses.
        tool_calls: What the model calls in its answer.
        refusal: Why it refuses.
        model_version: The version that answered, e.g. `support-router/3`.
        latency_seconds: Wall time the user waited.
        segment: Where the traffic came from (application, language, tenant).
        tools: Digest of the tools that the model could call; the store holds them once.
        response_format: Digest of the form that the answer was to have, likewise.
        documents: Digest of the documents that the application had found for it, likewise.
        continues: The interaction before it in the same conversation, where that is known.
    """

    id: Identifier
    session_id: Identifier
    user_id: Identifier
    created_at: UtcTime
    model_version: Identifier
    messages: tuple[Message, ...] = Field(min_length=1)
    response: Text
    latency_seconds: float | None = Field(default=None, ge=0.0, allow_inf_nan=False)
    error: Text | None = None
    segment: Identifier = "all"
    metadata: dict[Text, Text] = Field(default_factory=dict)
    tool_calls: tuple[ToolCall, ...] = Field(default=(), exclude_if=lambda calls: not calls)
    refusal: Text | None = Field(default=None, exclude_if=lambda value: value is None)
    tools: Digest | None = Field(default=None, exclude_if=lambda value: value is None)
    response_format: Digest | None = Field(default=None, exclude_if=lambda value: value is None)
    documents: Digest | None = Field(default=None, exclude_if=lambda value: value is None)
    continues: Identifier | None = Field(default=None, exclude_if=lambda value: value is None)

    @property
    def prompt(self) -> str:
        """The words of the user's last turn."""
        return last_said(self.messages)

    @property
    def answer(self) -> Message:
        """The answer as a turn, as the next request of the conversation holds it."""
        wordless = not self.response and (self.tool_calls or self.refusal)
        return Message(
            role="assistant",
            content=None if wordless else self.response,
            tool_calls=self.tool_calls,
            refusal=self.refusal,
        )

    def answered(self, messages: tuple[Message, ...], answer: Message) -> Self:
        """Return the interaction with another conversation and answer, as after a redaction."""
        said = {"response": answer.text, "tool_calls": answer.tool_calls, "refusal": answer.refusal}
        return self.model_copy(update={"messages": messages, **said})


DefinitionKind = Literal["tools", "response_format", "documents"]
DEFINITION_KINDS: tuple[DefinitionKind, ...] = get_args(DefinitionKind)
"""What an interaction refers to by digest; its fields have the same names."""


def _can_be_stored(body: JsonValue) -> JsonValue:
    json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    return body


class Definition(Record):
    """What many interactions refer to by its digest: tools, a response format, documents.

    Attributes:
        id: Digest of `body`.
        body: As the client sent it.
    """

    id: Digest
    kind: DefinitionKind
    body: Annotated[JsonValue, AfterValidator(_can_be_stored)]

    @classmethod
    def of(cls, kind: DefinitionKind, body: JsonValue) -> Self:
        """Return the definition whose id is the digest of its body."""
        return cls(id=digest(body), kind=kind, body=body)


class Feedback(Record):
    """One event of feedback on an answer; each kind has its class with its own type of value.

    Attributes:
        kind: The signal that it is about.
        value: What was given.
        updated_at: When a source that edits feedback in place changed it last. Of several versions
            under one id all are stored, and the one with the latest time counts.
    """

    id: Identifier
    interaction_id: Identifier
    created_at: UtcTime
    updated_at: UtcTime | None = Field(default=None, exclude_if=lambda value: value is None)
    user_id: Identifier | None = None
    kind: str
    value: Any


class Thumbs(Feedback):
    """A thumb, explicit."""

    kind: Literal["thumbs"] = "thumbs"
    value: Literal["up", "down"]


class Stars(Feedback):
    """One to five stars, explicit."""

    kind: Literal["stars"] = "stars"
    value: Annotated[int, Field(ge=1, le=5, strict=True)]


class Dimension(Feedback):
    """One to five points on one side of an answer, such as its accuracy, explicit."""

    kind: Literal["dimension"] = "dimension"
    value: Annotated[int, Field(ge=1, le=5, strict=True)]
    name: Identifier


class Comment(Feedback):
    """Free text about an answer, explicit."""

    kind: Literal["comment"] = "comment"
    value: Annotated[str, Field(min_length=1, max_length=10_000), AfterValidator(no_surrogates)]


class Correction(Feedback):
    """What the answer should have been, explicit.

    One that calls tools may come as a turn of OpenAI's chat format; it is kept as text, in the form
    of `ratchet.records.tool_calls`.
    """

    kind: Literal["correction"] = "correction"
    value: GivenAnswer


class Copy(Feedback):
    """The user copied the answer (or was seen not to), implicit."""

    kind: Literal["copy"] = "copy"
    value: Annotated[bool, Field(strict=True)] = True


class Regenerate(Feedback):
    """The user asked for another answer (or was seen not to), implicit."""

    kind: Literal["regenerate"] = "regenerate"
    value: Annotated[bool, Field(strict=True)] = True


class TaskCompleted(Feedback):
    """Whether the user's task was done after the answer, implicit."""

    kind: Literal["task_completed"] = "task_completed"
    value: Annotated[bool, Field(strict=True)]


class SessionEnd(Feedback):
    """The session ended after this answer; `value` is its length in seconds, implicit."""

    kind: Literal["session_end"] = "session_end"
    value: Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


class AskedAgain(Feedback):
    """The user sent the same turns again, to get another answer; seen in the traffic."""

    kind: Literal["asked_again"] = "asked_again"
    value: Annotated[bool, Field(strict=True)] = True


class Edited(Feedback):
    """The user changed the last turn and asked again, seen in the traffic."""

    kind: Literal["edited"] = "edited"
    value: Annotated[bool, Field(strict=True)] = True


class Continued(Feedback):
    """The user went on in the conversation after the answer, seen in the traffic."""

    kind: Literal["continued"] = "continued"
    value: Annotated[bool, Field(strict=True)] = True


class Left(Feedback):
    """Nothing followed this answer within the session's gap, seen in the traffic.

    `value` is how many turns of the user the conversation has; 0 takes it back, where something
    that followed arrived late.
    """

    kind: Literal["left"] = "left"
    value: Annotated[int, Field(ge=0, le=1_000_000, strict=True)]


class VisitSeconds(Feedback):
    """How long the visit lasted that ends with this answer, in seconds, seen in the traffic."""

    kind: Literal["visit_seconds"] = "visit_seconds"
    value: Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


class NextTurn(Feedback):
    """What the user wrote next, as a classifier reads it: a place in `REACTIONS`, from 1.

    Attributes:
        judge_version: The version of the classifier and the language, so that its validation can
            be found.
    """

    kind: Literal["next_turn"] = "next_turn"
    value: Annotated[int, Field(ge=1, le=5, strict=True)]
    judge_version: Identifier


REACTIONS = ("complained", "corrected", "rephrased", "moved on", "thanked")
"""What users write after an answer, from the least content to the most."""


class SafetyViolation(Feedback):
    """Whether the answer breaks a safety rule.

    Attributes:
        source: Who says so: a user's report, a reviewer, a rule or a version of a judge.
    """

    kind: Literal["safety_violation"] = "safety_violation"
    value: Annotated[bool, Field(strict=True)]
    source: Identifier = "report"


class JudgeScore(Feedback):
    """What a judge holds the answer to be worth, in [0, 1].

    Attributes:
        judge_version: The version of the judge, so that its validation can be found.
    """

    kind: Literal["judge_score"] = "judge_score"
    value: Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
    judge_version: Identifier


class SessionScore(Feedback):
    """What a judge of whole sessions holds the session up to this answer to be worth, in [0, 1].

    Attributes:
        judge_version: The version of the judge, so that its validation can be found.
    """

    kind: Literal["session_score"] = "session_score"
    value: Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
    judge_version: Identifier


class SetAside(Record):
    """A row that broke a rule: kept with the reason, so that nothing is lost.

    Attributes:
        raw: The row, or its beginning.
        user_id: Whose it is, where its reader can tell: the row may be cut before that.
        interaction_id: Which interaction it is about, likewise.
    """

    id: Identifier
    created_at: UtcTime
    source: str
    position: str
    reason: str
    raw: str = Field(max_length=2_000)
    user_id: str | None = Field(default=None, max_length=200, exclude_if=lambda name: name is None)
    interaction_id: str | None = Field(
        default=None, max_length=200, exclude_if=lambda name: name is None
    )
