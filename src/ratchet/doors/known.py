"""The doors that there are."""

from __future__ import annotations

from ratchet.doors import (
    anthropic,
    arena,
    chatgpt,
    langfuse,
    langsmith,
    librechat,
    litellm,
    mlflow_traces,
    open_webui,
    openai_pairs,
    otlp,
    ratchet_events,
    sharegpt,
    table,
)
from ratchet.doors.door import Door
from ratchet.errors import InvalidInputError
from ratchet.files.text import printable

DOORS: tuple[Door, ...] = (
    ratchet_events.DOOR,
    langfuse.DOOR,
    open_webui.DOOR,
    openai_pairs.DOOR,
    litellm.DOOR,
    sharegpt.DOOR,
    chatgpt.DOOR,
    anthropic.DOOR,
    otlp.DOOR,
    mlflow_traces.DOOR,
    langsmith.DOOR,
    librechat.DOOR,
    arena.DOOR,
    table.DOOR,
)
"""Every door, in the order in which they are listed."""


def door_named(name: str) -> Door:
    """Return the door of a name.

    Raises:
        InvalidInputError: There is none.
    """
    found = next((door for door in DOORS if door.name == name.lower()), None)
    if found is None:
        raise InvalidInputError(
            f"a format must be one of {', '.join(door.name for door in DOORS)}, got "
            f"{printable(name)!r}; correct --as"
        )
    return found
