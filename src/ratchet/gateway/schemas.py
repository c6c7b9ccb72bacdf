"""The shapes of requests and answers, for checking and for OpenAPI."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    TypeAdapter,
    ValidationError,
)

from ratchet.gateway.backlog import Backlog
from ratchet.gateway.problems import ProblemError
from ratchet.records.signals import REPORTED_FEEDBACK

_NO_NUL = r"^[^\x00]*$"
_SINCE_2016 = r"^20(1[6-9]|[2-9][0-9])-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-5][0-9]"


def _is_number(value: object) -> object:
    """Refuse what is no number in JSON; 5.0 is an integer there."""
    if isinstance(value, bool | str):
        raise ValueError("must be a number")
    return value


_NUMBER = BeforeValidator(_is_number)


class ChatMessage(BaseModel):
    """One turn. Fields that are not named here go to the backend as they came."""

    model_config = ConfigDict(extra="allow")

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[dict[str, Any]] | None = None


class StreamOptions(BaseModel):
    """What a stream is to carry besides."""

    model_config = ConfigDict(extra="allow")

    include_usage: StrictBool | None = None


class ChatRequest(BaseModel):
    """A request for an answer, as OpenAI's API has it.

    Which values of numbers may be asked for is up to the backend, so that none is refused which it
    takes, such as `max_tokens` -1.

    Attributes:
        model: A version (`support-router/3`), `champion`, `challenger`, `previous`, or any other
            name for "the model", which leaves the choice to the routing.
        user: Who asks; the same user always gets the same version.
        metadata: Kept with the interaction. `session_id` names the session, `user_id` the user,
            `segment` where it comes from; `training_consent`, `retain_until` and `retain_days` are
            honoured. Nothing in it is refused.
    """

    model_config = ConfigDict(extra="allow")

    model: str = Field(min_length=1, max_length=200, pattern=_NO_NUL)
    messages: list[ChatMessage] = Field(min_length=1)
    stream: StrictBool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    safety_identifier: str | None = None
    metadata: Any = None
    max_tokens: Annotated[int, _NUMBER] | None = None
    max_completion_tokens: Annotated[int, _NUMBER] | None = None
    temperature: Annotated[float, Field(allow_inf_nan=False), _NUMBER] | None = None
    top_p: Annotated[float, Field(allow_inf_nan=False), _NUMBER] | None = None
    seed: Annotated[int, _NUMBER] | None = None
    stop: str | list[str] | None = None
    n: Annotated[int, _NUMBER] | None = None


class Stamp(BaseModel):
    """What Ratchet adds to an answer: send `token` along with feedback on it."""

    token: str
    version: str


class ChatChoice(BaseModel):
    """One answer."""

    model_config = ConfigDict(extra="allow")

    index: int
    message: dict[str, Any]
    finish_reason: str | None = None


class ChatCompletion(BaseModel):
    """An answer; its id is the interaction's."""

    model_config = ConfigDict(extra="allow")

    id: str
    object: str
    created: int
    model: str
    choices: list[ChatChoice]
    ratchet: Stamp


