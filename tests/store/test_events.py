"""The event store, on SQLite and on PostgreSQL."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ratchet.errors import ConflictError
from ratchet.records import FEEDBACK, CycleEnd, Feedback, Interaction, Message, SetAside
from ratchet.store import Added, EventStore, Window
from tests.parameters import examples

NOW = datetime(2026, 1, 5, 8, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MICROSECOND = timedelta(microseconds=1)
ALWAYS = Window(datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))


@pytest.fixture
def store(open_store: Callable[[], EventStore]) -> EventStore:
    return open_store()


def interaction(key: str = "i-1", **changes: Any) -> Interaction:
    row = {
        "id": key,
        "session_id": "s",
        "user_id": "u",
        "created_at": NOW,
        "model_version": "router/1",
        "messages": [{"role": "user", "content": "Where is my card?"}],
        "response": "card delivery",
    }
    return Interaction.model_validate(row | changes)


def feedback(
    key: str = "f-1", kind: str = "thumbs", value: object = "up", **changes: Any
) -> Feedback:
    row = {"id": key, "interaction_id": "i-1", "created_at": NOW, "kind": kind, "value": value}
    return FEEDBACK.validate_python(row | changes)


def rejected(key: str, reason: str = "bad") -> SetAside:
    return SetAside(
        id=key, created_at=NOW, source="rows.jsonl", position="line 1", reason=reason, raw="{'é"
    )


def ids(table: pa.Table) -> list[str]:
    return table["id"].to_pylist()


def window(start: datetime, end: datetime, model_version: str | None = None) -> Window:
    return Window(start, end, model_version)


# Interactions -----------------------------------------------------------------------------------


def test_an_interaction_comes_back_as_it_was_sent(store: EventStore) -> None:
    full = interaction(
        "ключ 🗝",
        created_at=NOW + MICROSECOND,
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Où est ma carte ? 🏦 \u202e'\"\\ %s :x"},
            {"role": "assistant", "content": ""},
        ],
        response="e\u0301\n\t\x01\x7f",
        latency_seconds=0.1 + 0.2,
        error="délai",
        segment="app/de",
        metadata={"тема": "карта", "": ""},
    )
    bare = interaction("bare", response="")
    assert store.add_interactions([full, bare]) == Added(new=2, repeated=0, conflicts=())
    assert store.stored_interactions([full.id, "bare", "unknown"]) == {full.id: full, "bare": bare}


def test_the_table_of_a_window_holds_what_was_sent(store: EventStore) -> None:
    store.add_interactions([interaction(latency_seconds=0.25, error="late", segment="app")])
    table = store.interactions(ALWAYS)
    assert table.schema.field("created_at").type == pa.timestamp("us", "UTC")
    assert table.to_pylist() == [
        {
            "id": "i-1",
            "session_id": "s",
            "user_id": "u",
            "created_at": NOW,
            "model_version": "router/1",
            "segment": "app",
            "prompt": "Where is my card?",
            "response": "card delivery",
            "latency_seconds": 0.25,
            "error": "late",
        }
    ]


@pytest.mark.parametrize(
    "moment",
    [
        datetime.min.replace(tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(2026, 1, 5, 8, 0, 0, 1, tzinfo=UTC),
        datetime(2038, 1, 19, 3, 14, 8, 123_457, tzinfo=UTC),
        datetime.max.replace(tzinfo=UTC),
    ],
)
def test_a_time_is_kept_to_the_microsecond(store: EventStore, moment: datetime) -> None:
    store.add_interactions([interaction(created_at=moment)])
    store.append(CycleEnd(id="c", created_at=moment, outcome="finished"))
    assert store.stored_interactions(["i-1"])["i-1"].created_at == moment
    assert store.answered_at(["i-1"]) == {"i-1": moment}
    end = store.get(CycleEnd, "c")
    assert end is not None
    assert end.created_at == moment


@pytest.mark.parametrize("seconds", [0.0, 5e-324, 1e-9, 1 / 3, 2**53 + 1.0, sys.float_info.max])
def test_a_float_is_kept_to_the_last_bit(store: EventStore, seconds: float) -> None:
    store.add_interactions([interaction(latency_seconds=seconds)])
    store.add_feedback([feedback(kind="session_end", value=seconds)])
    assert store.stored_interactions(["i-1"])["i-1"].latency_seconds == seconds
    assert store.feedback(ALWAYS)["number"].to_pylist() == [seconds]


def test_an_empty_batch_and_an_empty_store_are_no_special_case(store: EventStore) -> None:
    assert store.add_interactions([]) == store.add_feedback([]) == Added(0, 0, ())
    store.set_aside([])
    store.add_answers("m", "greedy", {})
    assert store.interactions(ALWAYS).num_rows == store.feedback(ALWAYS).num_rows == 0
    assert store.answered_at([]) == {}
    assert store.stored_interactions([]) == store.answers("m", "greedy", []) == {}


characters = st.characters(codec="utf-8", exclude_characters="\x00")
texts = st.text(characters, max_size=20)
keys = st.text(characters, min_size=1, max_size=20)
interactions = st.builds(
    Interaction,
    id=keys,
    session_id=keys,
    user_id=keys,
    created_at=st.datetimes(timezones=st.just(UTC)),
    model_version=keys,
    messages=st.lists(
        st.builds(Message, role=st.sampled_from(["system", "user", "assistant"]), content=texts),
        min_size=1,
        max_size=3,
    ),
    response=texts,
    latency_seconds=st.none() | st.floats(min_value=0, allow_nan=False, allow_infinity=False),
    error=st.none() | texts,
    segment=keys,
    metadata=st.dictionaries(texts, texts, max_size=3),
)


@settings(
    max_examples=examples(60),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(batch=st.lists(interactions, max_size=4, unique_by=lambda each: each.id))
def test_any_interaction_makes_the_round_trip(
    tmp_path: Path, made_store: Path, batch: list[Interaction]
) -> None:
    path = tmp_path / f"{uuid4()}.db"
    shutil.copyfile(made_store, path)
    store = EventStore.open(f"sqlite:///{path}")
    assert store.add_interactions(batch) == Added(len(batch), 0, ())
    assert store.stored_interactions([each.id for each in batch]) == {e.id: e for e in batch}
    assert store.add_interactions(batch) == Added(0, len(batch), ())
    store.close()


# Sending again ----------------------------------------------------------------------------------


def test_sending_again_changes_nothing(store: EventStore) -> None:
    sent = [interaction("a"), interaction("b", latency_seconds=0.1)]
    given_feedback = [feedback("f"), feedback("g", "comment", "né")]
    store.add_interactions(sent)
    store.add_feedback(given_feedback)
    before = store.interactions(ALWAYS), store.counts()
    assert store.add_interactions([*sent, interaction("c")]) == Added(1, 2, ())
    assert store.add_feedback(given_feedback) == Added(0, 2, ())
    assert store.interactions(ALWAYS).slice(0, 2) == before[0]
    assert store.counts() == before[1] | {"interactions": 3}


def test_the_same_moment_in_another_zone_is_the_same_event(store: EventStore) -> None:
    store.add_interactions([interaction(created_at="2026-01-05T08:00:00Z")])
    assert store.add_interactions([interaction(created_at="2026-01-05T09:00:00+01:00")]) == Added(
        0, 1, ()
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"response": "another"},
        {"created_at": NOW + MICROSECOND},
        {"latency_seconds": 0.0},
        {"metadata": {"a": ""}},
        {"messages": [{"role": "system", "content": "Where is my card?"}]},
    ],
)
def test_other_content_under_a_stored_id_is_a_conflict_and_the_first_stands(
    store: EventStore, changes: dict[str, Any]
) -> None:
    store.add_interactions([interaction()])
    again = store.add_interactions([interaction(**changes), interaction("i-2")])
    assert again == Added(new=1, repeated=0, conflicts=("i-1",))
    assert store.stored_interactions(["i-1"]) == {"i-1": interaction()}


def test_within_a_batch_the_first_one_of_an_id_stands(store: EventStore) -> None:
    batch = [interaction(), interaction(response="other"), interaction()]
    assert store.add_interactions(batch) == Added(new=1, repeated=1, conflicts=("i-1",))
    assert store.stored_interactions(["i-1"]) == {"i-1": interaction()}
    both = [feedback(), feedback(value="down"), feedback()]
    assert store.add_feedback(both) == Added(new=1, repeated=1, conflicts=("f-1",))
    store.add_interactions([interaction()])
    assert store.feedback(ALWAYS)["number"].to_pylist() == [1.0]


def test_more_rows_than_one_statement_takes_are_all_kept(store: EventStore) -> None:
    batch = [interaction(f"i-{n}", created_at=NOW + n * SECOND) for n in range(1_201)]
    answers = {each.id: f"answer {each.id}" for each in batch}
    sent = [*batch, interaction("i-0", response="other"), batch[700]]
    assert store.add_interactions(sent) == Added(1_201, 1, ("i-0",))
    assert ids(store.interactions(ALWAYS)) == [each.id for each in batch]
    assert len(store.stored_interactions([each.id for each in batch])) == 1_201
    store.add_answers("m", "greedy", answers)
    assert store.answers("m", "greedy", list(answers)) == answers
    store.set_aside([rejected(each.id) for each in batch])
    assert store.counts()["set_aside"] == 1_201


# Windows ----------------------------------------------------------------------------------------


def test_a_window_holds_its_start_and_not_its_end(store: EventStore) -> None:
    moments = {
        "before": NOW - MICROSECOND,
        "start": NOW,
        "last": NOW + SECOND - MICROSECOND,
        "end": NOW + SECOND,
    }
    store.add_interactions([interaction(key, created_at=at) for key, at in moments.items()])
    store.add_feedback([feedback(f"f-{key}", interaction_id=key) for key in moments])
    asked = window(NOW, NOW + SECOND)
    assert ids(store.interactions(asked)) == ["start", "last"]
    assert ids(store.feedback(asked)) == ["f-start", "f-last"]
    assert ids(store.interactions(window(NOW + SECOND, NOW + 2 * SECOND))) == ["end"]
    assert ids(store.interactions(window(NOW, NOW))) == []


def test_a_window_of_one_version_leaves_out_the_others(store: EventStore) -> None:
    for version in ("router/1", "router/10", "Router/1"):
        store.add_interactions([interaction(version, model_version=version)])
        store.add_feedback([feedback(f"on {version}", interaction_id=version)])
    asked = window(NOW, NOW + SECOND, "router/1")
    assert ids(store.interactions(asked)) == ["router/1"]
    assert ids(store.feedback(asked)) == ["on router/1"]


def test_rows_come_in_order_of_time_then_of_arrival(store: EventStore) -> None:
    order = [("c", 2), ("z", 1), ("a", 1), ("b", 0)]
    store.add_interactions([interaction(key, created_at=NOW + n * SECOND) for key, n in order])
    store.add_feedback(
        [feedback(key, created_at=NOW + n * SECOND, interaction_id="a") for key, n in order]
    )
    assert ids(store.interactions(ALWAYS)) == ["b", "z", "a", "c"]
    assert ids(store.feedback(ALWAYS)) == ["b", "z", "a", "c"]


# Feedback ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "value", "number", "text"),
    [
        ("thumbs", "up", 1.0, None),
        ("thumbs", "down", 0.0, None),
        ("stars", 4, 4.0, None),
        ("comment", "слишком 🐌", None, "слишком 🐌"),
        ("correction", "card_arrival", None, "card_arrival"),
        ("copy", True, 1.0, None),
        ("regenerate", False, 0.0, None),
        ("task_completed", True, 1.0, None),
        ("session_end", 61.25, 61.25, None),
    ],
)
def test_feedback_of_every_kind_comes_back(
    store: EventStore, kind: str, value: object, number: float | None, text: str | None
) -> None:
    sent = feedback("f é", kind, value, created_at=NOW + MICROSECOND, user_id="ü")
    store.add_interactions([interaction()])
    assert store.add_feedback([sent]) == Added(1, 0, ())
    assert store.feedback(ALWAYS).to_pylist() == [
        {
            "id": "f é",
            "interaction_id": "i-1",
            "kind": kind,
            "created_at": NOW + MICROSECOND,
            "number": number,
            "text": text,
        }
    ]
    assert store.counts()[kind] == 1
    assert store.add_feedback([sent]) == Added(0, 1, ())


def test_late_feedback_belongs_to_the_window_of_its_interaction(store: EventStore) -> None:
    store.add_interactions([interaction()])
    store.add_feedback([feedback(created_at=NOW + timedelta(days=400))])
    assert ids(store.feedback(window(NOW, NOW + SECOND))) == ["f-1"]


def test_feedback_may_come_before_its_interaction(store: EventStore) -> None:
    assert store.add_feedback([feedback()]) == Added(1, 0, ())
    assert store.feedback(ALWAYS).num_rows == 0
    assert store.counts()["thumbs"] == 1
    store.add_interactions([interaction()])
    assert ids(store.feedback(ALWAYS)) == ["f-1"]


def test_counts_name_every_kind_also_where_there_is_none(store: EventStore) -> None:
    kinds = "thumbs stars dimension comment correction copy regenerate task_completed session_end"
    kinds += " safety_violation judge_score session_score"
    kinds += " asked_again edited continued left visit_seconds next_turn"
    zero = dict.fromkeys(["interactions", "set_aside", *kinds.split()], 0)
    assert store.counts() == zero
    store.add_interactions([interaction()])
    store.add_feedback([feedback("a"), feedback("b", value="down"), feedback("c", "copy", True)])
    store.set_aside([rejected("r")])
    assert store.counts() == zero | {"interactions": 1, "set_aside": 1, "thumbs": 2, "copy": 1}


def test_set_aside_rows_are_counted_by_reason_and_once(store: EventStore) -> None:
    rows = [rejected("1", "b"), rejected("2", "ü"), rejected("3", "a"), rejected("4", "ü")]
    store.set_aside(rows)
    store.set_aside(rows)
    assert list(store.set_aside_reasons().items()) == [("ü", 2), ("a", 1), ("b", 1)]


# Journal and answers ----------------------------------------------------------------------------


def end(key: str, **changes: Any) -> CycleEnd:
    return CycleEnd.model_validate({"id": key, "created_at": NOW, "outcome": "finished"} | changes)


def test_the_journal_keeps_the_order_of_writing(store: EventStore) -> None:
    written = tuple(end(key, created_at=NOW - n * SECOND) for n, key in enumerate("cab"))
    assert [store.append(each) for each in written] == [True, True, True]
    assert store.records(CycleEnd) == written
    assert store.records(CycleEnd, latest=2) == written[1:]
    assert store.latest(CycleEnd) == written[2]
    last = store.last_positions([CycleEnd, Interaction])
    assert set(last) == {"CycleEnd"}
    store.append(written[0].model_copy(update={"id": "later"}))
    assert store.last_positions([CycleEnd])["CycleEnd"] > last["CycleEnd"]
    assert store.get(CycleEnd, "a") == written[1]


def test_the_journal_is_read_from_a_moment_on_and_says_which_ids_it_holds(
    store: EventStore,
) -> None:
    keys = [f"e-{number}" for number in range(600)]  # more than one statement takes at once
    with store.atomic():
        for number, key in enumerate(keys):
            store.append(end(key, created_at=NOW - number * SECOND))
    found = store.records(CycleEnd, since=NOW - 9 * SECOND)
    assert [record.id for record in found] == keys[:10]
    later = store.records(CycleEnd, since=NOW - 9 * SECOND + MICROSECOND, latest=3)
    assert [record.id for record in later] == keys[6:9]
    assert store.records(CycleEnd, since=NOW + MICROSECOND) == ()
    assert store.present(CycleEnd, [*keys, "other"]) == set(keys)
    assert store.present(CycleEnd, []) == set()


def test_kinds_of_records_are_kept_apart(store: EventStore) -> None:
    store.append(end("x"))
    store.append(rejected("x"))
    assert store.records(CycleEnd) == (end("x"),)
    assert store.get(SetAside, "x") == rejected("x")
    assert store.get(CycleEnd, "y") is store.latest(Interaction) is None
    assert store.records(Interaction) == ()


def test_a_record_is_written_once_and_never_changes(store: EventStore) -> None:
    assert store.append(end("x")) is True
    assert store.append(end("x")) is False
    with pytest.raises(ConflictError, match="got another CycleEnd with id 'x'"):
        store.append(end("x", outcome="abandoned"))
    assert store.records(CycleEnd) == (end("x"),)


def test_an_answer_that_is_there_stands(store: EventStore) -> None:
    store.add_answers("m", "greedy", {"a": "первый", "b": ""})
    store.add_answers("m", "greedy", {"a": "second", "c": "third"})
    store.add_answers("n", "greedy", {"a": "other model"})
    store.add_answers("m", "sampled", {"a": "other decoding"})
    asked = store.answers("m", "greedy", ["a", "b", "c", "d"])
    assert asked == {"a": "первый", "b": "", "c": "third"}
    assert store.answers("n", "greedy", ["a", "b"]) == {"a": "other model"}


def test_a_vector_comes_back_in_half_precision_and_one_that_is_there_stands(
    store: EventStore,
) -> None:
    rng = np.random.default_rng(0)
    vectors = {f"k-{i}": rng.normal(size=384).astype(np.float32) for i in range(1_200)}
    store.add_vectors("m", vectors)
    store.add_vectors("m", {"k-0": np.zeros(384, dtype=np.float32)})
    store.add_vectors("n", {"k-0": np.ones(4, dtype=np.float32)})
    found = store.vectors("m", [*vectors, "unknown"])
    assert found.keys() == vectors.keys()
    for key, vector in vectors.items():
        assert found[key].dtype == np.float32
        assert (found[key] == vector.astype(np.float16)).all()
    assert store.vectors("n", ["k-0", "k-1"])["k-0"].tolist() == [1.0] * 4
    assert store.vectors("m", []) == {}


def test_how_long_an_answer_took_is_kept_where_it_is_known(store: EventStore) -> None:
    store.add_answers("m", "greedy", {"a": "x", "b": "y"}, {"a": 0.25})
    store.add_answers("m", "greedy", {"a": "z"}, {"a": 9.0})
    assert store.answers("m", "greedy", ["a", "b"]) == {"a": "x", "b": "y"}
    assert store.answer_seconds("m", "greedy", ["a", "b", "c"]) == {"a": 0.25}
