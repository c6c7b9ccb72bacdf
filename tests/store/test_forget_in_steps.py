"""Forgetting goes in short steps: what is stopped is finished by the next call, whenever it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from ratchet.analyze.failures.embedding import text_key
from ratchet.errors import InvalidInputError
from ratchet.records import (
    FEEDBACK,
    Analysis,
    Erasure,
    Example,
    ExampleSet,
    FailureCluster,
    HumanLabel,
    Interaction,
    JudgeVerdict,
    Message,
    ReviewDecision,
    ReviewItem,
    SetAside,
)
from ratchet.store import EventStore, erasure
from ratchet.store.forget import forget
from ratchet.store.tables import METADATA
from ratchet.store.user_texts import UserTexts

NOW = datetime(2026, 1, 5, 8, tzinfo=UTC)
SECRET = "my cat Ramses ate the card of account"
USER = "eve@example.org"


def interaction(key: str, user: str, prompt: str) -> Interaction:
    return Interaction(
        id=key, session_id=f"s-{user}", user_id=user, created_at=NOW, model_version="router/1",
        messages=(Message(role="user", content=prompt),), response=f"an answer about {prompt}",
    )  # fmt: skip


def event(key: str, about: str, kind: str, value: object, user: str | None = None) -> Any:
    row = {"id": key, "interaction_id": about, "created_at": NOW, "kind": kind, "value": value}
    return FEEDBACK.validate_python(row | {"user_id": user})


def verdict(key: str, text: str, item: str | None) -> JudgeVerdict:
    return JudgeVerdict(
        id=key, created_at=NOW, judge="j", judge_version="j/1", dimension="d", mode="pointwise",
        model="m", prompt=(Message(role="user", content=text),), reply="5", outcome="5", score=1.0,
        item_id=item,
    )  # fmt: skip


def rejected(key: str, row: object) -> SetAside:
    raw = row if isinstance(row, str) else json.dumps(row)
    return SetAside(id=key, created_at=NOW, source="f", position="1", reason="r", raw=raw)


def fill(store: EventStore) -> None:
    """Five interactions of eve and five of bob, and one of everything that quotes them."""
    for n in range(5):
        store.add_interactions([interaction(f"e{n}", USER, f"{SECRET} {n}")])
        store.add_interactions([interaction(f"b{n}", "bob", f"where is my parcel number {n}")])
        store.add_feedback(
            [
                event(f"fe{n}", f"e{n}", "correction", f"cards of Ramses, {n}"),
                event(f"fb{n}", f"b{n}", "comment", f"Ramses says hello {n}", USER),
                event(f"fc{n}", f"b{n}", "comment", f"a parcel of bob {n}", "bob"),
            ]
        )
        quoted = f"he said: {SECRET} {n}"
        store.add_verdicts(
            [
                verdict(f"ve{n}", "judge this: Ramses", f"e{n}"),
                verdict(f"vo{n}", quoted, None),  # as before items were named
                verdict(f"vg{n}", "judge the example with Ramses", f"g{n}"),
                verdict(f"vb{n}", "judge the parcel", f"b{n}"),
            ]
        )
        store.append(
            ReviewItem(
                id=f"r{n}",
                created_at=NOW,
                interaction_id=f"e{n}",
                dimension="safety",
                priority="safety",
                raised_by="rule",
                why=quoted,
            )
        )
        store.append(
            ReviewDecision(
                id=f"d{n}",
                created_at=NOW,
                item_id=f"r{n}",
                label="fine",
                reviewer="ann",
                note=quoted,
            )
        )
        store.append(
            HumanLabel(
                id=f"h{n}",
                created_at=NOW,
                item_id=f"e{n}",
                dimension="d",
                label="good",
                reviewer="ann",
                note=quoted,
            )
        )
        cluster = FailureCluster(
            id="k",
            name="cards",
            size=1,
            failure_rate=0.5,
            lift=2.0,
            interval=(0.1, 0.9),
            examples=(quoted, "where is my parcel"),
        )
        store.append(
            Analysis(
                id=f"a{n}",
                cycle_id="c1",
                created_at=NOW,
                model_version="m",
                metrics=(),
                alerts=(),
                clusters=(cluster,),
            )
        )
        store.add_vectors(
            "m", {text_key(f"{SECRET} {n}"): np.ones(2), text_key(f"p{n}"): np.ones(2)}
        )
    store.set_aside(
        [
            rejected("se", {"user_id": USER, "messages": "Ramses"}),
            rejected("si", {"interaction_id": "e3", "value": "Ramses", "kind": 3}),
            rejected("sc", f'{{"id": "x", "who": "{USER}", "messages": [{{"content": "Ram'),
            rejected("st", f"{SECRET} 2;broken"),
            rejected("sb", {"user_id": "bob", "messages": 1}),
            rejected("so", "no,columns,here"),
        ]
    )
    golden = [
        Example(id=f"g{n}", messages=(Message(role="user", content=f"{SECRET} {n}"),), target="a")
        for n in range(5)
    ]
    store.append(ExampleSet.freeze("golden", tuple(golden), NOW))


def everything(store: EventStore, *, but: str = "") -> str:
    with store.reading() as connection:
        return "\n".join(
            str(row)
            for table in METADATA.sorted_tables
            for row in connection.execute(sa.select(table)).mappings()
            if row.get("kind") != but
        )


def assert_forgotten(store: EventStore) -> None:
    left = everything(store, but="ExampleSet")  # sets are frozen, and named for a person
    assert "Ramses" not in left
    assert USER not in left
    assert set(store.verdicts([f"v{k}{n}" for k in "eogb" for n in range(5)])) == {
        f"vb{n}" for n in range(5)
    }
    assert [row.id for row in store.set_aside_rows()] == ["sb", "so"]
    assert store.counts()["interactions"] == 10
    assert left.count("where is my parcel number") == 15  # prompt, messages and answer
    assert left.count("a parcel of bob") == 5


@pytest.fixture
def store(open_store: Callable[[], EventStore], monkeypatch: pytest.MonkeyPatch) -> EventStore:
    monkeypatch.setattr(erasure, "_PAGE", 2)
    opened = open_store()
    fill(opened)
    return opened


def erase(store: EventStore, home: Path, minutes: int = 0) -> Erasure:
    now = NOW + timedelta(minutes=minutes)
    return forget(store, home, USER, now=now, text_key=text_key)


class Killed(BaseException):
    """As if the process ended."""


@contextmanager
def killed_at(store: EventStore, transaction: int) -> Iterator[list[int]]:
    """End the process before that transaction commits; count them."""
    begun: list[int] = []

    def stop(_connection: sa.Connection) -> None:
        begun.append(1)
        if len(begun) == transaction:
            raise Killed

    sa.event.listen(store._engine, "commit", stop)
    try:
        yield begun
    finally:
        sa.event.remove(store._engine, "commit", stop)


def test_everything_of_a_user_goes_and_the_record_says_how_much(
    store: EventStore, tmp_path: Path
) -> None:
    record = erase(store, tmp_path)
    assert_forgotten(store)
    assert record == store.records(Erasure)[0]
    assert (record.interactions, record.feedback) == (5, 10)
    assert record.verdicts == 15 + 4  # verdicts and rows set aside
    assert record.records == 20
    assert len(record.example_sets) == 1
    assert record.state == "done"
    assert "interaction_ids" not in record.canonical()


@pytest.mark.slow
def test_stopped_at_any_transaction_the_next_call_finishes(
    open_store: Callable[[], EventStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All places on SQLite, where it takes a moment; a few on PostgreSQL."""
    monkeypatch.setattr(erasure, "_PAGE", 2)
    store = open_store()
    fill(store)
    with killed_at(store, 0) as transactions:
        erase(store, tmp_path)
    total = len(transactions)
    assert total > 30
    step = 1 if store._engine.dialect.name == "sqlite" else 7
    for place in range(1, total + 1, step):
        with store.atomic() as connection:
            for table in METADATA.sorted_tables:
                if table.name not in ("schema_migrations", "counts", "store_facts"):
                    connection.execute(sa.delete(table))
        fill(store)
        with killed_at(store, place), pytest.raises(Killed):
            erase(store, tmp_path)
        states = [record.state for record in store.records(Erasure)]
        assert states in ([], ["begun"])
        record = erase(store, tmp_path, 1)
        assert_forgotten(store)
        assert [found.state for found in store.records(Erasure)] == ["done"]
        assert record.interactions == 5
        # sent again, the rows are known: nothing is brought back
        assert store.add_interactions([interaction("e0", USER, f"{SECRET} 0")]).new == 0
        assert_forgotten(store)


