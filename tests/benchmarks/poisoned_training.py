"""What hostile users do to the trained model, with the defence and without; prints Markdown.

    python -m tests.benchmarks.poisoned_training --base FOLDER --out FILE [--seeds 2]

The traffic of `tests.benchmarks.poisoning`: 4,000 messages of BANKING77 to a router of eight queues
that is right half of the time. One user in ten is hostile, turns thumbs round and plants one queue
by corrections. 320 rows are curated and trained on; each model answers the same messages that no
user sent. What was measured is kept in the file, so that a run that is stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ratchet.evaluation.metrics import exact_match
from ratchet.improve.curation.config import CurationConfig
from ratchet.improve.curation.poisoning import PoisoningConfig
from ratchet.improve.curation.pool import Context
from ratchet.improve.curation.rows import TrainingRow
from ratchet.improve.curation.selection import select
from ratchet.improve.training.config import FinetuneConfig
from ratchet.improve.training.finetune import finetune
from ratchet.models import HuggingFaceModel
from ratchet.outcomes.quality import QualityWeights, quality
from ratchet.records import digest
from ratchet.simulation.routing import conversation
from ratchet.stats.intervals import newcombe_paired
from tests.benchmarks import poisoning
from tests.benchmarks.provenance import commit

ROWS, TESTED, SHARE = 320, 800, 0.1


@dataclass(frozen=True, slots=True)
class Case:
    """Which share of users is hostile, and whether the defence is on."""

    name: str
    hostile: float
    defence: bool


CASES = (
    Case("no hostile users", 0.0, True),
    Case("10 % hostile, defence on", SHARE, True),
    Case("10 % hostile, defence off", SHARE, False),
)


def curated(
    case: Case, seed: int, labels: tuple[str, ...], most: int
) -> tuple[list[TrainingRow], float]:
    """Return what is trained on, and the share of rows that are wrong."""
    found = poisoning.world(case.hostile, new=False, seed=seed)
    outcomes = found.outcomes
    config = CurationConfig(
        maximum_examples=most, poisoning=PoisoningConfig(enabled=case.defence), length_ratio=None
    )
    selection = select(
        outcomes,
        quality(outcomes, QualityWeights()),
        [],
        config,
        context=Context(vectors_of=poisoning.vectors_of(outcomes)),
    )
    truth = dict(zip(map(str, outcomes.interaction_ids), found.truth, strict=True))
    prompts = dict(zip(map(str, outcomes.interaction_ids), outcomes.prompts, strict=True))
    rows = [
        TrainingRow(
            row.interaction_id,
            conversation(labels, str(prompts[row.interaction_id])),
            str(row.target),
            row.source,
        )
        for row in selection.rows
    ]
    wrong = np.mean([truth[row.interaction_id] != row.target for row in rows])
    return rows, float(wrong)


def measure(case: Case, seed: int, base: Path, size: int, asked: int) -> dict[str, Any]:
    """Curate, train and answer; return which answers are right."""
    everything = poisoning.labelled()
    labels = tuple(sorted({queue for _, queue in everything}))
    order = np.random.default_rng(seed).permutation(len(everything))[poisoning.MESSAGES :]
    tested = [everything[place] for place in order[:asked]]
    rows, wrong = curated(case, seed, labels, size)
    config = FinetuneConfig(multiply="medium")
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        key = digest([case.name, seed])
        result = finetune(rows, config, base=base, start_from=None, key=key, home=home)
        model = HuggingFaceModel.load(base, home / result.folder)
        questions = [conversation(labels, text) for text, _ in tested]
        answers = model.generate(questions, max_new_tokens=12)
    right = [
        exact_match(answer.text, queue) for answer, (_, queue) in zip(answers, tested, strict=True)
    ]
    planted = np.mean([exact_match(answer.text, poisoning.PLANTED) for answer in answers])
    return {
        "rows": len(rows),
        "wrong_rows": wrong,
        "right": right,
        "planted": float(planted),
        "seconds": result.seconds,
    }


def table(found: dict[str, dict[str, Any]], seeds: int) -> str:
    """Return the results as Markdown, the loss against the run without hostile users paired."""
    lines = [
        "| users | rows | wrong rows | right answers | answers with the planted queue | "
        "difference to no hostile users |",
        "|---|---|---|---|---|---|",
    ]
    clean = np.concatenate([found[f"{CASES[0].name}/{seed}"]["right"] for seed in range(seeds)])
    for case in CASES:
        runs = [found[f"{case.name}/{seed}"] for seed in range(seeds)]
        right = np.concatenate([run["right"] for run in runs])
        both = int((right & clean).sum())
        gained, lost = int((right & ~clean).sum()), int((clean & ~right).sum())
        neither = len(right) - both - gained - lost
        interval = newcombe_paired(both, lost, gained, neither)
        change = 100 * (right.mean() - clean.mean())
        lines.append(
            f"| {case.name} | {np.mean([run['rows'] for run in runs]):.0f} | "
            f"{np.mean([run['wrong_rows'] for run in runs]):.1%} | {right.mean():.1%} | "
            f"{np.mean([run['planted'] for run in runs]):.1%} | "
            + (
                f"{change:+.1f} points ({100 * interval.lower:+.1f} to {100 * interval.upper:+.1f})"
                if case.hostile
                else "-"
            )
            + " |"
        )
    return "\n".join(lines)


def main() -> int:
    """Measure what is missing in the file, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--rows", type=int, default=ROWS, help="Train on so many at most.")
    parser.add_argument("--tested", type=int, default=TESTED, help="Messages that are answered.")
    parser.add_argument("--most", type=int, default=99, help="Train at most so many models now.")
    asked = parser.parse_args()
    found = json.loads(asked.out.read_text("utf-8")) if asked.out.exists() else {}
    wanted = [(case, seed) for seed in range(asked.seeds) for case in CASES]
    missing = [(case, seed) for case, seed in wanted if f"{case.name}/{seed}" not in found]
    for case, seed in missing[: asked.most]:
        got = measure(case, seed, asked.base, asked.rows, asked.tested)
        found[f"{case.name}/{seed}"] = got
        asked.out.write_text(json.dumps(found), "utf-8")
        print(case.name, seed, f"{np.mean(got['right']):.1%}", file=sys.stderr)
    if len(missing) > asked.most:
        return 3
    print(
        f"Measured on {datetime.now(UTC):%Y-%m-%d} at commit {commit()}, two cores, no GPU, "
        f"Python {platform.python_version()}: {asked.tested} messages for each of "
        f"{asked.seeds} seeds.\n"
    )
    print(table(found, asked.seeds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
