"""A store with something hostile in every text that it holds, made of the home of release 0.1.

The home has every kind of record. Its store is opened, which brings it up to this version, and then
every text is changed by SQL: what a record's class refuses stays as it is, so that every record is
still read. The same text is changed in the same way everywhere, so that what belongs together still
does.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ratchet import records
from ratchet.analyze.failures.identity import KnownClusters
from ratchet.records import Record
from ratchet.store import EventStore
from tests.fixtures.old_home import unpack
from tests.hostile_text import STORABLE

MARK = "PLANTED"
"""Stands in every text that was changed."""
KEPT_OF = 10
"""One of so many interactions is kept: what is tried is texts, not numbers of rows."""
LONGEST_NAME = 60
NAMES = tuple(text for text in STORABLE if 0 < len(text) <= LONGEST_NAME and text.strip())
LONG = "\x1b[31m" + "long " * 4_000 + "\nFORGED at the end"
NUL = "a\x00b\x1b[2J\nFORGED after a NUL"
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "interactions": ("id", "session_id", "user_id", "model_version", "segment", "response",
                     "error", "prompt"),
    "feedback": ("id", "interaction_id", "user_id", "text"),
    "set_aside": ("id", "source", "where", "reason", "raw", "user_id", "interaction_id"),
    "review_items": ("id", "interaction_id", "raised_by"),
    "review_decisions": ("id", "item_id", "reviewer"),
    "review_seats": ("item_id", "reviewer"),
    "verdicts": ("id", "judge_version", "item_id"),
    "answers": ("example_id", "answer"),
    "interaction_aliases": ("other_id", "interaction_id"),
}  # fmt: skip
"""Texts of tables by column; those of the journal and of verdicts are JSON besides."""
UNTOUCHED: Mapping[str, tuple[str, ...]] = {
    # JSON is changed by its leaves, and what an interaction refers to is planted with it
    "interactions": ("digest", "messages", "metadata", "tool_calls", "refusal", "tools",
                     "response_format", "documents", "continues"),
    "definitions": ("id", "kind", "body"),
    "document_uses": ("interaction_id", "documents"),
    "verdict_quotes": ("interaction_id", "verdict_id"),
    "feedback": ("digest", "kind", "version_of"),
    "review_items": ("start", "dimension", "queue", "deciders"),
    "review_decisions": ("label",),
    "verdicts": ("dimension", "body"),
    "answers": ("model_digest", "decoding"),
    "interaction_aliases": ("digest",),
    "embeddings": ("model_digest", "key"),
    "journal": ("kind", "id", "body", "subject"),
    # `add_newer` of tests/cli/test_hostile_store.py plants an account, which release 0.1 had not
    "accounts": ("id", "name", "role", "password_hash", "subject"),
    "leases": ("name", "holder", "note"),
    "shards": ("stage", "key", "state", "result"),
    "account_tokens": ("hash", "purpose", "account_id"),
    # ids, names of channels and what their servers said: `add_newer` plants one
    "outbox": ("id", "kind", "about", "channel", "leased_by", "said"),
    "forgotten": ("about", "digest"),
    "counts": ("name", "key", "part"),
    "store_facts": ("name", "value"),
    "schema_migrations": ("name",),
}  # fmt: skip
"""Texts that are words of Ratchet, digests or numbers, or are changed with the record's JSON."""


def planted(text: str) -> str:
    """Return a text with something hostile in it: before it or after it, the same each time."""
    if not text:
        return text
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])
    hostile = NAMES[number % len(NAMES)]
    if number % 3 == 0:
        return f"{hostile}{MARK}{text}"
    return f"{text}{MARK}{hostile}"


def hostile_home(folder: Path) -> tuple[Path, dict[str, str], Counter[str]]:
    """Make the home.

    Returns:
        Its folder, the environment of commands over it, and how many texts were changed a table.
    """
    unpack(folder)
    home = folder / "home"
    EventStore.open(f"sqlite:///{home / 'store.db'}").close()
    changed: Counter[str] = Counter()
    with closing(sqlite3.connect(home / "store.db")) as connection, connection:
        waits = "id IN (SELECT interaction_id FROM review_items)"
        connection.execute(f"DELETE FROM interactions WHERE position % {KEPT_OF} AND NOT {waits}")
        gone = "interaction_id NOT IN (SELECT id FROM interactions)"
        connection.execute(f"DELETE FROM feedback WHERE {gone} AND position % {KEPT_OF}")
        names = {name: text_columns(connection, name) for name in tables(connection)}
        for table, columns in COLUMNS.items():
            for column in (name for name in columns if name in names.get(table, ())):
                changed[f"{table}.{column}"] += plant_column(connection, table, column)
        plant_conversations(connection, changed)
        plant_records(connection, changed)
        connection.execute("UPDATE set_aside SET raw = ? WHERE position = 1", (NUL,))
        connection.execute("UPDATE set_aside SET raw = ? WHERE position = 2", (LONG,))
        connection.execute("UPDATE review_items SET start = substr(id, 1, length(start))")
    environment = {
        "RATCHET_HOME": str(home),
        "RATCHET_BASE_MODEL": str(folder / "models" / "tiny"),
        "RATCHET_EMBEDDING": "words",
        "HOME": os.environ.get("HOME", "/"),
    }
    return home, environment, changed


