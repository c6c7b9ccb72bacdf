"""Every command that takes a file of rows reads the forms that other programs write."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from typer.testing import CliRunner

from ratchet.cli import app
from ratchet.collect.messages import read_messages, read_queues
from ratchet.evaluation.example_files import read_examples
from ratchet.improve.curation.config import read_demonstrations, read_judged
from ratchet.judges.label_sheet import read_sheet, write_sheet
from ratchet.judges.on_files import read_items
from ratchet.judges.prompts import Item
from ratchet.records import Message
from ratchet.store import EventStore
from tests.collect.test_messages import NOW

Rows = list[dict[str, Any]]


def table(rows: Rows, delimiter: str = ",") -> str:
    """A table as a spreadsheet writes it; what is no single value is JSON."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    written = io.StringIO(newline="")
    writer = csv.DictWriter(written, names, delimiter=delimiter)
    writer.writeheader()
    for row in rows:
        plain = {
            name: json.dumps(v) if isinstance(v, list | dict) else v for name, v in row.items()
        }
        writer.writerow(plain)
    return written.getvalue()


def parquet(rows: Rows) -> bytes:
    names = list(dict.fromkeys(name for row in rows for name in row))
    file = io.BytesIO()
    columns = {name: [row.get(name) for row in rows] for name in names}
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


def lines(rows: Rows) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


PLAIN = "rows.jsonl"
FORMS: dict[str, Callable[[Rows], bytes]] = {
    PLAIN: lambda rows: lines(rows).encode(),
    "semicolons.csv": lambda rows: table(rows, ";").encode("utf-8-sig"),
    "named separator.csv": lambda rows: b"sep=|\r\n" + table(rows, "|").encode(),
    "utf-16.csv": lambda rows: table(rows, "\t").encode("utf-16"),
    "utf-16.jsonl": lambda rows: lines(rows).encode("utf-16"),
    "packed.csv.gz": lambda rows: gzip.compress(table(rows).encode()),
    "packed.jsonl.gz": lambda rows: gzip.compress(lines(rows).encode()),
    "array.json": lambda rows: json.dumps(rows, indent=2).encode(),
    "table.parquet": parquet,
}
FOREIGN = [name for name in FORMS if name != PLAIN]
NESTED = [name for name in FOREIGN if ".csv" not in name]


def written(folder: Path, rows: Rows, form: str) -> Path:
    path = folder / form
    path.write_bytes(FORMS[form](rows))
    return path


@pytest.fixture
def ratchet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Result:
        done = CliRunner().invoke(app, list(map(str, arguments)))
        assert done.exception is None or isinstance(done.exception, SystemExit), done.output
        return done

    return run


def stored(tmp_path: Path) -> dict[str, int]:
    store = EventStore.open(f"sqlite:///{tmp_path / 'home' / 'store.db'}")
    counts = store.counts()
    store.close()
    return {name: count for name, count in counts.items() if count}


# Commands -----------------------------------------------------------------------------------------


def failing(count: int = 300) -> Rows:
    rng = np.random.default_rng(0)
    topics = ["my card was stolen abroad", "schönes Wetter; heute, oder", "where is | my parcel"]
    return [
        {
            "text": f"{topics[n % 3]} {n % 40}",
            "failed": bool(rng.random() < (0.6 if n % 3 == 0 else 0.05)),
            "user": f"u{n % 100}",
        }
        for n in range(count)
    ]


@pytest.mark.parametrize("form", FOREIGN)
def test_failures_says_the_same_of_every_form(
    ratchet: Callable[..., Result], tmp_path: Path, form: str
) -> None:
    said = [
        ratchet("failures", written(tmp_path, failing(), name), "--json", "--embedding", "words")
        for name in (PLAIN, form)
    ]
    assert said[0].stdout == said[1].stdout
    assert json.loads(said[1].stdout)["set_aside"]["count"] == 0
    assert json.loads(said[1].stdout)["clusters"]


