"""What all doors share: sources, formats that are told by rows, reasons, tables, following."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pytest

from ratchet.doors.door import Door
from ratchet.doors.following import follow_source
from ratchet.doors.importing import prepare, preview
from ratchet.doors.mapping import read_map
from ratchet.doors.recognition import recognise
from ratchet.errors import InvalidInputError
from ratchet.store import EventStore
from ratchet.store.tables import SET_ASIDE
from tests.doors.bringing import NOW, answers, bring, new_store, said, write

LINE = json.dumps({"id": "x", "conversations": [{"from": "human", "value": "hi"},
                                                {"from": "gpt", "value": "hello"}]})  # fmt: skip


def chat(key: str, answer: str = "hello") -> dict[str, Any]:
    said = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": answer}]
    return {"id": key, "conversations": said}


# Sources ------------------------------------------------------------------------------------------


def test_a_folder_is_read_file_by_file_and_places_name_the_file(tmp_path: Path) -> None:
    folder = tmp_path / "export"
    (folder / "b").mkdir(parents=True)
    write(folder / "a.jsonl", chat("1"), {"id": "2", "conversations": [{"from": "?"}]})
    write(folder / "b" / "c.jsonl", chat("3"), "no object")
    (folder / "notes.txt").write_text("no rows")
    (folder / ".hidden.jsonl").write_text("no rows")
    report = bring(folder, new_store(tmp_path))
    assert report.interactions == 2
    assert {row.position for row in report.examples} == {"a.jsonl, line 2", "b/c.jsonl, line 2"}
    assert {row.source for row in report.examples} == {"export"}


def test_a_pattern_names_files(tmp_path: Path) -> None:
    for name in "abc":
        write(tmp_path / f"{name}.jsonl", chat(name))
    assert bring(tmp_path / "[ab].jsonl", new_store(tmp_path)).interactions == 2


def test_a_source_without_files_says_what_it_may_be(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInputError, match="name a file, a folder or a pattern"):
        prepare(str(tmp_path / "empty"), now=NOW)


def test_what_lies_on_object_storage_is_fetched(tmp_path: Path) -> None:
    files = fsspec.filesystem("memory")
    files.pipe("/doors-test/day/a.jsonl", LINE.encode())
    files.pipe("/doors-test/day/b.jsonl", json.dumps(chat("y")).encode())
    try:
        store = new_store(tmp_path)
        assert bring("memory://doors-test/day", store).interactions == 2
        assert bring("memory://doors-test/day/a.jsonl", store).repeated == 1
    finally:
        files.rm("/doors-test", recursive=True)


def test_a_file_that_zstd_packed_is_read(tmp_path: Path) -> None:
    with pa.CompressedOutputStream(str(tmp_path / "x.jsonl.zst"), "zstd") as file:
        file.write("".join(json.dumps(chat(f"{n}")) + "\n" for n in range(3_000)).encode())
    store = new_store(tmp_path)
    assert bring(tmp_path / "x.jsonl.zst", store).interactions == 3_000
    cut = (tmp_path / "x.jsonl.zst").read_bytes()[:-20]
    (tmp_path / "cut.jsonl.zst").write_bytes(cut)
    with pytest.raises(InvalidInputError, match=r"cut\.jsonl\.zst"):
        bring(tmp_path / "cut.jsonl.zst", store, as_format="sharegpt")


def test_rows_that_are_set_aside_name_their_user_as_the_tool_does(tmp_path: Path) -> None:
    trace = {"id": "t", "timestamp": "2026-11-20T10:00:00Z", "userId": "ana", "sessionId": "s",
             "input": None, "output": "So."}  # fmt: skip
    store = new_store(tmp_path)
    assert bring(write(tmp_path / "x.jsonl", trace), store).set_aside == 1
    with store.reading() as connection:
        assert connection.execute(SET_ASIDE.select()).mappings().one()["user_id"] == "ana"


# Formats ------------------------------------------------------------------------------------------


def test_rows_of_no_known_format_are_refused_with_the_formats(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", {"prompt": "hi", "completion": "hello"})
    with pytest.raises(InvalidInputError, match="prompt, completion; name its format by --as"):
        prepare(str(path), now=NOW)


def test_two_formats_that_fit_alike_are_an_error_that_names_both() -> None:
    def door(name: str) -> Door:
        return Door(name, name, lambda row: "id" in row, None, {})

    rows = [{"id": 1}, {"id": 2}]
    with pytest.raises(InvalidInputError, match="which may be one or other; name one of them"):
        recognise(rows, [door("one"), door("other")], "x.jsonl")


def test_a_few_broken_rows_do_not_hide_the_format(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", chat("1"), chat("2"), {"broken": 1})
    assert prepare(str(path), now=NOW).door.name == "sharegpt"
    assert bring(path, new_store(tmp_path)).set_aside == 1


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="a format must be one of ratchet, langfuse"):
        prepare(str(write(tmp_path / "x.jsonl", chat("1"))), now=NOW, as_format="word")


def test_a_dry_run_counts_everything_and_stores_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", *[chat(f"{n}") for n in range(50)], {"conversations": [1]})
    shown = preview(prepare(str(path), now=NOW, as_format="sharegpt"))
    assert (shown.interactions, shown.feedback, sum(shown.reasons.values())) == (50, 0, 1)
    assert [fields["response"] for fields in shown.first] == ["hello"] * 3


def test_bytes_of_pictures_are_replaced_by_a_reference(tmp_path: Path) -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    turns = [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, picture]},
             {"role": "assistant", "content": "A dot."}]  # fmt: skip
    store = new_store(tmp_path)
    bring(write(tmp_path / "x.jsonl", {"id": "1", "messages": turns}), store)
    (part,) = answers(store)[0].messages[0].canonical()["content"][1:]
    # 8 bytes, the signature of PNG
    assert part["image_url"]["url"].startswith("blob:sha256-")
    assert part["image_url"]["url"].endswith(";image/png;8")


def test_rows_without_a_time_keep_that_of_their_first_import(tmp_path: Path) -> None:
    path, store = write(tmp_path / "x.jsonl", chat("1")), new_store(tmp_path)
    bring(path, store, now=NOW - timedelta(days=3))
    path.write_text(path.read_text() + json.dumps(chat("2")) + "\n")  # it grew
    later = bring(path, store)
    assert (later.interactions, later.repeated, later.set_aside) == (1, 1, 0)
    assert {item.created_at for item in answers(store)} == {NOW - timedelta(days=3)}


def test_rows_that_say_the_same_without_a_time_are_answers_of_their_own(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", chat("1"), chat("2"))
    now = NOW.replace(second=7, microsecond=123_456)
    assert bring(path, new_store(tmp_path), now=now).interactions == 2


# Tables -------------------------------------------------------------------------------------------

ROWS = [
    {"key": 1, "asked": "Tea?", "told": "Yes.", "at": "2026-11-20T10:00:00Z", "who": "ana",
     "rating": "good", "note": "warm"},
    {"key": 2, "asked": "Milk?", "told": "No.", "at": "2026-11-20T10:05:00Z", "who": "bo",
     "rating": "bad", "note": None},
]  # fmt: skip
COLUMNS: dict[str, Any] = {
    "columns": {
        "id": "key", "prompt": "asked", "response": "told", "created_at": "at", "user_id": "who",
        "model_version": {"value": "shop/1"},
        "feedback": [
            {"kind": "thumbs", "column": "rating", "values": {"good": "up", "bad": "down"}},
            {"kind": "comment", "column": "note"},
        ],
    }
}  # fmt: skip
TOLD = [("Yes.", "thumbs", "up"), ("Yes.", "comment", "warm"), ("No.", "thumbs", "down")]


def _csv(folder: Path) -> str:
    lines = [",".join("" if v is None else str(v) for v in row.values()) for row in ROWS]
    (folder / "t.csv").write_text("\n".join([",".join(ROWS[0]), *lines]))
    return str(folder / "t.csv")


def _jsonl(folder: Path) -> str:
    return str(write(folder / "t.jsonl", *ROWS))


def _arrow(folder: Path) -> str:
    table = pa.Table.from_pylist(ROWS)
    with pa.ipc.new_file(str(folder / "t.arrow"), table.schema) as file:
        file.write_table(table)
    return str(folder / "t.arrow")


def _data_set(folder: Path) -> str:
    """A folder as `datasets.Dataset.save_to_disk` writes it: a stream of Arrow and two JSON."""
    (folder / "set").mkdir()
    table = pa.Table.from_pylist(ROWS)
    with pa.ipc.new_stream(str(folder / "set" / "data-00000-of-00001.arrow"), table.schema) as file:
        file.write_table(table)
    (folder / "set" / "state.json").write_text("{}")
    (folder / "set" / "dataset_info.json").write_text("{}")
    return str(folder / "set")


def _database(folder: Path) -> str:
    with sqlite3.connect(folder / "app.db") as connection:
        connection.execute("CREATE TABLE chats (key, asked, told, at, who, rating, note)")
        connection.executemany(
            "INSERT INTO chats VALUES (?, ?, ?, ?, ?, ?, ?)", [tuple(row.values()) for row in ROWS]
        )
    connection.close()
    return f"sqlite:///{folder}/app.db#chats"


@pytest.mark.parametrize("made", [_csv, _jsonl, _arrow, _data_set, _database])
def test_a_table_comes_in_by_its_columns(made: Callable[[Path], str], tmp_path: Path) -> None:
    store = new_store(tmp_path)
    report = bring(made(tmp_path), store, mapping=COLUMNS)
    assert (report.interactions, report.feedback, report.set_aside) == (2, 3, 0)
    assert said(store) == TOLD
    first = answers(store)[0]
    assert (first.prompt, first.user_id, first.model_version) == ("Tea?", "ana", "shop/1")
    assert first.created_at.isoformat() == "2026-11-20T10:00:00+00:00"


def test_the_same_rows_in_two_forms_are_the_same_answers(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    bring(_jsonl(tmp_path), store, mapping=COLUMNS)
    again = bring(_csv(tmp_path), store, mapping=COLUMNS)
    assert (again.interactions, again.feedback, again.repeated) == (0, 0, 5)


def test_a_column_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    columns = {"columns": {"prompt": "asked", "response": "answer"}}
    with pytest.raises(InvalidInputError, match="got answer among asked, at, key"):
        bring(_jsonl(tmp_path), new_store(tmp_path), mapping=columns)


def test_a_table_needs_a_mapping_and_a_database_a_table(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="pass --map FILE"):
        bring(_jsonl(tmp_path), new_store(tmp_path), as_format="table")
    for source, why in (("app.db#nothing", "got no 'nothing'"), ("app.db", "name of a table")):
        _database(tmp_path) if source == "app.db#nothing" else None
        with pytest.raises(InvalidInputError, match=why):
            bring(f"sqlite:///{tmp_path}/{source}", new_store(tmp_path), mapping=COLUMNS)


def test_a_mapping_with_an_unknown_kind_or_field_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "map.yaml"
    path.write_text("scores:\n  tone: smile\n")
    with pytest.raises(InvalidInputError, match="a kind of feedback must be one of"):
        read_map(path)
    path.write_text("columns:\n  response: a\n  answer: b\n")
    with pytest.raises(InvalidInputError, match=r"columns\.answer"):
        read_map(path)


# Following ----------------------------------------------------------------------------------------


def follow(path: Path, store: EventStore, between: list[Callable[[], object]]) -> list[int]:
    """Follow a source through some changes; return the interactions that each look brought."""
    steps = iter(between)

    def wait() -> bool:
        step = next(steps, None)
        if step is not None:
            step()
        return step is not None

    what = prepare(str(path), now=NOW)
    return [
        report.interactions + report.repeated
        for report in follow_source(what, store, None, wait=wait, clock=lambda: NOW)
    ]


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def test_a_log_that_grows_is_read_from_where_the_last_look_ended(tmp_path: Path) -> None:
    path, store = write(tmp_path / "log.jsonl", chat("1"), chat("2")), new_store(tmp_path)
    third = json.dumps(chat("3"))
    brought = follow(
        path,
        store,
        [
            lambda: append(path, third[:20]),  # a line that is still being written
            lambda: append(path, third[20:] + "\n" + json.dumps(chat("4")) + "\n"),
        ],
    )
    assert brought == [2, 2]
    append(path, "nonsense\n" + json.dumps(chat("5")) + "\n")
    assert follow(path, store, []) == [1]  # another program goes on there
    assert [row.position for row in store.set_aside_rows()] == ["line 5"]
    assert len(answers(store)) == 5


def test_a_log_that_was_rotated_is_read_from_its_start(tmp_path: Path) -> None:
    path, store = (
        write(tmp_path / "log.jsonl", *[chat(f"{n}") for n in range(9)]),
        new_store(tmp_path),
    )

    def rotate() -> None:
        path.rename(tmp_path / "log.1")
        write(path, *[chat(f"new {n}") for n in range(12)])

    assert follow(path, store, [rotate]) == [9, 12]


def test_a_folder_that_gets_files_is_followed(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "a.json", [chat("1")])
    store = new_store(tmp_path)
    steps: list[Callable[[], object]] = [
        lambda: None,
        lambda: write(tmp_path / "in" / "b.json", [chat("2"), chat("3")]),
    ]
    assert follow(tmp_path / "in", store, steps) == [1, 2]
