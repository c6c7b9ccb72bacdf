"""A phrase is planted wherever a loop leaves words of users; forgotten, no file of the home has it.

The gateway runs all the time: the segment that it writes to is among the files.
"""

from __future__ import annotations

import base64
import csv
import gzip
import json
import os
import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ratchet.collect.ingest import ingest_file
from ratchet.gateway.erasing import erase_lines
from ratchet.gateway.log import LogKind, read, segments
from ratchet.operate.forgetting import Everywhere
from ratchet.operate.pruning import Pruning
from ratchet.operate.retention import RetentionConfig
from ratchet.records import (
    Analysis,
    Comment,
    Example,
    ExampleSet,
    FailureCluster,
    HumanLabel,
    Interaction,
    JudgeVerdict,
    Message,
    ReviewItem,
    SetAside,
    Thumbs,
    user_digest,
)
from ratchet.settings import Settings
from ratchet.store import EventStore
from ratchet.store.history import History
from ratchet.store.vectors import text_key
from ratchet.tracking import Tracker
from tests.gateway.conftest import Gateway

USER = "ramona@example.org"
WORD = b"Ramses"
PHRASE = 'my cat "Ramses" ate the card of account 4711, and é & <b> too'
OTHER = "where is my parcel number 12, please"
NOW = datetime.now(UTC)
MINE = f"in-{len(USER)}"


def everywhere(settings: Settings, store: EventStore, tracker: Tracker | None = None) -> Everywhere:
    return Everywhere(store, settings, now=datetime.now(UTC), prefect=None, tracker=lambda: tracker)


