"""The model in this process, in the shapes of OpenAI's API.

Where a request names tools, calls are read out of what the model writes (`<tool_call>`) and told
apart from its words; a block that holds no call stays among them.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from ratchet.collect.turns import TurnReader
from ratchet.errors import ContextLengthError, InvalidInputError, ModelError
from ratchet.gateway.backends import Target
from ratchet.gateway.replies import BackendError, Detail
from ratchet.models.serving import AdapterModel, Ending, Generation
from ratchet.records import Message, ToolCall
from ratchet.records.conversations import words_of
from ratchet.records.tool_calls import CallReader

_CANNOT = (
    "functions", "logprobs", "top_logprobs", "logit_bias", "audio", "prediction",
    "frequency_penalty", "presence_penalty", "repetition_penalty", "min_p", "guided_json",
    "structured_outputs",
)  # fmt: skip
"""Fields of a request that would change the answer and are not implemented."""


_AS_LONG_AS_IT_FITS = -1  # of max_tokens


class LocalBackend:
    """The model in this process, in OpenAI's shapes."""

    def __init__(self, model: AdapterModel, *, max_tokens: int, name: str = "local") -> None:
        self._model, self._max_tokens, self._name = model, max_tokens, name

    @property
    def name(self) -> str:
        """What logs and metadata call it."""
        return self._name

    async def complete(self, body: Mapping[str, Any], target: Target) -> dict[str, Any]:
        """See `Backend`."""
        words: list[str] = []
        calls: list[dict[str, Any]] = []
        ending = Ending("stop")
        async for piece in self._read(body, target):
            if isinstance(piece, Ending):
                ending = piece
            elif isinstance(piece, ToolCall):
                calls.append(_told_call(piece))
            else:
                words.append(piece)
        message: dict[str, Any] = {"role": "assistant", "content": "".join(words)}
        if calls:
            message |= {"content": message["content"] or None, "tool_calls": calls}
        reason = _reason(ending, len(calls))
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
        return _envelope("chat.completion", target, [choice]) | {"usage": _usage(ending)}

    async def stream(
        self, body: Mapping[str, Any], target: Target
    ) -> AsyncGenerator[dict[str, Any]]:
        """See `Backend`."""
        envelope = _envelope("chat.completion.chunk", target, [])
        first: dict[str, Any] = {"role": "assistant"}
        calls = 0
        async for piece in self._read(body, target):
            # nothing is sent before the first piece: until then another version can answer
            if isinstance(piece, ToolCall):
                told = first and {"content": None}
                told |= {"tool_calls": [{"index": calls} | _told_call(piece)]}
                yield envelope | {"choices": [_delta(first | told)]}
                first, calls = {}, calls + 1
                continue
            if isinstance(piece, str):
                yield envelope | {"choices": [_delta(first | {"content": piece})]}
                first = {}
                continue
            yield envelope | {"choices": [_delta(first, _reason(piece, calls))]}
            if (body.get("stream_options") or {}).get("include_usage"):
                yield envelope | {"usage": _usage(piece)}

    async def load_adapter(self, version: str, adapter: Path) -> None:
        """Load an adapter beside the others."""
        await asyncio.to_thread(self._model.add_adapter, version, adapter)

    async def close(self) -> None:
        """See `Backend`."""
        await asyncio.to_thread(self._model.close)

    async def _read(
        self, body: Mapping[str, Any], target: Target
    ) -> AsyncIterator[str | ToolCall | Ending]:
        """Yield words, calls where the request names tools, and the ending."""
        _refuse_what_is_not_done(body)
        reader = CallReader() if _offered(body) else None
        most = 1 if body.get("parallel_tool_calls") is False else None
        calls = 0
        async for piece in self._pieces(body, target):
            if reader is None:
                yield piece
                continue
            for part in reader.end() if isinstance(piece, Ending) else reader.take(piece):
                calls += isinstance(part, ToolCall)
                if most is None or calls <= most:
                    yield part
            if isinstance(piece, Ending):
                yield piece

    async def _pieces(self, body: Mapping[str, Any], target: Target) -> AsyncIterator[str | Ending]:
        if target.adapter is not None and not self._model.has_adapter(target.version):
            try:
                await self.load_adapter(target.version, target.adapter)
            except (ModelError, OSError, ValueError, RuntimeError) as error:
                raise BackendError(f"{target.version} cannot be loaded: {error}") from error
        generation = self._generation(body, target)
        loop = asyncio.get_running_loop()
        told: asyncio.Queue[str | Ending] = asyncio.Queue()

        def tell(piece: str | Ending) -> None:
            loop.call_soon_threadsafe(told.put_nowait, piece)

        try:
            job = self._model.submit(generation, tell, tell)
        except ContextLengthError as error:
            raise _cannot("messages", str(error), code="context_length_exceeded") from error
        except InvalidInputError as error:
            raise _cannot("tools" if generation.tools else "messages", str(error)) from error
        try:
            while True:
                piece = await told.get()
                if isinstance(piece, Ending) and piece.error is not None:
                    raise BackendError(piece.error)
                yield piece
                if isinstance(piece, Ending):
                    return
        finally:
            job.cancelled = True

    def _generation(self, body: Mapping[str, Any], target: Target) -> Generation:
        stop = body.get("stop") or ()
        most = body.get("max_completion_tokens")
        most = body.get("max_tokens") if most is None else most
        top_p = body.get("top_p")
        return Generation(
            conversation=tuple(map(_spoken, body["messages"])),
            adapter=target.version if target.adapter is not None else None,
            max_new_tokens=self._max_tokens if most is None else int(most),
            temperature=float(body.get("temperature") or 0.0),
            top_p=1.0 if top_p is None else float(top_p),
            stop=(stop,) if isinstance(stop, str) else tuple(stop),
            seed=body.get("seed"),
            tools=_offered(body),
        )


