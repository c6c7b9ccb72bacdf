"""The card of a training set: what is in it, where it comes from, and what was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import yaml

from ratchet.files.text import cell, counted, fenced
from ratchet.improve.curation.config import CurationConfig
from ratchet.improve.curation.rows import Row, RowKind
from ratchet.improve.curation.selection import Selection

_WHAT = {
    "sft": "Prompts with the answer to learn (`prompt`, `completion`).",
    "kto": "Prompts with an answer that a user liked or not (`prompt`, `completion`, `label`).",
    "dpo": "Prompts with a better and a worse answer (`prompt`, `chosen`, `rejected`).",
}


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What a card says besides the selection."""

    kind: RowKind
    digest: str
    config: CurationConfig
    redactions: dict[str, int]
    redacted_rows: int


def card(
    train: Sequence[Row], validation: Sequence[Row], selection: Selection, facts: CardFacts
) -> str:
    """Return the card as Markdown, with the front matter that `datasets.load_dataset` reads."""
    rows = [*train, *validation]
    sources = Counter(row.source for row in rows).most_common()
    parts = [
        _front_matter(facts, bool(validation)),
        f"# Training set {facts.digest[:16]}\n",
        f"{_WHAT[facts.kind]} {counted(len(train), 'row')} to train on, {len(validation)} for "
        "validation: "
        "the newest users', none of whom is trained on.\n",
        f"- Source: {cell(facts.config.origin)}\n- Licence: {cell(facts.config.license)}\n"
        f"- Digest (SHA-256 of the rows): `{facts.digest}`\n",
        _table("What was left after each step", selection.funnel),
        _table("Where the rows come from", sources),
        _table("Calls of tools", _calls(rows)),
        _table("Set aside", selection.set_aside),
        _table("Too close to an evaluation set", selection.leaks),
        _personal_data(facts),
        _findings(selection),
        "## Configuration\n\n"
        + fenced(yaml.safe_dump(facts.config.model_dump(mode="json"), sort_keys=True).rstrip())
        + "\n",
    ]
    return "\n".join(part for part in parts if part)


def _front_matter(facts: CardFacts, validates: bool) -> str:
    names = ("train", "validation") if validates else ("train",)
    files = [{"split": name, "path": f"{name}.parquet"} for name in names]
    content = {
        "license": facts.config.license,
        "pretty_name": f"Ratchet training set {facts.digest[:16]}",
        "tags": ["ratchet", facts.kind],
        "configs": [{"config_name": "default", "data_files": files}],
    }
    return f"---\n{yaml.safe_dump(content, sort_keys=False)}---\n"


def _table(title: str, rows: Sequence[tuple[str, int]]) -> str:
    if not rows:
        return ""
    lines = "\n".join(f"| {cell(name)} | {count:,} |" for name, count in rows)
    return f"## {title}\n\n| | rows |\n|---|---:|\n{lines}\n"


def _calls(rows: Sequence[Row]) -> list[tuple[str, int]]:
    """Return how many rows have tools and call them; nothing where none has."""
    learnt = [row.canonical().get("completion") or row.canonical()["chosen"] for row in rows]
    counts = [
        ("with tools", sum(bool(row.tools) for row in rows)),
        ("that call one", sum("tool_calls" in answer[0] for answer in learnt)),
        ("with a result before", sum(any(t.role == "tool" for t in row.messages) for row in rows)),
    ]
    return counts if any(count for _, count in counts) else []


def _personal_data(facts: CardFacts) -> str:
    config = facts.config.redaction
    if not config.enabled:
        return "## Personal data\n\nNothing was taken out: redaction is turned off.\n"
    names = "" if config.ner_model else " Names were not looked for: no model for them is set."
    rows = "".join(f"\n| {kind} | {count:,} |" for kind, count in facts.redactions.items())
    table = f"\n\n| kind | passages |\n|---|---:|{rows}" if rows else ""
    return (
        f"## Personal data\n\nLooked for: {', '.join(config.kinds)}. Taken out in "
        f"{counted(facts.redacted_rows, 'row')}; `redaction_sample.txt` holds some for "
        f"review.{names}{table}\n"
    )


def _findings(selection: Selection) -> str:
    if not selection.findings:
        return ""
    lines = "\n".join(f"- {cell(finding.describe())}" for finding in selection.findings[:50])
    return f"## Left out as coordinated\n\n{lines}\n"
