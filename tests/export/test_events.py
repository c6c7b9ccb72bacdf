"""Interactions and feedback as they were stored, and back again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings

from ratchet.collect.ingest import ingest_file
from ratchet.errors import ConflictError, InvalidInputError
from ratchet.records import Message
from ratchet.records.events import Comment, Thumbs
from ratchet.store import EventStore
from ratchet.store.forget import forget
from ratchet.store.history import History, every_row
from ratchet.store.tables import FEEDBACK_EVENTS, INTERACTIONS
from tests.export.stores import MORNING, NOW, histories, rows_of, turn, written


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EventStore]:
    store = EventStore.open(f"sqlite:///{tmp_path}/store.db")
    store.add_interactions([turn(number) for number in range(20)])
    store.add_feedback(
        [
            Thumbs(
                id=f"f{number}", interaction_id=f"i{number:04}", value="down",
                created_at=MORNING + timedelta(hours=number, minutes=5),
            )
            for number in range(0, 20, 2)
        ]
    )  # fmt: skip
    yield store
    store.close()


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


# There and back -----------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
@given(histories())
def test_what_is_exported_and_brought_in_again_gives_the_same_store(
    tmp_path_factory: pytest.TempPathFactory, made_store: Path, history: Any
) -> None:
    folder = tmp_path_factory.mktemp("there")
    (folder / "back").mkdir()
    for path in (folder / "store.db", folder / "back" / "store.db"):
        shutil.copyfile(made_store, path)
    store = EventStore.open(f"sqlite:///{folder}/store.db")
    turns, events = history
    store.add_interactions(turns)
    for event in events:  # one after the other: a version may come before the one it replaces
        store.add_feedback([event])
    back = EventStore.open(f"sqlite:///{folder}/back/store.db")
    for kind in ("interactions", "feedback"):
        tally = written(store, folder, kind, str(folder / f"{kind}.jsonl"))
        report = ingest_file(folder / f"{kind}.jsonl", back, now=NOW)
        assert report.set_aside == report.repeated == 0, report.lines()
        assert report.interactions + report.feedback == tally.rows.total()
    (turns_back, events_back), (turns_there, events_there) = rows_of(back), rows_of(store)
    assert turns_back == turns_there
    # versions of one event are brought in one after the other, those of others meanwhile
    assert sorted(events_back, key=str) == sorted(events_there, key=str)
    keys = [event.id for event in events]
    assert back.stored_feedback(keys) == store.stored_feedback(keys)
    store.close()
    back.close()


def test_what_was_pruned_comes_from_history_in_the_order_of_arrival(
    store: EventStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(every_row, "BLOCK", 3)
    for kind in ("interactions", "feedback"):
        written(store, tmp_path, kind, str(tmp_path / f"{kind}.before"))
    History.open(tmp_path / "history").advance(store)
    store.add_interactions([turn(number) for number in range(20, 25)])  # not in history
    with store.atomic() as connection:
        for table, pruned in ((INTERACTIONS, (1, 2, 3, 7, 18)), (FEEDBACK_EVENTS, (2, 9))):
            connection.execute(sa.delete(table).where(table.c.position.in_(pruned)))
    for kind in ("interactions", "feedback"):
        written(store, tmp_path, kind, str(tmp_path / f"{kind}.after"))
    before, after = (
        {kind: (tmp_path / f"{kind}.{when}").read_text() for kind in ("interactions", "feedback")}
        for when in ("before", "after")
    )
    added = after["interactions"].removeprefix(before["interactions"])
    assert [json.loads(line)["id"] for line in added.splitlines()] == [
        f"i{number:04}" for number in range(20, 25)
    ]
    assert after["feedback"] == before["feedback"]
    chosen = tmp_path / "chosen.jsonl"
    since = MORNING + timedelta(hours=2)
    written(store, tmp_path, "interactions", str(chosen), since=since,
            until=MORNING + timedelta(hours=9), model_version="m/1")  # fmt: skip
    assert [row["id"] for row in lines(chosen)] == ["i0002", "i0004", "i0006", "i0008"]


def test_the_history_of_another_store_is_refused(store: EventStore, tmp_path: Path) -> None:
    other = EventStore.open(f"sqlite:///{tmp_path}/other.db")
    other.add_interactions([turn(1)])
    History.open(tmp_path / "history").advance(other)
    other.close()
    with pytest.raises(ConflictError, match="a history belongs to one store"):
        written(store, tmp_path, "interactions", str(tmp_path / "x.jsonl"))
    assert not (tmp_path / "x.jsonl").exists()


# Choosing -----------------------------------------------------------------------------------------


def test_time_version_and_segment_choose_feedback_by_its_interaction(
    store: EventStore, tmp_path: Path
) -> None:
    out = tmp_path / "x.jsonl"

    def ids(kind: str, **options: Any) -> list[str]:
        written(store, tmp_path, kind, str(out), **options)
        return [row["id"] for row in lines(out)]

    assert ids("feedback", model_version="m/2") == []  # of odd numbers, which have none
    assert len(ids("feedback", model_version="m/1")) == 10
    assert ids("feedback", segment="all") == ["f0", "f6", "f12", "f18"]
    late = MORNING + timedelta(hours=16)
    assert ids("feedback", since=late) == ["f16", "f18"]
    assert ids("feedback", segment="de", since=late) == ["f16"]
    assert ids("interactions", until=MORNING + timedelta(hours=2)) == ["i0000", "i0001"]
    assert ids("interactions", segment="all", model_version="m/2") == ["i0003", "i0009", "i0015"]
    assert ids("interactions", since=NOW) == []


# Forms --------------------------------------------------------------------------------------------


def test_a_table_says_what_each_user_allowed(store: EventStore, tmp_path: Path) -> None:
    said = [{"training_consent": "no"}, {"retain_until": "2026-05-01T00:00:00Z"}, {}]
    store.add_interactions([turn(100 + n, metadata=more) for n, more in enumerate(said)])
    written(store, tmp_path, "interactions", str(tmp_path / "x.parquet"), "parquet")
    table = pq.read_table(tmp_path / "x.parquet")
    assert table["training_consent"].to_pylist()[-3:] == ["no", None, None]
    assert table["retain_until"].to_pylist()[-3:] == [None, "2026-05-01T00:00:00Z", None]
    assert table["received_at"].null_count == 0
    assert table["created_at"][0].as_py() == MORNING
    assert json.loads(table["messages"][0].as_py()) == [{"role": "user", "content": "Question 0?"}]


def test_a_hugging_face_folder_is_read_as_what_it_is(
    store: EventStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from datasets import load_dataset

    tally = written(store, tmp_path, "feedback", str(tmp_path / "hub"), "hf")
    found = load_dataset(str(tmp_path / "hub"), cache_dir=str(tmp_path / "cache"))
    assert len(found["feedback"]) == tally.rows["feedback"] == 10
    assert found["feedback"][0]["kind"] == "thumbs"
    assert json.loads(found["feedback"][0]["value"]) == "down"
    with pytest.raises(InvalidInputError, match="must be new here"):
        written(store, tmp_path, "feedback", str(tmp_path / "hub"), "hf")


def test_a_packed_file_is_brought_in_as_it_is(store: EventStore, tmp_path: Path) -> None:
    written(store, tmp_path, "interactions", str(tmp_path / "x.jsonl.gz"))
    back = EventStore.open(f"sqlite:///{tmp_path}/back.db")
    assert ingest_file(tmp_path / "x.jsonl.gz", back, now=NOW).interactions == 20
    back.close()


def test_an_address_of_object_storage_gets_the_whole_file_or_folder(
    store: EventStore, tmp_path: Path
) -> None:
    memory = fsspec.filesystem("memory")
    try:
        written(store, tmp_path, "interactions", "memory://bucket/x.jsonl")
        written(store, tmp_path, "interactions", str(tmp_path / "x.jsonl"))
        assert memory.cat_file("/bucket/x.jsonl") == (tmp_path / "x.jsonl").read_bytes()
        written(store, tmp_path, "interactions", "memory://bucket/hub", "hf")
        assert sorted(memory.find("/bucket/hub")) == [
            "/bucket/hub/README.md", "/bucket/hub/data/interactions-00000.parquet",
        ]  # fmt: skip
        with pytest.raises(InvalidInputError, match="must be new here"):
            written(store, tmp_path, "interactions", "memory://bucket/hub", "hf")
    finally:
        memory.rm("/bucket", recursive=True)


@pytest.mark.parametrize(("as_format", "name"), [("jsonl", "x.jsonl"), ("parquet", "x.parquet"),
                                                 ("hf", "x")])  # fmt: skip
def test_who_stops_an_export_leaves_nothing_half_and_what_was_there(
    store: EventStore, tmp_path: Path, as_format: str, name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("ratchet.export.events.batches_of.__defaults__", (4,))
    folder = tmp_path / "out"
    folder.mkdir()
    if as_format != "hf":
        (folder / name).write_text("earlier")
    told: list[int] = []

    def stop(rows: int) -> None:
        told.append(rows)
        if len(told) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        written(store, tmp_path, "interactions", str(folder / name), as_format, progress=stop)
    assert told == [4, 8]  # batch by batch
    left = [path.name for path in folder.iterdir()]
    assert left == ([] if as_format == "hf" else [name])
    if left:
        assert (folder / name).read_text() == "earlier"


def test_places_that_cannot_be_written_are_one_clear_error(
    store: EventStore, tmp_path: Path
) -> None:
    for out, said in ((tmp_path, "must be a file for this format"),
                      (tmp_path / "none" / "x.jsonl", "the folder of --out must be there"),
                      ("nonsense://x/y", "an export must be a folder or an address that fsspec"),
                      ("gs://x/y", r"pip install 'ratchet-llm\[gcs\]'")):  # fmt: skip
        with pytest.raises(InvalidInputError, match=said):
            written(store, tmp_path, "interactions", str(out))


# Personal data ------------------------------------------------------------------------------------


def test_personal_data_stays_unless_it_is_to_be_taken_out(
    store: EventStore, tmp_path: Path
) -> None:
    mail = "ann@example.com"
    asked = (Message(role="system", content=f"Refer to {mail}."),
             Message(role="user", content=f"I am {mail}"))  # fmt: skip
    store.add_interactions(
        [
            turn(100, messages=asked, response=f"Hello {mail}", error=f"{mail} unknown",
                 user_id=mail, session_id="s", metadata={"training_consent": "yes", "who": mail}),
            turn(101, user_id=mail, session_id="s"),
        ]
    )  # fmt: skip
    store.add_feedback(
        [Comment(id="c", interaction_id="i0100", created_at=NOW, user_id=mail, value=f"ask {mail}")]
    )
    whole, clean = tmp_path / "whole.jsonl", tmp_path / "clean.jsonl"
    written(store, tmp_path, "interactions", str(whole))
    assert lines(whole)[-2]["response"] == f"Hello {mail}"
    tally = written(store, tmp_path, "interactions", str(clean), redact=True)
    row, other = lines(clean)[-2:]
    assert row["messages"][0]["content"] == f"Refer to {mail}."  # the operator's own words
    del row["messages"][0]
    assert mail not in json.dumps(row)
    assert row["response"] == "Hello <EMAIL_ADDRESS>"
    assert row["metadata"] == {"training_consent": "yes", "who": "<EMAIL_ADDRESS>"}
    assert tally.redacted == {"EMAIL_ADDRESS": 4}
    assert row["user_id"] == other["user_id"] != lines(clean)[0]["user_id"]
    written(store, tmp_path, "interactions", str(tmp_path / "x.parquet"), "parquet", redact=True)
    assert pq.read_table(tmp_path / "x.parquet")["prompt"].to_pylist()[-2] == "I am <EMAIL_ADDRESS>"
    written(store, tmp_path, "feedback", str(clean), redact=True)
    said = lines(clean)[-1]
    assert (said["value"], said["user_id"]) == ("ask <EMAIL_ADDRESS>", row["user_id"])


def test_what_a_forgotten_user_said_is_in_no_export(store: EventStore, tmp_path: Path) -> None:
    secret = "the code of my door is 4711"
    store.add_interactions(
        [turn(100, user_id="eva", messages=(Message(role="user", content=secret),))]
    )
    history = History.open(tmp_path / "history")
    history.advance(store)
    forget(store, tmp_path, "eva", now=NOW, text_key=str, history=history)
    for as_format in ("jsonl", "parquet"):
        out = tmp_path / f"x.{as_format}"
        written(store, tmp_path, "interactions", str(out), as_format)
    assert secret not in (tmp_path / "x.jsonl").read_text()
    table = pq.read_table(tmp_path / "x.parquet")
    assert table["training_consent"].to_pylist()[-1] == "no"
    assert table["user_id"].to_pylist()[-1] == "forgotten"
