"""Judges on files: answers to judge, people's labels to import."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from ratchet.errors import InvalidInputError
from ratchet.files.rows import SetAsideRow, needed_fields, no_usable_row, read_rows, set_aside_lines
from ratchet.files.text import counted, printable, shown_lines
from ratchet.judges.correction import RateCorrection, corrected_rate
from ratchet.judges.effects import worth
from ratchet.judges.judge import NOT_ANSWERED, Judge, Judged, asker, model_of
from ratchet.judges.label_sets import (
    MORE_PEOPLE,
    LabelledVerdict,
    Place,
    label_text,
    pair_winner,
    refuse_leaks,
)
from ratchet.judges.on_store import run_judge, scores_of
from ratchet.judges.probes import probe_figure, probes_for, treated_items
from ratchet.judges.prompts import Item, second_first
from ratchet.judges.rubrics import JudgeSpec, RubricDimension
from ratchet.judges.validation import Validation, validate_judge
from ratchet.judges.validation_report import figure_line, validation_json
from ratchet.records import Figure, HumanLabel, Message, derive_id, offered, spoken
from ratchet.records.judging import JudgeUnit
from ratchet.store import EventStore

MESSAGES: TypeAdapter[tuple[Message, ...]] = TypeAdapter(tuple[Message, ...])
PROBED = 50
ITEM_NEEDS = (("answer",), ("prompt", "messages"))
ITEM_FIELDS = (
    "item_id", "other", "reference", "human", "family_first", "family_second", "tools",
)  # fmt: skip
JUDGED: Mapping[JudgeUnit, str] = {
    "answer": "single answers, each with the turns before it",
    "session": "whole sessions",
}
WINNERS = {"first": "1", "second": "2"}
MATERIAL = ("shown", "messages", "answer", "tools")
"""What a file of items to label holds beside labels (`ratchet judge items`)."""
LABEL_NEEDS = ("item_id", "dimension", "label", "reviewer")


@dataclass(frozen=True, slots=True)
class LabelledItem:
    """An answer to judge, with people's labels where there are.

    Attributes:
        labels: The label that the judge is held against, then those of further people.
        families: Model families of the two answers of a pair.
        source: Where it stands in its file; the reason is empty.
    """

    item: Item
    labels: tuple[str | None, ...]
    families: tuple[str, str] | None
    source: SetAsideRow | None = field(default=None, compare=False)


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
        unit: What the judge was shown of each item.
    """

    judge_version: str
    judged: Judged
    validation: Validation | None
    probes: tuple[Figure, ...]
    harmful: tuple[str, ...]
    correction: RateCorrection | None
    set_aside: tuple[SetAsideRow, ...]
    unit: JudgeUnit = "answer"

    def as_json(self, name: str) -> dict[str, Any]:
        """Return it as JSON-able values."""
        return {
            "judge": name,
            "judge_version": self.judge_version,
            "unit": self.unit,
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
            f"{name} ({self.judge_version}): {counted(len(self.judged.judgements), 'item')}, "
            f"{asked.asked} "
            f"questions asked, {self.judged.reused} answered before, spent {asked.spent:.4f}"
        ]
        lines.append(f"  judged: {JUDGED[self.unit]}")
        lines += [f"  failed: {count} × {reason}" for reason, count in asked.failed.items()]
        if asked.not_asked:
            lines.append(f"  not asked: {asked.not_asked} ({asked.why_not_asked})")
        lines += [f"  unscored: {n} × {reason}" for reason, n in self.judged.unscored.items()]
        if set(self.judged.unscored) - {NOT_ANSWERED}:
            lines.append("  replies without a verdict are asked once more with --again unscored")
        lines += [figure_line(figure) for figure in self.probes]
        if self.harmful:
            lines.append(f"  moved by: {', '.join(self.harmful)}")
        if self.correction is not None:
            lines += [figure_line(figure) for figure in self.correction.figures]
            lines.append(f"  {self.correction.settles}")
        lines += [f"  {line}" for line in set_aside_lines(self.set_aside)]
        return shown_lines(lines)


def check_labels(
    spec: JudgeSpec, items: Sequence[LabelledItem]
) -> tuple[list[LabelledItem], list[SetAsideRow]]:
    """Hold people's labels against the judge's options, before anything is asked.

    Of pairs, `A` and `B`, `model_a` and `model_b`, `first` and `second` and several words for a tie
    are understood. An item whose label is no option is set aside; a further person's label that is
    none is left out and told, and its item stays.

    Returns:
        The items that stay, winners of pairs named `1`, `2` and `tie`, and what is set aside.

    Raises:
        InvalidInputError: There are labels, and none is an option.
    """
    paired = spec.mode == "pairwise"
    options = ("A", "B", "tie") if paired else spec.menu

    def read(label: str | None) -> str | None:
        if label is None:
            return None
        return pair_winner(label) if paired else label if label in options else None

    kept: list[LabelledItem] = []
    aside: list[SetAsideRow] = []
    odd: Counter[str] = Counter()
    for labelled in items:
        labels = tuple(read(label) for label in labelled.labels)
        wrong = [n for n, label in enumerate(labelled.labels) if label and labels[n] is None]
        for place in wrong:
            odd[labelled.labels[place] or ""] += 1
            name = "human" if place == 0 else f"human_{place + 1}"
            reason = f"{name} must be an option of judge {spec.name!r}: {', '.join(options)}, got "
            reason += f"{printable(labelled.labels[place] or '', 40)!r}; write one of them"
            if labelled.source is not None:
                aside.append(replace(labelled.source, reason=reason))
        if 0 not in wrong:
            kept.append(replace(labelled, labels=labels))
    if odd and not any(labelled.labels for labelled in kept):
        got = ", ".join(f"{printable(label, 40)!r} ({n:,})" for label, n in odd.most_common(5))
        raise InvalidInputError(
            f"labels must be options of judge {spec.name!r}: {', '.join(options)}, got {got}; "
            "write them as the options are, in the same letters"
        )
    return kept, aside


