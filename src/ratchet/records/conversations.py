"""Turns of a conversation, in the shape of OpenAI's chat format, and what they refer to.

A turn is kept as it was sent: its words or content parts, the calls of tools with their arguments
as the model wrote them, the results of tools, refusals, and fields that Ratchet does not know. What
is null is the same as what is absent. Bytes of pictures, sound and files are never part of a
record: a `Blob` stands in their place.

Whoever reads a turn says what is meant: `Message.text` is the words alone, `texts` is every string
that somebody may have written into it, `spoken` is the turn as people and judges are shown it:

| of a turn | is shown |
|---|---|
| words | as they are |
| a call | `calls NAME(argument="value", ...)`; arguments that are no JSON object as they are |
| a result | `result of NAME: ...` |
| a picture, sound or file | `[image/png, 12 kB]`, `[report.pdf, application/pdf, 1.2 MB]` |
| a refusal | `refuses: ...` |

A line of words that begins like one of these is shown after `says: `, so that nobody can write a
call, a result or a picture that was none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    JsonValue,
    ModelWrapValidatorHandler,
    SerializerFunctionWrapHandler,
    TypeAdapter,
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
from ratchet.strict_json import is_shallow

Role = Literal["system", "developer", "user", "assistant", "tool"]
ToolName = Annotated[str, Field(max_length=200), AfterValidator(no_surrogates)]

Change = Callable[[str], str]

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
    """A part of a request that keeps fields which Ratchet does not know, and drops nulls."""

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
    """The name and the arguments of a called tool.

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
        """The arguments by name; None where they are no JSON object, or a very deep one."""
        try:
            found = json.loads(self.function.arguments or "{}")
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) and is_shallow(found) else None


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
        return _joined(part.text for part in self.content)


def words_of(content: object) -> str:
    """Return the words of a turn's content as JSON has it: its text, or those of its parts.

    They are what `Message.text` of the same turn is.
    """
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list | tuple) else ()
    return _joined(part.get("text") for part in parts if isinstance(part, Mapping))


def _joined(texts: Iterable[object]) -> str:
    return "\n".join(text for text in texts if isinstance(text, str))


AS_TEXT = "[tool calls]"
"""What stood before the JSON of calls in answers that earlier versions recorded."""
_CALLS = TypeAdapter(tuple[ToolCall, ...], config=ConfigDict(defer_build=True))
_NO_CALLS: Mapping[str, str] = {}
_LIKE_A_FORM = re.compile(
    r"^(?=says: |calls [^\s(]{1,200}\(|result of [^\n:]{1,200}:|refuses: "
    r"|\[[^\]\n]{1,200}, \d{1,15}(?:\.\d)? (?:bytes|kB|MB)\])",
    re.MULTILINE,
)
_MEDIA = {"image_url": "picture", "input_image": "picture", "input_audio": "sound"}
_THOUSAND, _MILLION = 1_000, 1_000_000


def last_said(messages: Sequence[Message]) -> str:
    """Return the words of the user's last turn, or what it holds where that is no words.

    Empty where the user has no turn.
    """
    last = next((turn for turn in reversed(messages) if turn.role == "user"), None)
    return "" if last is None else last.text or spoken(last)


def reads_as_text(messages: Sequence[Message]) -> bool:
    """Tell whether a conversation is words, calls and results, without pictures, sound and files.

    The bytes of these are no part of a record, so that no model can be asked about them again.
    """
    return all(
        part.text is not None or part.type == "refusal"
        for turn in messages
        if turn.content is not None and not isinstance(turn.content, str)
        for part in turn.content
    )


def blobs_in(messages: Sequence[Message]) -> list[Blob]:
    """Return the bytes that a conversation stands for."""
    return [blob for turn in messages for blob in _blobs(turn.canonical())]


def called_in(messages: Sequence[Message]) -> dict[str, str]:
    """Return the names of the tools that are called, by the ids of the calls."""
    return {call.id: call.name for turn in messages for call in turn.tool_calls if call.id}