def contents(home: Path) -> Iterator[tuple[Path, bytes]]:
    """Yield what stands in each file of a home, unpacked where it is packed."""
    for path in sorted(home.rglob("*")):
        if not path.is_file():
            continue
        raw = path.read_bytes()
        yield path, raw
        yield path, path.name.encode()
        if raw.startswith(b"\x1f\x8b"):
            yield path, gzip.decompress(raw)
        if path.suffix == ".parquet":
            yield path, json.dumps(pq.read_table(path).to_pylist(), default=str).encode()
        for word in re.findall(rb"[A-Za-z0-9+/]{40,}", raw):
            yield path, base64.b64decode(word[: len(word) // 4 * 4])


def holding(home: Path, *words: bytes) -> set[str]:
    return {
        str(path.relative_to(home))
        for path, content in contents(home)
        if any(word in content for word in words)
    }


def said_by(user: str, text: str) -> Interaction:
    return Interaction(
        id=f"in-{len(user)}", session_id=f"s-{user}", user_id=user,
        created_at=NOW - timedelta(hours=1), model_version="router/1",
        messages=(Message(role="user", content=text),), response=f"I am sorry about this: {text}",
    )  # fmt: skip


def plant_in_store(store: EventStore) -> None:
    for user, text in ((USER, PHRASE), ("bob", OTHER)):
        store.add_interactions([said_by(user, text)])
    about = MINE
    store.add_feedback(
        [
            Comment(id="c", interaction_id="in-3", created_at=NOW, value=PHRASE, user_id=USER),
            Thumbs(id="t", interaction_id=about, created_at=NOW, value="down"),
        ]
    )
    store.add_vectors("m", {text_key(said): np.ones(2, np.float32) for said in (PHRASE, OTHER)})
    store.add_verdicts(
        [
            JudgeVerdict(
                id="v", created_at=NOW, judge="j", judge_version="j/1", dimension="d", model="m",
                mode="pointwise", prompt=(Message(role="user", content=PHRASE),), reply="5",
                outcome="5", score=1.0,
            )
        ]
    )  # fmt: skip
    cluster = FailureCluster(
        id="k", name="cards", size=1, failure_rate=0.5, lift=2.0, interval=(0.1, 0.9),
        examples=(f"{PHRASE[:40]}…", OTHER),
    )  # fmt: skip
    store.append(
        Analysis(
            id="a", cycle_id="c1", created_at=NOW, model_version="m", metrics=(), alerts=(),
            clusters=(cluster,),
        )
    )  # fmt: skip
    store.append(
        ReviewItem(
            id="r", created_at=NOW, interaction_id=about, dimension="safety", priority="safety",
            raised_by="rule", why=f"it says {PHRASE}",
        )
    )  # fmt: skip
    store.append(
        HumanLabel(
            id="h", created_at=NOW, item_id=about, dimension="d", label="good", reviewer="ann",
            note=PHRASE,
        )
    )  # fmt: skip
    asked = [
        Example(id="e1", messages=(Message(role="user", content=PHRASE),), target="cards"),
        Example(id="e2", messages=(Message(role="user", content=OTHER),), target="parcels"),
        Example(
            id="e3", messages=(Message(role="user", content="<PERSON> ate a card"),),
            user_id=user_digest(USER),
        ),
    ]  # fmt: skip
    store.append(ExampleSet.freeze("sampled-1", tuple(asked), NOW))
    store.append(ExampleSet.freeze("regression-k", tuple(asked[:1]), NOW))
    store.add_answers("m", "greedy", {"e1": "cards", "e2": f"you said: {PHRASE}", "e9": "parcels"})
    long = "x" * 300
    for key, raw in (
        ("named", json.dumps({"long": long, "text": PHRASE, "user_id": USER})[:200]),
        ("cut", json.dumps({"text": PHRASE})[:50]),
        ("table", f'1;"{PHRASE.replace(chr(34), 2 * chr(34))}";x'),
    ):
        named = {"user_id": USER} if key == "named" else {}
        store.set_aside(
            [
                SetAside(
                    id=key, created_at=NOW, source="f", position="1", reason="r", raw=raw, **named
                )
            ]
        )  # fmt: skip


def plant_in_files(settings: Settings, store: EventStore) -> Tracker:
    home = settings.home
    History.open(settings.history).advance(store)
    rows = pa.table({"interaction_id": [MINE], "prompt": [PHRASE]})
    dataset = home / "datasets" / "abc"
    dataset.mkdir(parents=True)
    pq.write_table(rows, dataset / "train.parquet")
    (dataset / "card.md").write_text(PHRASE)
    tracker = Tracker(settings.tracking_uri, artifacts=settings.artifacts, model_name="m")
    with tracker.run("ratchet", key="k", name="n", tags={"note": PHRASE}) as run:
        run.params({"question": PHRASE})
        run.text(f"<script>const texts = {json.dumps([PHRASE, OTHER])};</script>", "failures.html")
        run.text(f"| {PHRASE[:30]}… | 3 |\n| {OTHER} | 2 |", "analysis.md")
        run.table({"prompt": [PHRASE, OTHER], "score": [1.0, 0.0]}, "answers.json")
        run.folder(dataset, "training_set")
    logs = home / "logs"
    logs.mkdir()
    (logs / "prefect.log").write_text(f"before\nasked: {PHRASE}\nafter\n")
    with (home / "sheet.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["pair", "answer"], ["p1", PHRASE], ["p2", OTHER]])
    (home / "export.jsonl.gz").write_bytes(gzip.compress(json.dumps({"m": PHRASE}).encode()))
    results = home / "prefect" / "storage"
    results.mkdir(parents=True)
    packed = base64.b64encode(f"a pickle of {PHRASE} and more".encode()).decode()
    (results / "0123abcd").write_text(json.dumps({"metadata": {}, "result": packed}))
    return tracker


@pytest.fixture
def lived_in(gateway: Gateway) -> Gateway:
    """A home in use: what the gateway recorded is in the store, and in its open segment."""
    for user, text in ((USER, PHRASE), ("bob", OTHER)):
        asked = gateway.ask(text, user=user)
        gateway.post(
            "/v1/feedback",
            {"interaction_id": asked["id"], "kind": "comment", "value": f"about {text}"},
        )
    gateway.settle()
    plant_in_store(gateway.store)
    return gateway


def test_no_file_of_the_home_holds_a_forgotten_users_words(lived_in: Gateway) -> None:
    settings, store = lived_in.settings, lived_in.store
    tracker = plant_in_files(settings, store)
    recorded = EventStore.open(f"sqlite:///{settings.home / 'gate-answers.db'}")
    recorded.add_answers("m", "greedy", {"q": f"an answer: {PHRASE}"})
    lived_in.ask(f"{PHRASE} again", user=USER)  # waits in the log
    home = settings.home
    planted = holding(home, WORD)
    for name in ("store.db", "gateway/wal", "history", "datasets/abc", "mlflow/artifacts",
                 "mlflow/mlflow.db", "prefect/storage", "logs", "sheet.csv", "export.jsonl.gz",
                 "gate-answers.db"):  # fmt: skip
        assert any(path.startswith(name) for path in planted), (name, planted)

    done = everywhere(settings, store, tracker)
    record = done.forget(USER, History.open(settings.history), by="ada")

    assert holding(home, WORD, USER.encode()) == set()
    assert done.swept.left == []
    assert record.state == "done"
    # what others said is there, and the gateway goes on
    left = holding(home, OTHER.encode())
    assert "sheet.csv" in left
    assert any(path.startswith("mlflow/artifacts") for path in left)
    assert len((settings.home / "logs" / "prefect.log").read_text().splitlines()) == 3
    lived_in.ask("a question of somebody else", user="carol")
    lived_in.settle()
    texts = {said.messages[-1].content for said in lived_in.interactions()}
    assert {OTHER, "a question of somebody else"} <= texts
    assert not any("Ramses" in text for text in texts)


def test_evaluation_sets_lose_the_questions_of_the_user_and_keep_those_of_others(
    lived_in: Gateway,
) -> None:
    store = lived_in.store
    everywhere(lived_in.settings, store).forget(USER, None, by="ada")
    by_name = {item.name: item for item in store.records(ExampleSet)}
    assert [one.id for one in by_name["sampled-1"].examples] == ["e2"]
    assert [one.prompt for one in by_name["regression-k"].examples] == ["[erased]"]
    assert store.answers("m", "greedy", ["e1", "e2", "e9"]) == {"e9": "parcels"}


def test_a_replay_of_the_log_and_a_second_import_bring_nothing_back(
    lived_in: Gateway, tmp_path: Path
) -> None:
    settings, store = lived_in.settings, lived_in.store
    log = segments(settings.home / "gateway" / "wal")[0]
    before = log.read_bytes()
    file = tmp_path / "events.jsonl"
    rows = [
        {"id": "f1", "user_id": USER, "session_id": "s", "model_version": "m/1",
         "created_at": (NOW - timedelta(days=1)).isoformat(),
         "messages": [{"role": "user", "content": PHRASE}], "response": "fine"},
        {"id": "g1", "interaction_id": "f1", "kind": "correction", "value": PHRASE,
         "created_at": NOW.isoformat()},
        {"id": "g2", "interaction_id": MINE, "kind": "comment", "value": PHRASE,
         "created_at": NOW.isoformat()},
        {"id": "broken", "padding": "x" * 300, "user_id": USER, "messages": PHRASE},
    ]  # fmt: skip
    file.write_text("\n".join(map(json.dumps, rows)))
    ingest_file(file, store, now=datetime.now(UTC), source="events")
    everywhere(settings, store).forget(USER, None, by="ada")
    assert holding(settings.home, WORD) == set()

    report = ingest_file(file, store, now=datetime.now(UTC), source="events")
    assert (report.interactions, report.feedback) == (0, 0)
    replayed = log.with_name(f"{10**18:020d}-1{log.suffix}")
    replayed.write_bytes(before)
    os.utime(replayed, (0, 0))  # young ones are not deleted
    lived_in.settle()
    lived_in.settle()
    assert not replayed.exists()  # drained as nothing, and gone
    assert holding(settings.home, WORD) == set()


def test_who_comes_back_after_being_forgotten_is_recorded_again(lived_in: Gateway) -> None:
    everywhere(lived_in.settings, lived_in.store).forget(USER, None, by="ada")
    lived_in.ask("hello, it is me again", user=USER)
    lived_in.settle()
    assert [said.user_id for said in lived_in.interactions()].count(USER) == 1


@pytest.mark.mostly_slow("2")
@pytest.mark.parametrize("step", range(1, 6))
def test_stopped_in_the_middle_the_next_call_finishes(
    lived_in: Gateway, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, store = lived_in.settings, lived_in.store
    plant_in_files(settings, store)
    calls = 0
    pwrite, commit = os.pwrite, EventStore.atomic

    def stopped(*_: object) -> None:
        nonlocal calls
        if threading.current_thread() is not threading.main_thread():
            return  # the gateway's own
        calls += 1
        if calls == step * 4:
            raise KeyboardInterrupt

    def counted_pwrite(*given: object) -> int:
        stopped()
        return pwrite(*given)  # type: ignore[arg-type]

    def counted_atomic(self: EventStore) -> object:
        stopped()
        return commit(self)

    monkeypatch.setattr(os, "pwrite", counted_pwrite)
    monkeypatch.setattr(EventStore, "atomic", counted_atomic)
    with pytest.raises(KeyboardInterrupt):
        everywhere(settings, store).forget(USER, History.open(settings.history), by="ada")
    monkeypatch.undo()
    everywhere(settings, store).forget(USER, History.open(settings.history), by="ada")
    assert holding(settings.home, WORD, USER.encode()) == set()


def test_what_is_kept_for_a_time_only_goes_from_the_open_segment_too(lived_in: Gateway) -> None:
    settings, store = lived_in.settings, lived_in.store
    over = (NOW - timedelta(days=1)).isoformat()
    kept = "kept for a day: my dog Anubis dug up account 99"
    lived_in.ask(kept, user="dora", metadata={"retain_until": over})
    lived_in.settle()
    (settings.home / "page.html").write_text(f"<p>{kept}</p>")
    assert "store.db" in {path.split("-")[0] for path in holding(settings.home, b"Anubis")}
    pruning = Pruning(store, settings, RetentionConfig(), now=datetime.now(UTC), tracker=None)
    failed = [line for line in pruning.run() if line.failed]
    assert failed == []
    assert holding(settings.home, b"Anubis") == set()
    assert WORD in b"".join(content for _, content in contents(settings.home))


def test_answers_that_came_in_while_a_user_was_forgotten_go_with_the_next_pruning(
    lived_in: Gateway,
) -> None:
    settings, store = lived_in.settings, lived_in.store
    log = next(iter(segments(settings.home / "gateway" / "wal")))
    lines = [entry for entry in read(log, 0, 10**9) if entry.kind is LogKind.INTERACTION]
    late = next(entry for entry in lines if WORD in entry.body)
    everywhere(settings, store).forget(USER, None, by="ada")
    row = json.loads(late.body) | {"id": "late"}  # asked before, answered after
    lived_in.app.state.gateway.answerer.recorder.records.append(
        [(LogKind.INTERACTION, json.dumps(row).encode())]
    )
    assert holding(settings.home, WORD)
    pruning = Pruning(store, settings, RetentionConfig(), now=datetime.now(UTC), tracker=None)
    list(pruning.run())
    assert holding(settings.home, WORD) == set()
    lived_in.settle()
    assert "late" not in {said.id for said in lived_in.interactions()}


def test_blanking_leaves_the_lines_of_others_and_where_each_stands(lived_in: Gateway) -> None:
    settings, store = lived_in.settings, lived_in.store
    log = next(iter(segments(settings.home / "gateway" / "wal")))
    before = list(read(log, 0, 10**9))
    everywhere(settings, store).forget(USER, None, by="ada")
    after = list(read(log, 0, 10**9))
    assert [(e.start, e.end, e.received_ns) for e in after] == [
        (e.start, e.end, e.received_ns) for e in before
    ]
    kept = [entry.body for entry in after if entry.body.strip()]
    assert kept == [entry.body for entry in before if WORD not in entry.body]
    assert erase_lines(log.parent, store, datetime.now(UTC)) == 0  # nothing is left to blank
