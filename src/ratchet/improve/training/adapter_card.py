"""The card of an adapter, as the Hugging Face Hub shows it: data, metrics, licence, decision.

It is written when the adapter was trained, again when the gate decided on it, and at every export.
It holds counts and digests, and no text of a user's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ratchet.files.text import cell, counted
from ratchet.files.whole import write_whole
from ratchet.models.hub import id_in, license_in, origin_of
from ratchet.records import Candidate, Decision, Release, TrainingSet
from ratchet.store import EventStore

CARD_FILE = "README.md"
_SMOLLM2 = "smollm2-135m-instruct"
_KNOWN = {_SMOLLM2: ("HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0")}
_LEARNS = {"sft": "answers", "kto": "answers that were liked or not", "dpo": "pairs of answers"}


@dataclass(frozen=True, slots=True)
class BaseFacts:
    """What a card says of the base model.

    Attributes:
        name: As the Hub calls it, or its folder's name.
        revision: Of the Hub; "" of a folder.
        license: As its own card says; "" where it says nothing.
    """

    name: str
    revision: str = ""
    license: str = ""

    @classmethod
    def of(cls, folder: Path) -> BaseFacts:
        """Read them from the folder of a base model."""
        found = origin_of(folder)
        if found is not None:
            return cls(found.name, found.revision, license_in(folder))
        name, known = _KNOWN.get(folder.name, (folder.name, ""))
        return cls(name, license=license_in(folder) or known)


@dataclass(frozen=True, slots=True)
class CardOf:
    """What a card is about.

    Attributes:
        version: As the registry names it.
        training_set: None where it is not known, such as of an adapter of another program.
        decision: The latest one; None before the gate.
        champion: What is in use; "" where nothing is.
    """

    version: str
    base: BaseFacts
    candidate: Candidate | None = None
    training_set: TrainingSet | None = None
    decision: Decision | None = None
    champion: str = ""

    @classmethod
    def stored(
        cls, store: EventStore, version: str, base: Path, candidate: Candidate | None
    ) -> CardOf:
        """Return what a store knows of a version.

        Args:
            store: The store.
            version: As the registry names it.
            base: Folder of its base model.
            candidate: The training that made it; None of what was not trained in this home.
        """
        release = store.latest(Release)
        decided = [one for one in store.records(Decision) if one.challenger == version]
        return cls(
            version=version,
            base=BaseFacts.of(base),
            candidate=candidate,
            training_set=store.get(TrainingSet, candidate.training_set_id) if candidate else None,
            decision=decided[-1] if decided else None,
            champion=release.champion if release else "",
        )


def write_card(of: CardOf, folder: Path) -> str:
    """Write the card into an adapter's folder, whole, and return it."""
    text = card_text(of)
    write_whole(folder / CARD_FILE, text.encode(), mode=None)
    return text


def card_text(of: CardOf, *, library: str = "peft") -> str:
    """Return the card as Markdown with the Hub's front matter.

    Args:
        of: What it is about.
        library: `peft` of an adapter, `transformers` of a merged model, `gguf` of a file.
    """
    parts = [
        f"---\n{_front_matter(of, library)}\n---\n",
        f"# {cell(of.version)}\n",
        f"{_WHAT[library]} [{cell(of.base.name)}], trained and gated by Ratchet."
        + (f" Revision of the base model: `{of.base.revision}`." if of.base.revision else "")
        + "\n",
        _data(of.training_set),
        _training(of.candidate),
        _metrics(of.decision),
        _decision(of),
        "## Licence\n\n"
        + (
            f"Of the base model: {cell(of.base.license)}."
            if of.base.license
            else "The base model's card names none: ask whoever gave it to you."
        )
        + (
            f" Of the data: {cell(_data_license(of.training_set))}.\n"
            if of.training_set is not None
            else "\n"
        ),
    ]
    return "\n".join(part for part in parts if part)


_WHAT = {
    "peft": "A LoRA adapter of",
    "transformers": "A LoRA adapter merged into",
    "gguf": "A file for llama.cpp: a LoRA adapter merged into",
}


