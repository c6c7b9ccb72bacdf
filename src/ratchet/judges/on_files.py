"""Judges on files: answers to judge, people's labels to import."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from ratchet.errors import InvalidInputError
from ratchet.files.rows import SetAsideRow, needed_fields, no_usable_row, read_rows, set_aside_lines
from ratchet.files.text import printable
from ratchet.judges.correction import RateCorrection, corrected_rate
from ratchet.judges.effects import worth
from ratchet.judges.judge import Judge, Judged, asker, model_of
from ratchet.judges.label_sets import LabelledVerdict, refuse_leaks
from ratchet.judges.on_store import run_judge, scores_of
from ratchet.judges.probes import probe_figure, probes_for, treated_items
from ratchet.judges.prompts import Item
from ratchet.judges.rubrics import JudgeSpec
from ratchet.judges.validation import Validation, validate_judge
from ratchet.judges.validation_report import figure_line, validation_json
from ratchet.records import Figure, HumanLabel, Message, derive_id, no_surrogates
from ratchet.store import EventStore

MESSAGES: TypeAdapter[tuple[Message, ...]] = TypeAdapter(tuple[Message, ...])
PROBED = 50
ITEM_NEEDS = (("answer",), ("prompt", "messages"))
ITEM_FIELDS = ("item_id", "other", "reference", "human", "family_first", "family_second")
LABEL_NEEDS = ("item_id", "dimension", "label", "reviewer")
_MORE_PEOPLE = re.compile(r"human_([2-9]|[1-9]\d+)")


@dataclass(frozen=True, slots=True)
class LabelledItem:
    """An answer to judge, with people's labels where there are."""

    item: Item
    labels: tuple[str | None, ...]
    families: tuple[str, str] | None


@dataclass(frozen=True, slots=True)
class FileJudged:
    """A judge's verdicts on a file.

    Attributes:
        judged: Judgements of the items.
        validation: Against the labels; None where the file holds none.
        probes: What a confident tone and instructions to the judge do to its scores.
        harmful: Names of the probes that are shown to move it.
        correction: The rate by the judge corrected by the labels, where some items have none.
        set_aside: The rows that broke a rule.
    """

    judge_version: str
    judged: Judged
    validation: Validation | None
    probes: tuple[Figure, ...]
    harmful: tuple[str, ...]
    correction: RateCorrection | None
    set_aside: tuple[SetAsideRow, ...]

    def as_json(self, name: str) -> dict[str, Any]:
        """Return it as JSON-able values."""
        return {
            "judge": name,
            "judge_version": self.judge_version,
            "items": len(self.judged.judgements),
            "unscored": self.judged.unscored,
            "asked": self.judged.asked.asked,
            "recorded_before": self.judged.reused,
            "failed": dict(self.judged.asked.failed),
            "not_asked": self.judged.asked.not_asked,
            "spent": self.judged.asked.spent,
            "probes": {p.name: p.model_dump(exclude={"name"}) for p in self.probes},
            "moved_by": list(self.harmful),
            "correction": None if self.correction is None else self.correction.as_json(),
            "validation": None if self.validation is None else validation_json(self.validation),
            "set_aside": [{"line": row.place, "reason": row.reason} for row in self.set_aside],
        }

    def text(self, name: str) -> str:
        """Return it in words, without the validation."""
        asked = self.judged.asked
        lines = [
            f"{name} ({self.judge_version}): {len(self.judged.judgements)} items, {asked.asked} "
            f"questions asked, {self.judged.reused} answered before, spent {asked.spent:.4f}"
        ]
        lines += [f"  failed: {count} × {reason}" for reason, count in asked.failed.items()]
        if asked.not_asked:
            lines.append(f"  not asked: {asked.not_asked} ({asked.why_not_asked})")
        lines += [f"  unscored: {n} × {reason}" for reason, n in self.judged.unscored.items()]
        lines += [figure_line(figure) for figure in self.probes]
        if self.harmful:
            lines.append(f"  moved by: {', '.join(self.harmful)}")
        if self.correction is not None:
            lines += [figure_line(figure) for figure in self.correction.figures]
            lines.append(f"  {self.correction.settles}")
        lines += [f"  {line}" for line in set_aside_lines(self.set_aside)]
        return "\n".join(lines)


