"""`ratchet export`, and the way back: `ratchet ingest` and `ratchet review --sheet`."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ratchet.judges.pair_labels import sheet_of
from ratchet.judges.win_rate import pairs_of
from ratchet.records import (
    Approval,
    Cycle,
    Decision,
    Example,
    ExampleSet,
    HumanLabel,
    Message,
    Release,
)
from ratchet.review.queue import open_items, queue_flags
from ratchet.safety.rules import Flag
from ratchet.store import EventStore
from tests.cli.in_process import run_in_process
from tests.export.stores import MORNING, NOW, turn

Ratchet = Callable[..., subprocess.CompletedProcess[str]]
HOUR = timedelta(hours=1)
EXAMPLES = tuple(
    Example(id=f"e{n}", messages=(Message(role="user", content=f"Question {n}?"),), target="x")
    for n in range(60)
)
SET = ExampleSet.freeze("golden", EXAMPLES, NOW)


@pytest.fixture
def ratchet(tmp_path: Path) -> Ratchet:
    def run(*words: object, home: str = "home") -> subprocess.CompletedProcess[str]:
        environment = {
            "RATCHET_HOME": str(tmp_path / home),
            "RATCHET_STORE_URL": f"sqlite:///{tmp_path}/shared/store.db",
            "USER": "ana",
        }
        return run_in_process(*words, folder=tmp_path, environment=environment)

    return run


@pytest.fixture
def store(tmp_path: Path) -> EventStore:
    store = EventStore.open(f"sqlite:///{tmp_path}/shared/store.db")
    store.add_interactions([turn(number) for number in range(6)])
    return store


def compared(store: EventStore) -> list[Any]:
    """Let two models' answers wait for people, as the flow deploy does."""
    champion = {example.id: f"champion says {example.id}" for example in EXAMPLES}
    challenger = {key: f"=challenger says {key}" for key in champion}
    pairs = pairs_of(EXAMPLES, champion, challenger)
    store.append(SET)
    store.append(
        Cycle(
            id="cycle-7", number=7, created_at=NOW, champion="m/1", options_digest="d", seed=0,
            window_start=MORNING, window_end=NOW, example_set_id=SET.id,
        )
    )  # fmt: skip
    sheet_of(store, pairs, 40, wanted=30, cycle_id="cycle-7", example_set_id=SET.id, now=NOW)
    return pairs