def _front_matter(of: CardOf, library: str) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    decision, training_set = of.decision, of.training_set
    results = None
    if decision is not None and decision.challenger_value is not None:
        measured = EvalResult(
            task_type="text-generation",
            dataset_type="ratchet",
            dataset_name=f"{decision.example_set_id} ({decision.examples} examples)",
            metric_type=decision.primary_metric,
            metric_value=decision.challenger_value,
        )
        results = [measured]
    hub_id = id_in(training_set.origin) if training_set is not None else None
    more: dict[str, Any] = {"base_model_relation": "adapter" if library == "peft" else "finetune"}
    kind = [training_set.kind] if training_set is not None else []
    data = ModelCardData(
        base_model=of.base.name,
        library_name=library,
        license=of.base.license or "other",
        pipeline_tag="text-generation",
        tags=["ratchet", "lora", *kind],
        datasets=[hub_id] if hub_id else None,
        model_name=of.version if results else None,
        eval_results=results,
        **more,
    )
    return str(data.to_yaml()).strip()


def _data(found: TrainingSet | None) -> str:
    if found is None:
        return "## Data\n\nNot known: the adapter was not trained in this home.\n"
    whose = cell(found.origin) if found.origin else "what users of this installation showed"
    steps = "".join(f"\n| {cell(step)} | {count:,} |" for step, count in found.funnel)
    gone = ", ".join(f"{count:,} × {cell(kind)}" for kind, count in found.redactions)
    return (
        f"## Data\n\n{counted(found.size, 'row')} of {_LEARNS[found.kind]} ({found.kind.upper()}), "
        f"{counted(found.validation, 'row')} for validation, from {whose}. "
        f"Digest: `{found.digest}`.\n\n| | rows |\n|---|---:|{steps}\n\n"
        f"Personal data taken out: {gone or 'none was found'}.\n"
    )


def _data_license(found: TrainingSet | None) -> str:
    return (found.license if found is not None else "") or "none stated"


def _training(found: Candidate | None) -> str:
    if found is None or not found.losses:
        return ""
    return (
        f"## Training\n\n{counted(len(found.losses), 'step')} in "
        f"{found.training_seconds / 60:.1f} minutes, loss {found.losses[0]:.3f} to "
        f"{found.losses[-1]:.3f}. Digest of the adapter: `{found.adapter_digest}`. Settings: "
        f"MLflow run `{found.run_id}`.\n"
    )


def _metrics(found: Decision | None) -> str:
    if found is None:
        return ""
    measured = [
        (one.metric + (f" ({one.examples_of})" if one.examples_of else ""), one)
        for one in found.measured
    ]
    rows: Sequence[tuple[str, float | None, float | None]] = [
        (name, one.champion, one.challenger) for name, one in measured
    ] or [(found.primary_metric, found.champion_value, found.challenger_value)]
    lines = "".join(
        f"\n| {cell(name)} | {_number(before)} | {_number(after)} |" for name, before, after in rows
    )
    return (
        f"## Metrics\n\nOn {counted(found.examples, 'held-out example')} "
        f"(`{cell(found.example_set_id)}`), none of which was trained on.\n\n"
        f"| | {cell(found.champion)} | {cell(found.challenger)} |\n|---|---:|---:|{lines}\n"
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _decision(of: CardOf) -> str:
    found = of.decision
    if found is None:
        return "## Decision\n\nThe gate has not decided yet: use it for trials alone.\n"
    span = (
        f" Difference {found.difference:+.3f}, interval {found.interval[0]:+.3f} to "
        f"{found.interval[1]:+.3f}."
        if found.difference is not None and found.interval is not None
        else ""
    )
    reasons = "".join(f"\n- {cell(reason)}" for reason in found.reasons)
    use = " It is in use." if of.champion == of.version else ""
    return (
        f"## Decision\n\n**{found.verdict}** against {cell(found.champion)} on "
        f"{found.created_at:%Y-%m-%d} (decision `{found.id[:8]}`).{span}{use}\n{reasons}\n"
    )
