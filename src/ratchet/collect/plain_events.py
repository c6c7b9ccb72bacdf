"""Events whose fields are plainly good, straight to rows of the store.

A record checks every field with Python behind it, which takes longer than storing the row. Most
rows hold the plain form of every field: for them the row and its digest are written here at once.
What is not plainly good is None here and goes through `ratchet.records`, which decides and says
what is wrong. Where a row is returned it is the one that the record would give, digest included.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from json.encoder import encode_basestring as quoted
from json.encoder import encode_basestring_ascii as quoted_ascii
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from ratchet.collect.values import CONVERT
from ratchet.errors import InvalidInputError
from ratchet.records import FEEDBACK, MAX_TEXT_CHARACTERS, Feedback
from ratchet.records.events import ORIGIN, SIMULATED
from ratchet.records.signal import Value
from ratchet.records.signals import BY_NAME
from ratchet.store.event_rows import (
    DIGEST_CHARACTERS,
    FeedbackRow,
    InteractionRow,
    feedback_row,
    split_value,
)

_LONGEST_NAME = 200
_NUL = "\\u0000"
"""How a NUL character is written in JSON; a text that spells this out is not plain either."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAIVE_EPOCH = _EPOCH.replace(tzinfo=None)
_ROLES = frozenset({"system", "user", "assistant"})
_NUMBER = re.compile(r"[0-9]{1,15}(\.[0-9]{1,15})?", re.ASCII)
_LARGEST_INTEGER = 2**53
_EVER = 2**62
_NOT_PLAIN = (LookupError, TypeError, ValueError, AttributeError, ValidationError)


def plain_interaction(
    fields: Mapping[str, Any], *, earliest: int, latest: int
) -> InteractionRow | None:
    """Return the row of an interaction; None where a field is not in its plain form.

    Args:
        fields: As JSON or a table gave them, without nulls: their types are Python's own.
        earliest: The first time that is believed, in microseconds since 1970.
        latest: The last one.
    """
    try:
        key, version, response = fields["id"], fields["model_version"], fields["response"]
        session, user = fields["session_id"], fields["user_id"]
        segment, error = fields.get("segment", "all"), fields.get("error")
        seconds, metadata = fields.get("latency_seconds"), fields.get("metadata", _NOTHING)
        optional = ("segment" in fields) + ("error" in fields)
        optional += ("latency_seconds" in fields) + ("metadata" in fields)
        if len(fields) != 7 + optional or not (
            0 < len(key) <= _LONGEST_NAME
            and 0 < len(session) <= _LONGEST_NAME
            and 0 < len(user) <= _LONGEST_NAME
            and 0 < len(version) <= _LONGEST_NAME
            and 0 < len(segment) <= _LONGEST_NAME
        ):
            return None
        moment, written = _moment(fields["created_at"])
        if not earliest <= moment <= latest:
            return None
        if seconds is not None:
            seconds = _seconds(seconds)
        prompt, stored, canonical = _messages(fields["messages"])
        stored_metadata, canonical_metadata = _metadata(tuple(metadata.items()))
        text = (
            f'{{"created_at":"{written}","error":{"null" if error is None else quoted(error)},'
            f'"id":{quoted(key)},"latency_seconds":{"null" if seconds is None else repr(seconds)},'
            f'"messages":{canonical},"metadata":{canonical_metadata},'
            f'"model_version":{quoted(version)},"response":{quoted(response)},'
            f'"segment":{quoted(segment)},"session_id":{quoted(session)},"user_id":{quoted(user)}}}'
        )
        digest = _digest(text)
    except _NOT_PLAIN:
        return None
    return InteractionRow(
        key, digest, session, user, moment, version, segment, prompt, stored, response, seconds,
        error, stored_metadata,
    )  # fmt: skip


