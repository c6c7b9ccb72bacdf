"""`ratchet gate` on a win rate: a served judge of pairs, and people who fill in a sheet."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from ratchet.cli import app
from tests.servers.judge_endpoint import Answer, JudgeEndpoint

COUNT = 360
POLICY = {"primary": {"metric": "win_rate"}, "secondary": ["exact_match"]}


def shown(text):
    """The two answers as the judge sees them."""
    return [
        text.split(f"<{name} ", 1)[1].split(">\n", 1)[1].split(f"\n</{name} ", 1)[0]
        for name in ("answer A", "answer B")
    ]


def is_right(text):
    return text.startswith("queue")


def served(seen):
    """Two models of which the new one is right more often, and a judge who sees who is right."""
    model = seen.body["model"]
    if model in ("old", "new"):
        number = int(seen.text.rpartition(" ")[2])
        chance = np.random.default_rng([number, model == "new"])
        right = chance.random() < (0.5 if model == "old" else 0.75)
        text = f"queue {number % 8}" if right else "I cannot say"
        return Answer(text=text + " well" * int(chance.integers(4)))
    one, two = shown("\n".join(turn["content"] for turn in seen.body["messages"]))
    if model == "coin" or is_right(one) == is_right(two):
        return Answer(text="Verdict: tie" if model != "coin" else "Verdict: A")
    return Answer(text=f"Verdict: {'A' if is_right(one) else 'B'}")


@pytest.fixture
def gate(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "home"))
    rows = [
        {"id": n, "prompt": f"where goes {n}", "target": f"queue {n % 8}"} for n in range(COUNT)
    ]
    Path("examples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("policy.yaml").write_text(yaml.safe_dump(POLICY))
    with JudgeEndpoint(served) as server:
        for name in ("careful", "coin"):
            judge = {
                "name": name, "mode": "pairwise", "endpoint": {"url": server.url, "model": name},
            }  # fmt: skip
            Path(f"{name}.yaml").write_text(yaml.safe_dump({"judges": [judge]}))

        def called(*words, models=("old", "new")):
            one, two = (f"{server.url}#{name}" for name in models)
            words = ("--examples", "examples.jsonl", "--policy", "policy.yaml", *words)
            return CliRunner().invoke(app, ["gate", "--champion", one, "--challenger", two, *words])

        called.server = server
        yield called


def fill(path, rng, wrong=0.05):
    """People say who is right; now and then they slip."""
    with Path(path).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        a, b = is_right(row["answer_a"]), is_right(row["answer_b"])
        said = "tie" if a == b else "a" if a else "b"
        row["winner"] = said if rng.random() >= wrong else str(rng.choice(["a", "b"]))
    with Path(path).open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return rows


@pytest.mark.slow
def test_people_label_the_judge_is_validated_and_the_better_one_is_promoted(gate):
    wanted = gate("--judges", "careful.yaml")
    assert "write a sheet for them with --to-label FILE" in str(wanted.exception)
    written = gate("--judges", "careful.yaml", "--to-label", "sheet.csv")
    assert written.exit_code == 0, written.output
    assert "100 pairs to compare in sheet.csv" in written.output
    rows = fill("sheet.csv", np.random.default_rng(0))
    assert 100 <= len(rows) < 200  # and the ties that chance puts between them
    done = gate("--judges", "careful.yaml", "--labels", "sheet.csv")
    assert done.exit_code == 0, done.output
    assert "careful: usable" in done.stderr
    interval = re.search(r"(?m)^  win_rate +[\d.]+ +([\d.]+) to +([\d.]+)", done.stderr)
    low, high = map(float, interval.groups())
    assert 0.5 < low < 0.625 < high  # right 3 in 4 against 1 in 2
    asked = len(gate.server.seen)
    again = gate("--judges", "careful.yaml", "--labels", "sheet.csv", "--json")
    assert len(gate.server.seen) == asked  # recorded
    report = json.loads(again.stdout)
    assert report["verdict"] == "promote"


@pytest.mark.slow
def test_the_same_models_swapped_are_rejected_and_a_judge_of_places_decides_nothing(gate):
    swapped = ("new", "old")
    gate("--to-label", "sheet.csv", models=swapped)
    fill("sheet.csv", np.random.default_rng(1))
    worse = gate("--judges", "careful.yaml", "--labels", "sheet.csv", models=swapped)
    assert worse.exit_code == 11, worse.output
    useless = gate("--judges", "coin.yaml", "--labels", "sheet.csv", models=swapped)
    assert useless.exit_code == 12
    assert "coin: not usable" in useless.stderr


@pytest.mark.slow
def test_a_sheet_of_other_answers_and_words_without_a_win_rate_are_told(gate):
    gate("--to-label", "sheet.csv")
    fill("sheet.csv", np.random.default_rng(2))
    other = gate("--judges", "careful.yaml", "--labels", "sheet.csv", models=("new", "old"))
    assert other.exit_code == 12
    assert "it is about other answers than these" in other.stderr
    Path("policy.yaml").write_text(yaml.safe_dump({"primary": {"metric": "exact_match"}}))
    unused = gate("--judges", "careful.yaml", "--labels", "sheet.csv")
    assert "got a policy that does not name it" in str(unused.exception)
    Path("policy.yaml").write_text(yaml.safe_dump(POLICY))
    assert "needs a judge of pairs, got none" in str(gate().exception)