def filled(path: Path, choose: Callable[[dict[str, str]], dict[str, str]]) -> list[dict[str, str]]:
    """Fill a sheet in as a spreadsheet saves it: with semicolons."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=";")
        writer.writeheader()
        writer.writerows(row | choose(row) for row in rows)
    return rows


def test_a_sheet_is_written_on_any_machine_and_what_people_say_is_found_by_the_gate(
    store: EventStore, tmp_path: Path, ratchet: Ratchet
) -> None:
    pairs = compared(store)
    listed = ratchet("review", home="laptop").stdout
    assert "30 pairs of answers to be compared, 0 compared so far: write the sheet" in listed
    done = ratchet("export", "label-sheet", "--out", "sheet.csv", home="laptop")
    assert done.returncode == 0, done.stderr
    assert "label-sheet: 40 pairs written as csv to sheet.csv" in done.stdout
    rows = filled(
        tmp_path / "sheet.csv",
        lambda row: {"winner": "a" if "challenger" in row["answer_a"] else "b"},
    )
    assert not any("m/1" in cell for row in rows for cell in row.values())
    assert not any(cell.startswith("=") for row in rows for cell in row.values())
    back = ratchet("review", "--sheet", "sheet.csv", "--by", "ben", home="laptop")
    assert back.returncode == 0, back.stderr
    assert "40 labels stored, 0 were there before, 0 rows open, 0 set aside" in back.stdout
    assert "compared: 40 pairs, 30 needed; the gate can decide" in back.stdout
    sheet = sheet_of(
        store, pairs, 40, wanted=30, cycle_id="cycle-7", example_set_id=SET.id, now=NOW
    )
    assert set(sheet.read(pairs, minimum=30).winners.values()) == {"1"}
    nothing = ratchet("export", "label-sheet", "--out", "again.csv")
    assert nothing.returncode == 2
    assert "got nothing; pairs of answers wait once" in nothing.stderr
    assert ratchet("export", "label-sheet", "--cycle", "7", "--out", "7.csv").returncode == 0
    labels = ratchet("export", "labels")
    said = [json.loads(line) for line in labels.stdout.splitlines()]
    assert {(one["source"], one["label"], one["reviewer"]) for one in said} == {
        ("pair", "challenger", "ben")
    }


def test_a_sheet_is_never_written_over_and_a_wrong_name_is_told(
    store: EventStore, tmp_path: Path, ratchet: Ratchet
) -> None:
    compared(store)
    ratchet("export", "label-sheet", "--out", "sheet.csv")
    before = (tmp_path / "sheet.csv").read_bytes()
    again = ratchet("export", "label-sheet", "--out", "sheet.csv")
    assert (again.returncode, (tmp_path / "sheet.csv").read_bytes()) == (2, before)
    assert "--out must be new here, got 'sheet.csv'" in again.stderr
    for words, said in (
        (("--cycle", "8"), "--cycle must name one, got '8', which names 0"),
        (("--decision", "3f9a"), "--decision must name one, got '3f9a'"),
        (("--of", "items", "--cycle", "7"), "are of no cycle"),
        (("--of", "items"), "a sheet needs something that waits for people"),
    ):
        refused = ratchet("export", "label-sheet", "--out", "other.csv", *words)
        assert refused.returncode == 2
        assert said in refused.stderr
    empty = ratchet("review", "--sheet", "sheet.csv", "--label", "fine")
    assert "a sheet holds its own labels" in empty.stderr
    assert not (tmp_path / "other.csv").exists()


def test_the_review_queue_goes_out_on_a_sheet_and_comes_back_decided(
    store: EventStore, tmp_path: Path, ratchet: Ratchet
) -> None:
    queue_flags(store, [Flag("rule", f"i000{n}", "word", "it names a drug") for n in range(4)],
                now=NOW)  # fmt: skip
    done = ratchet("export", "label-sheet", "--out", "queue.csv", "--most", 3)
    assert "label-sheet: 3 items written as csv" in done.stdout
    filled(tmp_path / "queue.csv", lambda row: {"label": "fine", "note": "read it"})
    back = ratchet("review", "--sheet", "queue.csv", "--json")
    assert json.loads(back.stdout) == {"new": 3, "repeated": 0, "open": 0, "set_aside": []}
    assert len(open_items(store)) == 1
    sheet = (tmp_path / "queue.csv").read_text(encoding="utf-8-sig")
    for item in {line.partition(";")[0] for line in sheet.splitlines()[1:]}:
        sheet = sheet.replace(item, "gone")
    (tmp_path / "queue.csv").write_text(sheet, encoding="utf-8-sig")
    refused = ratchet("review", "--sheet", "queue.csv")
    assert refused.returncode == 2
    assert "got 3 rows and none can" in refused.stderr
    said = [json.loads(line) for line in ratchet("export", "labels").stdout.splitlines()]
    assert {(one["source"], one["dimension"], one["label"], one["note"]) for one in said} == {
        ("review", "harmlessness", "fine", "read it")
    }


def decision(number: int, **changes: Any) -> Decision:
    values: dict[str, Any] = {
        "id": f"d{number}", "cycle_id": f"c{number}", "created_at": MORNING + number * HOUR,
        "champion": "m/1", "challenger": f"m/{number + 2}", "verdict": "promote",
        "reasons": ("exact_match is better",), "primary_metric": "exact_match",
        "champion_value": 0.25, "challenger_value": 0.5, "difference": 0.25,
        "interval": (0.125, 0.375), "p_value": 0.01, "examples": 100, "example_set_id": SET.id,
        "policy": {"primary": {"metric": "exact_match"}}, "evidence": {"discordant": 12.0},
    }  # fmt: skip
    return Decision(**(values | changes))


def test_decisions_have_their_evidence_and_what_became_of_them(
    store: EventStore, tmp_path: Path, ratchet: Ratchet
) -> None:
    for number in range(3):
        store.append(decision(number))
    store.append(
        Approval(id="d1", created_at=NOW, challenger="m/3", approved=False, by="ana", reason="no")
    )
    store.append(
        Release(id="r", created_at=NOW, action="promote", champion="m/2", previous="m/1",
                decision_id="d0")
    )  # fmt: skip
    rows = [json.loads(line) for line in ratchet("export", "decisions").stdout.splitlines()]
    assert [row["id"] for row in rows] == ["d0", "d1", "d2"]
    assert rows[0]["evidence"] == {"discordant": 12.0}
    assert rows[0]["reasons"] == ["exact_match is better"]
    assert (rows[0]["lower"], rows[0]["upper"], rows[0]["p_value"]) == (0.125, 0.375, 0.01)
    assert rows[0]["released_at"] == "2026-12-01T00:00:00Z"
    assert (rows[1]["approved"], rows[1]["approved_by"]) == (False, "ana")
    assert rows[2]["approved"] is rows[2]["released_at"] is None
    chosen = ratchet("export", "decisions", "--model-version", "m/3", "--since", "2026-03-01")
    assert [json.loads(line)["id"] for line in chosen.stdout.splitlines()] == ["d1"]
    table = ratchet("export", "decisions", "--out", "d.parquet", "--json")
    assert json.loads(table.stdout)["rows"] == {"decisions": 3}


def test_labels_of_answers_are_exported_with_their_notes_redacted_where_asked(
    store: EventStore, ratchet: Ratchet
) -> None:
    store.append(
        HumanLabel(id="l", created_at=NOW, item_id="i0001", dimension="helpfulness", label="4",
                   reviewer="eva", note="ask ann@example.com")
    )  # fmt: skip
    (row,) = map(json.loads, ratchet("export", "labels").stdout.splitlines())
    assert (row["interaction_id"], row["label"], row["note"]) == (
        "i0001",
        "4",
        "ask ann@example.com",
    )
    (row,) = map(json.loads, ratchet("export", "labels", "--redact").stdout.splitlines())
    assert row["note"] == "ask <EMAIL_ADDRESS>"
    assert ratchet("export", "labels", "--until", "2026-11-30").stdout == ""


def test_an_exported_label_says_whether_it_is_of_an_answer_or_of_a_session(
    store: EventStore, ratchet: Ratchet
) -> None:
    for unit in ("answer", "session"):
        store.append(
            HumanLabel(id=unit, created_at=NOW, item_id="i0001", dimension="task_done",
                       label="yes", reviewer="eva", unit=unit)
        )  # fmt: skip
    rows = map(json.loads, ratchet("export", "labels").stdout.splitlines())
    assert {row["id"]: row["unit"] for row in rows} == {"answer": "answer", "session": "session"}


def test_rows_on_standard_output_come_with_the_summary_beside_them(
    store: EventStore, tmp_path: Path, ratchet: Ratchet
) -> None:
    done = ratchet("export", "interactions", "--json")
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == [
        f"i{number:04}" for number in range(6)
    ]
    assert json.loads(done.stderr)["rows"] == {"interactions": 6}
    refused = ratchet(
        "export",
        "interactions",
        home="h",
    )
    assert refused.returncode == 0
    wrong = ratchet("export", "interactions", "--format", "openai")
    assert wrong.returncode == 2
    assert "interactions can be written as jsonl, parquet, hf, got 'openai'" in wrong.stderr


def test_without_a_store_it_is_told_where_to_run(tmp_path: Path, ratchet: Ratchet) -> None:
    refused = ratchet("export", "feedback")
    assert refused.returncode == 2
    assert "an export needs a home folder with a store" in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_whoever_reads_only_the_first_lines_gets_them_and_no_error(
    store: EventStore, tmp_path: Path
) -> None:
    long = "x" * 3_000
    store.add_interactions([turn(number, response=long) for number in range(100, 400)])
    code = (
        f"{sys.executable} -m ratchet.cli export interactions | head -n 1; echo ${{PIPESTATUS[0]}}"
    )
    done = subprocess.run(
        ["bash", "-c", code], capture_output=True, text=True, timeout=120, check=True,
        env={
            "PATH": "/usr/bin:/bin", "RATCHET_HOME": str(tmp_path / "home"),
            "RATCHET_STORE_URL": f"sqlite:///{tmp_path}/shared/store.db",
            "PYTHONPATH": ":".join(sys.path),
        },
    )  # fmt: skip
    first, code_of_it = done.stdout.splitlines()
    assert json.loads(first)["id"] == "i0000"
    assert (code_of_it, "Traceback" in done.stderr) == ("0", False)
