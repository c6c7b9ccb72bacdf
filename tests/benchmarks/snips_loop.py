"""The whole loop on text to JSON: from an untrained model over three cycles; prints Markdown.

    python -m tests.benchmarks.snips_loop --home FOLDER         # goes on where it was
    python -m tests.benchmarks.snips_loop --home FOLDER --print # the table of what is there

SNIPS: a voice command in, its intent and slots out as JSON. Simulated users send commands of the
training file, correct 55 % of the wrong answers (3 % of the corrections are wrong themselves) and
rate some of the others. The gate decides on the 700 rows of the validation file, which no user
ever sends. Each cycle trains on what all cycles before and itself collected.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ratchet.demo.plan import DemoOptions
from ratchet.demo.run import Demo
from ratchet.evaluation.paired import decoding_name, question_digest
from ratchet.records import Candidate, Cycle, Decision, ExampleSet, TrainingSet
from ratchet.servers import Servers
from ratchet.settings import load_settings
from ratchet.stats.intervals import wilson
from ratchet.store import EventStore
from ratchet.tracking import Tracker
from tests.benchmarks.provenance import commit

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data" / "snips"
INSTRUCTION = "Turn the command into JSON with its intent and slots."
LONGEST = 64  # tokens: 98 % of the targets are shorter


def target(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a right answer says; a slot that comes several times has a list."""
    slots: dict[str, list[str]] = {}
    for slot in row["slots"]:
        slots.setdefault(slot["slot"], []).append(slot["value"])
    flat = {name: found[0] if len(found) == 1 else found for name, found in slots.items()}
    return {"intent": row["intent"], "slots": flat}


def write_messages(source: Path, path: Path, most: int | None = None) -> None:
    """Write all or the first SNIPS rows as the messages that `collect` reads."""
    rows = [json.loads(line) for line in source.read_text("utf-8").splitlines()[:most]]
    lines = [
        json.dumps({"text": row["text"], "target": target(row)}, ensure_ascii=False) for row in rows
    ]
    path.write_text("\n".join(lines) + "\n", "utf-8")


def users(home: Path, messages: int) -> DemoOptions:
    """Return who sends what before each cycle, and what the gate decides on."""
    return DemoOptions(
        messages=home / "train.jsonl",
        evaluation=home / "validation.jsonl",
        instruction=INSTRUCTION,
        max_new_tokens=LONGEST,
        messages_limit=messages,
    )


def options(examples: int, epochs: float) -> dict[str, Any]:
    """Return what the loop is told."""
    return {
        "improve": {
            "curation": {"maximum_examples": examples},
            "finetune": {"epochs": epochs, "multiply": "medium"},
        },
    }


def score(wanted: Iterable[tuple[str, str | None]]) -> dict[str, float]:
    """Score answers: intent right, all of the JSON right, and micro F1 over slots with values.

    Args:
        wanted: Targets with answers; no answer is wrong.
    """
    intents = exact = valid = count = shared = expected = found = 0
    for text, answer in wanted:
        truth, said = json.loads(text), parsed(answer)
        count += 1
        valid += said is not None
        right, given = slots_of(truth), slots_of(said or {})
        intents += (said or {}).get("intent") == truth["intent"]
        exact += (said or {}).get("intent") == truth["intent"] and right == given
        shared += (right & given).total()
        expected += right.total()
        found += given.total()
    return {
        "rows": count,
        "intents": intents,
        "exact": exact,
        "valid": valid,
        "slot_f1": 2 * shared / (expected + found) if expected + found else 1.0,
    }


def parsed(answer: str | None) -> dict[str, Any] | None:
    """Return the object that an answer is, or None."""
    try:
        value = json.loads(answer or "")
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def slots_of(said: Mapping[str, Any]) -> Counter[tuple[str, str]]:
    """Return the slots with their values, without case."""
    slots = said.get("slots")
    if not isinstance(slots, dict):
        return Counter()
    pairs = [
        (name, str(value).casefold())
        for name, values in slots.items()
        for value in (values if isinstance(values, list) else [values])
    ]
    return Counter(pairs)


@dataclass(frozen=True, slots=True)
class Point:
    """What one model says on the validation rows; the first one has no training."""

    scores: dict[str, float]
    size: int = 0
    seconds: float = 0.0
    verdict: str = "-"