def refuse_simulated(row: InteractionRow | FeedbackRow) -> None:
    """Refuse an interaction that was exported from a store of simulated users.

    Raises:
        InvalidInputError: It is one.
    """
    if not isinstance(row, InteractionRow) or f'"{ORIGIN}"' not in row.metadata:
        return
    if json.loads(row.metadata).get(ORIGIN) == SIMULATED:
        raise InvalidInputError(
            "an interaction must be one of a real user, got a simulated one (metadata "
            f"{ORIGIN}: {SIMULATED}); leave such rows out"
        )


def plain_feedback(fields: Mapping[str, Any], *, earliest: int, latest: int) -> FeedbackRow | None:
    """Return the row of a feedback event. See `plain_interaction`."""
    try:
        kind = _KINDS[fields["kind"]]
        key, answer, user = fields["id"], fields["interaction_id"], fields.get("user_id")
        optional = ("user_id" in fields) + ("updated_at" in fields)
        moment, written = _moment(fields["created_at"])
        updated = fields.get("updated_at")
        if not earliest <= moment <= latest:
            return None
        if updated is not None:
            updated, _ = _moment(updated)
            if not earliest <= updated <= latest:
                return None
        detail = kind.default
        if kind.detail is not None:
            optional += kind.detail in fields
            detail = fields.get(kind.detail, detail)
            if not 0 < len(detail) <= _LONGEST_NAME:
                return None
        if len(fields) != 5 + optional or not (
            0 < len(key) <= _LONGEST_NAME
            and 0 < len(answer) <= _LONGEST_NAME
            and (user is None or 0 < len(user) <= _LONGEST_NAME)
        ):
            return None
        value = fields["value"]
        if kind.convert is not None and type(value) is not bool:
            value = kind.convert(value)
        value = kind.validate(value)
        text = (
            f'{{"created_at":"{written}","id":{quoted(key)},"interaction_id":{quoted(answer)},'
            f"{kind.written(detail)},"
            f'"user_id":{"null" if user is None else quoted(user)},"value":{_written(value)}}}'
        )
        digest = _digest(text)
        number, words = split_value(kind.value, value, detail)
    except _NOT_PLAIN:
        return None
    return FeedbackRow(key, digest, answer, user, moment, kind.name, number, words, updated)


def feedback_row_of(fields: Mapping[str, Any]) -> FeedbackRow:
    """Return the row of a feedback event whose fields are Python's own, whatever its time.

    Raises:
        pydantic.ValidationError: It is no such event.
    """
    row = plain_feedback(fields, earliest=-_EVER, latest=_EVER)
    return feedback_row(FEEDBACK.validate_python(fields)) if row is None else row


@dataclass(frozen=True, slots=True)
class _Kind:
    """How feedback of a kind is checked and written.

    Attributes:
        value: The type of its value.
        convert: Turns an ordinary way of writing the value into the record's.
        validate: Checks it by the record's own rules.
        detail: The record's field beside the value, with its default.
    """

    name: str
    value: Value
    convert: Callable[[object], object] | None
    validate: Callable[[object], Any]
    detail: str | None
    default: str | None

    def written(self, detail: str | None) -> str:
        """Return kind and detail in canonical form, in the order of their names."""
        kind = f'"kind":"{self.name}"'
        if self.detail is None or detail is None:
            return kind
        beside = f'"{self.detail}":{quoted(detail)}'
        return f"{beside},{kind}" if self.detail < "kind" else f"{kind},{beside}"


def _kinds() -> dict[str, _Kind]:
    """Return the kinds of the catalogue; one with a detail of another kind is never plain."""
    kinds = {}
    for name, signal in BY_NAME.items():
        if signal.record is None or _has_validators(signal.record):
            continue
        fields = signal.record.model_fields
        detail = None if signal.detail is None else fields[signal.detail]
        is_name = detail is None or detail.annotation is str
        if is_name and (signal.detail is None or "interaction_id" < signal.detail < "user_id"):
            kinds[name] = _Kind(
                name=name,
                value=signal.value,
                convert=CONVERT.get(name),
                validate=TypeAdapter(_annotated(fields["value"])).validate_python,
                detail=signal.detail,
                default=None if detail is None or detail.is_required() else detail.default,
            )
    return kinds


