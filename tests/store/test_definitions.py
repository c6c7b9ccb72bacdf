"""Calls, refusals and what interactions refer to: stored, in old stores and histories too."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import takewhile
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from ratchet.records import Definition, Interaction, Message, ToolCall
from ratchet.store import MIGRATIONS, EventStore
from ratchet.store.checking import check_store
from ratchet.store.connections import configure_sqlite
from ratchet.store.forget import forget
from ratchet.store.history import History
from ratchet.store.history.every_row import every_row
from ratchet.store.history.layout import LATER
from ratchet.store.migrating import migrate
from ratchet.store.retention import delete_rows, unreferred_definitions
from ratchet.store.tables import DEFINITIONS, INTERACTIONS
from tests.conftest import STORE_CLOCK

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
TOOLS = Definition.of("tools", [{"type": "function", "function": {"name": "weather"}}])
FORM = Definition.of("response_format", {"type": "json_object"})
FOUND = Definition.of("documents", [{"text": "9 to 5"}])
OpenStore = Callable[..., EventStore]


def calling(key: str, **changes: Any) -> Interaction:
    values: dict[str, Any] = {
        "id": key,
        "session_id": "s",
        "user_id": "u",
        "created_at": NOW,
        "model_version": "m/1",
        "messages": (Message(role="user", content="weather in Ulm?"),),
        "response": "",
        "tool_calls": (ToolCall(id="c1", function={"name": "weather", "arguments": '{"a": 1}'}),),
        "tools": TOOLS.id,
        "response_format": FORM.id,
        "documents": FOUND.id,
        "continues": "before",
    }
    return Interaction(**(values | changes))


def plain(key: str, **changes: Any) -> Interaction:
    none = dict.fromkeys(("tools", "response_format", "documents", "continues"))
    return calling(key, **({"response": "12C", "tool_calls": ()} | none | changes))


def test_calls_refusals_and_references_come_back_as_they_were_stored(open_store: OpenStore) -> None:
    store = open_store()
    refused = plain("b", response="", refusal="I cannot.")
    store.add_definitions([TOOLS, FORM, FOUND])
    store.add_interactions([calling("a"), refused, plain("c")])
    assert store.stored_interactions(["a", "b", "c"]) == {
        "a": calling("a"), "b": refused, "c": plain("c"),
    }  # fmt: skip
    assert store.definitions([TOOLS.id, FORM.id, "0" * 64]) == {TOOLS.id: TOOLS, FORM.id: FORM}
    assert store.add_interactions([calling("a")]).repeated == 1
    other = (ToolCall(id="c1", function={"name": "weather", "arguments": '{"a": 2}'}),)
    assert store.add_interactions([calling("a", tool_calls=other)]).conflicts == ("a",)
    assert check_store(store).problems == []


def test_a_definition_that_was_changed_in_its_place_is_found(open_store: OpenStore) -> None:
    store = open_store()
    store.add_definitions([TOOLS, FORM])
    with store.atomic() as connection:
        changed = sa.update(DEFINITIONS).where(DEFINITIONS.c.id == FORM.id)
        connection.execute(changed.values(body={"type": "text"}))
    assert check_store(store).problems == [
        f"1 row of definitions are not what was sent: response_format {FORM.id} (another digest)"
    ]


def test_a_row_without_new_fields_has_the_digest_that_it_had(open_store: OpenStore) -> None:
    store = open_store()
    store.add_interactions([plain("c")])
    with store.reading() as connection:
        (found,) = connection.execute(sa.select(INTERACTIONS.c.digest)).scalars()
    # of version 0.1, before interactions had these fields
    body: dict[str, Any] = {
        "created_at": "2026-03-02T09:00:00Z", "error": None, "id": "c", "latency_seconds": None,
        "messages": [{"content": "weather in Ulm?", "role": "user"}], "metadata": {},
        "model_version": "m/1", "response": "12C", "segment": "all", "session_id": "s",
        "user_id": "u",
    }  # fmt: skip
    text = json.dumps(body, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    assert found == sha256(text.encode()).hexdigest()[:16]


def test_the_migration_runs_while_others_write(empty_url: str) -> None:
    engine = sa.create_engine(empty_url)
    if engine.dialect.name == "sqlite":
        configure_sqlite(engine)
    before = takewhile(lambda name: name != "0020_keep_conversations", MIGRATIONS)
    migrate(engine, {name: MIGRATIONS[name] for name in before}, lambda: NOW)
    with engine.begin() as connection:  # as the version before left it
        connection.exec_driver_sql("DROP TABLE definitions")
        connection.exec_driver_sql("DROP TABLE document_uses")
        for name in sorted(LATER):
            connection.exec_driver_sql(f"ALTER TABLE interactions DROP COLUMN {name}")
    insert = sa.text(
        "INSERT INTO interactions (id, digest, session_id, user_id, created_at, received_at, "
        "model_version, segment, prompt, messages, response, metadata) VALUES "
        "(:id, 'd', 's', 'u', :at, 0, 'm/1', 'all', 'x', :messages, 'y', '{}')"
    )
    messages = json.dumps([{"role": "user", "content": "[tool calls] [{}]"}])
    written, stop = [0], Event()

    def write() -> None:
        while not stop.is_set():
            with engine.begin() as connection:
                values = {"at": int(NOW.timestamp() * 1e6), "messages": messages}
                connection.execute(insert, {"id": f"old-{written[0]}", **values})
            written[0] += 1

    writer = Thread(target=write)
    writer.start()
    while written[0] < 20:
        assert writer.is_alive()
    migrate(engine, MIGRATIONS, lambda: NOW)
    until = written[0] + 20
    while written[0] < until:
        assert writer.is_alive()
    stop.set()
    writer.join()
    engine.dispose()
    store = EventStore.open(empty_url)
    found = store.stored_interactions([f"old-{n}" for n in range(written[0])])
    assert len(found) == written[0]
    assert {one.messages[0].content for one in found.values()} == {"[tool calls] [{}]"}
    store.add_interactions([calling("new")])
    assert store.stored_interactions(["new"])["new"] == calling("new")
    store.close()


# History ------------------------------------------------------------------------------------------


def as_before(folder: Path) -> None:
    """Make a history what the version before wrote: without the columns and their mark."""
    for path in folder.rglob("*.parquet"):
        if path.parent.parent.name == "interactions":
            table = pq.ParquetFile(path).read()
            pq.write_table(table.drop_columns(sorted(LATER)), path)
    cursor = json.loads((folder / "cursor.json").read_bytes())
    del cursor["narrow"]
    (folder / "cursor.json").write_text(json.dumps(cursor))


def test_history_of_the_version_before_is_read_and_written_on(
    open_store: OpenStore, tmp_path: Path
) -> None:
    store, history = open_store(), History.open(tmp_path / "history")
    store.add_interactions([plain("a"), plain("b", created_at=NOW + timedelta(days=1))])
    history.advance(store)
    as_before(tmp_path / "history")
    assert history.fetch_interactions(["a", "b"]) == {
        "a": plain("a"), "b": plain("b", created_at=NOW + timedelta(days=1)),
    }  # fmt: skip
    store.add_interactions([calling("c")])  # joined with the old file of its day
    history.advance(store)
    assert history.fetch_interactions(["a", "c"]) == {"a": plain("a"), "c": calling("c")}
    assert history.references() == {TOOLS.id, FORM.id, FOUND.id}
    rows = [row for batch in every_row(store, history, "interactions") for row in batch.to_pylist()]
    assert [row["continues"] for row in rows] == [None, None, "before"]


def test_forgetting_takes_calls_and_documents_in_history_too(
    open_store: OpenStore, tmp_path: Path
) -> None:
    store, history = open_store(), History.open(tmp_path / "history")
    store.add_definitions([TOOLS, FORM, FOUND])
    store.add_interactions([calling("a"), calling("b", user_id="other", documents=None)])
    history.advance(store)
    as_before_rows = history.fetch_interactions(["a"])["a"]
    assert as_before_rows.documents == FOUND.id
    forget(store, tmp_path, "u", now=NOW, text_key=str, history=history)
    for found in (store.stored_interactions(["a"])["a"], history.fetch_interactions(["a"])["a"]):
        assert found.tool_calls == ()
        assert (found.refusal, found.tools, found.documents, found.continues) == (None,) * 4
    assert store.definitions([TOOLS.id, FOUND.id]) == {TOOLS.id: TOOLS}
    assert history.fetch_interactions(["b"])["b"].tool_calls == calling("b").tool_calls


# What nobody refers to ----------------------------------------------------------------------------


@pytest.mark.parametrize("in_history", [False, True])
def test_a_definition_goes_when_neither_store_nor_history_refers_to_it(
    open_store: OpenStore, tmp_path: Path, in_history: bool
) -> None:
    store, history = open_store(), History.open(tmp_path / "history")
    store.add_definitions([TOOLS, FORM, FOUND])
    store.add_interactions([calling("a", documents=None), plain("z")])
    if in_history:
        history.advance(store)
    with store.atomic() as connection:
        connection.execute(sa.delete(INTERACTIONS).where(INTERACTIONS.c.id == "a"))
    besides = history.references()
    soon = unreferred_definitions(store, besides, now=STORE_CLOCK)
    assert soon.positions == []  # a gateway may have sent it before what refers to it
    delete_rows(store, unreferred_definitions(store, besides, now=STORE_CLOCK + timedelta(days=2)))
    left = set(store.definitions([TOOLS.id, FORM.id, FOUND.id]))
    assert left == ({TOOLS.id, FORM.id} if in_history else set())
