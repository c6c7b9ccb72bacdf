"""By which names the backend answers as which versions."""

from __future__ import annotations

from ratchet.records import ServedName
from ratchet.store import EventStore


def served_names(store: EventStore) -> dict[str, str]:
    """Return the backend's name of each version that has one of its own; the latest counts."""
    return {item.version: item.name for item in store.records(ServedName)}


def served_name(store: EventStore, version: str) -> str:
    """Return the name by which the backend answers as a version."""
    return served_names(store).get(version, version)