def test_what_comes_while_a_user_is_forgotten_is_not_stored(
    store: EventStore, tmp_path: Path, open_store: Callable[[], EventStore]
) -> None:
    late, ended = open_store(), []

    def add(_connection: object, _record: object) -> None:
        ended.append(1)
        if len(ended) == 12:
            late.add_interactions([interaction("late", USER, f"{SECRET} late")])

    sa.event.listen(store._engine, "checkin", add)
    record = erase(store, tmp_path)
    assert len(ended) > 12
    assert late.stored_interactions(["late"]) == {}  # the user's name was kept first
    assert record.interactions == 5
    assert "Ramses" not in everything(store, but="ExampleSet")


@pytest.mark.parametrize("user", ["u7", "17", "o'hara"])
def test_rows_set_aside_are_found_by_a_short_name_in_every_kind_of_file(
    open_store: Callable[[], EventStore], tmp_path: Path, user: str
) -> None:
    """As `ratchet ingest` keeps them: on one line, cut, and of a Parquet file as Python says it."""
    store = open_store()
    quoted = json.dumps(user)
    number = "17" if user == "17" else quoted
    mine = [
        f'{{"id": "x", "user_id": {number}, "value": 9}}',
        f'{{"id": "x", "user_id": {number}, "messages": [{{"role": "user", "content": "Ram',
        f"{{'id': 'x', 'user_id': {user!r}, 'messages': 'Ramses'}}",
        f'x,s,"{user}",tomorrow,Ramses',
    ]
    if "'" not in user:
        mine += [f"x{mark}s{mark}{user}{mark}Ramses" for mark in (",", ";", "|", "\\t")]
        mine += [f"{user},Ramses", f"Ramses, {user}"]
    others = ["x,s,u77,a parcel", "x,s,170,a parcel", '{"user_id": "bob", "value": "17"}']
    store.set_aside([rejected(f"m{n}", raw) for n, raw in enumerate(mine)])
    store.set_aside([rejected(f"o{n}", raw) for n, raw in enumerate(others)])
    record = forget(store, tmp_path, user, now=NOW, text_key=text_key)
    assert [row.id for row in store.set_aside_rows()] == ["o0", "o1", "o2"]
    assert record.verdicts == len(mine)