FEEDBACK: Rows = [
    {"id": "f1", "interaction_id": "i", "created_at": "2026-01-05T07:00:00Z", "kind": "comment",
     "value": "5; zu spät"},
    {"id": "f2", "interaction_id": "i", "created_at": "2026-01-05T07:00:00Z", "kind": "thumbs",
     "value": "up"},
    {"id": "f3", "interaction_id": "i", "created_at": "2026-01-05T07:00:00Z", "kind": "comment",
     "value": "5", "user_id": "u"},
]  # fmt: skip
QUESTIONS: Rows = [
    {"id": f"i{n}", "session_id": "s", "user_id": "u", "created_at": "2026-01-05T07:00:00Z",
     "model_version": "m/1", "messages": [{"role": "user", "content": f"Wo, {n}?"}],
     "response": "da; dort"}
    for n in range(3)
]  # fmt: skip


@pytest.mark.parametrize("form", FOREIGN)
@pytest.mark.parametrize("events", [FEEDBACK, QUESTIONS])
def test_ingest_stores_every_form(
    ratchet: Callable[..., Result], tmp_path: Path, form: str, events: Rows
) -> None:
    done = ratchet("ingest", written(tmp_path, events, PLAIN))
    assert "0 were there before, 0 rows set aside" in done.stdout
    before = stored(tmp_path)
    done = ratchet("ingest", written(tmp_path, events, form))
    assert "3 were there before, 0 rows set aside" in done.stdout
    assert stored(tmp_path) == before


def test_numbers_and_truth_in_csv_are_the_values_that_feedback_has(
    ratchet: Callable[..., Result], tmp_path: Path
) -> None:
    head = "kind;id;interaction_id;created_at;value\n"
    (tmp_path / "f.csv").write_text(
        head
        + "stars;a;i;2026-01-05T07:00:00Z;4\n"
        + "copy;b;i;2026-01-05T07:00:00Z;TRUE\n"
        + "session_end;c;i;2026-01-05T07:00:00Z;12.5\n"
        + "correction;d;i;2026-01-05T07:00:00Z;42\n"
        + "stars;e;i;2026-01-05T07:00:00Z;many\n"
    )
    done = ratchet("ingest", tmp_path / "f.csv")
    assert "4 pieces of feedback stored" in done.stdout
    assert "1 × line 6: value: Input should be a valid integer, got 'many'; correct" in done.stdout


TURNS = [
    {"sender": "participant2", "text": "hi", "sender_class": "Human"},
    {"sender": "participant1", "text": "hello", "sender_class": "Bot", "evaluation_score": 1},
]
DIALOGUES: Rows = [
    {
        "dialog_id": f"d{n}",
        "participant1_id": {"class": "Bot", "user_id": "Bot 1"},
        "participant2_id": {"class": "User", "user_id": f"User {n}"},
        "dialog": TURNS,
        "start_time": 1541246400 + n,
        "end_time": 1541246460 + n,
    }
    for n in range(3)
]


@pytest.mark.parametrize("form", NESTED)
def test_a_log_of_dialogues_is_stored_in_every_form(
    ratchet: Callable[..., Result], tmp_path: Path, form: str
) -> None:
    done = ratchet("ingest", written(tmp_path, DIALOGUES, form), "--dialogues")
    assert "3 interactions and 6 pieces of feedback stored" in done.stdout
    assert "0 rows set aside" in done.stdout


SCORES: Rows = [
    {"example_id": f"e{n}", "metric": "exact_match", "champion": n % 2, "challenger": (n + 1) % 3,
     "champion_output": f"a, {n}; b", "challenger_output": f"c\n{n}"}
    for n in range(120)
]  # fmt: skip


@pytest.mark.parametrize("form", FOREIGN)
def test_the_gate_decides_the_same_on_every_form(
    ratchet: Callable[..., Result], tmp_path: Path, form: str
) -> None:
    said = [
        ratchet("gate", "--scores", written(tmp_path, SCORES, name), "--json")
        for name in (PLAIN, form)
    ]
    assert said[0].stdout == said[1].stdout
    assert said[1].exit_code == said[0].exit_code
    assert json.loads(said[1].stdout)


