"""A server that speaks OpenAI's chat completions: what is sent, and how its replies are read."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ratchet.errors import InvalidInputError, ModelError
from ratchet.prefect_api import NAMED, read_block
from ratchet.records import Message, digest
from ratchet.records.tool_calls import written

_LONGEST_NAME = 200
_MOST_TOKENS = 10**9
_LAST_PORT = 65_535
_COMPLETIONS = "/chat/completions"
_SHOWN_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Question:
    """Something to ask.

    Attributes:
        key: Names the question and whoever is asked; the same key gives the same answer.
        conversation: What is sent.
        schema: JSON schema of the answer, for endpoints that are set to `structured`.
        seed: Of this question alone, in place of the endpoint's; questions of the same text that
            are sampled need seeds of their own.
        tools: Definitions of what may be called.
        response_format: The form that is asked for, in place of the schema's.
    """

    key: str
    conversation: tuple[Message, ...]
    schema: dict[str, Any] | None = None
    seed: int | None = None
    tools: tuple[dict[str, Any], ...] = ()
    response_format: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back.

    Attributes:
        error: Why there is no text; replies that are saved have none.
        model: As the server names it.
        cost: In the currency of the configured prices; at its worst where no usage was sent.
        latency_seconds: Of the attempt that succeeded.
        cut_off: Whether the server says that it ended at the token limit.
        refused: Whether the server says that the model, or a filter, refused to answer; the text is
            what it said instead.
    """

    key: str
    text: str
    error: str | None = None
    model: str = ""
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost: float = 0.0
    latency_seconds: float = 0.0
    attempts: int = 1
    cut_off: bool = False
    refused: bool = False


