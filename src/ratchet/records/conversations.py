"""Turns of a conversation, in the shape of OpenAI's chat format, and what they refer to.

A turn is kept as it was sent: its words or content parts, the calls of tools with their arguments
as the model wrote them, the results of tools, refusals, and fields that Ratchet does not know. What
is null is the same as what is absent. Bytes of pictures, sound and files are never part of a
record: a `Blob` stands in their place.

Whoever reads a turn says what is meant: `Message.text` is the words alone, `texts` is every string
that somebody may have written into it, `ratchet.views.words.spoken` is the turn as people and
judges are shown it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    JsonValue,
    ModelWrapValidatorHandler,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from ratchet.records.base import (
    MAX_TEXT_CHARACTERS,
    Identifier,
    Record,
    Text,
    no_surrogates,
)

Role = Literal["system", "developer", "user", "assistant", "tool"]
ToolName = Annotated[str, Field(max_length=200), AfterValidator(no_surrogates)]

_BLOB = re.compile(r"blob:sha256-(?P<digest>[0-9a-f]{64});(?P<media_type>[^;\s]*);(?P<size>\d+)")
_STRUCTURE = frozenset({"role", "type", "id", "tool_call_id", "detail", "format", "index"})


@dataclass(frozen=True, slots=True)
class Blob:
    """What stands in a record for bytes.

    Attributes:
        digest: SHA-256 of the bytes, 64 hex digits.
        media_type: Such as `image/png`; empty where it is not known.
        size: Bytes.
    """

    digest: str
    media_type: str
    size: int

    @property
    def reference(self) -> str:
        """The text that stands in the place of the bytes."""
        return f"blob:sha256-{self.digest};{self.media_type};{self.size}"

    @classmethod
    def read(cls, text: str) -> Self | None:
        """Return what a text refers to; None where it is no reference."""
        found = _BLOB.fullmatch(text)
        if found is None:
            return None
        return cls(found["digest"], found["media_type"], int(found["size"]))


class _Sent(Record):
    """Something that keeps fields which Ratchet does not know, and drops nulls."""

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, JsonValue] = Field(init=False)

    @model_validator(mode="wrap")
    @classmethod
    def _without_nulls(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        # one call for all that is checked here: most turns are plain, and there are many of them
        plain = type(value) is dict and None not in value.values()
        if not plain and isinstance(value, Mapping):
            value = {name: given for name, given in value.items() if given is not None}
        found = handler(value)
        if found.__pydantic_extra__:
            _check_texts(found.__pydantic_extra__)
        found._check()
        return found

    def _check(self) -> None:
        """Refuse what its fields do not forbid."""


def _check_texts(more: Mapping[str, JsonValue]) -> None:
    for text in _strings(more, frozenset()):
        no_surrogates(text)
        if len(text) > MAX_TEXT_CHARACTERS:
            raise ValueError(
                f"a text of a turn must have at most {MAX_TEXT_CHARACTERS:,} characters, got "
                f"{len(text):,}; shorten it, or refer to it as a blob"
            )


class Part(_Sent):
    """A part of a turn's content: text, or a picture, sound or file by its `Blob` or address.

    Attributes:
        type: `text`, `refusal`, `image_url`, `input_audio`, `file`, or what else a client sends.
        text: The words, of a part of text.
    """

    type: Identifier
    text: Text | None = Field(default=None, exclude_if=lambda value: value is None)

    @property
    def blob(self) -> Blob | None:
        """The bytes that it stands for; None where it holds none."""
        return next(_blobs(self.__pydantic_extra__ or {}), None)


class CalledFunction(_Sent):
    """Which tool is called, and how.

    Attributes:
        arguments: JSON as the model wrote it, which need not be valid.
    """

    name: ToolName
    arguments: Text = ""


class ToolCall(_Sent):
    """A call of a tool by the model.

    A custom tool's call, whose input is free text, is read as one of a function with that input as
    its arguments, and written in the form in which it was sent.
    """

    id: Text | None = Field(default=None, exclude_if=lambda value: value is None)
    type: Identifier = "function"
    function: CalledFunction

    @model_validator(mode="before")
    @classmethod
    def _of_custom_tool(cls, value: Any) -> Any:
        custom = value.get("custom") if isinstance(value, Mapping) else None
        if not isinstance(custom, Mapping) or value.get("function") is not None:
            return value
        rest = {name: given for name, given in value.items() if name != "custom"}
        inner = {name: given for name, given in custom.items() if name != "input"}
        return rest | {"type": "custom", "function": inner | {"arguments": custom.get("input")}}

    @model_serializer(mode="wrap")
    def _in_its_form(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        found: dict[str, Any] = handler(self)
        if self.type == "custom":
            function = found.pop("function")
            found["custom"] = {"input": function.pop("arguments"), **function}
        return found

    @property
    def name(self) -> str:
        """The tool."""
        return self.function.name

    @property
    def arguments(self) -> dict[str, Any] | None:
        """The arguments by name; None where they are no JSON object."""
        try:
            found = json.loads(self.function.arguments or "{}")
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None


class Message(_Sent):
    """One turn of a conversation.

    Attributes:
        content: Words, or parts; None of an answer that only calls tools or refuses.
        name: Who of several speakers says it.
        tool_calls: What the model calls, in an answer.
        tool_call_id: The call whose result this is, of the role `tool`.
        refusal: Why the model refuses, in an answer.
    """

    role: Role
    content: Text | tuple[Part, ...] | None = None
    name: ToolName | None = Field(default=None, exclude_if=lambda value: value is None)
    tool_calls: tuple[ToolCall, ...] = Field(default=(), exclude_if=lambda value: not value)
    tool_call_id: Text | None = Field(default=None, exclude_if=lambda value: value is None)
    refusal: Text | None = Field(default=None, exclude_if=lambda value: value is None)

    def _check(self) -> None:
        if self.content is None and self.role in ("system", "developer", "user"):
            raise ValueError(
                f"content of a turn of the role {self.role} must be text or parts, got nothing"
            )

    @property
    def text(self) -> str:
        """The words alone: without calls, pictures and refusals."""
        if self.content is None or isinstance(self.content, str):
            return self.content or ""
        return "\n".join(part.text for part in self.content if part.text is not None)


def last_said(messages: Sequence[Message]) -> str:
    """Return the words of the user's last turn; empty where there is none."""
    return next((turn.text for turn in reversed(messages) if turn.role == "user"), "")


