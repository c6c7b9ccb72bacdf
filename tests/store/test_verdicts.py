"""Verdicts in the event store, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ratchet.records import CycleEnd, JudgeVerdict
from ratchet.store import MIGRATIONS, EventStore
from ratchet.store.retention import delete_rows, old_rows
from ratchet.store.tables import VERDICT_QUOTES, VERDICTS

NOW = datetime(2026, 1, 5, 8, 0, 0, 1, tzinfo=UTC)


@pytest.fixture
def store(open_store: Callable[[], EventStore]) -> EventStore:
    return open_store()


def verdict(key: str = "v-1", **changes: Any) -> JudgeVerdict:
    row = {
        "id": key,
        "created_at": NOW,
        "judge": "correctness",
        "judge_version": "version-1",
        "dimension": "correctness",
        "mode": "pointwise",
        "model": "judge-served",
        "prompt": [{"role": "user", "content": "Is it right?"}],
        "reply": '{"verdict": "good"}',
        "outcome": "good",
        "score": 1.0,
    }
    return JudgeVerdict.model_validate(row | changes)


def test_a_verdict_comes_back_as_it_was_kept(store: EventStore) -> None:
    full = verdict(
        "ключ 🗝",
        reply="e\u0301\n\t\x01 \u202e'\"\\ %s :x",
        outcome=None,
        score=None,
        reason="off the menu",
        shielded=2,
        input_tokens=2**40,
        output_tokens=0,
        cost=0.1 + 0.2,
        latency_seconds=1.5,
        attempts=3,
    )
    store.add_verdicts([full, verdict("bare")])
    assert store.verdicts([full.id, "bare", "unknown"]) == {full.id: full, "bare": verdict("bare")}


def test_a_verdict_that_is_there_already_stands(store: EventStore) -> None:
    first = verdict("a", reply="first")
    store.add_verdicts([first])
    store.add_verdicts([verdict("a", reply="second"), verdict("b"), verdict("b", reply="twice")])
    assert store.verdicts(["a", "b"]) == {"a": first, "b": verdict("b")}
    assert [item.id for item in store.verdicts_of("version-1")] == ["a", "b"]


def test_the_verdicts_of_a_version_come_in_the_order_written(store: EventStore) -> None:
    for number in range(6):
        version = "version-1" if number % 2 else "version-2"
        earlier = NOW - timedelta(days=number)
        store.add_verdicts([verdict(f"v{number}", judge_version=version, created_at=earlier)])
    assert [item.id for item in store.verdicts_of("version-1")] == ["v1", "v3", "v5"]
    assert [item.id for item in store.verdicts_of("version-1", latest=2)] == ["v3", "v5"]
    assert store.verdicts_of("version-1", latest=0) == ()
    assert store.verdicts_of("version-3") == ()


def test_more_verdicts_than_one_statement_takes(store: EventStore) -> None:
    many = [verdict(f"v{number}") for number in range(1201)]
    store.add_verdicts(many)
    store.add_verdicts([])
    assert store.verdicts([item.id for item in many]) == {item.id: item for item in many}
    assert store.verdicts([]) == {}
    assert len(store.verdicts_of("version-1")) == 1201


def test_verdicts_are_part_of_a_transaction(store: EventStore) -> None:
    class LostError(Exception):
        pass

    def write_and_fail() -> None:
        with store.atomic():
            store.add_verdicts([verdict()])
            assert store.verdicts(["v-1"]) == {"v-1": verdict()}
            raise LostError

    with pytest.raises(LostError):
        write_and_fail()
    assert store.verdicts(["v-1"]) == {}


def test_two_writers_of_the_same_verdicts_leave_one_of_each(
    open_store: Callable[[], EventStore],
) -> None:
    stores = [open_store(), open_store()]
    rows = [verdict(f"v{number}") for number in range(200)]

    def write(index: int) -> None:
        for start in range(0, 200, 20):
            stores[index].add_verdicts(rows[start : start + 20])

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, (0, 1)))
    assert sorted(item.id for item in stores[0].verdicts_of("version-1")) == sorted(
        item.id for item in rows
    )


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    reply=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")),
    score=st.one_of(st.none(), st.floats(0.0, 1.0)),
    cost=st.floats(0.0, 1e12),
    created_at=st.datetimes(timezones=st.just(UTC)),
)
def test_any_verdict_survives(
    store: EventStore, reply: str, score: float | None, cost: float, created_at: datetime
) -> None:
    kept = verdict(uuid4().hex, reply=reply, score=score, cost=cost, created_at=created_at)
    store.add_verdicts([kept])
    assert store.verdicts([kept.id]) == {kept.id: kept}


def test_a_store_of_the_version_before_gains_verdicts_and_keeps_the_rest(store_url: str) -> None:
    """The store as the migrations up to 0003 left it: no table of verdicts."""
    before = EventStore.open(store_url, clock=lambda: NOW)
    end = CycleEnd(id="c", created_at=NOW, outcome="finished")
    before.append(end)
    before.close()
    engine = sa.create_engine(store_url)
    with engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE verdicts"))
        connection.execute(
            sa.text("DELETE FROM schema_migrations WHERE name = '0004_keep_verdicts'")
        )
    engine.dispose()
    for _ in range(2):
        store = EventStore.open(store_url, clock=lambda: NOW)
        store.add_verdicts([verdict()])
        assert store.verdicts_of("version-1") == (verdict(),)
        assert store.get(CycleEnd, "c") == end
        store.close()
    engine = sa.create_engine(store_url)
    inspector = sa.inspect(engine)
    indexed = {tuple(item["column_names"]) for item in inspector.get_indexes("verdicts")}
    with engine.connect() as connection:
        applied = connection.execute(sa.text("SELECT name FROM schema_migrations")).scalars().all()
    engine.dispose()
    assert ("judge_version", "position") in indexed
    assert sorted(applied) == list(MIGRATIONS)


def test_a_verdict_names_what_it_quotes_and_its_names_go_with_it(store: EventStore) -> None:
    quoting = [verdict(f"v-{n}", item_id=f"i-{n}", shows=(f"i-{n - 1}", "i-0")) for n in (1, 2)]
    store.add_verdicts([*quoting, verdict("v-3", item_id="i-3")])
    store.add_verdicts(quoting)
    assert store.verdicts(["v-2"]) == {"v-2": quoting[1]}
    assert quotes(store) == {("i-0", "v-1"), ("i-1", "v-2"), ("i-0", "v-2")}
    old = old_rows(store, VERDICTS, before=NOW + timedelta(days=1))
    assert delete_rows(store, old, rest=lambda _: None) == 2  # the newest row stays
    assert quotes(store) == set()
    assert set(store.verdicts(["v-1", "v-2", "v-3"])) == {"v-3"}


def quotes(store: EventStore) -> set[tuple[str, str]]:
    columns = VERDICT_QUOTES.c
    with store.reading() as connection:
        rows = connection.execute(sa.select(columns.interaction_id, columns.verdict_id))
        return {tuple(row) for row in rows}