def judge_file(
    store: EventStore,
    spec: JudgeSpec,
    path: Path,
    *,
    cache: Path,
    probes: bool,
    now: Callable[[], datetime],
    seed: int = 0,
) -> FileJudged:
    """Judge a file's answers, hold the verdicts against its labels and probe the judge.

    Args:
        store: Keeps the verdicts, so that none is asked for twice.
        spec: The judge.
        path: CSV, JSON Lines, JSON or Parquet, one item a row.
        cache: Folder of converted local models.
        probes: Whether up to 50 items are judged again with treated answers (one answer only).
        now: The clock.
        seed: Of the bootstrap.

    Raises:
        InvalidInputError: The file cannot be read or holds no item.
        ModelError: The judge's model cannot be loaded or refuses every question.
        LeakError: An example shown to the judge is among the labelled items.
    """
    items, aside = read_items(path)
    if spec.mode != "pairwise":  # the second answer of a pair is not shown
        items = [replace(given, item=replace(given.item, other=None)) for given in items]
    refuse_leaks(
        [example.item_id for example in spec.examples],
        [labelled.item.id for labelled in items if labelled.labels],
    )
    model, model_digest = model_of(spec, cache)
    judge, ask = Judge(spec, model_digest=model_digest), asker(spec, model)
    judged = run_judge(store, judge, [x.item for x in items], ask=ask, now=now)
    figures, harmful = [], []
    if probes and spec.mode in ("pointwise", "reference"):
        plain = [x.item for x in items[:PROBED]]
        for probe in probes_for(spec.menu[-1]):
            treated = run_judge(
                store,
                judge,
                treated_items(plain, probe),
                ask=ask,
                now=now,
                shielded=probe.shielded,
            )
            found, moved = probe_figure(probe, judged.judgements[: len(plain)], treated.judgements)
            figures.append(found)
            harmful += [probe.name] if moved else []
    rows = labelled_verdicts(items, judged, paired=spec.mode == "pairwise" and spec.both_orders)
    validation = None
    if rows:
        validation = validate_judge(
            rows,
            rng=np.random.default_rng(seed),
            categories=None if spec.mode in ("pairwise", "guard") else spec.menu,
            judge_family=spec.family,
        )
    return FileJudged(
        judge_version=judge.version,
        judged=judged,
        validation=validation,
        probes=tuple(figures),
        harmful=tuple(harmful),
        correction=_correction(spec, items, judged),
        set_aside=tuple(aside),
    )


def _correction(
    spec: JudgeSpec, items: Sequence[LabelledItem], judged: Judged
) -> RateCorrection | None:
    """Correct the judge's rate by the labels, if people labelled a part of the items."""
    labels = [_worth(spec, x.labels[0] if x.labels else None) for x in items]
    known = sum(not math.isnan(label) for label in labels)
    if not 0 < known < len(labels):
        return None
    return corrected_rate(labels, scores_of(judged.judgements))


def _worth(spec: JudgeSpec, label: str | None) -> float:
    if spec.mode == "pairwise":
        return worth(label)
    return spec.score(label) if label in spec.menu else math.nan


def labelled_verdicts(
    items: Sequence[LabelledItem], judged: Judged, *, paired: bool
) -> list[LabelledVerdict]:
    """Join labels and verdicts. Winners of a pair are 1 and 2, as people's labels are."""
    rows = []
    for labelled, judgement in zip(items, judged.judgements, strict=True):
        if not labelled.labels or labelled.labels[0] is None:
            continue
        item, verdicts = labelled.item, judgement.verdicts
        given, swapped = judgement.outcome, None
        if item.other is not None:
            both = [_winner(v.outcome, swapped=place == 1) for place, v in enumerate(verdicts)]
            given, swapped = [*both, None, None][:2]
        rows.append(
            LabelledVerdict(
                item_id=item.id,
                human=labelled.labels[0],
                judge=given,
                swapped=swapped,
                both_orders=paired and item.other is not None,
                others=labelled.labels[1:],
                reason=judgement.reason,
                lengths=None
                if item.other is None
                else (float(len(item.answer)), float(len(item.other))),
                families=labelled.families,
            )
        )
    return rows


def read_items(path: Path) -> tuple[list[LabelledItem], list[SetAsideRow]]:
    """Read items to judge; a bad row is set aside with its reason.

    Raises:
        InvalidInputError: The file cannot be read, or holds no item.
    """
    found: dict[str, LabelledItem] = {}
    aside: list[SetAsideRow] = []
    with read_rows(path, needs=ITEM_NEEDS, names=ITEM_FIELDS) as rows:
        for row in rows:
            try:
                item = _item(row.given(as_json=["messages"]), row.position.removeprefix("line "))
                if item.item.id in found:
                    name = printable(item.item.id, 60)
                    raise InvalidInputError(f"item {name!r} is there twice; keep one of the two")
            except ValueError as error:
                aside.append(row.set_aside(_first(error)))
                continue
            found[item.item.id] = item
    if not found:
        raise no_usable_row(path, "items, with prompt or messages, and answer", aside, rows.read)
    return list(found.values()), aside