def spoken(message: Message, called: Mapping[str, str] = _NO_CALLS) -> str:
    """Return the text that people and judges are shown for a turn; see the module's text.

    Args:
        message: The turn.
        called: What `called_in` found in its conversation, by which a result names its tool.
    """
    content, calls = message.content, message.tool_calls
    if message.role == "assistant" and isinstance(content, str) and AS_TEXT in content:
        content, calls = _recorded_as_text(content)
    parts = (content or "",) if content is None or isinstance(content, str) else content
    said = [spoken_words(part) if isinstance(part, str) else _shown_part(part) for part in parts]
    said += map(spoken_call, calls)
    if message.refusal:
        said.append(f"refuses: {spoken_words(message.refusal)}")
    shown = "\n".join(part for part in said if part)
    if message.role != "tool":
        return shown
    name = called.get(message.tool_call_id or "") or message.name or "a tool"
    return f"result of {_line(name)}: {shown}"


def spoken_call(call: ToolCall) -> str:
    """Return the text that people and judges are shown for a call."""
    return f"calls {_line(call.name)}({_shown_arguments(call)})"


def spoken_turns(messages: Sequence[Message]) -> list[tuple[Role, str]]:
    """Return each turn as its role and the text that people and judges are shown."""
    called = called_in(messages)
    return [(turn.role, spoken(turn, called)) for turn in messages]


def transcript(messages: Sequence[Message]) -> str:
    """Return a conversation as people read it.

    A turn's further lines are indented, so that none of them reads as a turn of somebody else.
    """
    return "\n".join(
        f"{role}: " + said.replace("\n", "\n  ") for role, said in spoken_turns(messages)
    )


def offered(tools: JsonValue) -> str:
    """Return the tools that a model could call, one a line: `NAME(argument: type, ...): what`.

    Arguments that need not be given end in a question mark. Anything that is no definition of a
    tool in OpenAI's form is left out.
    """
    found = [_offered(tool) for tool in tools] if isinstance(tools, list) else []
    return "\n".join(line for line in found if line)


def _recorded_as_text(content: str) -> tuple[str, tuple[ToolCall, ...]]:
    """Return the words and the calls of an answer in which an earlier version wrote the calls."""
    words, _, calls = content.rpartition(AS_TEXT)
    try:
        return words.rstrip("\n"), _CALLS.validate_json(calls)
    except ValueError:
        return content, ()


def _offered(tool: JsonValue) -> str:
    inner = tool.get("function", tool) if isinstance(tool, dict) else None
    if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
        return ""
    form = inner.get("parameters")
    form = form if isinstance(form, dict) else {}
    known, needed = form.get("properties"), form.get("required")
    known = known if isinstance(known, dict) else {}
    needed = needed if isinstance(needed, list) else []
    takes = [
        f"{name}{'' if name in needed else '?'}: {_type_of(what)}" for name, what in known.items()
    ]
    does = inner.get("description")
    about = f": {' '.join(does.split())}" if isinstance(does, str) and does.strip() else ""
    return f"{inner['name']}({', '.join(takes)}){about}"


def _type_of(schema: JsonValue) -> str:
    """Return what a JSON schema takes, in a word or as its values."""
    if not isinstance(schema, dict):
        return "any"
    values, kind = schema.get("enum"), schema.get("type")
    if isinstance(values, list):
        return " | ".join(json.dumps(value, ensure_ascii=False) for value in values)
    if isinstance(kind, list):
        return " | ".join(map(str, kind))
    return kind if isinstance(kind, str) else "any"


def _line(name: str) -> str:
    return " ".join(name.split())


def spoken_words(text: str) -> str:
    """Return words as people are shown them: no line reads as a call, a result or a picture."""
    return _LIKE_A_FORM.sub("says: ", text)


def _shown_part(part: Part) -> str:
    if part.text is not None:
        return spoken_words(part.text)
    more = part.__pydantic_extra__ or {}
    if part.type == "refusal":
        return f"refuses: {spoken_words(str(more.get('refusal', '')))}"
    given = more.get(part.type)
    named = given.get("filename") if isinstance(given, dict) else None
    address = next((text for text in _strings(more) if re.match(r"https?://", text)), "")
    blob, kind = part.blob, _MEDIA.get(part.type, part.type)
    held = [blob.media_type or kind, _size(blob.size)] if blob else [kind, address]
    shown = (_line(text) for text in (named, *held) if isinstance(text, str) and text)
    return f"[{', '.join(shown)}]"


def _size(count: int) -> str:
    if count < _THOUSAND:
        return f"{count} bytes"
    # what rounds to a thousand kilobytes is a megabyte
    if count < _MILLION - _THOUSAND // 2:
        return f"{count / _THOUSAND:.0f} kB"
    return f"{count / _MILLION:.1f} MB"


