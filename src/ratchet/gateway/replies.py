"""What a backend sends, read strictly: refusals, whole completions, server-sent events and chunks.

A reply that breaks OpenAI's shapes is a failure of the backend and never reaches a client: what is
returned from here can be recorded and sent on as it is.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from ratchet.collect.turns import json_bytes
from ratchet.gateway.addresses import without_addresses

LONGEST_EVENT = 4_000_000
"""Bytes of one server-sent event; a longer one is an error."""
_BROKEN = ("error", "abort")  # finish reasons of an answer that a server gave up
_SHOWN = 200


class BackendError(Exception):
    """A backend fails, stalls or refuses.

    Attributes:
        reason: What happened, in words.
        status: The HTTP status that it answered with; None where the failure is none of HTTP.
        detail: What the backend said about a request that it refused.
        is_users: Whether the request itself is at fault: no other backend would do better, and the
            version is not to blame.
        retry_after: The backend's `Retry-After` header.
        told: What users are told of it: without addresses of the backend.
    """

    def __init__(
        self,
        reason: str,
        *,
        status: int | None = None,
        detail: Detail | None = None,
        is_users: bool = False,
        retry_after: str | None = None,
        told: str | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason, self.status, self.detail = reason, status, detail
        self.told = without_addresses(reason if told is None else told)
        self.is_users, self.retry_after = is_users, retry_after


@dataclass(frozen=True, slots=True)
class Detail:
    """What a server says about an error: the fields of OpenAI's error object."""

    message: str
    param: str | None = None
    code: str | None = None


async def bounded(pieces: AsyncIterator[bytes], most_bytes: int) -> AsyncIterator[bytes]:
    """Yield an answer's unpacked pieces up to so many bytes.

    Raises:
        BackendError: There are more.
    """
    seen = 0
    async for piece in pieces:
        seen += len(piece)
        if seen > most_bytes:
            raise BackendError(
                f"an answer must have at most {most_bytes:,} bytes when it is unpacked, got more; "
                "start with a larger --most-answer-bytes"
            )
        yield piece


def read_detail(content: bytes) -> Detail:
    """Return what a refusal says, in any of the shapes that servers use.

    OpenAI and vLLM nest it in `error`, older vLLM has it at the top, FastAPI has `detail`.
    """
    try:
        found = from_json(content)
    except ValueError:
        return Detail(content[:2_000].decode("utf-8", "replace"))
    return _detail(found)


def _detail(found: object) -> Detail:
    if isinstance(found, Mapping):
        for name in ("error", "detail", "message"):
            inner = found.get(name)
            if isinstance(inner, Mapping):
                return _detail(inner)
            if isinstance(inner, str):
                return Detail(inner, _text(found.get("param")), _text(found.get("code")))
    return Detail(json_bytes(found)[:2_000].decode("utf-8", "replace"))


def _text(value: object) -> str | None:
    return None if value is None else str(value)


_ABOUT_MODEL = re.compile(
    r"lora adapter|model name|unknown model|model\b.{0,200}?(not found|does not exist|not loaded)",
    re.IGNORECASE | re.DOTALL,
)
"""400s that are about the model: SGLang says "The following requested LoRA adapters are not
loaded", LiteLLM "Invalid model name passed in". The gateway chose the model, not the user."""


def is_users_fault(status: int, detail: Detail) -> bool:
    """Tell whether a refusal is about the user's request, and not about version or backend."""
    if status not in (400, 413, 422) or detail.param == "model":
        return False
    return detail.code != "model_not_found" and _ABOUT_MODEL.search(detail.message) is None


