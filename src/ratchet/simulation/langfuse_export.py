"""A made-up export of Langfuse, to follow the tutorial with, or to try an import.

    python -m ratchet.simulation.langfuse_export export --answers 2000

Writes `observations_v2` and `scores` as JSON Lines in the schema of Langfuse's blob export of
enriched observations: conversations of an open-ended assistant (`garden_words`) with users' thumbs,
stars, comments and corrections, and an evaluator's scores. Who asks, what is answered well and what
people say is drawn by a seed. Nobody of it exists.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from ratchet.simulation.garden_words import SYSTEM, TOPICS, Topic

logger = logging.getLogger("ratchet.simulation")

PROJECT, MODEL = "garden-shop", "gpt-4o-mini"
DAYS = 20
_TURNS = (0.55, 0.3, 0.15)
"""How many sessions have one, two and three questions."""
_SPEAKS, _RATES, _CORRECTS, _SAYS_WHY, _EVALUATED = 0.5, 0.12, 0.25, 0.45, 0.2
_HONEST = 0.93
"""How often people rate what is good up, and what is bad down."""
_WHY = ("that did not help", "too vague", "not what I asked", "wrong", "I need more than this")


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, with what makes it good or bad."""

    topic: Topic
    asked: str
    said: str
    right: str
    is_good: bool


def answers(rng: np.random.Generator, number: int) -> Iterator[list[Answer]]:
    """Yield sessions of questions with their answers, until there are so many answers."""
    weights = np.array([topic.weight for topic in TOPICS])
    while number > 0:
        turns = min(number, 1 + int(rng.choice(len(_TURNS), p=_TURNS)))
        topic = TOPICS[int(rng.choice(len(TOPICS), p=weights / weights.sum()))]
        yield [_answer(rng, topic) for _ in range(turns)]
        number -= turns


