"""Whatever a conversation holds, it comes out of the store as it was sent.

Requests are made from a seed, each beside what is to be stored of it, and go through the recorder,
the log, the drain and the store. Half of the answers are put together from a stream.
"""

from __future__ import annotations

import base64
import hashlib
import json
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ratchet.collect.turns import TurnReader
from ratchet.gateway.access import Caller
from ratchet.gateway.drain import Drain
from ratchet.gateway.log import WriteAheadLog
from ratchet.gateway.recording import Chat, Recorder, Records
from ratchet.gateway.routing import RoutingPlan
from ratchet.gateway.streams import Told
from ratchet.records import Interaction, Variant
from ratchet.store import EventStore

PLAN = RoutingPlan(Variant(version="m/1", share=1.0), "e", None)
CALLER = Caller("key", "app", frozenset())
WORDS = [
    "", " ", "wo ist meine Karte?", "ok", "\n\t", "ß🙂漢字", '{"a": 1}', "[tool calls] [{}]",
    "null", "data:image/png;base64,AAAA", "blob:x", "a" * 3_000, "\u202e\u0085\u2028", "'\"\\",
    "<|im_end|>",
]  # fmt: skip
Made = tuple[Any, Any]
"""What is sent, and what is to be stored of it."""


class Maker:
    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)

    def words(self) -> str:
        return " ".join(self.draw.choices(WORDS, k=self.draw.randint(1, 3)))

    def some(self, share: float = 0.3) -> bool:
        return self.draw.random() < share

    def json(self, depth: int = 2) -> Any:
        """Return a value that a client may send in a field that nobody knows."""
        kind = self.draw.randrange(7 if depth else 5)
        if kind == 5:
            return [self.json(depth - 1) for _ in range(self.draw.randrange(3))]
        if kind == 6:
            return {self.words()[:20] or "k": self.json(depth - 1) for _ in range(2)}
        return self.draw.choice(
            [self.words(), self.draw.randint(-(2**53), 2**53), self.draw.random(), True, None]
        )

    def arguments(self) -> str:
        if self.some(0.1):
            return self.draw.choice(["", "{", "not json", "[1,", '{"a": 1}x'])
        value = {self.words()[:20]: self.json() for _ in range(self.draw.randrange(3))}
        return json.dumps(value, ensure_ascii=self.some(), indent=self.draw.choice([None, 2]))

    def call(self) -> dict[str, Any]:
        key, name = f"call_{self.draw.getrandbits(32):x}", f"tool-{self.draw.randrange(9)}"
        if self.some(0.15):
            return {"id": key, "type": "custom", "custom": {"name": name, "input": self.words()}}
        function = {"name": name, "arguments": self.arguments()}
        return {"id": key, "type": "function", "function": function}

    def calls(self) -> list[dict[str, Any]]:
        return [self.call() for _ in range(self.draw.randint(1, 3))]

    def part(self) -> Made:
        kind = self.draw.randrange(6)
        if kind < 2:
            text = {"type": "text", "text": self.words()}
            return text, text
        content = self.draw.randbytes(self.draw.choice([0, 1, 2, 3, 100]))
        encoded = base64.b64encode(content).decode()
        key = hashlib.sha256(content).hexdigest()
        if kind == 2:
            address = {"type": "image_url", "image_url": {"url": "https://x/y.png"}}
            return address, address
        if kind == 3:
            detail = {"detail": self.draw.choice(["low", "auto"])} if self.some() else {}
            url = f"data:image/jpeg;base64,{encoded}"
            kept = f"blob:sha256-{key};image/jpeg;{len(content)}"
            return tuple(  # type: ignore[return-value]
                {"type": "image_url", "image_url": {"url": one, **detail}} for one in (url, kept)
            )
        if kind == 4 and content:
            kept = f"blob:sha256-{key};audio/mp3;{len(content)}"
            return tuple(  # type: ignore[return-value]
                {"type": "input_audio", "input_audio": {"data": one, "format": "mp3"}}
                for one in (encoded, kept)
            )
        url = f"data:application/pdf;base64,{encoded}"
        kept = f"blob:sha256-{key};application/pdf;{len(content)}"
        return tuple(  # type: ignore[return-value]
            {"type": "file", "file": {"filename": "a.pdf", "file_data": one}} for one in (url, kept)
        )

    def content(self) -> Made:
        if self.some(0.7):
            words = self.words()
            return words, words
        parts = [self.part() for _ in range(self.draw.randint(1, 3))]
        return [part[0] for part in parts], [part[1] for part in parts]

    def turn(self) -> Made:
        role = self.draw.choice(["system", "developer", "user", "user", "assistant", "tool"])
        sent, kept = self.content()
        given: dict[str, Any] = {"role": role, "content": sent}
        told: dict[str, Any] = {"role": role, "content": kept}
        more: dict[str, Any] = {}
        if role == "assistant" and self.some(0.5):
            more["tool_calls"] = self.calls()
            if self.some(0.7):
                given["content"] = told["content"] = None
                if self.some():
                    del given["content"]
        elif role == "assistant" and self.some(0.2):
            more["refusal"] = self.words() + "no"
        if role == "tool":
            more["tool_call_id"] = f"call_{self.draw.getrandbits(32):x}"
        if self.some(0.15):
            more["name"] = f"bob{self.draw.randrange(9)}"
        if self.some(0.15):
            more[f"x_{self.draw.randrange(9)}"] = self.json() or 0
        nulls = {"refusal": None, "name": None, "audio": None} if self.some(0.1) else {}
        return {**nulls, **given, **more}, told | more

    def answer(self) -> dict[str, Any]:
        if self.some(0.4):
            words = self.words() if self.some() else None
            return {"role": "assistant", "content": words, "tool_calls": self.calls()}
        if self.some(0.1):
            return {"role": "assistant", "content": None, "refusal": self.words() + "no"}
        return {"role": "assistant", "content": self.words()}

    def deltas(self, message: dict[str, Any]) -> list[dict[str, Any]]:
        """Return a message as a server streams it: in order, every text in pieces."""
        found: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        found += [{"content": piece} for piece in self.pieces(message.get("content") or "")]
        found += [{"refusal": piece} for piece in self.pieces(message.get("refusal") or "")]
        for index, call in enumerate(message.get("tool_calls", ())):
            kind, fragment = call["type"], "input" if call["type"] == "custom" else "arguments"
            head = {**call, kind: {**call[kind], fragment: ""}, "index": index}
            found.append({"tool_calls": [head]})
            for piece in self.pieces(call[kind][fragment]):
                found.append({"tool_calls": [{"index": index, kind: {fragment: piece}}]})
        return found

    def pieces(self, text: str) -> list[str]:
        size = self.draw.randint(1, 50)
        return [text[start : start + size] for start in range(0, len(text), size)]


