"""Under which model names the backend serves versions, and whether it lists them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ratchet.deploy.backends import Replica
from ratchet.records import Adoption, ServedName
from ratchet.store import EventStore


def served_names(store: EventStore) -> dict[str, str]:
    """Return the backend's name of each version that has one of its own; the latest counts."""
    return {item.version: item.name for item in store.records(ServedName)}


def served_name(store: EventStore, version: str) -> str:
    """Return the model name under which the backend serves a version."""
    return served_names(store).get(version, version)


def adoptions(store: EventStore) -> dict[str, Adoption]:
    """Return how each adopted version was adopted last, with every name that it was given."""
    found: dict[str, Adoption] = {}
    for item in store.records(Adoption):
        before = found[item.version].also if item.version in found else ()
        also = tuple(dict.fromkeys([*before, *item.also]))
        found[item.version] = item.model_copy(update={"also": also})
    return found


def other_names(store: EventStore, version: str) -> tuple[str, ...]:
    """Return the other names of a version, under which answers of it were recorded."""
    adoption = adoptions(store).get(version)
    return () if adoption is None else adoption.also


def is_served_elsewhere(store: EventStore, version: str) -> bool:
    """Tell whether somebody else serves a version: Ratchet sees its answers and sends it nobody."""
    adoption = adoptions(store).get(version)
    return adoption is not None and adoption.elsewhere


def unlisted(replicas: Iterable[Replica], names: Mapping[str, str], *, seconds: float) -> list[str]:
    """Say what replicas lack; nothing where each lists every version.

    Args:
        replicas: The servers.
        names: The server's name of each version.
        seconds: So long each may take to answer.

    Raises:
        ModelError: One does not answer.
    """
    said = []
    for replica in replicas:
        listed = [item.name for item in replica.listed(seconds)]
        for version, name in names.items():
            if name not in listed:
                called = "" if name == version else f" as {name}"
                has = ", ".join(listed[:10]) or "nothing"
                said.append(f"{replica.url} does not list {version}{called}; it lists {has}")
    return said
