"""A cycle on calls of tools: from a model that never called one to right calls; prints Markdown.

    python -m tests.benchmarks.snips_tools --home FOLDER          # goes on where it was
    python -m tests.benchmarks.snips_tools --home FOLDER --print  # the table of what is there

SNIPS' voice commands become calls: the intent is the tool, the slots are its arguments, some of
them numbers and a choice. Simulated users send commands of the training file with the tools to a
running gateway over the small model, which has never been trained on a tool, and send the right
call as a correction of most wrong answers. One cycle curates, trains and gates: by the policy on
exact calls, on commands of the validation file that no user ever sends.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from ratchet.deploy.promotion import establish_champion
from ratchet.evaluation.call_metrics import (
    argument_f1,
    call_validity,
    exact_calls,
    tool_names,
    unparsable_calls,
)
from ratchet.evaluation.paired import decoding_name, question_digest
from ratchet.operate.base_model import register_base
from ratchet.records import Candidate, Cycle, Decision, Example, ExampleSet, TrainingSet
from ratchet.records.tool_calls import read_calls, written
from ratchet.servers import Servers, free_port
from ratchet.settings import load_settings
from ratchet.simulation.tool_users import Application, as_text
from ratchet.simulation.tool_world import Call
from ratchet.stats.intervals import wilson
from ratchet.store import EventStore
from ratchet.tracking import Tracker
from tests.benchmarks.provenance import commit

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data" / "snips"
SYSTEM = "Act by calling functions."
LONGEST = 64  # tokens: no right call has more
CHATTER = 24  # tokens of an answer to users: an untrained model's words need not be whole
NUMBERS = {word: n for n, word in enumerate(["zero", "one", "two", "three", "four", "five", "six"])}
ARTICLES = re.compile(r"(?:the|an?)\s")
CORRECTED, RATED = 0.95, 0.3
"""Shares: of wrong answers that are corrected, of right ones that get a thumb."""


def _tool(name: str, needed: Sequence[str], **properties: Any) -> dict[str, Any]:
    form = {"type": "object", "properties": properties, "required": list(needed)}
    return {"type": "function", "function": {"name": name, "parameters": form}}


_TEXT, _WHOLE = {"type": "string"}, {"type": "integer"}
_UNITS = ("stars", "points")
TOOLS = (
    _tool("rate_book", ("book", "rating"), book=_TEXT, rating=_WHOLE, unit={"enum": list(_UNITS)}),
    _tool("add_to_playlist", ("item", "playlist"), item=_TEXT, playlist=_TEXT),
    _tool("find_work", ("title", "kind"), title=_TEXT, kind=_TEXT),
)
"""Without descriptions, since each row of the training holds them all: see docs/training.md."""
NAMED = ("book", "item", "playlist", "title")
NAMES = tuple(tool["function"]["name"] for tool in TOOLS)


@dataclass(frozen=True, slots=True)
class Command:
    """What a user says, and the call that does it."""

    text: str
    call: Call


def call_of(row: Mapping[str, Any]) -> Call | None:
    """Return the call of a SNIPS row; None where its slots do not make one.

    Values stand as in the command, so that they can be copied; numbers in words become numbers.
    What a rating is out of has no argument. Left out are rows of other intents, with other slots or
    with a slot twice; music that has no name ("this track"); and rows where an article stands
    before a name or begins it, since SNIPS counts it in at will.
    """
    text, names = row["text"], [slot["slot"] for slot in row["slots"]]
    slots = {slot["slot"]: slot["value"] for slot in row["slots"]}
    if len(slots) < len(names) or any(value not in text for value in slots.values()):
        return None
    makers = {"RateBook": _rating, "AddToPlaylist": _addition, "SearchCreativeWork": _search}
    make = makers.get(row["intent"])
    call = None if make is None else make(text, slots)
    named = [] if call is None else [call.arguments.get(name) for name in NAMED]
    return None if any(_has_article(text, name) for name in named if name) else call


def _rating(text: str, slots: dict[str, str]) -> Call | None:
    known = {"object_name", "object_select", "object_type", "rating_value", "best_rating"}
    named = [slots[name] for name in ("object_select", "object_type") if name in slots]
    book = slots.get("object_name") or _span(text, named)
    rating, unit = _number(slots.get("rating_value", "")), slots.get("rating_unit")
    unknown = set(slots) - known - {"rating_unit"} or ("object_name" in slots and named)
    if unknown or not book or rating is None or unit not in (None, *_UNITS):
        return None
    return Call("rate_book", {"book": book, "rating": rating} | ({"unit": unit} if unit else {}))


def _addition(_text: str, slots: dict[str, str]) -> Call | None:
    items = [slots[name] for name in ("artist", "entity_name") if name in slots]
    known = {"artist", "entity_name", "playlist", "playlist_owner"}
    if len(items) != 1 or "playlist" not in slots or set(slots) - known:
        return None
    return Call("add_to_playlist", {"item": items[0], "playlist": slots["playlist"]})


def _search(_text: str, slots: dict[str, str]) -> Call | None:
    if set(slots) != {"object_name", "object_type"}:
        return None
    return Call("find_work", {"title": slots["object_name"], "kind": slots["object_type"]})


def _has_article(text: str, name: str) -> bool:
    """Tell whether an article in small letters begins a name or stands right before it."""
    before = text[: text.index(name)]
    return bool(ARTICLES.match(name) or re.search(rf"\b{ARTICLES.pattern}$", before))


def _number(text: str) -> int | None:
    return NUMBERS.get(text.lower(), int(text) if text.isdigit() else None)


def _span(text: str, values: Sequence[str]) -> str | None:
    """Return the part of a text that holds values one after the other, with commas at most."""
    found = re.search(r"[\s,]+".join(map(re.escape, values)), text) if values else None
    return None if found is None else found.group()


def commands(path: Path, count: int, seed: int) -> list[Command]:
    """Return commands of a SNIPS file, as many of each tool, each text once, in drawn order."""
    rng = np.random.default_rng(seed)
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    found: dict[str, Command] = {}
    for place in rng.permutation(len(rows)):
        call = call_of(rows[place])
        if call is not None:
            text = rows[place]["text"]
            found.setdefault(" ".join(text.lower().split()), Command(text, call))
    each = [[one for one in found.values() if one.call.name == name] for name in NAMES]
    mixed = [one for row in zip(*each, strict=False) for one in row]
    return mixed[:count]


def write_examples(held_out: Sequence[Command], path: Path) -> None:
    """Write the held-out commands as the file of examples that the gate reads."""
    lines = [
        json.dumps(
            {
                "id": f"snips-{place}",
                "system": SYSTEM,
                "prompt": one.text,
                "tools": list(TOOLS),
                "tool_calls": [
                    {
                        "function": {
                            "name": one.call.name,
                            "arguments": json.dumps(dict(one.call.arguments), ensure_ascii=False),
                        }
                    }
                ],
            },
            ensure_ascii=False,
        )
        for place, one in enumerate(held_out)
    ]
    path.write_text("\n".join(lines) + "\n", "utf-8")


# The home -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """One home, and what is done in it."""

    home: Path
    rows: int
    held_out: int
    epochs: float
    batch: int
    longest_row: int
    rate: float | None = None
    users: int = 40

    @property
    def settings(self) -> Any:
        """Of the home."""
        return load_settings(self.environment, ROOT)

    @property
    def environment(self) -> dict[str, str]:
        """Of a home of its own."""
        return dict(os.environ) | {"RATCHET_HOME": str(self.home / "home")}

    @property
    def store(self) -> EventStore:
        """What is kept."""
        return EventStore.open(self.settings.store_url)

    @property
    def tracker(self) -> Tracker:
        """MLflow."""
        found = self.settings
        return Tracker(found.tracking_uri, artifacts=found.artifacts, model_name=found.model_name)

    @property
    def options(self) -> dict[str, Any]:
        """What the loop is told."""
        secondary = ["tool_name_match", "argument_f1", "call_validity", "unparsable_call_rate"]
        return {
            "collect": {
                "examples": str(self.home / "examples.jsonl"),
                "max_new_tokens": LONGEST,
            },
            "improve": {
                "curation": {"maximum_examples": self.rows, "validation_share": 0.0},
                "finetune": {
                    "epochs": self.epochs,
                    "batch_size": self.batch,
                    "learning_rate": self.rate,
                    "maximum_tokens": self.longest_row,
                },
            },
            "deploy": {
                "policy": {
                    "primary": {"metric": "call_exact_match"},
                    "secondary": secondary,
                    "minimum_examples": min(100, self.held_out),
                }
            },
        }

    def champion(self) -> str:
        """Make the base model the champion, where there is none yet."""
        found = self.settings
        found.make_home()

        store, tracker, now = self.store, self.tracker, datetime.now(UTC)

        def base() -> Any:
            return register_base(found, store, tracker, now)

        return establish_champion(store, tracker, base, now).reference

    def collect(self, sent: Sequence[Command], at_once: int) -> None:
        """Have users send the commands that were not sent yet."""
        done = self.sent()
        waiting = [(place, one) for place, one in enumerate(sent) if place not in done]
        if not waiting:
            return
        servers = Servers(settings=self.settings, say=print)
        with (
            servers.gateway(port=8300, environ=self.environment) as url,
            httpx.Client(timeout=600.0, trust_env=False) as client,
            ThreadPoolExecutor(at_once) as pool,
            (self.home / "sent.jsonl").open("a", encoding="utf-8") as file,
        ):
            application = Application(url, client, tools=TOOLS, system=SYSTEM, max_tokens=CHATTER)
            for row in pool.map(lambda found: self._send(application, *found), waiting):
                file.write(json.dumps(row) + "\n")
                file.flush()

    def _send(self, application: Application, place: int, command: Command) -> dict[str, Any]:
        """Send one command, and what the user says of the answer."""
        rng = np.random.default_rng([7, place])
        user = f"user-{place % self.users:02d}"
        turn = {"role": "user", "content": command.text}
        reply = application.ask([turn], user=user, session=f"command-{place}")
        said = written(reply.message)
        right = exact_calls([said], [as_text([command.call])]).values[0] == 1.0
        if right and rng.random() < RATED:
            application.feedback(reply, "thumbs", "up")
        elif not right and rng.random() < CORRECTED:
            application.feedback(reply, "correction", as_text([command.call]))
        calls = len(read_calls(said).calls)
        return {"place": place, "right": bool(right), "calls": calls}

    def sent(self) -> dict[int, dict[str, Any]]:
        """What was sent, by its place among the commands."""
        path = self.home / "sent.jsonl"
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        return {row["place"]: row for row in map(json.loads, lines)}

    def loop(self) -> int:
        """Curate, train and gate, once."""
        if self.store.records(Decision):
            return 0
        servers = Servers(settings=self.settings, say=print)
        try:
            servers.start_prefect(port=free_port(4460), environ=self.environment)
            return servers.run(["ratchet.flows.loop", json.dumps(self.options)])
        finally:
            servers.stop()


# What came of it ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Point:
    """What one model answered to the held-out commands."""

    examples: Sequence[Example]
    answers: Sequence[str | None]

    def exact(self, tool: str | None = None) -> tuple[int, int]:
        """Return how many answers are exact calls, and of how many; of all tools or one."""
        targets = [example.target for example in self.examples]
        scores = exact_calls([one or "" for one in self.answers], targets).values
        kept = [
            score for score, target in zip(scores, targets, strict=True)
            if tool is None or read_calls(target or "").calls[0].name == tool
        ]  # fmt: skip
        return int(sum(kept)), len(kept)

    def metrics(self) -> dict[str, float]:
        """Return the other metrics, of all answers."""
        said = [one or "" for one in self.answers]
        targets = [example.target for example in self.examples]
        tools = [example.tools for example in self.examples]
        return {
            "right tool": _mean(tool_names(said, targets)),
            "F1 of arguments": float(argument_f1(said, targets).whole),
            "calls that fit the tools": _mean(call_validity(said, tools)),
            "answers with an unreadable call": _mean(unparsable_calls(said)),
        }


def _mean(scored: Any) -> float:
    return float(np.nanmean(scored.values))


def points(run: Run) -> tuple[Point, Point, Decision, Candidate, TrainingSet]:
    """Return what champion and challenger answered, and what the cycle left behind."""
    store, tracker = run.store, run.tracker
    decision = store.records(Decision)[0]
    candidate = next(one for one in store.records(Candidate) if one.cycle_id == decision.cycle_id)
    training_set = store.get(TrainingSet, candidate.training_set_id)
    cycle = store.records(Cycle)[0]
    frozen = store.get(ExampleSet, cycle.example_set_id)
    assert frozen is not None
    assert training_set is not None
    decoding = decoding_name(LONGEST, one_line=False)
    keys = [question_digest(example) for example in frozen.examples]

    def point(reference: str) -> Point:
        answers = store.answers(tracker.version(reference).digest, decoding, keys)
        return Point(frozen.examples, [answers.get(key) for key in keys])

    return point(decision.champion), point(decision.challenger), decision, candidate, training_set


def table(before: Point, after: Point) -> str:
    """Return both models as Markdown."""
    lines = ["| exact calls | no training | after one cycle |", "|---|---|---|"]
    for tool in (*NAMES, None):
        name = "**all**" if tool is None else f"`{tool}`"
        lines.append(f"| {name} | {_share(*before.exact(tool))} | {_share(*after.exact(tool))} |")
    was, found = before.metrics(), after.metrics()
    lines += [f"| {name} | {_plain(was[name])} | {_plain(found[name])} |" for name in found]
    return "\n".join(lines)


def _share(count: int, of: int) -> str:
    if not of:
        return "-"
    interval = wilson(count, of)
    return f"{count / of:.1%} ({interval.lower:.1%} to {interval.upper:.1%})"


def _plain(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.1%}"


def plot(before: Point, after: Point, path: Path) -> None:
    """Draw exact calls by tool, before and after, with intervals."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    axes = figure.subplots()
    tools = [tool for tool in NAMES if after.exact(tool)[1]]
    shown = [*tools, None]
    for side, (point, name) in enumerate(((before, "no training"), (after, "after one cycle"))):
        spans = [wilson(*point.exact(tool)) for tool in shown]
        shares = [count / of for count, of in (point.exact(tool) for tool in shown)]
        low = [max(0.0, share - span.lower) for share, span in zip(shares, spans, strict=True)]
        high = [max(0.0, span.upper - share) for share, span in zip(shares, spans, strict=True)]
        places = [place + 0.4 * side - 0.2 for place in range(len(shown))]
        axes.bar(places, shares, 0.36, color=f"C{side}", label=name)
        axes.errorbar(places, shares, yerr=[low, high], fmt="none", ecolor="black", capsize=3)
    axes.set_ylim(0, 1)
    axes.set_xticks(range(len(shown)), [tool or "all" for tool in shown])
    axes.set_ylabel(f"exact calls, {len(after.examples)} held-out commands")
    axes.grid(axis="y", alpha=0.3)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=110)