def read_object(content: bytes) -> dict[str, Any]:
    """Return a JSON object; NaN, Infinity and lone surrogates are no JSON.

    Raises:
        BackendError: It is none.
    """
    try:
        found = from_json(content, allow_inf_nan=False)
    except ValueError as error:
        raise BackendError(f"the answer is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise BackendError(f"the answer must be a JSON object, got {type(found).__name__}")
    return found


def read_completion(content: bytes) -> dict[str, Any]:
    """Return a chat completion with at least one choice.

    Raises:
        BackendError: It is none, or says that there was an error.
    """
    found = read_object(content)
    choices = _choices(found)
    if not choices:
        raise BackendError("the answer has no choices")
    for choice in choices:
        _check_choice(choice, "message")
        if not isinstance(choice.get("message"), dict):
            raise _malformed(choice)
    return found


def read_response(content: bytes) -> dict[str, Any]:
    """Return a response, read strictly enough to be recorded.

    Raises:
        BackendError: It is none.
    """
    found = read_object(content)
    if not isinstance(found.get("output"), list):
        raise BackendError("the answer must be a response with a list of output")
    return found


def read_chunk(event: bytes, data: bytes) -> dict[str, Any]:
    """Return a chunk of a streamed chat completion.

    Args:
        event: Name of the server-sent event, empty as a rule.
        data: Its data.

    Raises:
        BackendError: It is none, or says that there was an error.
    """
    if event == b"error":
        raise _told_error(read_detail(data))
    found = read_object(data)
    for choice in _choices(found):
        _check_choice(choice, "delta")
    return found


def _choices(found: Mapping[str, Any]) -> list[Any]:
    if found.get("error"):
        raise _told_error(_detail(found))
    choices = found.get("choices")
    if not isinstance(choices, list):
        raise BackendError(f"choices must be a list, got {_start(found)}")
    return choices


def _told_error(detail: Detail) -> BackendError:
    """Return the error that a server tells in place of an answer, under HTTP 200.

    SGLang tells so what is wrong with a streamed request: its code is the status then.
    """
    status = int(detail.code) if detail.code in ("400", "413", "422") else None
    return BackendError(
        f"the backend answers with an error: {detail.message[:_SHOWN]}",
        status=status,
        detail=detail,
        is_users=status is not None and is_users_fault(status, detail),
    )


def _check_choice(choice: Any, part: str) -> None:
    """Refuse a choice that cannot be recorded: `part` holds what was said."""
    if not isinstance(choice, dict):
        raise _malformed(choice)
    said, reason = choice.get(part), choice.get("finish_reason")
    if reason is not None:
        if not isinstance(reason, str):
            raise _malformed(choice)
        if reason in _BROKEN:
            raise BackendError(f"the backend gave up the answer with finish_reason {reason!r}")
    if type(choice.get("index", 0)) is not int:
        raise _malformed(choice)
    if said is None:
        return
    if not isinstance(said, dict):
        raise _malformed(choice)
    content, calls = said.get("content"), said.get("tool_calls")
    if not (isinstance(content, str) or _are_objects(content)) or not _are_objects(calls):
        raise _malformed(choice)


def _are_objects(value: Any) -> bool:
    """Tell whether a value is a list of objects, or not there."""
    return value is None or (isinstance(value, list) and all(isinstance(v, dict) for v in value))


def _malformed(choice: object) -> BackendError:
    return BackendError(f"a choice has another shape than OpenAI's: {_start(choice)}")


def _start(value: object) -> str:
    return json_bytes(value)[:_SHOWN].decode("utf-8", "replace")


async def server_sent_events(pieces: AsyncIterator[bytes]) -> AsyncIterator[tuple[bytes, bytes]]:
    """Yield name and data of each server-sent event.

    Lines end with CR, LF or both, several `data` lines make one event, comments are skipped: as
    the HTML standard has it (9.2.6), except that an event is also taken at the end of the stream.

    Args:
        pieces: The body as it arrives.

    Raises:
        BackendError: An event is longer than `LONGEST_EVENT`.
    """
    held, name, data, size, begun = b"", b"", list[bytes](), 0, False
    async for piece in pieces:
        if not begun and len(held) + len(piece) >= len(BOM_UTF8):
            held, piece, begun = b"", (held + piece).removeprefix(BOM_UTF8), True
        lines = (held + piece).splitlines(keepends=True)
        # the last line may go on, and after a CR its LF may come
        held = b"" if lines and lines[-1].endswith(b"\n") else lines.pop() if lines else b""
        for line in lines:
            line = line.rstrip(b"\r\n")
            if line.startswith(b"data:"):
                data.append(line[5:].removeprefix(b" "))
                size += len(line)
            elif line.startswith(b"event:"):
                name = line[6:].strip()
            elif not line:
                if data:
                    yield name, b"\n".join(data)
                name, data, size = b"", [], 0
            if size > LONGEST_EVENT:
                break
        if max(size, len(held)) > LONGEST_EVENT:
            raise BackendError(f"an event of the stream has more than {LONGEST_EVENT:,} bytes")
    if held.startswith(b"data:"):
        data.append(held[5:].strip())
    if data:
        yield name, b"\n".join(data)