def points(home: Path) -> list[Point]:
    """Return the untrained model and each cycle's challenger, scored."""
    settings = load_settings(environment(home), ROOT)
    store = EventStore.open(settings.store_url)
    tracker = Tracker(
        settings.tracking_uri, artifacts=settings.artifacts, model_name=settings.model_name
    )
    decisions = {found.cycle_id: found for found in store.records(Decision)}
    candidates = {found.cycle_id: found for found in store.records(Candidate)}
    cycles = [cycle for cycle in store.records(Cycle) if cycle.id in decisions]
    frozen = store.get(ExampleSet, cycles[0].example_set_id)
    assert frozen is not None

    def scored(reference: str) -> dict[str, float]:
        name, decoding = tracker.version(reference).digest, decoding_name(LONGEST)
        keys = [question_digest(example) for example in frozen.examples]
        answers = store.answers(name, decoding, keys)
        return score(
            (example.target, answers.get(key))
            for example, key in zip(frozen.examples, keys, strict=True)
        )

    found = [Point(scored(decisions[cycles[0].id].champion))]
    for cycle in cycles:
        decision, candidate = decisions[cycle.id], candidates[cycle.id]
        training_set = store.get(TrainingSet, candidate.training_set_id)
        assert training_set is not None
        found.append(
            Point(
                scored(decision.challenger),
                training_set.size,
                candidate.training_seconds,
                decision.verdict,
            )
        )
    return found


def table(found: Sequence[Point]) -> str:
    """Return the points as Markdown."""
    lines = [
        "| after | trained on | training | intent | exact JSON | valid JSON | slot F1 | decision |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for number, point in enumerate(found):
        got, rows = point.scores, point.scores["rows"]
        trained = f"{point.size} | {point.seconds / 60:.1f} min" if number else "- | -"
        lines.append(
            f"| {f'cycle {number}' if number else 'no training'} | {trained} | "
            f"{share(got['intents'], rows)} | {share(got['exact'], rows)} | "
            f"{got['valid'] / rows:.1%} | {got['slot_f1']:.3f} | {point.verdict} |"
        )
    return "\n".join(lines)


def plot(found: Sequence[Point], path: Path) -> None:
    """Draw intent accuracy, exact JSON and slot F1 over the cycles, with intervals of shares."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    cycles = range(len(found))
    for name, key, colour in (("intent", "intents", "C0"), ("exact JSON", "exact", "C1")):
        shares = [point.scores[key] / point.scores["rows"] for point in found]
        spans = [wilson(int(p.scores[key]), int(p.scores["rows"])) for p in found]
        axes.plot(cycles, shares, marker="o", color=colour, label=name)
        axes.fill_between(
            cycles,
            [span.lower for span in spans],
            [span.upper for span in spans],
            color=colour,
            alpha=0.2,
            linewidth=0,
        )
    f1 = [point.scores["slot_f1"] for point in found]
    axes.plot(cycles, f1, marker="s", color="C2", label="slot F1")
    axes.set_ylim(0, 1)
    axes.set_xticks(cycles, ["untrained", *(f"cycle {n}" for n in range(1, len(found)))])
    axes.set_ylabel("on 700 validation rows")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", frameon=False)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=110)


def share(count: float, rows: float) -> str:
    """Return a share with its interval."""
    interval = wilson(int(count), int(rows))
    return f"{count / rows:.1%} ({interval.lower:.1%} to {interval.upper:.1%})"


def environment(home: Path) -> dict[str, str]:
    """Return the environment of a home of its own."""
    return dict(os.environ) | {"RATCHET_HOME": str(home / "home")}


def main() -> int:
    """Run the cycles, or print what there is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--cycles", type=int, default=3)
    parser.add_argument("--messages", type=int, default=300)
    parser.add_argument("--examples", type=int, default=700)
    parser.add_argument("--validation", type=int, help="Rows to decide on; all if not given.")
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--print", action="store_true", dest="only_print")
    parser.add_argument("--plot", type=Path, help="Draw the curve into this file.")
    asked = parser.parse_args()
    home = asked.home.resolve()
    home.mkdir(parents=True, exist_ok=True)
    if not asked.only_print:
        write_messages(DATA / "train.jsonl", home / "train.jsonl")
        write_messages(DATA / "valid.jsonl", home / "validation.jsonl", asked.validation)
        environ = environment(home)
        servers = Servers(settings=load_settings(environ, ROOT), say=print)
        demo = Demo(servers, users(home, asked.messages))
        told = options(asked.examples, asked.epochs)
        try:
            servers.start_prefect(port=4460, environ=environ)
            for number in range(1, asked.cycles + 1):
                started = time.monotonic()
                if code := demo.run(told, environ=environ):
                    return code
                print(f"cycle {number} took {(time.monotonic() - started) / 60:.1f} minutes")
        finally:
            servers.stop()
    found = points(home)
    if asked.plot:
        plot(found, asked.plot)
    print(
        f"\nMeasured on {datetime.now(UTC):%Y-%m-%d} at commit {commit()}, two cores, no GPU, "
        f"Python {platform.python_version()}.\n\n{table(found)}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
