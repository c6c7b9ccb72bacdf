"""Turns as the log holds them: as they were sent, but for what the store cannot hold.

The backend gets the request as it came. The record differs where the store has a rule, and
`metadata` says so: NUL characters become U+FFFD and half of a surrogate pair likewise (`altered`),
texts end at 100,000 characters (`shortened`). Bytes of pictures, sound and files are replaced by a
reference (`ratchet.records.Blob`); where a folder for them is given, they are kept there.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol
from urllib.parse import unquote_to_bytes

from pydantic import ValidationError
from pydantic_core import to_json

from ratchet.records import MAX_TEXT_CHARACTERS, Blob, Message, ToolCall
from ratchet.records.asking import AUDIO, AUDIO_ID, REASONING
from ratchet.records.conversations import words_of

json_bytes = partial(to_json, inf_nan_mode="null")
"""JSON of a value; a number too large for a float, such as 1e999, becomes null."""

_LONGEST_NAME = 200
_DATA_URL = re.compile(r"data:(?P<type>[^,;]*)(?P<more>[^,]*),", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/_\-\s]*=*\s*")
_RAW = {"input_audio": "audio/", "audio": "audio/", "file": "", "input_file": ""}
"""Under which names base64 lies without a data URL in front, and how its media type begins."""
_MEDIA = frozenset({"content", "audio"})
_PLAIN = frozenset({"role", "content"})
_MEDIA_TYPE = re.compile(r"[^;\s]{0,100}")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model answered, as it is recorded.

    Attributes:
        text: The words.
        tool_calls: As they were sent.
        refusal: Why it refuses.
        beside: What is no part of the turn, for the metadata: reasoning, and sound by reference.
    """

    text: str = ""
    tool_calls: Sequence[Mapping[str, Any]] = ()
    refusal: str | None = None
    beside: Mapping[str, str] = field(default_factory=dict)


NO_ANSWER = Answer()


class BlobKeeper(Protocol):
    """What keeps bytes that clients sent."""

    def keep(self, blob: Blob, content: bytes) -> None:
        """Keep the bytes that a reference stands for."""
        ...


