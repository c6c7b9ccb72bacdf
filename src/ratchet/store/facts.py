"""What is true of a store as a whole: the assistant that it belongs to, and where history lies.

Numbers of two assistants in one store would be read as those of one: counts, the champion, the
cycles. So a store keeps the name of its assistant (RATCHET_MODEL_NAME) from its first use on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import sqlalchemy as sa

from ratchet.errors import SettingsError
from ratchet.records import digest
from ratchet.store.transactions import Transactions

ASSISTANT = "assistant"
_HISTORY = "history:"
_SEARCH_PATH = re.compile(r"-c\s*search_path=\S*\s*")


def name_from_journal(connection: sa.Connection, facts: sa.Table, journal: sa.Table) -> None:
    """Give an older store the name of the model that its releases, or adapters, are versions of."""
    query = sa.select(journal.c.body).order_by(journal.c.position.desc()).limit(1)
    for kind in ("Release", "Candidate"):
        body = connection.execute(query.where(journal.c.kind == kind)).scalar_one_or_none()
        version = body and (body.get("champion") or f"{body['model_name']}/{body['version']}")
        if version and "/" in version:
            row = {"name": ASSISTANT, "value": version.rpartition("/")[0]}
            connection.execute(sa.insert(facts), row)
            return


def claim(store: Transactions, facts: sa.Table, assistant: str, url: sa.URL) -> None:
    """Make a store an assistant's, or see that it is.

    Args:
        store: The store.
        facts: Its table of facts.
        assistant: The name.
        url: Of the store.

    Raises:
        SettingsError: It belongs to another one.
    """
    query = sa.select(facts.c.value).where(facts.c.name == ASSISTANT)
    with store.reading() as connection:
        owner = connection.execute(query).scalar_one_or_none()
    if owner is None:
        with store.atomic() as connection:
            owner = connection.execute(query).scalar_one_or_none()
            if owner is None:
                connection.execute(sa.insert(facts), {"name": ASSISTANT, "value": assistant})
                return
    if owner != assistant:
        raise SettingsError(
            f"a store belongs to one assistant, got RATCHET_MODEL_NAME {assistant!r} for the store "
            f"of {owner!r}; {' '.join(_ways_out(assistant, owner, url))}"
        )


def owner_of(store: Transactions, facts: sa.Table) -> str | None:
    """Return the assistant that a store belongs to; None before its first use."""
    with store.reading() as connection:
        owner = connection.execute(sa.select(facts.c.value).where(facts.c.name == ASSISTANT))
        return owner.scalar_one_or_none()


def made_at(connection: sa.Connection, applied: sa.Table) -> str:
    """Return what tells a store from every other one: a digest of when its first table was made.

    It stays with the data through a move of the file, a dump of the database or a backup.
    """
    query = sa.select(applied.c.name, applied.c.applied_at).order_by(applied.c.name).limit(1)
    return digest(list(connection.execute(query).one()))[:16]


def identity_of(connection: sa.Connection, applied: sa.Table) -> str:
    """Return the same as everybody may know it: not what redacted exports are salted with."""
    return digest(["identity", made_at(connection, applied)])[:16]


def read_histories(connection: sa.Connection, facts: sa.Table) -> frozenset[str]:
    """Return the addresses that history of a store was written to."""
    query = sa.select(facts.c.value).where(facts.c.name.like(f"{_HISTORY}%"))
    return frozenset(connection.execute(query).scalars())


def note_history(connection: sa.Connection, facts: sa.Table, address: str) -> None:
    """Keep that history was written to an address, so that its absence is noticed later."""
    if address not in read_histories(connection, facts):
        name = f"{_HISTORY}{digest(address)[:16]}"
        connection.execute(sa.insert(facts), {"name": name, "value": address})


def _ways_out(assistant: str, owner: str, url: sa.URL) -> Iterable[str]:
    yield f"set RATCHET_MODEL_NAME={owner}, or give {assistant!r} a store of its own:"
    if url.get_backend_name() == "sqlite":
        yield "another RATCHET_HOME (and RATCHET_STORE_URL, where you set it)"
        return
    schema = re.sub(r"\W+", "_", assistant.lower())
    before = url.query.get("options", "")
    others = _SEARCH_PATH.sub("", before if isinstance(before, str) else " ".join(before))
    own = url.update_query_dict({"options": f"{others} -csearch_path={schema}".strip()})
    yield f"run CREATE SCHEMA {schema} in the database and set"
    yield f"RATCHET_STORE_URL='{own.render_as_string(hide_password=True)}'"