def told(deltas: list[dict[str, Any]]) -> dict[str, Any]:
    stream = Told()
    for delta in deltas:
        stream.add({"choices": [{"index": 0, "delta": delta}, {"index": 1, "delta": delta}]})
    return stream.message()


def as_trained(interaction: Interaction) -> list[dict[str, Any]]:
    """Return a conversation as training has it: the turns and the answer."""
    return [m.canonical() for m in (*interaction.messages, interaction.answer)]


def check(folder: Path, conversations: int, seed: int) -> None:
    store = EventStore.open(f"sqlite:///{folder}/store.db")
    log = WriteAheadLog.create(folder / "wal")
    recorder = Recorder(Records(log))
    make = Maker(seed)
    expected: dict[str, list[dict[str, Any]]] = {}
    bodies: dict[str, dict[str, Any]] = {}
    for number in range(conversations):
        turns = [make.turn() for _ in range(make.draw.randint(1, 6))]
        message = make.answer()
        body: dict[str, Any] = {"messages": [sent for sent, _ in turns]}
        if make.some():
            body["tools"] = [{"type": "function", "function": {"name": make.words(), "x": 0.1}}]
        if make.some(0.1):
            body["response_format"] = {"type": "json_schema", "json_schema": {"s": make.json()}}
        chat = Chat(f"c{number}", body, PLAN, CALLER, "u", "s", datetime.now(UTC), 0.0)
        heard = told(make.deltas(message)) if number % 2 else message
        answer = TurnReader(None, chat.metadata).answer(heard)
        assert recorder.interaction(chat, answer, "m/1")
        # in an answer without words their place is empty, as OpenAI's API has it
        wordless = not message["content"] and ("tool_calls" in message or "refusal" in message)
        last = {**message, "content": None if wordless else message["content"]}
        expected[chat.id], bodies[chat.id] = [*(kept for _, kept in turns), last], body
    log.close()
    drain = Drain(folder / "wal", store)
    while drain.once():
        pass
    drain.close()
    assert store.set_aside_rows() == ()
    found = store.stored_interactions(list(expected))
    assert len(found) == conversations
    for key, interaction in found.items():
        assert as_trained(interaction) == expected[key], key
        for kind in ("tools", "response_format"):
            digest = getattr(interaction, kind)
            kept = None if digest is None else store.definitions([digest])[digest].body
            assert kept == bodies[key].get(kind), key
    store.close()


def test_conversations_come_out_of_the_store_as_they_were_sent(tmp_path: Path) -> None:
    check(tmp_path, 300, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 12))
def test_ten_thousand_conversations_come_out_of_the_store_as_they_were_sent(
    tmp_path: Path, seed: int
) -> None:
    check(tmp_path, 1_000, seed=seed)
