"""A store belongs to one assistant, and says how to have another."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from ratchet.cli import app
from ratchet.errors import SettingsError
from ratchet.records import Candidate, Record, Release
from ratchet.store import EventStore

NOW = datetime(2026, 1, 5, 8, tzinfo=UTC)
RELEASE = Release(id="r", created_at=NOW, action="start", champion="team/router/1", previous=None)
CANDIDATE = Candidate(
    id="k", cycle_id="c", created_at=NOW, model_name="billing", version="2", adapter_digest="x",
    path="adapters/x", training_set_id="t", run_id="run", losses=(), training_seconds=1.0,
)  # fmt: skip


@pytest.fixture
def store_url(empty_url: str) -> str:
    return empty_url


def opened(url: str, assistant: str | None = None) -> None:
    EventStore.open(url, assistant=assistant).close()


def test_the_first_name_keeps_the_store(store_url: str) -> None:
    opened(store_url)
    opened(store_url, "router")
    opened(store_url, "router")
    opened(store_url)
    with pytest.raises(SettingsError, match="got RATCHET_MODEL_NAME 'billing' for the store of"):
        opened(store_url, "billing")
    opened(store_url, "router")


def test_of_several_that_open_it_first_one_keeps_it(store_url: str) -> None:
    opened(store_url)

    def open_as(name: str) -> str | None:
        try:
            opened(store_url, name)
        except SettingsError:
            return None
        return name

    with ThreadPoolExecutor(4) as pool:
        kept = [name for name in pool.map(open_as, ["a", "b", "c", "d"]) if name]
    assert len(kept) == 1
    opened(store_url, kept[0])


def test_the_error_shows_the_address_of_a_schema_that_works(postgresql_server: str) -> None:
    url = sa.make_url(postgresql_server)
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE SCHEMA first"))
    options = "-cstatement_timeout=54321 -csearch_path=first"
    first = url.update_query_dict({"options": options}).render_as_string(False)
    opened(first, "first")
    with pytest.raises(SettingsError) as refused:
        opened(first, "Support Router/EU")
    message = str(refused.value)
    assert "run CREATE SCHEMA support_router_eu in the database" in message
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE SCHEMA support_router_eu"))
    engine.dispose()
    (own,) = re.findall(r"RATCHET_STORE_URL='(.*)'", message)
    opened(own, "Support Router/EU")
    store = EventStore.open(own)
    with store.reading() as connection:
        timeout = connection.execute(sa.text("SHOW statement_timeout")).scalar_one()
    store.close()
    assert timeout == "54321ms"  # the other options are kept
    opened(first, "first")


@pytest.mark.parametrize(
    ("records", "owner"),
    [
        ([CANDIDATE, RELEASE], "team/router"),
        ([CANDIDATE], "billing"),
        ([RELEASE.model_copy(update={"champion": "smollm2"}), CANDIDATE], "billing"),
        ([], "anybody"),
    ],
)
def test_an_older_store_takes_the_name_that_its_journal_speaks_of(
    open_store: Callable[[], EventStore], store_url: str, records: list[Record], owner: str
) -> None:
    store = open_store()
    for record in records:
        store.append(record)
    with store.atomic() as connection:
        connection.execute(sa.text("DROP TABLE store_facts"))
        connection.execute(sa.text("DELETE FROM schema_migrations WHERE name LIKE '0012%'"))
    opened(store_url, owner)
    with pytest.raises(SettingsError, match=re.escape(repr(owner))):
        opened(store_url, "somebody else")


def test_the_command_refuses_the_home_of_another_assistant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path))
    opened(f"sqlite:///{tmp_path / 'store.db'}", "support-router")
    assert CliRunner().invoke(app, ["alerts"]).exit_code == 0
    monkeypatch.setenv("RATCHET_MODEL_NAME", "billing")
    refused = CliRunner().invoke(app, ["alerts"])
    assert refused.exit_code != 0
    assert isinstance(refused.exception, SettingsError)
    assert "set RATCHET_MODEL_NAME=support-router" in str(refused.exception)
    assert "another RATCHET_HOME" in str(refused.exception)