def texts(message: Message) -> Iterator[str]:
    """Yield every string of a turn that somebody may have written: words, arguments, results.

    What is JSON, as arguments are, yields its strings as they read and not as they are escaped.
    """
    for text in _strings(message.canonical()):
        found = _parsed(text)
        if found is None:
            yield text
        else:
            yield from _strings(found, structure=frozenset())


def with_texts(message: Message, change: Callable[[str], str]) -> Message:
    """Return a turn whose strings that somebody may have written are changed by a function.

    What is JSON, as arguments are, is changed in its strings as they read, and then as a whole:
    what a function looks for may be told by the name before it.
    """
    return Message.model_validate(_changed(message.canonical(), change))


def _parsed(text: str) -> dict[str, Any] | list[Any] | None:
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict | list) else None


def _blobs(value: object) -> Iterator[Blob]:
    if isinstance(value, str):
        found = Blob.read(value)
        if found is not None:
            yield found
    elif isinstance(value, Mapping | list | tuple):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _blobs(inner)


def _strings(value: object, structure: frozenset[str] = _STRUCTURE) -> Iterator[str]:
    """Yield the strings of a JSON value but for references and those under names of `structure`."""
    if isinstance(value, str):
        if Blob.read(value) is None:
            yield value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            if name not in structure or not isinstance(inner, str):
                yield from _strings(inner, structure)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _strings(inner, structure)


def _changed(
    value: Any, change: Callable[[str], str], structure: frozenset[str] = _STRUCTURE
) -> Any:
    if isinstance(value, str):
        return value if Blob.read(value) is not None else _changed_text(value, change)
    if isinstance(value, Mapping):
        return {
            name: inner
            if name in structure and isinstance(inner, str)
            else _changed(inner, change, structure)
            for name, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [_changed(inner, change, structure) for inner in value]
    return value


def _changed_text(text: str, change: Callable[[str], str]) -> str:
    found = _parsed(text)
    if found is not None:
        changed = _changed(found, change, frozenset())
        if changed != found:
            text = json.dumps(changed, ensure_ascii=False)
    return change(text)
