"""Judges on LLMBar: 349 recorded runs through the validation, and a real local model.

    python -m tests.benchmarks.llmbar_judges [--model smollm2] [--pairs 100]

The recorded runs need a second; the local model judges pairs of the subset Natural in both orders,
some minutes on two cores. Needs the data folder beside the project.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from ratchet.judges.label_sets import read_label_file
from ratchet.judges.on_files import FileJudged, judge_file, read_items
from ratchet.judges.rubrics import JudgeSpec, Option, RubricDimension
from ratchet.judges.validation import Validation, validate_judge
from ratchet.judges.validation_report import validations_text
from ratchet.settings import load_settings
from ratchet.store import EventStore

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "llmbar"
COLUMNS = {"human": "label", "judge": "orig", "judge_swapped": "swapped"}
FOLLOWS = RubricDimension(
    name="instruction_following",
    question="Which answer carries out the user's instruction better?",
    options=(
        Option(name="worse", score=0.0, means="carries it out less well"),
        Option(name="better", score=1.0, means="carries it out better"),
    ),
)


def recorded_runs(data: Path = DATA) -> list[tuple[str, Validation]]:
    """Validate the recorded runs of real judges."""
    found = read_label_file(data / "judge_verdicts.jsonl", COLUMNS)
    rng = np.random.default_rng(0)
    return [(run.name, validate_judge(run.rows, rng=rng)) for run in found.runs]


def write_pairs(path: Path, count: int, data: Path = DATA) -> None:
    """Write pairs of the subset Natural as items to judge."""
    pairs = json.loads((data / "dataset_Natural.json").read_text("utf-8"))[:count]
    with path.open("w", encoding="utf-8") as file:
        for number, pair in enumerate(pairs):
            row = {
                "item_id": f"natural-{number}",
                "prompt": pair["input"],
                "answer": pair["output_1"],
                "other": pair["output_2"],
                "human": pair["label"],
            }
            file.write(json.dumps(row) + "\n")


def local_judge(model: str, count: int, folder: Path) -> FileJudged:
    """Have a local model judge pairs in both orders."""
    pairs = folder / "pairs.jsonl"
    write_pairs(pairs, count)
    spec = JudgeSpec(name=model, dimension=FOLLOWS, mode="pairwise", local=model, explain=False)
    store = EventStore.open(f"sqlite:///{folder / 'store.db'}")
    cache = load_settings({}, folder).cache
    return judge_file(
        store, spec, read_items(pairs)[0], cache=cache, probes=False, now=lambda: datetime.now(UTC)
    )


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--pairs", type=int, default=100)
    options = parser.parse_args()
    started = time.monotonic()
    results = recorded_runs()
    seconds = time.monotonic() - started
    print(f"{len(results)} recorded runs validated in {seconds:.1f} s:")
    print(dict(Counter(found.decision for _, found in results)))
    wrong = [
        (name, found)
        for name, found in results
        if (found.figure("consistency").value or 0.0) >= 0.8  # type: ignore[union-attr]
        and (found.figure("agreement").value or 0.0) < 0.5  # type: ignore[union-attr]
    ]
    print(
        f"\nconsistent and wrong: {len(wrong)} runs, all refused: "
        f"{all(found.decision != 'usable' for _, found in wrong)}"
    )
    best = sorted(results, key=lambda pair: -(pair[1].kappa_bound or -1.0))[:5]
    worst = sorted(wrong, key=lambda pair: -(pair[1].figure("consistency").value or 0.0))[:5]  # type: ignore[union-attr]
    print(validations_text([*best, *worst], (), ()))
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        judged = local_judge(options.model, options.pairs, Path(folder))
        print(
            f"\n{options.model}, {options.pairs} pairs in both orders: "
            f"{time.monotonic() - started:.0f} s"
        )
        print(judged.text(options.model))
        if judged.validation is not None:
            print(validations_text([(options.model, judged.validation)], (), ()))


if __name__ == "__main__":
    main()