LABELS: Rows = [
    {"item_id": f"i{n}", "human": "yes" if n % 2 else "no", "judge": "yes" if n % 5 else "no"}
    for n in range(60)
]


@pytest.mark.parametrize("form", FOREIGN)
def test_a_validation_says_the_same_of_every_form(
    ratchet: Callable[..., Result], tmp_path: Path, form: str
) -> None:
    said = [
        ratchet("judge", "validate", written(tmp_path, LABELS, name), "--json")
        for name in (PLAIN, form)
    ]
    assert said[0].stdout == said[1].stdout
    assert json.loads(said[1].stdout)["set_aside"] == []


PEOPLE: Rows = [
    {"item_id": f"i{n}", "dimension": "helpfulness", "label": n % 5 + 1, "reviewer": "ann"}
    for n in range(4)
]


@pytest.mark.parametrize("form", FOREIGN)
def test_labels_of_people_are_stored_from_every_form(
    ratchet: Callable[..., Result], tmp_path: Path, form: str
) -> None:
    assert "4 labels stored" in ratchet("judge", "label", written(tmp_path, PEOPLE, PLAIN)).stdout
    done = ratchet("judge", "label", written(tmp_path, PEOPLE, form))
    assert "0 labels stored, 4 were there before" in done.stdout


# Readers whose commands start a model or servers ------------------------------------------------