def tables(connection: sqlite3.Connection) -> list[str]:
    asked = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    return [name for (name,) in connection.execute(asked).fetchall()]


def text_columns(connection: sqlite3.Connection, table: str) -> list[str]:
    asked = f'SELECT name, type FROM pragma_table_info("{table}")'
    return [
        name
        for name, kind in connection.execute(asked).fetchall()
        if kind.upper().startswith(("VARCHAR", "TEXT", "JSON"))
    ]


def plant_column(connection: sqlite3.Connection, table: str, column: str) -> int:
    connection.create_function("planted", 1, planted, deterministic=True)
    done = connection.execute(
        f'UPDATE "{table}" SET "{column}" = planted("{column}") '
        f'WHERE "{column}" IS NOT NULL AND "{column}" <> \'\''
    )
    return done.rowcount


def plant_conversations(connection: sqlite3.Connection, changed: Counter[str]) -> None:
    asked = "SELECT position, messages, metadata FROM interactions"
    for position, messages, metadata in connection.execute(asked).fetchall():
        said = [{**turn, "content": planted(turn["content"])} for turn in json.loads(messages)]
        noted = {
            n: planted(v) if isinstance(v, str) else v for n, v in json.loads(metadata).items()
        }
        noted[f"<b>{MARK}\x1b[2J"] = "=1+1\nFORGED"
        values = json.dumps(said), json.dumps(noted), position
        connection.execute(
            "UPDATE interactions SET messages = ?, metadata = ? WHERE position = ?", values
        )
        changed["interactions.messages"] += len(said)
        changed["interactions.metadata"] += len(noted)
        if position % 2:
            plant_calls(connection, position, said, changed)


def plant_calls(
    connection: sqlite3.Connection,
    position: int,
    said: list[dict[str, Any]],
    changed: Counter[str],
) -> None:
    """Have an interaction call a tool, refuse, and hold a call and its result before."""
    name, key = planted(f"find {position}"), planted(f"call {position}")
    arguments = json.dumps({planted("city"): planted("Oslo")})
    call = {"id": key, "type": "function", "function": {"name": name, "arguments": arguments}}
    result = {"type": "text", "text": planted("12 degrees")}
    before = [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": key, "name": name, "content": [result]},
    ]
    described = {"name": name, "description": planted("finds"), "parameters": {}}
    tools = records.Definition.of("tools", [{"type": "function", "function": described}])
    connection.execute(
        "INSERT OR IGNORE INTO definitions (id, kind, body, added_at) VALUES (?, ?, ?, 0)",
        (tools.id, tools.kind, json.dumps(tools.body)),
    )
    connection.execute(
        "UPDATE interactions SET messages = ?, tool_calls = ?, refusal = ?, tools = ? "
        "WHERE position = ?",
        (json.dumps([*before, *said]), json.dumps([call]), planted("no"), tools.id, position),
    )
    changed["interactions.tool_calls"] += 1
    changed["interactions.refusal"] += 1
    changed["definitions.body"] += 1


def kinds() -> dict[str, type[Record]]:
    found = {
        name: kind
        for name, kind in vars(records).items()
        if inspect.isclass(kind) and issubclass(kind, Record)
    }
    return found | {"KnownClusters": KnownClusters}


def plant_records(connection: sqlite3.Connection, changed: Counter[str]) -> None:
    classes, allowed = kinds(), dict[tuple[str, ...], bool]()
    for position, kind, body in connection.execute(
        "SELECT position, kind, body FROM journal"
    ).fetchall():
        made = plant_body(classes.get(kind), kind, json.loads(body), allowed, changed)
        subject = made.get("model_version") or made.get("judge_version")
        connection.execute(
            "UPDATE journal SET id = ?, body = ?, subject = ? WHERE position = ?",
            (made["id"], json.dumps(made), subject, position),
        )
    rows = connection.execute("SELECT position, body FROM verdicts").fetchall()
    for position, body in rows:
        made = plant_body(
            classes["JudgeVerdict"], "JudgeVerdict", json.loads(body), allowed, changed
        )
        connection.execute(
            "UPDATE verdicts SET body = ? WHERE position = ?", (json.dumps(made), position)
        )


def plant_body(
    kind: type[Record] | None,
    name: str,
    body: dict[str, Any],
    allowed: dict[tuple[str, ...], bool],
    changed: Counter[str],
) -> dict[str, Any]:
    """Change the texts of a record that its class lets be any text."""
    if kind is None:
        return body
    for place, text, put in list(leaves(body, (name,))):
        new = planted(text)
        if allowed.get(place) is False or text == new:
            continue
        put(new)
        try:
            kind.model_validate(body)
        except ValidationError:
            put(text)
            allowed[place] = False
            continue
        allowed.setdefault(place, True)
        changed[".".join(place)] += 1
    return body


def leaves(
    value: Any, place: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], str, Callable[[str], None]]]:
    """Yield the texts in JSON with their place, list entries apart from their number."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in list(items):
        where = (*place, str(key) if isinstance(value, dict) else "[]")
        if isinstance(item, str):
            yield where, item, lambda new, key=key: value.__setitem__(key, new)
        elif isinstance(item, dict | list):
            yield from leaves(item, where)
