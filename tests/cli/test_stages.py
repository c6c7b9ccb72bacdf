"""The stage commands of the loop: what a dry run says, and that it changes nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ratchet.errors import WaitingError
from ratchet.improve.curation.dataset import ROWS_FILE, parquet_schema
from ratchet.improve.curation.rows import TrainingRow, learnt_digest
from ratchet.improve.training.news import Planned, await_news
from ratchet.operate.stage_plans import analyze_plan, gate_plan, train_plan
from ratchet.records import (
    Candidate,
    Cycle,
    Example,
    Interaction,
    Message,
    Thumbs,
    TrainingSet,
)
from ratchet.store import EventStore
from ratchet.store.cycles import freeze_examples, open_cycle
from tests.cli.in_process import run_in_process

NOW = datetime.now(UTC)
HOME = Path("no-such-home")


def run(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    environment = {"RATCHET_HOME": str(folder / "home"), "RATCHET_CACHE": str(folder / "cache")}
    return run_in_process(*words, folder=folder, environment=environment)


def answer(number: int) -> Interaction:
    return Interaction(
        id=f"i{number}", session_id=f"s{number}", user_id=f"u{number}", response="cards",
        created_at=NOW - timedelta(hours=2), model_version="support-router/1",
        messages=(Message(role="user", content="Where is my card?"),),
    )  # fmt: skip


@pytest.fixture
def home(tmp_path: Path, made_store: Path) -> Path:
    """A home with three answers, of which one was liked."""
    (tmp_path / "home").mkdir(mode=0o700)
    shutil.copyfile(made_store, tmp_path / "home" / "store.db")
    with closing(EventStore.open(f"sqlite:///{tmp_path / 'home' / 'store.db'}")) as store:
        store.add_interactions([answer(number) for number in range(3)])
        store.add_feedback([Thumbs(id="t", interaction_id="i0", created_at=NOW, value="up")])
    return tmp_path


@pytest.mark.parametrize("stage", ["collect", "analyze", "train", "gate --candidate"])
def test_in_a_new_home_a_dry_run_says_how_answers_come_in_and_makes_nothing(
    tmp_path: Path, stage: str
) -> None:
    done = run(tmp_path, *stage.split(), "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "nothing is stored yet: `ratchet serve`" in done.stdout
    assert not (tmp_path / "home").exists()


def test_collect_counts_what_no_cycle_had_and_what_it_waits_for(home: Path) -> None:
    done = run(home, "collect", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "cycle 1 would be about what no cycle had: 3 answers and 1 piece of feedback" in (
        done.stdout
    )
    assert "they need 500 answers at least, got 3" in done.stdout
    with closing(EventStore.open(f"sqlite:///{home / 'home' / 'store.db'}")) as store:
        assert store.records(Cycle) == ()


def test_collect_shows_what_its_sources_hold_and_stores_nothing(home: Path) -> None:
    from tests.doors.bringing import GOLDEN

    (home / "o.yaml").write_text(f"sources: [{{source: {GOLDEN / 'langfuse'}}}]\n", "utf-8")
    done = run(home, "collect", "--dry-run", "--options", "o.yaml")
    assert done.returncode == 0, done.stderr
    assert "(langfuse): " in done.stdout
    with closing(EventStore.open(f"sqlite:///{home / 'home' / 'store.db'}")) as store:
        assert store.counts()["interactions"] == 3


def test_a_wrong_option_is_refused(home: Path) -> None:
    (home / "o.yaml").write_text("sourcez: []\n", "utf-8")
    done = run(home, "collect", "--dry-run", "--options", "o.yaml")
    assert (done.returncode, "sourcez" in done.stderr) == (2, True)


def test_analyze_names_each_versions_board_and_the_cycle(store: EventStore) -> None:
    store.add_interactions([answer(1)])
    board, cycle = analyze_plan(store, NOW)
    assert "support-router/1: none yet" in board
    assert "no cycle yet" in cycle
    opened(store)
    assert "cycle 1: 1 answer and 0 pieces of feedback" in analyze_plan(store, NOW)[-1]


def opened(store: EventStore) -> Cycle:
    return open_cycle(
        store, champion="support-router/1", options_digest="o", seed=0, example_set_id="e",
        now=NOW,
    )  # fmt: skip


def trained(store: EventStore, *, cycle_id: str, learnt: str = "") -> None:
    """Store a candidate of three steps of two seconds each, and what it learnt from."""
    rows = TrainingSet(
        id=f"set-{cycle_id}", cycle_id=cycle_id, created_at=NOW, digest="d" * 64, path="datasets/d",
        size=40, funnel=(("answers", 40),), learnt=learnt,
    )  # fmt: skip
    store.append(rows)
    store.append(
        Candidate(
            id=f"candidate-{cycle_id}", cycle_id=cycle_id, created_at=NOW, version="2",
            model_name="support-router", adapter_digest="a", path=f"adapters/{'k' * 16}",
            training_set_id=rows.id, run_id="r", losses=(3.0, 2.0, 1.0), training_seconds=6.0,
        )
    )  # fmt: skip


def test_the_steps_of_a_training_and_its_time_are_worked_out(store: EventStore) -> None:
    steps, unknown = train_plan(store, HOME, plan("e", 41), "sft", 2.0, 8)
    assert "41 rows × 2 epochs / 8 a step = 12 steps" in steps  # ceil(41 / 8) = 6, twice
    assert "not known" in unknown
    trained(store, cycle_id="before")
    _, time = train_plan(store, HOME, plan("e", 41), "sft", 2.0, 8)
    assert "12 steps × 2.0 s" in time  # 6 s for 3 steps
    assert "0.4 minutes" in time
    assert "not known" in train_plan(store, HOME, plan("e", 41), "kto", 2.0, 8)[1]
    (nothing,) = train_plan(store, HOME, plan("d", 40), "sft", 2.0, 8)
    assert "nothing new to learn: support-router/2 was trained on the same 40 rows" in nothing


def plan(rows: str, size: int = 40, *, learnt: str = "") -> Planned:
    return Planned(size, rows * 64, learnt)


def key_of(rows: str) -> str:
    """The training of the rows that `trained` stores is `kkkk...`, any other another one."""
    return ("k" if rows in ("d" * 64, "same") else rows) * 64


def test_the_same_rows_are_not_learnt_twice(store: EventStore) -> None:
    store.add_interactions([answer(1)])
    cycle = opened(store)
    trained(store, cycle_id="before")
    with pytest.raises(WaitingError, match="nothing new to learn") as told:
        await_news(store, HOME, cycle, plan("d"), key_of)
    assert told.value.what == "feedback"
    promoted = cycle.model_copy(update={"champion": "support-router/2"})
    with pytest.raises(WaitingError, match="nothing new to learn"):
        await_news(store, HOME, promoted, plan("d"), lambda rows: "n" * 64)
    await_news(store, HOME, cycle, plan("d"), lambda rows: "n" * 64)  # another configuration
    await_news(store, HOME, cycle, plan("f"), key_of)
    goes_on = cycle.model_copy(update={"id": "before"})
    await_news(store, HOME, goes_on, plan("d"), key_of)


def test_rows_whose_weights_alone_changed_are_the_same_rows(store: EventStore) -> None:
    store.add_interactions([answer(1)])
    cycle = opened(store)
    trained(store, cycle_id="before", learnt="same")
    with pytest.raises(WaitingError, match="trained on the same 40 rows"):
        await_news(store, HOME, cycle, plan("f", learnt="same"), key_of)
    await_news(store, HOME, cycle, plan("f", learnt="other"), key_of)
    (nothing,) = train_plan(store, HOME, plan("f", learnt="same"), "sft", 2.0, 8)
    assert "nothing new to learn" in nothing


def test_of_a_set_of_before_the_rows_on_disk_tell_what_was_learnt(
    store: EventStore, tmp_path: Path
) -> None:
    store.add_interactions([answer(1)])
    cycle = opened(store)
    trained(store, cycle_id="before")  # named after the digest of its whole set
    asked = (Message(role="user", content="Where is my parcel?"),)
    row = TrainingRow("i", asked, "delivery", "correction", weight=1.0)
    schema = parquet_schema("sft")
    (tmp_path / "datasets" / "d").mkdir(parents=True)
    pq.write_table(
        pa.Table.from_pylist([row.canonical()], schema), tmp_path / "datasets" / "d" / ROWS_FILE
    )
    heavier = plan("f", learnt=learnt_digest([replace(row, weight=2.0)], []))
    with pytest.raises(WaitingError, match="nothing new to learn"):
        await_news(store, tmp_path, cycle, heavier, key_of)
    other = plan("f", learnt=learnt_digest([replace(row, target="refunds")], []))
    await_news(store, tmp_path, cycle, other, key_of)


def test_a_dry_run_of_the_gate_says_what_it_would_compare(store: EventStore) -> None:
    assert gate_plan(store, None, None) == ["no cycle yet: `ratchet collect` opens one"]
    store.add_interactions([answer(1)])
    asked = (Message(role="user", content="Where is my card?"),)
    examples = [Example(id=f"e{n}", messages=asked, target="cards") for n in range(30)]
    frozen = freeze_examples(store, "held-out", examples, NOW)
    cycle = open_cycle(
        store, champion="support-router/1", options_digest="o", seed=0, example_set_id=frozen.id,
        now=NOW,
    )  # fmt: skip
    assert gate_plan(store, None, None) == [
        "no candidate of cycle 1 yet: `ratchet train` makes one"
    ]
    trained(store, cycle_id=cycle.id)
    (line,) = gate_plan(store, None, "always")
    assert line.startswith("support-router/2 against support-router/1 on 30 examples")
    assert line.endswith("on exact_match first; a person approves: always")


@pytest.mark.parametrize(
    "words",
    [("--dry-run",), ("--candidate", "--scores", "s.csv"), ("--options", "o.yaml")],
)
def test_what_is_for_the_candidate_alone_is_refused_without_it(
    home: Path, words: tuple[str, ...]
) -> None:
    done = run(home, "gate", *words)
    assert (done.returncode, "are for --candidate" in done.stderr) == (2, True)


def test_a_dry_run_of_a_look_shows_how_the_rollout_stands(home: Path) -> None:
    done = run(home, "rollout", "look", "--dry-run")
    assert done.stdout.splitlines() == [
        "nothing was rolled out yet", "nothing was changed; next: ratchet rollout look"
    ]  # fmt: skip


def test_a_dry_run_on_a_data_set_says_what_is_trained_on_asked_and_set_aside(
    tmp_path: Path,
) -> None:
    rows = [
        {"prompt": f"Where is box {n * n * 7919}?", "completion": f"shelf {n}"} for n in range(60)
    ]
    path = tmp_path / "rows.jsonl"
    lines = [json.dumps(row) for row in rows] + ['{"prompt": "alone"}']
    path.write_text("\n".join(lines), "utf-8")
    done = run(tmp_path, "train", "--dataset", path, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "rows.jsonl: 61 rows for sft" in done.stdout
    assert "set aside, line 61: a conversation must end with a turn of the assistant" in done.stdout
    assert "gate: 30 examples, answers of at most 16 tokens" in done.stdout
    assert "no model was trained" in done.stdout
    assert not (tmp_path / "home").exists()
    for words, told in (
        (("--dataset", path, "--method", "dpo"), "are those of sft, got method 'dpo'"),
        (("--examples", path), "--examples goes with --dataset, got it alone"),
        (("--dataset", path, "--examples", "latest"), "--examples latest needs a cycle, got none"),
        (("--dataset", tmp_path / "none.jsonl"), "none.jsonl"),
    ):
        done = run(tmp_path, "train", "--dry-run", *words)
        assert done.returncode == 2, done.stdout
        assert told in done.stderr, done.stderr
