"""Clusters, a training set's digest and verdicts, by an executor, in shards of a few texts."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ratchet.analyze.failures import embedding, find_failure_clusters
from ratchet.analyze.failures.embedding import embed
from ratchet.executors import Executor
from ratchet.improve.curation import traffic
from ratchet.improve.curation.config import CurationConfig
from ratchet.improve.curation.context import Context
from ratchet.improve.curation.dataset import build_rows, prepare
from ratchet.improve.curation.selection import select
from ratchet.judges import spread
from ratchet.judges.judge import Judge, asker, judge_items
from ratchet.judges.prompts import Item
from ratchet.judges.rubrics import JudgeSpec
from ratchet.models import MINILM, SentenceEncoder
from ratchet.outcomes.quality import QualityWeights, quality
from ratchet.records import Interaction, Message
from ratchet.store import EventStore
from tests.improve.curation.outcomes import START, outcomes_of
from tests.servers.judge_endpoint import Answer, JudgeEndpoint, Seen

SIZE = 240
OBJECTS = ("parcel", "invoice", "password", "card", "refund", "account")
VERBS = ("where is", "please cancel", "I lost", "who changed", "how do I pay for", "reset")
SHARD = 40


def texts() -> tuple[list[str], np.ndarray]:
    """Return messages, some of them nearly the same, and which of them failed."""
    rng = np.random.default_rng(5)
    about = rng.choice(OBJECTS, SIZE)
    said = [
        f"{rng.choice(VERBS)} my {what} number {rng.integers(50)} of {rng.choice(OBJECTS)} please"
        for what in about
    ]
    said[1::6] = [f"{text}!?" for text in said[::6]]  # the same but for punctuation
    return said, rng.random(SIZE) < np.where(about == "parcel", 0.9, 0.1)


def clusters(executor: Executor) -> list[Any]:
    said, failed = texts()
    vectors = embed(said, SentenceEncoder.load(MINILM), executor=executor)
    found = find_failure_clusters(said, failed, embeddings=vectors, rng=np.random.default_rng(1))
    assert found.clusters
    return [vectors.tobytes(), *((one.name, one.rows.tolist()) for one in found.clusters)]


def dataset(executor: Executor) -> str:
    said, _ = texts()
    config = CurationConfig(minimum_examples=1, minimum_lower_bound=0.0)
    outcomes = outcomes_of(
        SIZE,
        prompts=said,
        responses=[f"answer {number % 7} to that" for number in range(SIZE)],
        thumbs=np.ones(SIZE),
    )
    selection = select(
        outcomes, quality(outcomes, QualityWeights()), (), config,
        context=Context(executor=executor),
    )  # fmt: skip
    assert 1 < len(selection.rows) < len(set(said))
    asked = {
        item.interaction_id: Interaction(
            id=item.interaction_id, session_id="s", user_id="u", model_version="m",
            created_at=START.astype("datetime64[us]").item().replace(tzinfo=UTC),
            messages=(Message(role="user", content=item.prompt),), response="b",
        )
        for item in selection.rows
    }  # fmt: skip
    return prepare(build_rows(selection, asked, config, 0), selection, (), config).digest


def verdicts(executor: Executor, folder: Path) -> list[Any]:
    def grade(seen: Seen) -> Answer:
        return Answer(text=str(1 + sum(map(ord, seen.text)) % 6))  # 6 is off the menu

    talk = (Message(role="user", content="Is it good?"),)
    items = [Item(f"i-{number}", talk, text) for number, text in enumerate(texts()[0])]
    with JudgeEndpoint(grade) as server, closing(EventStore.open(f"sqlite:///{folder}")) as store:
        spec = JudgeSpec.model_validate(
            {"name": "j", "explain": False, "endpoint": {"url": server.url, "model": "judge"}}
        )
        # the port is no part of what is compared
        judge = Judge(spec, model_digest="judge")
        judged = judge_items(
            judge, items, ask=asker(spec, None, executor=executor), recorded=store.verdicts,
            save=store.add_verdicts, now=lambda: datetime(2026, 1, 5, tzinfo=UTC),
        )  # fmt: skip
        kept = sorted((one.id, one.outcome, one.reply) for one in store.verdicts_of(judge.version))
    assert judged.asked.answered == len(kept) == len(set(texts()[0]))
    return [kept, [(one.item_id, one.outcome, one.score) for one in judged.judgements]]


def everything(executor: Executor, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return what must be the same whoever ran it."""
    monkeypatch.setattr(embedding, "CHUNK", SHARD)
    monkeypatch.setattr(traffic, "BATCH", SHARD)
    monkeypatch.setattr(spread, "SHARD", SHARD)
    return [clusters(executor), dataset(executor), verdicts(executor, folder)]
