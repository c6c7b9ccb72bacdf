"""What a stream of chunks says, put together: words, refusals, calls of tools in fragments."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ratchet.collect.turns import decoded, reasoning_of
from ratchet.records.conversations import words_of

_INNER = {"function": "arguments", "custom": "input"}
"""What of a call comes in fragments, by the kind of tool."""


@dataclass(slots=True)
class Told:
    """What a stream said so far; of several choices the first."""

    reason: str | None = None
    usage: object = None
    chunks: int = 0
    begun: bool = False
    _words: list[str] = field(default_factory=list)
    _refusal: list[str] = field(default_factory=list)
    _reasoning: list[str] = field(default_factory=list)
    _calls: dict[object, dict[str, Any]] = field(default_factory=dict)
    _audio: dict[str, Any] = field(default_factory=dict)
    _sound: list[bytes] = field(default_factory=list)
    _last: object = None

    def add(self, chunk: Mapping[str, Any]) -> None:
        """Take a chunk that `replies.read_chunk` has checked."""
        self.chunks += 1
        self.usage = chunk.get("usage") or self.usage
        for choice in chunk["choices"]:
            if choice.get("index", 0) == 0:
                delta = choice.get("delta")
                if delta:
                    self._say(delta)
                self.reason = choice.get("finish_reason") or self.reason

    def message(self) -> dict[str, Any]:
        """Return what was said as a message."""
        found: dict[str, Any] = {"content": "".join(self._words)}
        if self._refusal:
            found["refusal"] = "".join(self._refusal)
        if self._reasoning:
            found["reasoning_content"] = "".join(self._reasoning)
        if self._audio or self._sound:
            sound = base64.b64encode(b"".join(self._sound)).decode()
            found["audio"] = self._audio | ({"data": sound} if sound else {})
        if self._calls:
            found["tool_calls"] = list(self._calls.values())
        return found

    def _say(self, delta: Mapping[str, Any]) -> None:
        content = delta.get("content")
        if len(delta) == 1 and type(content) is str:  # nearly all are
            self._words.append(content)
            self.begun = self.begun or bool(content)
            return
        refusal = delta.get("refusal")
        calls, audio = delta.get("tool_calls"), delta.get("audio")
        if content:
            self._words.append(words_of(content))
        if isinstance(audio, Mapping):
            self._hear(audio)
        if thought := reasoning_of(delta):
            self._reasoning.append(thought)
        if isinstance(refusal, str) and refusal:
            self._refusal.append(refusal)
        for call in calls or ():
            self._call(call)
        if isinstance(delta.get("function_call"), Mapping):  # the older form, one call at most
            self._call({"index": 0, "type": "function", "function": delta["function_call"]})
        self.begun = self.begun or bool(content or refusal or calls or audio)

    def _hear(self, audio: Mapping[str, Any]) -> None:
        """Take a piece of sound; each is base64 of its own."""
        if isinstance(audio.get("transcript"), str):
            self._words.append(audio["transcript"])
        if isinstance(audio.get("id"), str):
            self._audio.setdefault("id", audio["id"])
        if isinstance(audio.get("data"), str):
            self._sound.append(decoded(audio["data"]) or b"")

    def _call(self, piece: Mapping[str, Any]) -> None:
        """Add a fragment to the call of its index; a server that gives none begins each by id."""
        place = piece.get("index")
        if type(place) is not int:
            fresh = piece.get("id") is not None or self._last is None
            place = ("next", len(self._calls)) if fresh else self._last
        self._last = place
        call = self._calls.setdefault(place, {})
        for name, value in piece.items():
            fragment = _INNER.get(name)
            if fragment is not None and isinstance(value, Mapping):
                _add(call.setdefault(name, {}), value, fragment)
            elif name != "index" and value is not None:
                call.setdefault(name, value)


def _add(inner: dict[str, Any], piece: Mapping[str, Any], fragment: str) -> None:
    for name, value in piece.items():
        if name == fragment and isinstance(value, str):
            so_far = inner.get(name)
            inner[name] = (so_far if isinstance(so_far, str) else "") + value
        elif value is not None and not inner.get(name):
            inner[name] = value
