"""What the stage commands run: a night with nothing new says so and ends with 0."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from ratchet.collect.ingest import ingest
from ratchet.records import Candidate, Correction, Cycle, Feedback, Interaction
from ratchet.simulation.messages import QUEUES, support_messages
from ratchet.simulation.routing import conversation
from ratchet.store.cycles import end_cycle, latest_cycle
from tests.flows.prefect_home import PrefectHome, new_home, python_process

ANSWERS = 60
FIRST = "from ratchet.flows._command import main"

pytestmark = pytest.mark.slow  # `tests/cli/test_stages.py` tries the parts without Prefect


class Nights:
    """A home, and a process that runs stages over it."""

    def __init__(self, home: PrefectHome, folder: Path, run) -> None:
        self.home, self.folder, self._run = home, folder, run
        self.messages = support_messages(np.random.default_rng(3), 400)

    def stage(self, name: str, **options: object) -> tuple[int, str]:
        given = json.dumps(options)
        said = self._run(f"print('ended with', main([{name!r}, {given!r}]))")
        return int(said.rsplit("ended with ", 1)[1]), said

    def answered(self, start: int, *, corrected: bool) -> None:
        """Record answers of this night's users, who correct every one or say nothing."""
        now = datetime.now(UTC)
        events: list[Interaction | Feedback] = []
        for number in range(start, start + ANSWERS):
            message, key = self.messages[number], f"chatcmpl-{number}"
            at = now - timedelta(minutes=ANSWERS + 5 - (number - start))
            events.append(
                Interaction(
                    id=key, session_id=key, user_id=f"u{number}", created_at=at,
                    model_version="support-router/1", response="I cannot say.",
                    messages=conversation(QUEUES, message.text),
                )
            )  # fmt: skip
            if corrected:
                about = {"interaction_id": key, "created_at": at + timedelta(seconds=30)}
                events.append(Correction(id=f"c{number}", value=message.label, **about))
        ingest(events, self.home.store, source="gateway", now=now)

    def examples(self) -> str:
        path = self.folder / "examples.jsonl"
        rows = [
            {"id": n, "target": item.label,
             "messages": [m.canonical() for m in conversation(QUEUES, item.text)]}
            for n, item in enumerate(self.messages[300:340])
        ]  # fmt: skip
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        return str(path)


@pytest.fixture(scope="module")
def nights(
    tmp_path_factory: pytest.TempPathFactory, served_once: Path, tiny_model: Path
) -> Iterator[Nights]:
    folder = tmp_path_factory.mktemp("nights")
    home = new_home(folder, served_once, RATCHET_BASE_MODEL=str(tiny_model))
    with home.serving() as environment, python_process(environment, FIRST) as run:
        yield Nights(home, folder, run)


def test_each_night_says_what_it_did_or_that_there_is_nothing_to_do(nights: Nights) -> None:
    train = {
        "curation": {"minimum_examples": 20, "redaction": {"enabled": False}},
        "finetune": {"epochs": 1.0, "rank": 4},
    }
    for stage in ("collect", "analyze", "train"):  # no traffic at all
        code, said = nights.stage(stage)
        assert (code, "nothing to do yet: " in said) == (0, True), said
    assert nights.stage("collect", sourcez=[])[0] == 2

    nights.answered(0, corrected=False)  # traffic without feedback
    examples = nights.examples()
    code, said = nights.stage("collect", examples=examples)
    assert (code, f"{ANSWERS} answers from" in said) == (0, True), said
    assert "NEXT     ratchet analyze" in said
    code, said = nights.stage("analyze")
    assert (code, "NEXT     ratchet curate --dry-run" in said) == (0, True), said
    code, said = nights.stage("train", **train)
    assert code == 0, said
    assert "nothing to do yet: a training set needs at least 20 examples, got 0" in said
    _end(nights)

    nights.answered(100, corrected=True)  # something to learn
    assert nights.stage("collect", examples=examples)[0] == 0
    code, said = nights.stage("train", **train)
    assert (code, "candidate support-router/2" in said) == (0, True), said
    assert "ratchet gate --champion support-router/1 --challenger support-router/2" in " ".join(
        said.split()
    )
    code, said = nights.stage("gate", policy="open-ended", end_cycle=False)  # without a judge
    assert (code, said.count("ratchet: ")) == (2, 1), said
    assert not any(words in said for words in ("Traceback", "Encountered", "Finished in")), said
    code, said = nights.stage("gate", end_cycle=False)
    assert (code, "DEPLOY   " in said) == (0, True), said
    assert "challenger support-router/2" in said
    code, said = nights.stage("rollout")
    assert (code, "nothing is being rolled out" in said) == (0, True), said
    _end(nights)

    nights.answered(200, corrected=False)  # all feedback is used already
    assert nights.stage("collect", examples=examples)[0] == 0
    code, said = nights.stage("train", **train)
    assert code == 0, said
    assert "nothing new to learn: support-router/2 was trained on the same" in said
    assert len(nights.home.store.records(Candidate)) == 1
    assert len(nights.home.store.records(Cycle)) == 3


def _end(nights: Nights) -> None:
    store = nights.home.store
    end_cycle(store, latest_cycle(store), "finished", datetime.now(UTC))
