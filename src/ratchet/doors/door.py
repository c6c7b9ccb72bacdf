"""What a door is: the module of a foreign format says these things, and the rest is shared.

    DOOR = Door(name="tool", holds="...", recognises=_recognises, translate=_translate, mapping=...)

`translate` yields, for each row, any number of

| what | becomes |
|---|---|
| a mapping with `messages` or `kind` | an interaction or feedback, as `ratchet.collect.ingest` reads them |
| `Passed(reason)` | counted: a part of the format that is nothing to store, as a span that is no answer |
| `Refused(reason, place)` | set aside with the row, as an answer without a question |

and raises `InvalidInputError` where the whole row cannot be used; what it yielded before stands.
Beside the fields of an event a mapping may hold `OTHER`, another name of the answer or several (of
a trace, where feedback names traces), and `PLACE`, where in the row it stands ("message m2").

Ids come from `door_id`, so that a second import adds nothing and feedback finds its answer.
Feedback carries `updated_at` where the tool has a time of its change: then a later one replaces it.
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import blake2b
from typing import Any, NamedTuple

from ratchet.collect.batches import Passed

OTHER, PLACE = "other_name", "place"
"""Keys of a translated event that are not fields of it; see the module's text."""
UNKNOWN_USER, UNKNOWN_MODEL = "unknown", "unknown"
"""Who asked and what answered, where a format does not say. `unknown` names nobody."""


class Refused(NamedTuple):
    """A part of a row that is set aside.

    Attributes:
        reason: The rule, what was received, the way out.
        place: Where in the row it stands; empty for the row itself.
    """

    reason: str
    place: str = ""


Translation = Mapping[str, Any] | Passed | Refused


@dataclass(frozen=True, slots=True)
class Given:
    """What a translator is told beside the row.

    Attributes:
        at: The time of what has no time of its own: that of the source's first import.
        source: Where the rows come from.
        scores: What scores mean, by name: a kind of feedback; see `ratchet.doors.scores`.
        columns: Which column holds what; see `ratchet.doors.table`.
        kept: What a translator keeps of a row for later ones of the same import.
    """

    at: datetime
    source: str = ""
    scores: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, Any] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Door:
    """A foreign format.

    Attributes:
        name: What `--as` takes.
        holds: What it is, for people.
        recognises: Tells whether a row is of this format, by keys that no other one has.
        translate: See the module's text. None where rows are events already.
        mapping: What becomes of what, for people: of each field of ours where it comes from.
        as_json: Columns of a table that hold JSON.
        is_timeless: Whether its rows may have no time.
    """

    name: str
    holds: str
    recognises: Callable[[Mapping[str, Any]], bool]
    translate: Callable[[Mapping[str, Any], Given], Iterator[Translation]] | None
    mapping: Mapping[str, str]
    as_json: tuple[str, ...] = ()
    is_timeless: bool = False


def door_id(door: str, *foreign: object) -> str:
    """Return the id of what a tool names so: the same each time, and no other tool's.

    Args:
        door: The door's name.
        foreign: What the tool calls it, and what kind of thing it is, where its names are unique
            for a kind alone.
    """
    named = "\x1f".join([door, *map(str, foreign)]).encode("utf-8", "surrogatepass")
    return blake2b(named, digest_size=16).hexdigest()