def _answer(rng: np.random.Generator, topic: Topic) -> Answer:
    asked, words = topic.ask(rng)
    right = str(rng.choice(list(topic.right))).format(**words)
    wrong = str(rng.choice(list(topic.wrong))).format(**words)
    is_good = bool(rng.random() >= topic.fails)
    said, right = (_sentence(text) for text in (right if is_good else wrong, right))
    return Answer(topic, _sentence(asked), said, right, is_good)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def rows(
    number: int, until: datetime, seed: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return observations and scores.

    Args:
        number: Of answers.
        until: The last ones are of shortly before.
        seed: Of all that is drawn.
    """
    rng = np.random.default_rng(seed)
    sessions = list(answers(rng, number))
    times = np.sort(rng.uniform(0, timedelta(days=DAYS).total_seconds(), len(sessions)))
    users = max(10, number // 5)
    observations: list[dict[str, Any]] = []
    scores: list[dict[str, Any]] = []
    for place, (session, seconds) in enumerate(zip(sessions, times, strict=True)):
        at = until - timedelta(days=DAYS) + timedelta(seconds=float(seconds))
        user, turns = f"user-{int(rng.integers(users))}", [{"role": "system", "content": SYSTEM}]
        for answer in session:
            turns.append({"role": "user", "content": answer.asked})
            made = _observations(rng, answer, turns, at, user, f"session-{place}")
            observations += made
            scores += _scores(rng, answer, made[-1], at)
            turns.append({"role": "assistant", "content": answer.said})
            at += timedelta(seconds=float(rng.uniform(40, 200)))
    return observations, scores


def _observations(
    rng: np.random.Generator, answer: Answer, turns: list[dict[str, str]], at: datetime,
    user: str, session: str,
) -> list[dict[str, Any]]:  # fmt: skip
    """Return the generation of an answer, with the step before it where there was one."""
    trace, took = _hex(rng, 16), float(rng.uniform(0.6, 3.0))
    about = {
        "trace_id": trace, "project_id": PROJECT, "environment": "production", "level": "DEFAULT",
        "status_message": None, "version": None, "release": "2.3", "tags": [answer.topic.name],
        "trace_name": "chat", "user_id": user, "session_id": session,
    }  # fmt: skip
    ended = at + timedelta(seconds=took)
    generation: dict[str, Any] = {
        "id": _hex(rng, 8), "type": "GENERATION", "name": "answer", "parent_observation_id": None,
        "start_time": _written(at), "end_time": _written(ended),
        "completion_start_time": _written(at + timedelta(seconds=took / 4)),
        "input": json.dumps(turns), "latency": took, "time_to_first_token": took / 4,
        "output": json.dumps({"role": "assistant", "content": answer.said}),
        "provided_model_name": MODEL, "model_parameters": {"temperature": 0.3},
        "usage_details": {"input": 40 + 12 * len(turns), "output": len(answer.said) // 4},
        "total_cost": 0.00004, "metadata": {"channel": "web"}, "tool_calls": [],
    }  # fmt: skip
    if rng.random() >= 0.2:
        return [generation | about]
    step: dict[str, Any] = {
        "id": _hex(rng, 8), "type": "RETRIEVER", "name": "look up", "parent_observation_id": None,
        "start_time": _written(at - timedelta(seconds=0.2)), "end_time": _written(at),
        "input": json.dumps({"query": answer.asked}), "output": json.dumps({"documents": 3}),
        "provided_model_name": None, "usage_details": {}, "total_cost": None, "metadata": {},
    }  # fmt: skip
    return [step | about, generation | about]


def _scores(
    rng: np.random.Generator, answer: Answer, row: dict[str, Any], at: datetime
) -> Iterator[dict[str, Any]]:
    is_liked = answer.is_good if rng.random() < _HONEST else not answer.is_good
    minutes = float(rng.uniform(0.3, 30))
    when = at + timedelta(minutes=minutes)
    if rng.random() < _SPEAKS:
        why = None if is_liked or rng.random() >= _SAYS_WHY else str(rng.choice(list(_WHY)))
        yield _score(rng, row, when, "user-feedback", int(is_liked), comment=why)
        if not is_liked and not answer.is_good and rng.random() < _CORRECTS:
            yield _score(
                rng, row, when + timedelta(seconds=20), "output", 0, data_type="CORRECTION",
                string_value=answer.right, source="ANNOTATION", observation_id=row["id"],
            )  # fmt: skip
    elif rng.random() < _RATES:
        stars = int(rng.integers(4, 6) if is_liked else rng.integers(1, 3))
        yield _score(rng, row, when, "rating", stars, observation_id=row["id"])
    if rng.random() < _EVALUATED:
        level = rng.uniform(0.6, 1.0) if answer.is_good else rng.uniform(0.0, 0.7)
        told = round(float(level), 2)
        yield _score(rng, row, when, "helpfulness", told, source="EVAL", observation_id=row["id"])


def _score(
    rng: np.random.Generator, row: dict[str, Any], at: datetime, name: str, value: float,
    **more: Any,
) -> dict[str, Any]:  # fmt: skip
    written = _written(at)
    return {
        "id": _hex(rng, 16), "timestamp": written, "project_id": PROJECT,
        "environment": "production", "trace_id": row["trace_id"], "observation_id": None,
        "session_id": None, "dataset_run_id": None, "name": name, "value": value, "source": "API",
        "comment": None, "data_type": "NUMERIC", "string_value": None, "created_at": written,
        "updated_at": written,
    } | more  # fmt: skip


def _hex(rng: np.random.Generator, size: int) -> str:
    return rng.bytes(size).hex()


def _written(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")


def write_export(folder: Path, number: int, until: datetime, seed: int) -> tuple[int, int]:
    """Write an export into a folder; return how many observations and scores it holds."""
    observations, scores = rows(number, until, seed)
    for name, some in (("observations_v2", observations), ("scores", scores)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        text = "".join(f"{json.dumps(row)}\n" for row in some)
        (folder / name / "export.jsonl").write_text(text, "utf-8")
    return len(observations), len(scores)


def main() -> None:
    """Write an export and say what it holds."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--answers", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    now = datetime.now(UTC)
    observations, scores = write_export(given.folder, given.answers, now, given.seed)
    logger.info("%d observations and %d scores in %s", observations, scores, given.folder)


if __name__ == "__main__":
    main()