def _shown_arguments(call: ToolCall) -> str:
    given = call.arguments
    if given is None:
        return spoken_words(call.function.arguments)
    return ", ".join(
        f"{name if name.isidentifier() else _as_json(name)}={_as_json(value)}"
        for name, value in given.items()
    )


def _as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def texts(message: Message) -> Iterator[str]:
    """Yield every string of a turn that somebody may have written: words, arguments, results.

    What is JSON, as arguments are, yields its names, strings and numbers as they read and not as
    they are escaped.
    """
    found: list[str] = []
    _changed(message.canonical(), _into(found), _as_it_is)
    yield from found


def with_all_texts(
    messages: Sequence[Message], change: Callable[[Sequence[str]], Sequence[str]]
) -> list[Message]:
    """Return turns whose strings that somebody may have written are changed by a function.

    What is JSON, as arguments are, is changed in its parts as they read, and then as a whole: what
    the function looks for may be told by the name before it. It stays JSON: a number that is
    changed becomes a string, and so does the whole where its change leaves no JSON.

    Args:
        messages: The turns.
        change: Returns as many texts in the same order. It is called twice: with the texts, then
            with the wholes of what is JSON, in which the parts are changed.
    """
    told = [message.canonical() for message in messages]
    parts: list[str] = []
    wholes: list[str] = []
    for turn in told:
        _changed(turn, _into(parts), _as_it_is)
    known = _known(parts, change)
    for turn in told:
        _changed(turn, known.__getitem__, _into(wholes))
    both = _known(wholes, change)
    return [
        Message.model_validate(_changed(turn, known.__getitem__, both.__getitem__)) for turn in told
    ]


APPLICATION_ROLES = frozenset({"system", "developer"})
"""Roles of turns that the application wrote, which hold no words of a user."""


def with_conversations_changed(
    conversations: Sequence[Sequence[Message]], change: Callable[[Sequence[str]], Sequence[str]]
) -> list[tuple[Message, ...]]:
    """Return conversations changed as by `with_all_texts`, but for what the application wrote."""
    turns = [turn for said in conversations for turn in said if turn.role not in APPLICATION_ROLES]
    changed = iter(with_all_texts(turns, change))
    return [
        tuple(turn if turn.role in APPLICATION_ROLES else next(changed) for turn in said)
        for said in conversations
    ]


def _into(found: list[str]) -> Change:
    """Return a function that returns each text unchanged and appends it to a list."""

    def take(text: str) -> str:
        found.append(text)
        return text

    return take


def _known(
    found: Sequence[str], change: Callable[[Sequence[str]], Sequence[str]]
) -> dict[str, str]:
    return dict(zip(found, change(found), strict=True)) if found else {}


def _as_it_is(text: str) -> str:
    return text


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


def _changed(value: Any, change: Change, whole: Change) -> Any:
    """Return a copy of a turn, or of a part of one, with a function applied to every string.

    Args:
        value: As JSON-able values.
        change: Of a text, or of a part of what is JSON.
        whole: Of what is JSON, after its parts.
    """
    if isinstance(value, str):
        if Blob.read(value) is not None:
            return value
        return _changed_text(value, change, whole)[:MAX_TEXT_CHARACTERS]
    if isinstance(value, Mapping):
        return {
            name: inner
            if name in _STRUCTURE and isinstance(inner, str)
            else _changed(inner, change, whole)
            for name, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [_changed(inner, change, whole) for inner in value]
    return value


def _changed_text(text: str, change: Change, whole: Change) -> str:
    found = _parsed(text)
    if found is None:
        return change(text)
    try:
        changed = _changed_json(found, change)
        done = whole(text if changed == found else _as_json(changed))
    except RecursionError:  # as JSON it is too deep for anybody
        return change(text)
    return done if _parsed(done) is not None else _as_json(done)


def _changed_json(value: Any, change: Change) -> Any:
    """Return what is JSON with its names, strings and numbers changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        found: dict[str, Any] = {}
        for name, inner in value.items():
            base = named = change(name)
            while named in found:  # two names may be changed to one
                named = f"{base} {len(found) + 1}"
            found[named] = _changed_json(inner, change)
        return found
    if isinstance(value, list):
        return [_changed_json(inner, change) for inner in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        written = json.dumps(value)
        changed = change(written)
        return value if changed == written else changed
    return value
