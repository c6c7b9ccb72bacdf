"""What is trained on: answers to learn, thumbs, and preferences, in the columns that TRL reads.

| method | row | columns |
|---|---|---|
| SFT | `TrainingRow` | prompt, completion |
| KTO | `LabelledRow` | prompt, completion, label |
| DPO | `PreferenceRow` | prompt, chosen, rejected |
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from ratchet.errors import InvalidInputError
from ratchet.files.text import printable
from ratchet.improve.curation.rows import (
    ROW_TYPES,
    Row,
    for_trainer,
    kind_of,
    row_of,
)
from ratchet.models.templates import ChatTemplate
from ratchet.records import digest

logger = logging.getLogger(__name__)

Method = Literal["sft", "kto", "dpo"]
Example: TypeAlias = dict[str, Any]
_ANSWERS = ("completion", "chosen", "rejected")
_SHOWN_CHARACTERS = 60


def examples(rows: Sequence[Row], method: Method) -> list[Example]:
    """Return rows in the columns that the method's trainer reads, and no others.

    Raises:
        InvalidInputError: There are none, one is of another method, or KTO has only one kind of
            label.
    """
    if not rows:
        raise InvalidInputError("fine-tuning needs at least one row, got none; curate a set first")
    wanted = ROW_TYPES[method]
    wrong = next((row for row in rows if not isinstance(row, wanted)), None)
    if wrong is not None:
        raise InvalidInputError(
            f"method {method!r} trains on {wanted.__name__}, got a {type(wrong).__name__}; "
            "curate the set for this method, or set the method to the set's"
        )
    found = for_trainer(rows)
    check_labels(found, method)
    return found


def check_labels(found: Sequence[Example], method: Method) -> None:
    """Refuse examples of KTO with only one kind of label.

    Raises:
        InvalidInputError: They are.
    """
    if method == "kto" and len({example["label"] for example in found}) < 2:
        raise InvalidInputError(
            f"KTO needs wanted and unwanted answers, got {len(found)} with the label "
            f"{found[0]['label']}; use SFT for wanted answers alone"
        )


def split(
    found: Sequence[Example], share: float, rng: np.random.Generator
) -> tuple[list[Example], list[Example]]:
    """Set a share of the prompts aside for validation; no prompt is on both sides.

    Args:
        found: Examples, from `examples`.
        share: Share of the prompts in [0, 1) that is set aside, at least one where it is not 0.
        rng: Decides which.

    Returns:
        Examples to train on and examples to validate with, each in the given order.

    Raises:
        InvalidInputError: One of the sides would be empty.
    """
    if share == 0.0:
        return list(found), []
    prompts = sorted({digest(example["prompt"]) for example in found})
    aside = max(1, round(share * len(prompts)))
    if aside >= len(prompts):
        raise InvalidInputError(
            f"a validation share needs prompts on both sides, got {len(prompts)} different ones "
            f"at a share of {share:g}; add rows or lower validation_share"
        )
    chosen = {prompts[place] for place in rng.permutation(len(prompts))[:aside]}
    train = [example for example in found if digest(example["prompt"]) not in chosen]
    return train, [example for example in found if digest(example["prompt"]) in chosen]


def templated(found: Sequence[Example], tokenizer: Any, *, kind: str = "examples") -> list[Example]:
    """Return examples as the model may read them, without those that its chat template refuses.

    Control tokens in what users and models wrote are made harmless, so that no text ends a turn
    (`ratchet.models.templates`). What the template refuses is named with its reason and counted.

    Args:
        found: Examples, from `examples`.
        tokenizer: The base model's.
        kind: What messages call them.

    Raises:
        InvalidInputError: Nothing is left.
    """
    template = ChatTemplate(tokenizer)
    kept: list[Example] = []
    refusals: dict[str, list[str]] = {}
    for example in found:
        plain = {
            name: template.turns(value) if isinstance(value, list) else value
            for name, value in example.items()
        }
        try:
            template.render(plain["prompt"])
            for name in _ANSWERS:
                if name in plain:
                    template.render(plain["prompt"] + plain[name], asks_for_answer=False)
        except InvalidInputError as error:
            refusals.setdefault(str(error), []).append(example["prompt"][-1]["content"])
        else:
            kept.append(plain)
    for reason, prompts in refusals.items():
        first = printable(prompts[0], _SHOWN_CHARACTERS)
        logger.warning(
            "left out %d of %d %s, the first with the prompt %r: %s",
            *(len(prompts), len(found), kind, first, reason),
        )
    if found and not kept:
        reason = max(refusals, key=lambda reason: len(refusals[reason]))
        raise InvalidInputError(
            f"fine-tuning needs {kind} that the base model can read, got {len(found)} of which it "
            f"can read none; {reason}"
        )
    return kept


def short_enough(
    found: Sequence[Example], tokenizer: Any, most: int, *, kind: str = "examples"
) -> list[Example]:
    """Leave out what is longer than `most` tokens, since a cut would take the answer's end.

    Raises:
        InvalidInputError: Nothing is left.
    """
    if not found:
        return []
    longest = np.zeros(len(found), dtype=np.int64)
    for name in _ANSWERS:
        if name not in found[0]:
            continue
        texts = [
            tokenizer.apply_chat_template(example["prompt"] + example[name], tokenize=False)
            for example in found
        ]
        tokens = tokenizer(texts, add_special_tokens=False)["input_ids"]
        longest = np.maximum(longest, [len(ids) for ids in tokens])
    kept = [example for example, length in zip(found, longest, strict=True) if length <= most]
    if not kept:
        raise InvalidInputError(
            f"fine-tuning needs {kind} of at most maximum_tokens = {most} tokens, got "
            f"{len(found)} that are all longer; raise maximum_tokens"
        )
    if len(kept) < len(found):
        left_out = len(found) - len(kept)
        logger.warning("left out %d of %d %s over %d tokens", left_out, len(found), kind, most)
    return kept


# On disk ------------------------------------------------------------------------------------------


def write_rows(rows: Sequence[Row], path: Path) -> None:
    """Write rows of one kind as JSON Lines; the processes of one training read them from there."""
    kind = kind_of(rows)
    lines = [json.dumps({"kind": kind} | row.canonical(), ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", "utf-8")


def read_rows(path: Path) -> list[Row]:
    """Read what `write_rows` wrote."""
    found = [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]
    return [row_of(values["kind"], values) for values in found]
