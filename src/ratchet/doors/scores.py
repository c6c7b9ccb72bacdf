"""What a score of another tool means: the kind of feedback that it is.

| score | feedback |
|---|---|
| a name that `--map` names | the kind that it says |
| a comment beside a score, or a score that is words | `comment` |
| yes or no, up or down, 1 and 0 or -1 under a name of users' feedback (`user-feedback`, `thumbs`, `like`) | `thumbs` |
| 1 to 5 under a name of stars (`stars`, `rating`) | `stars` |
| other numbers from 0 to 1, yes and no | `judge_score` of the judge of that name, which counts once it is validated |
| other whole numbers from 1 to 5 | `dimension` of that name |

Anything else is set aside, and says how a line of `--map` makes it feedback.
"""  # noqa: E501

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ratchet.collect.values import thumb
from ratchet.doors.door import Refused, Translation, door_id
from ratchet.files.text import printable

_USERS = re.compile(r"thumb|like|vote|helpful|user|feedback|reaction|satisf|csat", re.IGNORECASE)
_STARS = re.compile(r"star|rating|rate\b|csat", re.IGNORECASE)
_WORDS = re.compile(r"comment|text|reason|explanation", re.IGNORECASE)
_LONGEST_COMMENT = 10_000


def feedback_of(
    name: str,
    value: object,
    event: Mapping[str, Any],
    *,
    comment: object = None,
    kinds: Mapping[str, str] | None = None,
) -> Iterator[Translation]:
    """Yield the feedback that a score is, and that of its comment.

    Args:
        name: The score's name.
        value: A number, a truth value or words; None where it is a comment alone.
        event: What both have: `id` (of the score), `interaction_id`, `created_at` and so on.
        comment: Words beside it.
        kinds: What scores mean, by name (`--map`).
    """
    if isinstance(comment, str) and comment.strip():
        yield _event(event, "comment", comment.strip()[:_LONGEST_COMMENT])
    if value is None or value == "":
        return
    kind = (kinds or {}).get(name)
    if kind == "comment" or (kind is None and isinstance(value, str) and not _is_thumb(value)):
        text = str(value).strip()
        if kind is None and not (_WORDS.search(name) or " " in text):
            yield _no_feedback(name, value)
        elif text:
            yield _event(event, "comment", text[:_LONGEST_COMMENT], name)
        return
    yield _scored(kind or kind_of(name, value), name, value, event)


def kind_of(name: str, value: object) -> str | None:
    """Return the kind of feedback that a score is, as its name and value say; None for none."""
    number = float(value) if isinstance(value, bool | int | float) else None
    if _STARS.search(name) and not isinstance(value, bool) and number in (1, 2, 3, 4, 5):
        return "stars"
    if number is None:
        return "thumbs" if _is_thumb(value) else None
    if _USERS.search(name) and number in (-1, 0, 1):
        return "thumbs"
    if 0 <= number <= 1:
        return "judge_score"
    return "dimension" if number in (1, 2, 3, 4, 5) else None


def _scored(kind: str | None, name: str, value: object, event: Mapping[str, Any]) -> Translation:
    if kind is None:
        return _no_feedback(name, value)
    if kind == "thumbs":
        # here 0 is down: no tool writes a score for a thumb that nobody gave
        return _event(event, kind, "down" if value in (0, "0") else thumb(value))
    detail = {"judge_score": "judge_version", "dimension": "name"}.get(kind)
    if kind == "judge_score":
        value = float(value) if isinstance(value, bool | int | float) else value
    made = _event(event, kind, value, name if detail else "")
    return made | {detail: name[:200] or "score"} if detail else made


def _event(event: Mapping[str, Any], kind: str, value: object, name: str = "") -> dict[str, Any]:
    return {**event, "id": door_id(event["id"], kind, name), "kind": kind, "value": value}


def _is_thumb(value: object) -> bool:
    return isinstance(value, str) and thumb(value) in ("up", "down")


def _no_feedback(name: str, value: object) -> Refused:
    shown = printable(name, 40)
    return Refused(
        "a score must be a thumb, 1 to 5, or from 0 to 1, got "
        f"{printable(repr(value), 40)} for {shown!r}; say what it is in a file for --map, as "
        f"`scores: {{{shown}: comment}}`"
    )
