"""Ordinary ways of writing an event's values, each turned into the one that records hold.

Exports of other systems write the same things differently: a table gives every row every column,
pandas makes integers floats, thumbs are 1 and -1, ids are numbers, times are seconds since 1970.
What cannot be told for certain stays as it is, and the records say what is wrong with it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from ratchet.records.signal import Value
from ratchet.records.signals import BY_NAME, FEEDBACK_KINDS

NAMED = ("id", "interaction_id", "session_id", "user_id", "model_version", "segment")
_IN_PLACE_OF_WORDS = ("error", "tool_calls", "refusal")
TIMED = ("created_at", "updated_at")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS = ((10**11, 10**6), (10**14, 10**3), (10**17, 1))
"""Below which size a number counts units since 1970, and how many microseconds each is."""
_TRUE, _FALSE = frozenset({"true", "1"}), frozenset({"false", "0"})
_UP = _TRUE | {"up", "+1", "thumbs up", "thumb up", "👍"}
_DOWN = frozenset({"down", "-1", "false", "thumbs down", "thumb down", "👎"})


def plain_values(event: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return an event with its values written as records hold them.

    Null fields are left out. Numeric ids become text, and so do metadata that are none; an answer
    that only calls tools, refuses or failed needs no words. Times may count seconds, milliseconds,
    microseconds or nanoseconds since 1970, or be written as in mails (RFC 2822). Of feedback,
    `5.0` and `"5"` are the integer, `1`, `1.0` and `"true"` a truth value, and `1`, `true`, `"Up"`
    (or `-1`, `false`, `"Down"`) a thumb. A thumb of 0 stays: some sources mean down by it and
    others no thumb at all.

    Example:
        >>> plain_values({"kind": "thumbs", "value": -1, "interaction_id": 7.0, "name": None})
        {'kind': 'thumbs', 'value': 'down', 'interaction_id': '7'}
    """
    plain = {name: value for name, value in event.items() if value is not None}
    for name in NAMED:
        if not isinstance(plain.get(name, ""), str):
            plain[name] = _identifier(plain[name])
    for name in TIMED:
        if name in plain:
            plain[name] = moment(plain[name])
    if "messages" in plain:
        _fill_answer(plain)
    kind = plain.get("kind")
    if isinstance(kind, str) and kind not in FEEDBACK_KINDS:
        plain["kind"] = kind = kind.strip().lower()
    convert = CONVERT.get(kind) if isinstance(kind, str) else None
    if convert is not None and "value" in plain:
        plain["value"] = convert(plain["value"])
    return plain


def _fill_answer(plain: dict[Any, Any]) -> None:
    """Write an interaction's answer and metadata as records hold them.

    Where something else stands in the place of words they need not be there. Metadata are text:
    anything else is written as JSON, as a log of numbers of tokens has them.
    """
    if any(name in plain for name in _IN_PLACE_OF_WORDS):
        plain.setdefault("response", "")
    metadata = plain.get("metadata")
    if isinstance(metadata, Mapping):
        plain["metadata"] = {
            name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            for name, value in metadata.items()
            if value is not None
        }


def moment(value: object) -> object:
    """Return the time that a number or a mail's date stands for; anything else as it is.

    Example:
        >>> moment(1767596400000) == moment("Mon, 05 Jan 2026 07:00:00 +0000")
        True
    """
    if isinstance(value, str):
        if value[4:5] == "-":  # ISO 8601, as nearly all are
            return value
        number = _number(value)
        return _mail_date(value) if number is None else moment(number)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    size = abs(value)
    unit = next((length for limit, length in _UNITS if size < limit), None)
    try:
        count = value // 1_000 if unit is None else round(value * unit)
        return _EPOCH + timedelta(microseconds=count)
    except (OverflowError, ValueError):  # not finite, or beyond the year 9999
        return value


def _mail_date(text: str) -> object:
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError):
        return text
    return date if date.tzinfo else date.replace(tzinfo=UTC)  # "-0000" is UTC by the RFC


def _identifier(value: object) -> object:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _integer(value: object) -> object:
    number = _number(value) if isinstance(value, str) else value
    if isinstance(number, float) and number.is_integer():
        return int(number)
    return value if number is None else number


def _truth(value: object) -> object:
    word = _word(value)
    return word in _TRUE if word in _TRUE | _FALSE else value


def thumb(value: object) -> object:
    """Return "up" or "down" for a thumb that is written in another way; anything else as it is."""
    word = _word(value)
    return "up" if word in _UP else "down" if word in _DOWN else value


def _word(value: object) -> str:
    """Return a value as a word: in small letters, a whole number without its decimals."""
    if isinstance(value, str):
        return value.strip().lower().replace("_", " ").removesuffix(".0")
    return str(_integer(value)).lower() if isinstance(value, bool | int | float) else ""


def _number(text: str) -> int | float | None:
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return None


_BY_TYPE: Mapping[Value, Callable[[object], object]] = {
    "boolean": _truth, "thumb": thumb, "integer": _integer,
}  # fmt: skip
CONVERT = {
    kind: _BY_TYPE[BY_NAME[kind].value]
    for kind in FEEDBACK_KINDS
    if BY_NAME[kind].value in _BY_TYPE
}
"""Turns the value of a kind of feedback, however it is written, into the record's."""
