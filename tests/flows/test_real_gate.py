"""`ratchet gate` on the real model: adapters that are better, equal, worse, broken, or just longer.

SmolLM2-135M, five small trainings and their answers: about ten minutes on two cores.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ratchet.improve.curation.rows import TrainingRow
from ratchet.improve.training.config import FinetuneConfig, finetune_key
from ratchet.improve.training.finetune import finetune
from ratchet.models import SMOLLM2, adapter_digest, model_digest, prepare_base_model
from ratchet.records import LabelledMessage, digest
from ratchet.settings import load_settings
from ratchet.simulation.messages import QUEUES, support_messages
from ratchet.simulation.routing import conversation

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

HEDGE = "It may belong to any of them: " + ", ".join(QUEUES)
EACH = 20  # examples of each queue that the gate asks
POLICY = """
primary: {metric: exact_match, hold_margin: 0.1}
guardrails:
  - {metric: exact_match, per_cluster: true, requires: no_harm, minimum_examples: 10}
  - {metric: length, margin: 0.25, relative: true}
minimum_examples: 100
beat_constant_answer: true
"""
LENIENT = """
primary: {metric: contains_answer, hold_margin: 0.1}
guardrails:
  - {metric: length, margin: 0.25, relative: true}
minimum_examples: 100
"""
Relabel = Callable[[LabelledMessage], str]


@dataclass(frozen=True)
class Bench:
    """Where adapters are trained, messages to learn from, and the file that the gate asks."""

    home: Path
    base: Path
    pool: tuple[LabelledMessage, ...]
    examples: Path

    def train(
        self, messages: Sequence[LabelledMessage], relabel: Relabel, start: Path | None, **more: Any
    ) -> Path:
        """Train an adapter, or find it."""
        rows = [
            TrainingRow(f"i{n}", conversation(QUEUES, one.text), relabel(one), "correction")
            for n, one in enumerate(messages)
        ]
        config = FinetuneConfig(**{"epochs": 1.0, "multiply": "medium"} | more)
        key = finetune_key(
            digest([[row.interaction_id, row.target] for row in rows]),
            config,
            model_digest(self.base),
            adapter_digest(start) if start else None,
        )
        made = finetune(rows, config, base=self.base, start_from=start, key=key, home=self.home)
        return self.home / made.folder

    def gate(self, champion: Path, challenger: Path, policy: str) -> tuple[int, dict[str, Any]]:
        """Run `ratchet gate` and return its exit code and report."""
        file = self.home / "policy.yaml"
        file.write_text(policy)
        words = ["--champion", str(champion), "--challenger", str(challenger), "--json"]
        words += ["--examples", str(self.examples), "--policy", str(file)]
        words += ["--one-line", "--max-new-tokens", "32"]
        done = subprocess.run(
            [sys.executable, "-m", "ratchet.cli", "gate", *words],
            cwd=ROOT, env=os.environ | {"RATCHET_HOME": str(self.home)}, capture_output=True,
            text=True, timeout=1200,
        )  # fmt: skip
        assert done.returncode in (0, 10, 11, 12), done.stderr[-2000:]
        report: dict[str, Any] = json.loads(done.stdout)
        return done.returncode, report


def right(message: LabelledMessage) -> str:
    return message.label


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return new_bench(tmp_path_factory.mktemp("real-gate"))


def new_bench(home: Path) -> Bench:
    """Draw messages to learn from and others to ask, the same number of each queue."""
    settings = load_settings({}, Path.cwd())
    messages = support_messages(np.random.default_rng(7), 3_000)
    asked = [
        message
        for queue in QUEUES
        for message in [one for one in messages[1_500:] if one.label == queue][:EACH]
    ]
    assert len(asked) == EACH * len(QUEUES)
    texts = {message.text for message in asked}
    examples = home / "examples.jsonl"
    rows = [
        {
            "id": n,
            "messages": [turn.canonical() for turn in conversation(QUEUES, one.text)],
            "target": one.label,
            "cluster": one.label,
        }
        for n, one in enumerate(asked)
    ]
    examples.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Bench(
        home=home,
        base=prepare_base_model(SMOLLM2, settings.cache),
        pool=tuple(one for one in messages[:1_500] if one.text not in texts),
        examples=examples,
    )


@pytest.fixture(scope="module")
def first(bench: Bench) -> Path:
    """An adapter that has seen little."""
    return bench.train(bench.pool[:96], right, None)


@pytest.fixture(scope="module")
def better(bench: Bench, first: Path) -> Path:
    """The same, trained on as much again and more."""
    return bench.train(bench.pool[96:256], right, first)


def test_a_better_adapter_is_promoted(bench: Bench, first: Path, better: Path) -> None:
    code, report = bench.gate(first, better, POLICY)
    assert (code, report["verdict"]) == (0, "promote"), report["reasons"]
    assert report["primary"]["difference"] > 0.1
    assert report["floor"]["lower"] > report["floor"]["rate"]


def test_a_worse_adapter_is_rejected(bench: Bench, first: Path, better: Path) -> None:
    code, report = bench.gate(better, first, POLICY)
    assert (code, report["verdict"]) == (11, "reject"), report["reasons"]
    assert any("exact_match is worse" in reason for reason in report["reasons"])


def test_an_equal_adapter_is_held(bench: Bench, better: Path) -> None:
    """Another artefact whose answers differ hardly: a few more steps at a tiny learning rate."""
    equal = bench.train(bench.pool[256:272], right, better, learning_rate=1e-4)
    code, report = bench.gate(better, equal, POLICY)
    assert report["primary"] is not None, report["reasons"]  # some answers differ
    assert (code, report["verdict"]) == (10, "hold"), report["reasons"]


def test_one_that_is_better_and_breaks_a_cluster_is_stopped_by_its_guardrail(
    bench: Bench, first: Path, better: Path
) -> None:
    """Trained on as much as the better one, but one queue under another's name."""
    _, shown = bench.gate(first, better, POLICY)
    strongest = max(shown["guardrails"][: len(QUEUES)], key=lambda one: one["champion"])["cluster"]
    other = next(queue for queue in QUEUES if queue != strongest)

    def renamed(message: LabelledMessage) -> str:
        return other if message.label == strongest else message.label

    broken = bench.train(bench.pool[96:256], renamed, first, epochs=2.0)
    code, report = bench.gate(first, broken, POLICY)
    assert report["primary"]["p_shown"] < 0.05, report["primary"]
    assert (code, report["verdict"]) == (11, "reject"), report["reasons"]
    assert report["reasons"][0].startswith(f"exact_match in {strongest} is worse")


def test_one_that_wins_only_by_longer_answers_is_stopped(bench: Bench, first: Path) -> None:
    """It names every queue, so that the right one is always among them."""
    hedger = bench.train(bench.pool[:48], lambda _message: HEDGE, None, epochs=2.0)
    code, report = bench.gate(first, hedger, LENIENT)
    assert report["primary"]["p_shown"] < 0.05, report["primary"]
    assert (code, report["verdict"]) == (11, "reject"), report["reasons"]
    assert report["reasons"][0].startswith("length is worse by more than 0.25")