def _spoken(message: Mapping[str, Any]) -> Message:
    """Return a turn as the local model is told it: words, calls and results, by role."""
    reader = TurnReader()
    (turn,) = reader.turns([message])
    return Message.model_validate(turn | {"content": reader.text(words_of(message.get("content")))})


def _offered(body: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    """Return the tools that the model may call."""
    return () if body.get("tool_choice") == "none" else tuple(body.get("tools") or ())


def _told_call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.function.arguments}
    return {"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}


def _reason(ending: Ending, calls: int) -> str:
    return "tool_calls" if calls and ending.reason == "stop" else ending.reason


def _refuse_what_is_not_done(body: Mapping[str, Any]) -> None:
    """Refuse a request that the local model would answer otherwise than asked.

    Raises:
        BackendError: With status 400, the field and the reason.
    """
    for name in _CANNOT:
        if body.get(name):
            raise _cannot(name, f"{name} is not implemented")
    for name in ("n", "best_of"):
        if (body.get(name) or 1) != 1:
            raise _cannot(name, f"{name} must be 1, got {body[name]}")
    for name in ("tool_choice", "function_call"):
        if body.get(name) not in (None, "none", "auto"):
            raise _cannot(name, f"{name} must be none or auto, got {body[name]}")
    tools = body.get("tools") or []
    if not isinstance(tools, list) or not all(isinstance(tool, Mapping) for tool in tools):
        raise _cannot("tools", "tools must be a list of definitions")
    form = body.get("response_format") or {}
    if not isinstance(form, Mapping) or form.get("type", "text") != "text":
        raise _cannot("response_format", "response_format must be of type text")
    if body.get("modalities") not in (None, [], ["text"]):
        raise _cannot("modalities", "modalities must be text alone")
    for message in body["messages"]:
        parts = message.get("content")
        for part in parts if isinstance(parts, list) else ():
            if part.get("type") not in ("text", "refusal"):
                raise _cannot(
                    "messages", f"content must be text, got a part of type {part.get('type')!r}"
                )
    for name, low, high in (
        ("max_tokens", 1, None),
        ("max_completion_tokens", 1, None),
        ("temperature", 0, 2),
        ("top_p", 0, 1),
        ("seed", -(2**63), 2**63 - 1),
    ):
        value = body.get(name)
        if value is None or (value == _AS_LONG_AS_IT_FITS and name.startswith("max_")):
            continue
        if not (low <= value and (high is None or value <= high)):
            span = f"at least {low:g}" if high is None else f"from {low:g} to {high:g}"
            raise _cannot(name, f"{name} must be {span}, got {value}")


def _cannot(param: str, reason: str, *, code: str = "unsupported_value") -> BackendError:
    text = f"{reason}; the local model is for trying out, start with --backend for more"
    return BackendError(
        f"HTTP 400: {reason}", status=400, detail=Detail(text, param, code), is_users=True
    )


def _envelope(kind: str, target: Target, choices: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": target.version,
        "choices": choices,
    }


def _delta(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": reason}


def _usage(ending: Ending) -> dict[str, int]:
    return {
        "prompt_tokens": ending.prompt_tokens,
        "completion_tokens": ending.completion_tokens,
        "total_tokens": ending.prompt_tokens + ending.completion_tokens,
    }
