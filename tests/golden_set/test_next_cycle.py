"""What the loop does with a golden set: which policy it takes, and what a cycle still waits for."""

from __future__ import annotations

import json
from pathlib import Path

from ratchet.golden.rules import GoldenRules
from ratchet.operate.readiness import NextCycle, lacks
from ratchet.settings import load_settings
from ratchet.store import EventStore
from tests.cli.in_process import run_in_process
from tests.golden_set.said import SAID, approve, asked, build

RULES = GoldenRules(examples=60, minimum=20, user_share=0.5)


def waits_for(store: EventStore, folder: Path, golden: GoldenRules | None = RULES) -> list[str]:
    settings = load_settings({"RATCHET_HOME": str(folder)}, folder)
    found = lacks(settings, store, NextCycle(golden=golden), environ={}, now=SAID)
    return [line.partition(":")[0] for line in found]


EXAMPLES = "examples that both models answer at the gate"
JUDGE = "a judge of pairs, since the policy is on win_rate"


def test_with_a_version_of_labels_a_cycle_needs_no_file_and_no_judge(store, tmp_path):
    store.add_interactions(asked(number) for number in range(100))
    assert {EXAMPLES, JUDGE} <= set(waits_for(store, tmp_path))
    approve(store, range(100))
    assert build(store, tmp_path, RULES) is not None
    assert not {EXAMPLES, JUDGE} & set(waits_for(store, tmp_path))
    # who asks none is where they were
    assert {EXAMPLES, JUDGE} <= set(waits_for(store, tmp_path, None))
    pinned = RULES.model_copy(update={"version": 7})
    assert EXAMPLES in waits_for(store, tmp_path, pinned)


def test_a_version_of_free_texts_needs_a_judge(store, tmp_path):
    store.add_interactions(asked(number, response=f"Answer {number}.") for number in range(100))
    approve(store, range(100))
    version = build(store, tmp_path, RULES)
    assert version is not None
    assert version.metric == "win_rate"
    found = waits_for(store, tmp_path)
    assert JUDGE in found
    assert EXAMPLES not in found


def test_commands_build_list_and_show_versions(tmp_path):
    home = tmp_path / "home"
    store = EventStore.open(f"sqlite:///{home / 'store.db'}")
    store.add_interactions(asked(number) for number in range(20))
    store.close()
    rows = [{"id": n, "prompt": f"question {n}", "target": "yes"} for n in range(20)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def ratchet(*words: object) -> str:
        done = run_in_process(
            "golden", *words, folder=tmp_path, environment={"RATCHET_HOME": str(home)}
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "no version yet" in ratchet("list")
    assert "nothing to do yet: a version of the golden set needs 100 examples" in ratchet("build")
    assert "20 new examples" in ratchet("build", "--from", "mine.jsonl", "--dry-run")
    assert "no version yet" in ratchet("list")
    said = ratchet("build", "--from", "mine.jsonl")
    assert "gated on exact_match: the right answers are 1 label of a closed set" in said
    assert "the gate asks version 1" in ratchet("list")
    assert json.loads(ratchet("list", "--json"))[0]["origin"] == "file"
    assert "question 0" in ratchet("show", "--rows", "1", "--out", "out.jsonl")
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 20