def report(run: Run) -> str:
    """Return what came of the cycle, as Markdown."""
    before, after, decision, candidate, training_set = points(run)
    sent = run.sent().values()
    times = json.loads((run.home / "times.json").read_text("utf-8"))
    minutes = {name: seconds / 60 for name, seconds in times.items()}
    return (
        f"Measured on {datetime.now(UTC):%Y-%m-%d} at commit {commit()}, {os.cpu_count()} cores, "
        f"no GPU, Python {platform.python_version()}.\n\n{table(before, after)}\n\n"
        f"{len(sent)} commands sent, {sum(row['calls'] > 0 for row in sent)} answered with a call, "
        f"{sum(row['right'] for row in sent)} rightly; {training_set.size} rows trained on; the "
        f"gate: {decision.verdict}.\n"
        f"Minutes: {minutes.get('collect', 0.0):.1f} for the users, "
        f"{minutes.get('loop', 0.0):.1f} for the cycle, of these "
        f"{candidate.training_seconds / 60:.1f} of training; {sum(minutes.values()):.1f} in all."
    )


def _timed(run: Run, name: str, started: float) -> None:
    """Add seconds to what was noted for a part, since it may have been interrupted."""
    path = run.home / "times.json"
    times = json.loads(path.read_text("utf-8")) if path.exists() else {}
    times[name] = times.get(name, 0.0) + time.monotonic() - started
    path.write_text(json.dumps(times), "utf-8")


