"""A Langfuse export of a vendor's model, by Langfuse's schema: answers, thumbs, corrections."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

_TOPICS = ("invoice", "parcel", "refund", "password")


def write_export(
    folder: Path, model: str, start: datetime, hours: int, *, down: float, per_hour: int = 20
) -> int:
    """Write an export in which a share of the rated answers got a thumb down; return its answers.

    Whoever gives a thumb down to an answer about refunds says what it should have been.
    """
    rng = np.random.default_rng([int(start.timestamp()), len(model)])
    answers, scores = [], []
    for number in range(hours * per_hour):
        at = start + timedelta(seconds=3_600 * number / per_hour)
        key = f"{model}-{number}"
        topic = _TOPICS[number % len(_TOPICS)]
        bad, word = rng.random() < down, _word(rng)
        asked = [{"role": "user", "content": f"My {topic} {word} is late"}]
        answer = {"role": "assistant", "content": f"Your {topic} is on its way."}
        answers.append(
            {
                "id": f"ob-{key}", "trace_id": f"tr-{key}", "project_id": "p",
                "environment": "production", "type": "GENERATION",
                "start_time": _written(at), "end_time": _written(at + timedelta(seconds=1)),
                "name": "answer", "user_id": f"user-{number % 400}", "session_id": f"s-{key}",
                "input": json.dumps(asked),
                "output": json.dumps(answer),
                "provided_model_name": model, "latency": 1.0,
            }
        )  # fmt: skip
        about = {
            "timestamp": _written(at + timedelta(minutes=1)), "project_id": "p",
            "trace_id": f"tr-{key}", "observation_id": None, "source": "API",
        }  # fmt: skip
        thumb = {"id": f"sc-{key}", "name": "user-feedback", "value": int(not bad)}
        scores.append(thumb | about | {"data_type": "NUMERIC", "string_value": None})
        if bad and topic == "refund":
            right = {"id": f"co-{key}", "name": "output", "value": None, "data_type": "CORRECTION"}
            scores.append(right | about | {"string_value": "Refunds take five days."})
    for name, rows in (("observations_v2", answers), ("scores", scores)):
        (folder / name).mkdir(parents=True)
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / name / "day.jsonl").write_text(text)
    return len(answers)


def _written(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S.%f}"


def _word(rng: np.random.Generator) -> str:
    return "".join(chr(ord("a") + letter) for letter in rng.integers(0, 16, 9))