def judge_file(
    store: EventStore,
    spec: JudgeSpec,
    items: Sequence[LabelledItem],
    set_aside: Sequence[SetAsideRow] = (),
    *,
    cache: Path,
    probes: bool,
    now: Callable[[], datetime],
    seed: int = 0,
    again: bool = False,
) -> FileJudged:
    """Judge a file's answers, hold the verdicts against its labels and probe the judge.

    Args:
        store: Keeps the verdicts, so that none is asked for twice.
        spec: The judge.
        items: From `read_items`, then `check_labels`.
        set_aside: What both set aside, for the report.
        cache: Folder of converted local models.
        probes: Whether up to 50 items are judged again with treated answers (one answer only).
        now: The clock.
        seed: Of the bootstrap.
        again: Whether what has no score so far is asked again.

    Raises:
        ModelError: The judge's model cannot be loaded or refuses every question.
        LeakError: An example shown to the judge is among the labelled items.
    """
    if spec.mode != "pairwise":  # the second answer of a pair is not shown
        items = [replace(given, item=replace(given.item, other=None)) for given in items]
    refuse_leaks(
        [example.item_id for example in spec.examples],
        [labelled.item.id for labelled in items if labelled.labels],
    )
    model, model_digest = model_of(spec, cache)
    judge, ask = Judge(spec, model_digest=model_digest), asker(spec, model)
    judged = run_judge(store, judge, [x.item for x in items], ask=ask, now=now, again=again)
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
                again=again,
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
        set_aside=tuple(set_aside),
        unit=spec.unit,
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
    """Join labels and verdicts. Winners of a pair are 1 and 2, as people's labels are.

    Args:
        items: What was judged, with people's labels.
        judged: What the judge says of them.
        paired: Whether they are pairs that the judge saw in both orders; otherwise a pair was
            shown as chance placed it.
    """
    rows = []
    for labelled, judgement in zip(items, judged.judgements, strict=True):
        if not labelled.labels or labelled.labels[0] is None:
            continue
        item, verdicts = labelled.item, judgement.verdicts
        given, swapped, place = judgement.outcome, None, None
        if item.other is not None and paired:
            both = [_winner(v.outcome, swapped=order == 1) for order, v in enumerate(verdicts)]
            given, swapped = [*both, None, None][:2]
        elif item.other is not None:
            given, place = WINNERS.get(given or "", given), place_of(item)
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
                place=place,
            )
        )
    return rows


def place_of(pair: Item) -> Place:
    """Return where a judge of one order is shown the first answer of a pair."""
    return "second" if second_first(pair) else "first"


def read_items(path: Path) -> tuple[list[LabelledItem], list[SetAsideRow]]:
    """Read items to judge; a bad row is set aside with its reason.

    Raises:
        InvalidInputError: The file cannot be read, or holds no item.
    """
    by_id: dict[str, LabelledItem] = {}
    aside: list[SetAsideRow] = []
    with read_rows(path, needs=ITEM_NEEDS, names=ITEM_FIELDS) as rows:
        for row in rows:
            try:
                item = _item(
                    row.given(as_json=["messages", "tools"]), row.position.removeprefix("line ")
                )
                if item.item.id in by_id:
                    name = printable(item.item.id, 60)
                    raise InvalidInputError(f"item {name!r} is there twice; keep one of the two")
            except ValueError as error:
                aside.append(row.set_aside(_first(error)))
                continue
            by_id[item.item.id] = replace(item, source=row.set_aside(""))
    if not by_id:
        raise no_usable_row(path, "items, with prompt or messages, and answer", aside, rows.read)
    return list(by_id.values()), aside


@dataclass(frozen=True, slots=True)
class Imported:
    """Labels stored by a call, those that were there, and bad rows with their reason.

    Attributes:
        unknown: Items with a label that the store does not hold, in the order of the file. Their
            labels are stored and count once it does.
    """

    new: int
    repeated: int
    set_aside: tuple[SetAsideRow, ...]
    unknown: tuple[str, ...] = ()