class Endpoint(BaseModel):
    """A server that speaks OpenAI's chat completions, and how it decodes.

    Attributes:
        url: The address, with `/v1` or without, or all of it up to `/chat/completions`.
        api_key_variable: Name of the environment variable that holds the key.
        structured: Whether it takes JSON schemas as `response_format`.
        max_tokens: Longest answer.
        temperature: None leaves it to the server, as a request does that names none.
        top_p: The same.
        seed: Sent where it is set.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True
    )

    url: str
    model: str = Field(min_length=1, max_length=_LONGEST_NAME)
    api_key_variable: str | None = None
    structured: bool = False
    max_tokens: int = Field(default=512, ge=1)
    temperature: float | None = Field(default=0.0, ge=0.0)
    top_p: float | None = Field(
        default=None, ge=0.0, le=1.0, exclude_if=lambda value: value is None
    )
    seed: int | None = None

    @field_validator("url")
    @classmethod
    def _is_plain_address(cls, url: str) -> str:
        server_address(url)
        return url.rstrip("/")

    @field_validator("api_key_variable")
    @classmethod
    def _is_a_name(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ValueError(
                "api_key_variable must be the name of an environment variable, not the key itself; "
                "for example OPENAI_API_KEY"
            )
        return name

    @property
    def address(self) -> str:
        """Where chat completions are posted to."""
        return server_address(self.url) + _COMPLETIONS


def server_address(url: str) -> str:
    """Return the address of a server that speaks OpenAI's API, up to its version: `.../v1`.

    Args:
        url: `http://host:port`, with `/v1` or without, with a path before it, or all of it up to
            `/chat/completions`.

    Raises:
        InvalidInputError: It is no address, or holds what would be stored and logged.
    """
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        parsed = httpx.URL("")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        # Shown only where it is host:port: anything else could be a key put in the wrong place.
        plain = re.fullmatch(r"[\w.-]+:\d{1,5}(/v\d\w*)?/?", url)
        raise InvalidInputError(
            "url must be an http or https address with its scheme, such as http://localhost:8000"
            + (f", got {url!r}" if plain else "")
        )
    if parsed.port is not None and not 0 < parsed.port <= _LAST_PORT:
        raise InvalidInputError(
            f"url must have a port from 1 to {_LAST_PORT}, got {parsed.port}; correct it"
        )
    if parsed.userinfo or parsed.query or parsed.fragment:
        raise InvalidInputError(
            "url must hold no password, query or fragment, which would be stored and logged; "
            "put the key into an environment variable and name it in api_key_variable"
        )
    whole = url.rstrip("/")
    base = whole.removesuffix(_COMPLETIONS)
    is_versioned = base != whole or re.search(r"/v\d[^/]*$", base)
    return base if is_versioned else f"{base}/v1"


@dataclass(frozen=True, slots=True)
class ChatReply:
    """A chat completion as a server sent it, read; calls of tools stand in its text."""

    text: str
    model: str
    input_tokens: int | None
    output_tokens: int | None
    cut_off: bool
    refused: bool


def request_body(endpoint: Endpoint, question: Question) -> bytes:
    """Return the JSON that is posted."""
    body: dict[str, Any] = {
        "model": endpoint.model,
        "messages": [message.canonical() for message in question.conversation],
        "max_tokens": endpoint.max_tokens,
    }
    for name in ("temperature", "top_p"):
        if (value := getattr(endpoint, name)) is not None:
            body[name] = value
    seed = endpoint.seed if question.seed is None else question.seed
    if seed is not None:
        body["seed"] = seed
    if endpoint.structured and question.schema is not None:
        schema = {"name": "answer", "strict": True, "schema": question.schema}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    if question.tools:
        body["tools"] = question.tools
    if question.response_format is not None:
        body["response_format"] = question.response_format
    return json.dumps(body, ensure_ascii=False).encode()


def read_completion(content: bytes) -> ChatReply:
    """Read a chat completion.

    Raises:
        ValueError: It is none; the text says in few words why.
    """
    try:
        reply = json.loads(content)
    except (ValueError, RecursionError):
        raise ValueError("no JSON") from None
    if not isinstance(reply, dict):
        raise ValueError("no JSON object")
    choices = reply.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise ValueError("no choices")
    message = choices[0].get("message")
    if not isinstance(message, dict):
        raise ValueError("no message")
    text = message.get("content")
    refusal = message.get("refusal")
    text = (refusal or "") if text is None else text
    if not isinstance(text, str):
        raise ValueError("content is no text")
    if message.get("tool_calls"):
        try:
            called = {"role": "assistant", "content": text, "tool_calls": message["tool_calls"]}
            text = written(Message.model_validate(called))
        except ValidationError:
            raise ValueError("calls of tools that cannot be read") from None
    usage = reply.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    model = reply.get("model")
    return ChatReply(
        text=text,
        model=model if isinstance(model, str) and _is_name(model) else "",
        input_tokens=_count(usage.get("prompt_tokens")),
        output_tokens=_count(usage.get("completion_tokens")),
        cut_off=choices[0].get("finish_reason") == "length",
        refused=bool(refusal) or choices[0].get("finish_reason") == "content_filter",
    )


def _count(value: object) -> int | None:
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if 0 <= value <= _MOST_TOKENS else None


def _is_name(text: str) -> bool:
    """Whether records can hold it as an identifier."""
    return len(text) <= _LONGEST_NAME and text.isprintable()


def checked_key(api_key: str | None, variable: str | None) -> str | None:
    """Return the key without the white space around it; None for an empty one.

    Args:
        api_key: The key.
        variable: The environment variable that holds it, for the message.

    Raises:
        ModelError: A header cannot carry it (the HTTP library's own error would show it).
    """
    key = api_key.strip() if api_key else ""
    if not re.fullmatch(r"[\x21-\x7e]*", key):
        raise ModelError(
            "an API key must be printable ASCII without spaces, got "
            f"{len(key)} characters with others among them; "
            f"check {variable or 'the variable that holds it'}"
        )
    return key or None


def request_headers(api_key: str | None) -> dict[str, str]:
    """Return the headers of every request: JSON, and the key as a bearer token where there is one.

    Args:
        api_key: From `checked_key`.
    """
    headers = {"Content-Type": "application/json"}
    return headers | {"Authorization": f"Bearer {api_key}"} if api_key else headers


def shown(text: str, api_key: str | None) -> str:
    """Return the start of what a server said, on one line and without the key."""
    if api_key:
        text = text.replace(api_key, "***")
    return " ".join(text.split())[:_SHOWN_CHARACTERS]


def key_in(environ: Mapping[str, str], endpoint: Endpoint, *, needs: str) -> str | None:
    """Return the endpoint's key, None where it needs none.

    Args:
        environ: The environment.
        endpoint: Whose key.
        needs: Who needs it, for the message: "judge 'careful' needs its key".

    Raises:
        ModelError: The variable that should hold it is not set.
    """
    variable = endpoint.api_key_variable
    key = key_from(environ, variable) if variable else None
    if variable and not key:
        raise ModelError(
            f"{needs} in {variable}, which is not set; export {variable}=..., or {variable}_FILE "
            "with the path of a file that holds it"
        )
    return key


def key_from(environ: Mapping[str, str], variable: str) -> str | None:
    """Return the key that a variable holds, or the file that `VARIABLE_FILE` names; None without.

    A key such as `prefect:secret/NAME` stands for what that block of a Prefect server holds.

    Raises:
        ModelError: The file cannot be read, or a header cannot carry the key.
    """
    path = environ.get(f"{variable}_FILE")
    key = environ.get(variable)
    if path and not key:
        try:
            key = Path(path).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ModelError(
                f"{variable}_FILE must be a file that holds a key, got {path!r}: "
                f"{getattr(error, 'strerror', None) or 'not text'}; correct the path"
            ) from error
    if key and key.startswith(NAMED):
        key = read_block(key, variable, environ)
    return checked_key(key, variable)


def refused(endpoint: Endpoint, api_key: str | None, status: int, said: str) -> ModelError:
    """Return the error for a server that will refuse every request, with what to do about it."""
    variable = endpoint.api_key_variable
    if status in (404, 405) or 300 <= status < 400:
        rule, way_out = f"know the model {endpoint.model!r}", "check url and model"
    elif status == 402:
        rule, way_out = "have credit left", "add credit, then start again"
    elif api_key is None:
        rule = "accept requests without a key"
        way_out = "put the key into an environment variable and name it in api_key_variable"
    else:
        rule, way_out = "accept the API key", f"put a valid key into {variable or 'its variable'}"
    return ModelError(
        f"the endpoint must {rule}, got HTTP {status} from {endpoint.address}: "
        f"{said or 'no text'}; {way_out}"
    )


def header_value(key: str) -> str:
    """Return a question's key, or its digest where a header cannot carry it."""
    return key if re.fullmatch(r"[\x21-\x7e]{1,200}", key) else digest(key)
