"""Events of Ratchet's own: interactions and feedback, as `ratchet export` writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ratchet.doors.door import Door
from ratchet.records import FEEDBACK_KINDS

_ANSWER = {"id", "messages", "model_version", "session_id"}
_FEEDBACK = {"interaction_id", "kind"}


def _recognises(row: Mapping[str, Any]) -> bool:
    if row.keys() >= _FEEDBACK:
        return str(row["kind"]).strip().lower() in FEEDBACK_KINDS
    return row.keys() >= _ANSWER


DOOR = Door(
    name="ratchet",
    holds="events of Ratchet's own, as docs/files.md has them",
    recognises=_recognises,
    translate=None,
    mapping={"every field": "the field of that name"},
)