@dataclass(frozen=True, slots=True)
class Imported:
    """Labels stored by a call, those that were there, and bad rows with their reason."""

    new: int
    repeated: int
    set_aside: tuple[SetAsideRow, ...]


def import_labels(store: EventStore, path: Path, *, now: datetime) -> Imported:
    """Store people's labels of interactions; the same row again changes nothing.

    Of several labels of one reviewer the latest counts: a row that takes a change back needs its
    own `created_at`.

    Raises:
        InvalidInputError: The file cannot be read, or holds no label.
    """
    aside: list[SetAsideRow] = []
    new = repeated = 0
    needs = [(name,) for name in LABEL_NEEDS]
    with read_rows(path, needs=needs, names=tuple(HumanLabel.model_fields)) as rows, store.atomic():
        for row in rows:
            try:
                label = _label(row.given(), now)
                known = store.get(HumanLabel, label.id)
                if known is not None and _says(known) != _says(label):
                    name = printable(label.id, 60)
                    raise InvalidInputError(f"another label has the id {name!r}; give it its own")
            except ValueError as error:
                aside.append(row.set_aside(_first(error)))
                continue
            if known is None:
                store.append(label)
                new += 1
            else:
                repeated += 1
    if new + repeated == 0:
        raise no_usable_row(
            path, "labels, with item_id, dimension, label and reviewer", aside, rows.read
        )
    return Imported(new, repeated, tuple(aside))


def _label(content: dict[str, Any], now: datetime) -> HumanLabel:
    texts: dict[str, Any] = {
        name: _text(name, content[name]) for name in ("item_id", "label") if name in content
    }
    values: dict[str, Any] = {"created_at": now, **content, **texts}
    named = [values.get(name) for name in ("item_id", "dimension", "reviewer", "label")]
    dated = [content["created_at"]] if "created_at" in content else []
    return HumanLabel.model_validate({"id": derive_id("label", *named, *dated), **values})


def _item(content: dict[str, Any], fallback_id: str) -> LabelledItem:
    needed_fields(content, ITEM_NEEDS)
    answer = content["answer"]
    if not isinstance(answer, str):
        raise ValueError(f"answer must be text, got {type(answer).__name__}; write it as text")
    if "messages" in content:
        conversation = MESSAGES.validate_python(content["messages"])
    else:
        prompt = _optional(content, "prompt")
        conversation = () if prompt is None else (Message(role="user", content=prompt),)
    if not conversation:
        raise ValueError("prompt or messages must hold a turn, got none; write the question")
    others = sorted(filter(_MORE_PEOPLE.fullmatch, content), key=lambda name: int(name[6:]))
    labels = [_text(name, content[name]) for name in ("human", *others) if "human" in content]
    families = (content.get("family_first"), content.get("family_second"))
    item = Item(
        id=_text("item_id", content.get("item_id")) or fallback_id,
        conversation=conversation,
        answer=_storable("answer", answer),
        other=_optional(content, "other"),
        reference=_optional(content, "reference"),
    )
    both = (str(families[0]), str(families[1])) if None not in families else None
    return LabelledItem(item, tuple(labels) if any(labels[:1]) else (), both)


def _text(name: str, value: Any) -> str | None:
    """A label or id as text: 1, 1.0 and "1" are the same, since JSON files mix them."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, str | int | float):
        return no_surrogates(str(value)).strip() or None
    raise ValueError(
        f"{name} must be text or a number, got {type(value).__name__}; write one value"
    )


def _optional(content: dict[str, Any], name: str) -> str | None:
    value = content.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError(f"{name} must be text, got {type(value).__name__}; write it as text")
    return _storable(name, value)


def _storable(name: str, text: str) -> str:
    """Refuse a text that is too long for a prompt or cannot be stored."""
    try:
        return Message(role="user", content=text).content
    except ValidationError as error:
        raise ValueError(f"{name}: {error.errors()[0]['msg']}") from error


def _winner(outcome: str | None, *, swapped: bool) -> str | None:
    if outcome in (None, "tie"):
        return outcome
    return "1" if (outcome == "A") != swapped else "2"


def _says(label: HumanLabel) -> tuple[str, str, str, str]:
    return label.item_id, label.dimension, label.label, label.reviewer


def _first(error: ValueError) -> str:
    if isinstance(error, ValidationError):
        found = error.errors()[0]
        return f"{'.'.join(map(str, found['loc']))}: {found['msg']}"
    return str(error)