class ModelEntry(BaseModel):
    """A name that a request may give as its model."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "ratchet"


class ModelList(BaseModel):
    """The names that a request may give as its model."""

    object: Literal["list"] = "list"
    data: list[ModelEntry]


class FeedbackRejection(BaseModel):
    """An event that was not taken.

    Attributes:
        index: Its place in the request, from 0.
        id: Its id, where it has one.
        code: "invalid" where it breaks a rule, "forbidden" without the right token.
        reason: The rule, what was received and the way out.
    """

    index: int
    id: str | None
    code: Literal["invalid", "forbidden"]
    reason: str


class FeedbackReceipt(BaseModel):
    """What became of a request.

    Attributes:
        accepted: Events that are kept now; one that was sent before counts and changes nothing.
        rejected: The others.
    """

    accepted: int
    rejected: list[FeedbackRejection]


class Attempts(BaseModel):
    """Recent attempts: those that were answered, and those that failed."""

    answered: int
    failed: int


class Health(BaseModel):
    """Whether the gateway works, by what happened in the last 30 seconds.

    Attributes:
        status: "ok", or "degraded" where answers cannot be recorded, or most requests were answered
            by nobody, or most attempts at a version that is served failed, or a version that users
            are sent to is lacked by a backend and none of its attempts was answered, or the
            routing is not followed, or the store is away, or lines of the log were lost.
        version: Version of Ratchet.
        champion: The version that most users get.
        backends: What answers; false where most recent attempts failed.
        versions: Recent attempts at each version that is served.
        lacking: Versions that users are sent to, or fall back to, that a backend does not list.
        recording: Whether answers and feedback are recorded.
        not_recording: Why not.
        store_away: Why the store cannot be read; the last known routing holds meanwhile.
        backlog: What is recorded in the log and not in the store yet.
        saved_segments: How often this process wrote a segment of its log anew, since it was deleted
            underneath or a sync of it failed.
        telemetry: What OpenTelemetry's exporters sent to this process: answers, feedback, what was
            let go of and what was rejected.
        advice: What somebody should see to.
    """

    status: Literal["ok", "degraded"]
    version: str
    champion: str | None
    backends: dict[str, bool]
    versions: dict[str, Attempts]
    lacking: dict[str, list[str]] = {}
    recording: bool
    not_recording: str | None = None
    store_away: str | None = None
    backlog: Backlog | None = None
    saved_segments: int = 0
    telemetry: dict[str, int] = {}
    advice: list[str] = []


CHAT: TypeAdapter[ChatRequest] = TypeAdapter(ChatRequest)


def feedback_schema() -> dict[str, Any]:
    """Return the JSON Schema of `POST /v1/feedback`: one event, or `events` with up to 10,000."""
    found = REPORTED_FEEDBACK.json_schema(ref_template="#/components/schemas/{model}")
    definitions: dict[str, Any] = found.pop("$defs")
    for definition in definitions.values():
        common = ["id", "interaction_id", "kind"]  # a copy without a value is one that was seen
        own = [name for name in definition["required"] if name not in (*common, "created_at")]
        definition["required"] = common + own
        definition["properties"]["token"] = {
            "anyOf": [{"type": "string"}, {"type": "null"}],
            "description": "The interaction's token; not needed with a key of the role ingest.",
        }
        for name in ("id", "interaction_id", "judge_version", "source", "name"):
            if name in definition["properties"]:
                definition["properties"][name]["pattern"] = _NO_NUL
        user = definition["properties"].get("user_id", {})
        for option in user.get("anyOf", ()):
            if option.get("type") == "string":
                option["pattern"] = _NO_NUL
        moment = definition["properties"]["created_at"] | {"pattern": _SINCE_2016}
        definition["properties"]["created_at"] = {
            "anyOf": [moment, {"type": "null"}],
            "description": "When it was given, with its time zone; default: now.",
        }
        definition["properties"]["updated_at"] = {
            "anyOf": [moment, {"type": "null"}],
            "description": "When it was changed last, where it is edited under one id.",
        }
    envelope = {
        "type": "object",
        "required": ["events"],
        "additionalProperties": False,
        "properties": {
            "events": {"type": "array", "maxItems": MOST_EVENTS, "items": {"type": "object"}}
        },
    }
    return {"anyOf": [found, envelope], "$defs": definitions}


MOST_EVENTS = 10_000


def check_chat(body: Any) -> None:
    """Refuse a body that is no chat request.

    Raises:
        ProblemError: 400 with the field at fault.
    """
    try:
        CHAT.validate_python(body)
    except ValidationError as error:
        raise invalid(error) from error


KNOWN_FIELDS = frozenset(ChatRequest.model_fields) | {
    "store", "prompt", "input", "instructions", "max_output_tokens", "previous_response_id",
}  # fmt: skip
"""Fields that always reach the backend: those that Ratchet reads, and what a request is about."""


def check_fields(body: Mapping[str, Any], passed: Collection[str] | None) -> None:
    """Refuse a field that the backend is not to get.

    Args:
        body: The request.
        passed: Fields that may be passed on besides `KNOWN_FIELDS`; None is all.

    Raises:
        ProblemError: 400 with the field.
    """
    if passed is None:
        return
    others = [name for name in body if name not in KNOWN_FIELDS and name not in passed]
    if others:
        raise ProblemError(
            400,
            f"a field must be one that this gateway passes on, got {others[0][:80]!r}; leave it "
            "out, or have the gateway started with --pass-field for it",
            code="field_not_allowed",
            param=others[0][:80],
        )


def checked_object(body: Any, passed: Collection[str] | None) -> dict[str, Any]:
    """Return the body of a request that is no chat, if it names a model.

    Args:
        body: The request.
        passed: See `check_fields`.

    Raises:
        ProblemError: 400, it is no object with a model, or has a field that is not passed on.
    """
    if not isinstance(body, dict) or not isinstance(body.get("model"), str):
        said = "the body must be an object with a `model`"
        raise ProblemError(400, said, code="invalid_value", param="model")
    check_fields(body, passed)
    return body


def invalid(error: ValidationError) -> ProblemError:
    """Return pydantic's first finding as a problem."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "body"
    received = "nothing" if first["type"] == "missing" else repr(first["input"])[:80]
    message = f"{where}: {first['msg']}, got {received}"
    return ProblemError(400, message, code="invalid_value", param=where)