def test_the_name_of_all_forgotten_users_is_refused(store: EventStore, tmp_path: Path) -> None:
    erase(store, tmp_path)
    with pytest.raises(InvalidInputError, match="got 'forgotten', which stands for users whose"):
        forget(store, tmp_path, "forgotten", now=NOW, text_key=text_key)
    assert len(store.records(Erasure)) == 1


def test_a_reader_in_the_way_of_the_log_makes_no_writer_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(erasure, "_CHECKPOINT_MILLISECONDS", 20)
    monkeypatch.setattr(erasure, "_CHECKPOINTS", 2)
    store = EventStore.open(f"sqlite:///{tmp_path / 'store.db'}")
    fill(store)
    reader = EventStore.open(f"sqlite:///{tmp_path / 'store.db'}")
    with reader.reading() as connection:
        connection.execute(sa.text("SELECT count(*) FROM interactions")).all()
        store.add_interactions([interaction("z", "zoe", "hello there, all of you")])
        erase(store, tmp_path)
        assert "run `ratchet forget` again" in caplog.text
    erase(store, tmp_path, 1)
    files = b"".join(path.read_bytes() for path in tmp_path.glob("store.db*"))
    assert b"Ramses says hello" not in files
    assert files.count(b"Ramses") == 5  # in the evaluation set
    with store.reading() as connection:  # patience with other writers is as before
        assert connection.execute(sa.text("PRAGMA busy_timeout")).scalar_one() == 60_000
    store.close()
    reader.close()


def test_a_store_made_before_names_is_named_when_it_is_opened(
    open_store: Callable[[], EventStore], tmp_path: Path
) -> None:
    store = open_store()
    with store.atomic() as connection:
        for index in ("verdicts_item", "set_aside_user", "set_aside_interaction"):
            connection.execute(sa.text(f"DROP INDEX ix_{index}"))
        connection.execute(sa.text("DELETE FROM schema_migrations WHERE name LIKE '0011%'"))
    fill(store)
    with store.atomic() as connection:
        for table, column in (
            ("verdicts", "item_id"), ("set_aside", "user_id"), ("set_aside", "interaction_id"),
        ):  # fmt: skip
            connection.execute(sa.text(f"ALTER TABLE {table} DROP COLUMN {column}"))
    store = open_store()
    with store.reading() as connection:
        named = connection.execute(
            sa.text("SELECT id, user_id, interaction_id FROM set_aside ORDER BY position")
        ).all()
    assert list(map(tuple, named)) == [
        ("se", USER, None), ("si", None, "e3"), ("sc", None, None), ("st", None, None),
        ("sb", "bob", None), ("so", None, None),
    ]  # fmt: skip
    erase(store, tmp_path)
    # older verdicts name no item: those are found that quote a text, as they were before
    assert set(store.verdicts([f"vo{n}" for n in range(5)])) == set()
    assert [row.id for row in store.set_aside_rows()] == ["sb", "so"]


@pytest.mark.parametrize("many", [1, 200])
def test_few_and_many_texts_are_found_alike(many: int) -> None:
    texts = UserTexts.of(
        ["short", "", " padded text is kept ", *(f"text number {n} of many" for n in range(many))]
    )
    assert texts.are_in({"a": ["x", {"b": "he said: text number 0 of many!"}]})
    assert texts.are_in("a padded text is kept inside")
    assert not texts.are_in(["short", "text number 999 of many", 5, None, "text numbe"])
    value = {"a": ["text number 0 of many and text number 0 of many", 7], "b": None}
    assert texts.erased_in(value) == {"a": ["[erased] and [erased]", 7], "b": None}


def test_the_longer_of_two_texts_is_erased_whole() -> None:
    texts = UserTexts.of(["my card is lost", "my card is lost and my cat too"])
    assert texts.erased_in("so my card is lost and my cat too!") == "so [erased]!"