def main() -> int:
    """Run the cycle, or print what there is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--commands", type=int, default=320, help="That users send.")
    parser.add_argument("--held-out", type=int, default=120, help="That the gate decides on.")
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--batch", type=int, default=4, help="Rows a step.")
    parser.add_argument("--rate", type=float, help="Of learning; fine-tuning's own if not given.")
    parser.add_argument("--longest-row", type=int, default=512, help="Tokens of a row.")
    parser.add_argument("--at-once", type=int, default=16, help="Users who ask at a time.")
    parser.add_argument("--print", action="store_true", dest="only_print")
    parser.add_argument("--plot", type=Path, help="Draw before and after into this file.")
    asked = parser.parse_args()
    home = asked.home.resolve()
    home.mkdir(parents=True, exist_ok=True)
    run = Run(
        home,
        rows=asked.commands,
        held_out=asked.held_out,
        epochs=asked.epochs,
        batch=asked.batch,
        longest_row=asked.longest_row,
        rate=asked.rate,
    )
    if not asked.only_print:
        write_examples(
            commands(DATA / "valid.jsonl", asked.held_out, seed=1), home / "examples.jsonl"
        )
        began = time.monotonic()
        run.champion()
        run.collect(commands(DATA / "train.jsonl", asked.commands, seed=0), asked.at_once)
        _timed(run, "collect", began)
        began = time.monotonic()
        if code := run.loop():
            return code
        _timed(run, "loop", began)
    if asked.plot:
        plot(*points(run)[:2], asked.plot)
    print(f"\n{report(run)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