def import_labels(
    store: EventStore,
    path: Path,
    *,
    now: datetime,
    dimensions: Mapping[str, RubricDimension] | None = None,
) -> Imported:
    """Store people's labels of interactions; the same row again changes nothing.

    Of several labels of one reviewer the latest counts: a row that takes a change back needs its
    own `created_at`.

    Args:
        store: Keeps the labels.
        path: CSV, JSON Lines, JSON or Parquet, one label a row.
        now: Time of labels without one.
        dimensions: What may be labelled, with the labels; None takes any.

    Raises:
        InvalidInputError: The file cannot be read, or holds no label.
    """
    aside: list[SetAsideRow] = []
    labelled: dict[str, None] = {}
    new = repeated = 0
    needs = [(name,) for name in LABEL_NEEDS]
    with read_rows(path, needs=needs, names=tuple(HumanLabel.model_fields)) as rows, store.atomic():
        for row in rows:
            try:
                label = _label(row.given(), now)
                if dimensions is not None:
                    _check_label(label, dimensions)
                known = store.get(HumanLabel, label.id)
                if known is not None and _says(known) != _says(label):
                    name = printable(label.id, 60)
                    raise InvalidInputError(f"another label has the id {name!r}; give it its own")
            except ValueError as error:
                aside.append(row.set_aside(_first(error)))
                continue
            labelled[label.item_id] = None
            if known is None:
                store.append(label)
                new += 1
            else:
                repeated += 1
    if new + repeated == 0:
        raise no_usable_row(
            path, "labels, with item_id, dimension, label and reviewer", aside, rows.read
        )
    stored = store.stored_interactions(list(labelled))
    unknown = tuple(key for key in labelled if key not in stored)
    return Imported(new, repeated, tuple(aside), unknown)


def _check_label(label: HumanLabel, dimensions: Mapping[str, RubricDimension]) -> None:
    """Refuse a dimension that nobody defined, and a label that is none of its options."""
    dimension = dimensions.get(label.dimension)
    if dimension is None:
        raise InvalidInputError(
            f"dimension must be one of {', '.join(sorted(dimensions))}, got "
            f"{printable(label.dimension, 60)!r}; write one of them, or define it in a file of "
            "judges and name that file"
        )
    if label.label not in dimension.names:
        raise InvalidInputError(
            f"label must be an option of {dimension.name}: {', '.join(dimension.names)}, got "
            f"{printable(label.label, 60)!r}; write one of them"
        )


def _label(content: dict[str, Any], now: datetime) -> HumanLabel:
    texts: dict[str, Any] = {
        name: label_text(name, content[name]) for name in ("item_id", "label") if name in content
    }
    content = {name: value for name, value in content.items() if name not in MATERIAL}
    values: dict[str, Any] = {"created_at": now, **content, **texts}
    named = [values.get(name) for name in ("item_id", "dimension", "reviewer", "label")]
    dated = [content["created_at"]] if "created_at" in content else []
    dated += ["session"] if content.get("unit") == "session" else []
    return HumanLabel.model_validate({"id": derive_id("label", *named, *dated), **values})


def _item(content: dict[str, Any], fallback_id: str) -> LabelledItem:
    needed_fields(content, ITEM_NEEDS)
    answer = _answer(content["answer"])
    if "messages" in content:
        conversation = MESSAGES.validate_python(content["messages"])
    else:
        prompt = _optional(content, "prompt")
        conversation = () if prompt is None else (Message(role="user", content=prompt),)
    if not conversation:
        raise ValueError("prompt or messages must hold a turn, got none; write the question")
    others = sorted(filter(MORE_PEOPLE.fullmatch, content), key=lambda name: int(name[6:]))
    labels = [label_text(name, content[name]) for name in ("human", *others) if "human" in content]
    families = (content.get("family_first"), content.get("family_second"))
    item = Item(
        id=label_text("item_id", content.get("item_id")) or fallback_id,
        conversation=conversation,
        answer=_storable("answer", answer),
        other=_optional(content, "other"),
        reference=_optional(content, "reference"),
        tools=offered(content.get("tools")),
    )
    both = (str(families[0]), str(families[1])) if None not in families else None
    return LabelledItem(item, tuple(labels) if any(labels[:1]) else (), both)


def _answer(given: Any) -> str:
    """Return an answer as people are shown it, from its text or from the turn that it is."""
    if isinstance(given, Mapping):
        return spoken(Message.model_validate({"role": "assistant", **given}))
    if not isinstance(given, str):
        raise ValueError(
            f"answer must be text, got {type(given).__name__}; write it as text, or as the "
            "assistant's turn"
        )
    return given


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
        return Message(role="user", content=text).text
    except ValidationError as error:
        raise ValueError(f"{name}: {error.errors()[0]['msg']}") from error


def _winner(outcome: str | None, *, swapped: bool) -> str | None:
    if outcome in (None, "tie"):
        return outcome
    return "1" if (outcome == "A") != swapped else "2"


def _says(label: HumanLabel) -> tuple[str, str, str, str, str]:
    return label.item_id, label.dimension, label.label, label.reviewer, label.unit


def _first(error: ValueError) -> str:
    if isinstance(error, ValidationError):
        found = error.errors()[0]
        return f"{'.'.join(map(str, found['loc']))}: {found['msg']}"
    return str(error)