@dataclass(slots=True)
class TurnReader:
    """Reads turns of one request.

    Attributes:
        blobs: Where bytes are kept; None where they are not.
        notes: What was altered.
    """

    blobs: BlobKeeper | None = None
    notes: dict[str, str] = field(default_factory=dict)

    def turns(self, messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return the turns of a conversation."""
        return [self._turn(message) for message in messages]

    def answer(self, message: Mapping[str, Any]) -> Answer:
        """Return what a message of the model says."""
        refusal, calls = message.get("refusal"), message.get("tool_calls")
        if not calls and isinstance(message.get("function_call"), Mapping):
            calls = [{"type": "function", "function": message["function_call"]}]
        audio = message.get("audio")
        content = message.get("content")
        if content is None and isinstance(audio, Mapping):
            content = audio.get("transcript")
        return Answer(
            self.text(words_of(content)),
            [self._call(call) for call in calls or ()],
            self.text(str(refusal)) if refusal else None,
            self._beside(message),
        )

    def _beside(self, message: Mapping[str, Any]) -> dict[str, str]:
        """Return the reasoning of an answer and its sound, where it has any."""
        found, thought, audio = {}, reasoning_of(message), message.get("audio")
        if thought:
            found[REASONING] = self.text(thought)
        if isinstance(audio, Mapping):
            sound = self._part(audio, "audio", {})
            for name, field_name in ((AUDIO, "data"), (AUDIO_ID, "id")):
                value = sound.get(field_name)
                if isinstance(value, str) and (name == AUDIO_ID or Blob.read(value)):
                    found[name] = value
        return found

    def text(self, text: str) -> str:
        """Return a text that the store can hold."""
        if "\x00" in text:
            text = text.replace("\x00", "\ufffd")
            self.notes["altered"] = "NUL became U+FFFD"
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:
                text = text.encode("utf-8", "replace").decode()
                self.notes["altered"] = "what is no Unicode became ?"
        if len(text) > MAX_TEXT_CHARACTERS:
            self.notes["shortened"] = f"from {len(text):,} characters"
            text = text[:MAX_TEXT_CHARACTERS]
        return text

    def value(self, value: Any) -> Any:
        """Return a JSON value whose texts the store can hold."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(key): self.value(inner) for key, inner in value.items()}
        return [self.value(inner) for inner in value] if isinstance(value, list) else value

    def _turn(self, message: Mapping[str, Any]) -> dict[str, Any]:
        role, content = message.get("role", "user"), message.get("content")
        if message.keys() <= _PLAIN and isinstance(content, str) and role != "function":
            return {"role": role, "content": self.text(content)}
        found = {
            self.text(name): self._part(given, name, {}) if name in _MEDIA else self.value(given)
            for name, given in message.items()
            if given is not None
        }
        if role == "function":  # the older name of what a tool said
            found["role"], self.notes["altered"] = "tool", "the role function became tool"
        if "content" not in found and role in ("system", "developer", "user"):
            found["content"] = ""
        if "tool_calls" in found and isinstance(found["tool_calls"], list):
            found["tool_calls"] = [_whole_call(call) for call in found["tool_calls"]]
        try:
            Message.model_validate(found)
        except ValidationError:
            self.notes["altered"] = "a turn was of another shape than OpenAI's"
            text = self.text(words_of(content))
            sent = self.text(json_bytes(found).decode("utf-8", "replace"))
            return {"role": found["role"], "content": text, "as_sent": sent}
        return found

    def _call(self, call: Any) -> dict[str, Any]:
        found: dict[str, Any] = _whole_call(self.value(call))
        found.pop("index", None)
        try:
            ToolCall.model_validate(found)
        except ValidationError:
            self.notes["altered"] = "a call was of another shape than OpenAI's"
            sent = self.text(json_bytes(found).decode("utf-8", "replace"))
            return {"type": "unknown", "function": {"name": "unknown", "arguments": sent}}
        return found

    def _part(self, value: Any, name: str, beside: Mapping[str, Any]) -> Any:
        """Return a part of a turn's content, or a value in one, without bytes."""
        if isinstance(value, str):
            return self._bytes(value, name, beside) or self.text(value)
        if isinstance(value, Mapping):
            return {
                self.text(key): self._part(inner, key, {**value, "": name})
                for key, inner in value.items()
            }
        if isinstance(value, list):
            return [self._part(inner, name, beside) for inner in value]
        return value

    def _bytes(self, text: str, name: str, beside: Mapping[str, Any]) -> str | None:
        """Return the reference that stands for bytes; None where a text holds none."""
        if name in ("text", "content", "arguments", "refusal", "transcript"):
            return None
        found = _DATA_URL.match(text[:1_000]) if text[:5].casefold() == "data:" else None
        if found is not None:
            kind, body = found["type"], text[found.end() :]
            is_base64 = "base64" in found["more"].casefold()
            content = decoded(body) if is_base64 else unquote_to_bytes(body)
        elif (
            text
            and name in ("data", "file_data")
            and not _RAW.keys().isdisjoint(within := (beside.get(""), beside.get("type")))
        ):
            form = beside.get("format")
            begins = next(_RAW[str(one)] for one in within if one in _RAW)
            kind = f"{begins}{form}" if begins and isinstance(form, str) else ""
            content = decoded(text)
        else:
            return None
        if content is None:
            return None
        kind = kind if _MEDIA_TYPE.fullmatch(kind) else ""
        blob = Blob(hashlib.sha256(content).hexdigest(), self.text(kind), len(content))
        if self.blobs is not None:
            self.blobs.keep(blob, content)
        return blob.reference


def reasoning_of(message: Mapping[str, Any]) -> str:
    """Return what a model thought before its answer, as vLLM and DeepSeek (and others) name it."""
    for name in ("reasoning_content", "reasoning"):
        if isinstance(message.get(name), str):
            return str(message[name])
    return ""


def _whole_call(call: Any) -> Any:
    """Return a call whose arguments are text, as OpenAI has them; some clients send an object."""
    if not isinstance(call, Mapping):
        return call
    function = call.get("function")
    if isinstance(function, Mapping) and not isinstance(function.get("arguments", ""), str):
        given = function["arguments"]
        arguments = "" if given is None else json_bytes(given).decode()
        return {**call, "function": {**function, "arguments": arguments}}
    return dict(call)


def decoded(text: str) -> bytes | None:
    """Return what a text is the base64 of; None where it is none."""
    if not _BASE64.fullmatch(text):
        return None
    plain = re.sub(r"[\s=]+", "", text).replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4))
    except binascii.Error:
        return None