def _has_validators(record: type[Feedback]) -> bool:
    """Whether a record checks more than its fields' types say."""
    own = record.__pydantic_decorators__
    return bool(own.model_validators or own.field_validators or own.root_validators)


def _annotated(field: FieldInfo) -> Any:
    return Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation


_KINDS = _kinds()
_NOTHING: dict[str, str] = {}


def _moment(value: Any) -> tuple[int, str]:
    """Return a time in microseconds since 1970, and in the form of a record.

    Raises:
        ValueError: It is not plainly a time in UTC.
    """
    if type(value) is datetime:
        moment = value.astimezone(UTC)
        gap, body = moment - _EPOCH, moment.isoformat()
        if value.tzinfo is None:
            raise ValueError
    else:
        body = value[:-1] if value[-1] == "Z" else value.removesuffix("+00:00")
        size = len(body)
        if size == len(value) or not (size == 19 or (20 < size < 27 and body[19] == ".")):
            raise ValueError
        if body[4] + body[7] + body[10] + body[13] + body[16] not in ("--T::", "-- ::"):
            raise ValueError
        if body[11:13] == "24":  # of the next day, as newer versions of Python read it
            raise ValueError
        gap = datetime.fromisoformat(body) - _NAIVE_EPOCH
    count = (gap.days * 86_400 + gap.seconds) * 1_000_000 + gap.microseconds
    if gap.microseconds:
        return count, f"{body[:10]}T{body[11:19]}.{gap.microseconds:06d}Z"
    return count, f"{body[:10]}T{body[11:19]}Z"


def _seconds(value: Any) -> float:
    """Return a latency.

    Raises:
        ValueError: It is not plainly a number from 0 on.
    """
    if type(value) is str and _NUMBER.fullmatch(value):
        return float(value)
    if type(value) is int and 0 <= value < _LARGEST_INTEGER:
        return float(value)
    if type(value) is float and 0.0 <= value < float("inf"):
        return value
    raise ValueError


def _messages(messages: Any) -> tuple[str, str, str]:
    """Return the last prompt of a conversation, the conversation as stored and in canonical form.

    Raises:
        ValueError: A message is not plainly one.
    """
    prompt, stored, canonical = "", [], []
    if type(messages) is not list or not messages:
        raise ValueError
    for message in messages:
        role, content = message["role"], message["content"]
        if len(message) != 2 or role not in _ROLES:
            raise ValueError
        if role == "user":
            prompt = content
        stored.append(f'{{"role": "{role}", "content": {quoted_ascii(content)}}}')
        canonical.append(f'{{"content":{quoted(content)},"role":"{role}"}}')
    return prompt, f"[{', '.join(stored)}]", f"[{','.join(canonical)}]"


@lru_cache(maxsize=256)
def _metadata(items: tuple[tuple[str, str], ...]) -> tuple[str, str]:
    """Return metadata as stored and in canonical form; many rows have the same."""
    stored = [f"{quoted_ascii(key)}: {quoted_ascii(value)}" for key, value in items]
    canonical = [f"{quoted(key)}:{quoted(value)}" for key, value in sorted(items)]
    return f"{{{', '.join(stored)}}}", f"{{{','.join(canonical)}}}"


def _written(value: object) -> str:
    """Return a feedback's value in canonical form."""
    if type(value) is str:
        return quoted(value)
    if type(value) is bool:
        return "true" if value else "false"
    if type(value) in (int, float):
        return repr(value)
    raise ValueError


def _digest(canonical: str) -> str:
    """Return the digest of a record in canonical form.

    Raises:
        ValueError: A text in it may be too long, hold a NUL character or half of a pair.
    """
    if len(canonical) > MAX_TEXT_CHARACTERS or _NUL in canonical:
        raise ValueError
    return sha256(canonical.encode()).hexdigest()[:DIGEST_CHARACTERS]
