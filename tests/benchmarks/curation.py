"""What curating a million interactions costs, and what hostile users achieve; writes the docs.

    python -m tests.benchmarks.curation            # writes docs/curation.md
    python -m tests.benchmarks.curation --size 100000 --print

Texts are BANKING77's messages in other words: openings, endings, amounts, names and, in 3 % of
them, personal data. An evaluation set of 3,080 messages (BANKING77's own) is kept out; one in
2,000 interactions is one of its messages in another form.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ratchet.improve.curation.config import CurationConfig
from ratchet.improve.curation.dataset import build_rows, write_training_set
from ratchet.improve.curation.selection import select
from ratchet.outcomes.join import join_feedback
from ratchet.outcomes.quality import QualityWeights, quality
from ratchet.records import Interaction, Message
from tests.benchmarks import poisoning
from tests.benchmarks.provenance import commit

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data" / "banking77"
HEAD = Path(__file__).parent / "curation_head.md"
OPENINGS = (
    "", "", "", "Hi, ", "Hello there. ", "Good morning, ", "Quick question: ",
    "Sorry to ask again, ", "I have been waiting for an hour. ", "My name is {name}. ",
    "As I told your colleague {name}, ",
    "Since {day} I have a problem. ",
)  # fmt: skip
ENDINGS = (
    "", "", "", " Thanks!", " Please help.", " It is about {amount} pounds.", " This is urgent!!",
    " I was in {city} at the time.", " Regards, {name}", " The order was number {number}.",
    " I live in {city} and bank with you since {year}.",
)  # fmt: skip
PERSONAL = (
    " My number is +44 7911 {number}.", " Write to {name}.{number}@gmail.com",
    " Card 4095260993934932",
)  # fmt: skip
ANSWERS = (
    "I am sorry to hear that. Please open the app, go to {word} and follow the steps there; "
    "it takes about {amount} minutes.",
    "Thank you for your message. A colleague from {city} will look at your {word} on {day}.",
    "You can see the state of your {word} under Settings. If it is not there by {day}, write.",
    "That is because of a fee of {amount} pence on {word}; I have taken it back.",
)  # fmt: skip
WORDS = {
    "name": ("Maria", "John", "Priya", "Wei", "Fatima", "Oleg", "Anna", "Kwame", "Luis", "Chloe"),
    "day": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "last weekend", "yesterday"),
    "city": ("London", "Lisbon", "Leeds", "Lyon", "Lagos", "Lima", "Lahore", "Linz", "Lodz"),
    "word": ("card", "transfer", "top-up", "account", "refund", "exchange", "PIN", "check"),
}  # fmt: skip


DAY, START = 86_400_000_000, 1_790_000_000_000_000
CHANCES = {"thumbs": (0.4, 0.8), "task_completed": (0.6, 0.8), "regenerate": (0.9, 0.1)}


def read(name: str) -> list[str]:
    """Return the messages of one of BANKING77's files."""
    with (DATA / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return [row["text"].strip() for row in csv.DictReader(file)]


def filled(parts: tuple[str, ...], size: int, rng: np.random.Generator) -> list[str]:
    """Draw phrases and fill their blanks."""
    chosen = rng.integers(0, len(parts), size)
    drawn = {
        name: [words[n] for n in rng.integers(0, len(words), size)] for name, words in WORDS.items()
    }
    numbers = {"amount": (1, 400), "number": (100_000, 999_999), "year": (1990, 2026)}
    drawn |= {name: list(map(str, rng.integers(*span, size))) for name, span in numbers.items()}
    return [
        parts[n].format_map({name: words[place] for name, words in drawn.items()})
        if parts[n]
        else ""
        for place, n in enumerate(chosen)
    ]


def tables(
    size: int,
    seed: int = 0,
    *,
    first: int = 0,
    start: int = START,
    days: float = 30.0,
    chances: Mapping[str, tuple[float, float]] = CHANCES,
    corrected: float = 0.05,
) -> tuple[pa.Table, pa.Table]:
    """Return interactions and feedback as the store gives them.

    Args:
        size: Interactions.
        seed: Of all that is drawn.
        first: Number of the first one, for its id.
        start: Microseconds since 1970 from where on they are.
        days: How long.
        chances: Of each kind of feedback: how often it is given, and how often it is 1.
        corrected: Share of interactions with a correction.
    """
    rng = np.random.default_rng(seed)
    known, held_out = read("train"), read("test")
    middle = [known[n] for n in rng.integers(0, len(known), size)]
    for place in np.flatnonzero(rng.random(size) < 1 / 2_000):
        middle[place] = held_out[int(rng.integers(len(held_out)))].upper().replace(" ", "  ")
    columns = [filled(OPENINGS, size, rng), middle, filled(ENDINGS, size, rng)]
    personal = filled(PERSONAL, size, rng)
    shown = rng.random(size) < 0.03
    prompts = [
        a + b + c + (d if s else "")
        for a, b, c, d, s in zip(*columns, personal, shown, strict=True)
    ]
    answers = filled(ANSWERS, size, rng)
    ids = [f"interaction-{n:08d}" for n in range(first, first + size)]
    at = start + np.sort(rng.integers(0, round(days * DAY), size))
    users = rng.integers(0, max(10, size // 20), size)
    interactions = pa.table(
        {
            "id": ids,
            "session_id": [f"session-{n}" for n in users],
            "user_id": [f"user-{n}" for n in users],
            "created_at": pa.array(at, pa.timestamp("us", "UTC")),
            "model_version": pa.array(["support/1"] * size),
            "segment": np.array(["web", "app", "mail"])[rng.integers(0, 3, size)],
            "prompt": prompts,
            "response": answers,
            "latency_seconds": rng.lognormal(0.0, 0.4, size),
            "error": pa.nulls(size, pa.string()),
        }
    )
    return interactions, _feedback(ids, at, known, rng, chances, corrected)


def _feedback(
    ids: list[str],
    at: Any,
    known: list[str],
    rng: np.random.Generator,
    chances: Mapping[str, tuple[float, float]],
    corrected: float,
) -> pa.Table:
    size = len(ids)
    parts = []
    for kind, (observed, one) in chances.items():
        rows = np.flatnonzero(rng.random(size) < observed)
        parts.append(
            _events(kind, rows, ids, at, number=(rng.random(len(rows)) < one).astype(float))
        )
    rows = np.flatnonzero(rng.random(size) < corrected)
    said = [
        f"Please go to {known[n][:60]} in the app." for n in rng.integers(0, len(known), len(rows))
    ]
    parts.append(_events("correction", rows, ids, at, text=said))
    return pa.concat_tables(parts)


def _events(
    kind: str, rows: Any, ids: list[str], at: Any, *, number: Any = None, text: Any = None
) -> pa.Table:
    size = len(rows)
    return pa.table(
        {
            "id": [f"{kind}-{ids[n]}" for n in rows],
            "interaction_id": [ids[n] for n in rows],
            "kind": pa.array([kind] * size),
            "created_at": pa.array(at[rows] + 60_000_000, pa.timestamp("us", "UTC")),
            "number": pa.nulls(size, pa.float64()) if number is None else number,
            "text": pa.nulls(size, pa.string()) if text is None else text,
        }
    )


def curate(size: int) -> dict[str, Any]:
    """Curate so many interactions in this process; return seconds a step, memory and counts."""
    read_out = [tables(size)]
    protected = read("test")
    config = CurationConfig(maximum_examples=size)
    before = _memory()
    seconds: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = work()
        seconds[name] = time.perf_counter() - started
        return result

    outcomes = timed("join feedback", lambda: join_feedback(*read_out[0]))
    scores = timed("scores", lambda: quality(outcomes, QualityWeights()))
    read_out.clear()  # as the flow does: what was joined is not needed any more
    selection = timed(
        "select: evidence, trust, duplicates, decontamination, length, balance",
        lambda: select(outcomes, scores, protected, config),
    )
    stored = timed("conversations", lambda: _stored(selection.rows))
    rows = build_rows(selection, stored, config, 0)
    with tempfile.TemporaryDirectory() as home:
        made = timed(
            "redact, check for leaks, split and write",
            lambda: write_training_set(
                rows, selection, protected, home=Path(home), cycle_id="c",
                now=datetime.now(UTC), config=config,
            ),
        )  # fmt: skip
    return {
        "size": size,
        "seconds": seconds,
        "memory": _memory(),
        "texts": before,
        "funnel": made.funnel,
        "leaks": made.leaks,
        "redactions": made.redactions,
        "rows": made.size + made.validation,
        "digest": made.digest,
    }


def _stored(rows: Any) -> dict[str, Interaction]:
    now = datetime.now(UTC)
    return {
        row.interaction_id: Interaction(
            id=row.interaction_id, session_id="s", user_id=row.user_id, created_at=now,
            model_version="support/1", messages=(Message(role="user", content=row.prompt),),
            response="",
        )
        for row in rows
    }  # fmt: skip


def _memory() -> float:
    """Peak resident memory in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def apart(size: int) -> dict[str, Any]:
    """Curate in a process of its own, so that its peak of memory is its own."""
    command = [sys.executable, "-m", "tests.benchmarks.curation", "--apart", "--size", str(size)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def cost_rows(found: dict[str, Any]) -> str:
    """Return the table of what each step took."""
    lines = [f"| {name} | {seconds:.1f} |" for name, seconds in found["seconds"].items()]
    total = sum(found["seconds"].values())
    return "\n".join(["| step | seconds |", "|---|---:|", *lines, f"| **all** | **{total:.1f}** |"])


def count_rows(rows: list[list[Any]], title: str) -> str:
    """Return a table of counts."""
    return "\n".join([f"| {title} | rows |", "|---|---:|", *[f"| {n} | {c:,} |" for n, c in rows]])


def main() -> None:
    """Measure, and write the page or print it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=1_000_000)
    parser.add_argument("--print", action="store_true")
    parser.add_argument("--apart", action="store_true")
    options = parser.parse_args()
    if options.apart:
        print(json.dumps(curate(options.size)))
        return
    found = apart(options.size)
    page = HEAD.read_text("utf-8").format(
        date=datetime.now(UTC).date(),
        commit=commit(),
        python=platform.python_version(),
        size=f"{found['size']:,}",
        seconds=f"{sum(found['seconds'].values()):.0f}",
        memory=f"{found['memory']:.1f}",
        texts=f"{found['texts']:.1f}",
        rows=f"{found['rows']:,}",
        cost=cost_rows(found),
        funnel=count_rows(found["funnel"], "step"),
        leaks=count_rows(found["leaks"], "how"),
        redactions=count_rows(found["redactions"], "kind"),
        hostile="" if options.print else "\n".join([*poisoning.tables(), *poisoning.sizes_table()]),
    )
    if options.print:
        print(page)
    else:
        (ROOT / "docs" / "curation.md").write_text(page.rstrip() + "\n", "utf-8")


if __name__ == "__main__":
    main()