READERS: dict[str, tuple[Callable[[Path], Any], Rows]] = {
    "messages": (
        lambda path: read_messages(path, now=NOW).messages,
        [{"text": f"Wo, ist; {n}?", "label": "cards" if n % 2 else "money"} for n in range(6)],
    ),
    "queues": (read_queues, [{"label": f"l{n}", "queue": "a" if n % 2 else "b"} for n in range(4)]),
    "examples": (
        read_examples,
        [{"id": f"e{n}", "prompt": "wo?", "target": "da, dort", "cluster": "c"} for n in range(3)]
        + [{"id": "m", "messages": [{"role": "user", "content": "x"}], "target": "y"}],
    ),
    "items": (
        lambda path: read_items(path)[0],
        [{"item_id": f"i{n}", "prompt": "q?", "answer": "a; b", "human": n % 2} for n in range(3)]
        + [{"item_id": "m", "messages": [{"role": "user", "content": "x"}], "answer": "y"}],
    ),
    "demonstrations": (
        read_demonstrations,
        [{"id": "d", "messages": [{"role": "user", "content": "q"}], "target": "t; u"}],
    ),
    "preferences": (
        read_judged,
        [{"first_id": "a", "second_id": "b", "given": "first", "swapped": None},
         {"first_id": "a", "second_id": "c", "given": "tie", "swapped": "tie"}],
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", FOREIGN)
@pytest.mark.parametrize("reader", READERS)
def test_every_reader_reads_the_same_from_every_form(
    tmp_path: Path, reader: str, form: str
) -> None:
    read, rows = READERS[reader]
    expected = read(written(tmp_path, rows, PLAIN))
    assert len(expected) == len(rows)
    assert read(written(tmp_path, rows, form)) == expected


@pytest.mark.parametrize("form", FOREIGN)
def test_a_sheet_that_a_spreadsheet_saved_is_read(tmp_path: Path, form: str) -> None:
    asked = (Message(role="user", content="Who?"),)
    pairs = [Item(f"e{n}", asked, f"one {n}", f"two; {n}") for n in range(20)]
    write_sheet(tmp_path / "sheet.csv", pairs, [pair.id for pair in pairs])
    with (tmp_path / "sheet.csv").open(encoding="utf-8", newline="") as file:
        rows = [row | {"winner": "A"} for row in csv.DictReader(file)]
    read = read_sheet(written(tmp_path, rows, form), pairs)
    assert (len(read.winners), read.open, read.set_aside) == (20, 0, ())


# What was lost, and is told now ------------------------------------------------------------------


def test_two_columns_of_one_name_are_refused_and_named(
    ratchet: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "f.csv").write_text("failed,text,Failed\n" + "0,a,1\n" * 30)
    done = CliRunner().invoke(app, ["failures", str(tmp_path / "f.csv"), "--embedding", "words"])
    assert done.exit_code != 0
    assert "got 'failed' as column 1 and 'Failed' as column 3 of f.csv" in str(done.exception)


def test_a_quote_that_is_never_closed_loses_one_row_of_six_hundred_and_is_told(
    ratchet: Callable[..., Result], tmp_path: Path
) -> None:
    text = table(failing(600)).splitlines()
    text[400] = '"' + text[400].replace('"', "")
    (tmp_path / "f.csv").write_text("\n".join(text), "utf-8")
    done = ratchet("failures", tmp_path / "f.csv", "--embedding", "words")
    assert "of 599 rows failed, 1 row set aside" in done.stdout
    assert "set aside, line 401: a row must be CSV, got a double quote" in done.output


def test_every_reason_of_a_file_is_shown_with_its_line_and_the_way_out(
    ratchet: Callable[..., Result], tmp_path: Path
) -> None:
    good = QUESTIONS[0]
    bad: Rows = [{**good, name: {}} for name in good if name != "messages"]
    bad += [{**good, "colour": 1}, {"id": "x"}, {**FEEDBACK[1], "value": 7}]
    path = tmp_path / "bad.jsonl"
    path.write_text(lines(bad) + "no json\n\n" + lines(QUESTIONS) + lines(bad[:1]))
    done = ratchet("ingest", path)
    assert "3 interactions and 0 pieces of feedback stored" in done.stdout
    assert f"{len(bad) + 2} rows set aside" in done.stdout
    shown = [line for line in done.stdout.splitlines() if " × " in line]
    assert "`ratchet set-aside` lists every row that was set aside" in done.stdout.splitlines()
    assert len(shown) == len(bad) + 1  # one of them twice
    assert shown[0].strip().startswith("2 × line 1: id: ")
    for number in range(2, len(bad) + 2):
        (line,) = [line for line in shown if f"× line {number}: " in line]
        assert ", got " in line
        assert "; " in line


def test_every_reason_is_shown_however_many_there_are(
    ratchet: Callable[..., Result], tmp_path: Path
) -> None:
    bad = [{**QUESTIONS[0], f"extra_{n}": 1} for n in range(30)]
    path = tmp_path / "bad.jsonl"
    path.write_text(lines(bad) + lines(QUESTIONS))
    shown = ratchet("ingest", path).stdout.splitlines()
    assert len([line for line in shown if " × " in line]) == 30


def test_what_is_odd_in_a_log_of_dialogues_is_told_with_the_line_of_the_file(
    ratchet: Callable[..., Result], tmp_path: Path
) -> None:
    odd: Rows = [
        DIALOGUES[0] | {"start_time": 1541246400123, "end_time": 1541246460123},
        DIALOGUES[1] | {"eval_score": "three"},
        DIALOGUES[2] | {"dialog": [TURNS[0], TURNS[1] | {"evaluation_score": "7"}]},
        DIALOGUES[2] | {"dialog_id": "e", "dialog": [TURNS[0], TURNS[1] | {"text": None}]},
    ]
    path = tmp_path / "log.jsonl"
    path.write_text("\n" + lines(odd))
    done = ratchet("ingest", path, "--dialogues")
    for said in (
        "1 × line 3: value: Input should be a valid integer, got 'three'",
        "1 × line 4, message 1: value: Input should be 'up' or 'down', got '7'",
        "1 × line 5, message 1: response: Field required, got nothing",
    ):
        assert said in done.stdout
    assert "3 interactions and" in done.stdout
