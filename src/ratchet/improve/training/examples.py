"""What is trained on: answers to learn, thumbs, and preferences, in the columns that TRL reads.

| method | row | columns |
|---|---|---|
| SFT | `TrainingRow` | prompt, completion |
| KTO | `LabelledRow` | prompt, completion, label |
| DPO | `PreferenceRow` | prompt, chosen, rejected |

Where rows have tools, calls or results, trainers are given the text that the chat template makes of
each (`as_texts`), the same text that the model is asked with when it serves: columns of TRL go
through Arrow, which fills arguments of one call with the names of all others.
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
    TOOLS,
    Row,
    for_trainer,
    kind_of,
    of_trainer,
    row_of,
)
from ratchet.models.templates import ChatTemplate
from ratchet.records import digest, last_said

logger = logging.getLogger(__name__)

Method = Literal["sft", "kto", "dpo"]
Example: TypeAlias = dict[str, Any]
_ANSWERS = ("completion", "chosen", "rejected")
_JOINED = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
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
    in_columns = for_trainer(rows, arguments="text")
    check_labels(in_columns, method)
    return in_columns


def check_labels(rows: Sequence[Example], method: Method) -> None:
    """Refuse examples of KTO with only one kind of label.

    Raises:
        InvalidInputError: They are.
    """
    if method == "kto" and len({example["label"] for example in rows}) < 2:
        raise InvalidInputError(
            f"KTO needs wanted and unwanted answers, got {len(rows)} with the label "
            f"{rows[0]['label']}; use SFT for wanted answers alone"
        )


def split(
    rows: Sequence[Example], share: float, rng: np.random.Generator
) -> tuple[list[Example], list[Example]]:
    """Set a share of the prompts aside for validation; no prompt is on both sides.

    Args:
        rows: Examples, from `examples`.
        share: Share of the prompts in [0, 1) that is set aside, at least one where it is not 0.
        rng: Decides which.

    Returns:
        Examples to train on and examples to validate with, each in the given order.

    Raises:
        InvalidInputError: One of the sides would be empty.
    """
    if share == 0.0:
        return list(rows), []
    prompts = sorted({_asked(example) for example in rows})
    aside = max(1, round(share * len(prompts)))
    if aside >= len(prompts):
        raise InvalidInputError(
            f"a validation share needs prompts on both sides, got {len(prompts)} different ones "
            f"at a share of {share:g}; add rows or lower validation_share"
        )
    chosen = {prompts[place] for place in rng.permutation(len(prompts))[:aside]}
    train = [example for example in rows if _asked(example) not in chosen]
    return train, [example for example in rows if _asked(example) in chosen]


def _asked(example: Example) -> str:
    """Return the digest of what is asked, with what may be called."""
    tools = example.get(TOOLS)
    return digest([example["prompt"], tools] if tools else example["prompt"])


def tools_of(example: Example) -> list[dict[str, Any]] | None:
    """Return the tools that an example's request had."""
    stored = example.get(TOOLS)
    return list(json.loads(stored)) if stored else None


def last_asked(example: Example) -> str:
    """Return the words of the user's last turn."""
    return last_said([of_trainer(turn) for turn in example["prompt"]])


def uses_tools(rows: Sequence[Example]) -> bool:
    """Tell whether an example has tools, calls or results."""
    return any(map(_uses_tools, rows))


def _uses_tools(example: Example) -> bool:
    turns = [turn for value in example.values() if isinstance(value, list) for turn in value]
    return bool(example.get(TOOLS)) or any(
        turn["role"] == "tool" or turn.get("tool_calls") for turn in turns
    )


def as_texts(rows: Sequence[Example], tokenizer: Any) -> list[Example]:
    """Return examples as the texts that the chat template makes of them, for any trainer of TRL.

    What is asked and each answer are one turn whose template is the text alone. An answer ends with
    what ends its turn, and is all that follows what is asked.
    """
    template = ChatTemplate(tokenizer)
    return [_as_texts(example, template) for example in rows]


def _as_texts(example: Example, template: ChatTemplate) -> Example:
    tools, names = tools_of(example), [name for name in _ANSWERS if name in example]
    asked = template.render(example["prompt"], tools=tools)
    whole = [_whole(example, name, template) for name in names]
    # a template that writes the beginning of an answer otherwise when it is asked for one
    differs = (at for at, said in enumerate(zip(asked, *whole, strict=False)) if len({*said}) > 1)
    shared = next(differs, min(map(len, (asked, *whole))))
    texts = {name: text[shared:] for name, text in zip(names, whole, strict=True)}
    turns = {"prompt": [{"role": "user", "content": asked[:shared]}]} | {
        name: [{"role": "assistant", "content": text}] for name, text in texts.items()
    }
    label = {"label": example["label"]} if "label" in example else {}
    return turns | label | {"chat_template_kwargs": {"chat_template": _JOINED}}


def _whole(example: Example, name: str, template: ChatTemplate) -> str:
    """Return the text of an example with one of its answers."""
    turns = [*example["prompt"], *example[name]]
    return template.render(turns, tools=tools_of(example), asks_for_answer=False)


def templated(rows: Sequence[Example], tokenizer: Any, *, kind: str = "examples") -> list[Example]:
    """Return examples as the model may read them, without those that its chat template refuses.

    Control tokens in what users and models wrote are made harmless, so that no text ends a turn
    (`ratchet.models.templates`). What the template refuses is named with its reason and counted.

    Args:
        rows: Examples, from `examples`.
        tokenizer: The base model's.
        kind: What messages call them.

    Raises:
        InvalidInputError: Nothing is left.
    """
    template = ChatTemplate(tokenizer)
    readable: list[Example] = []
    refusals: dict[str, list[str]] = {}
    for example in rows:
        try:
            template.render(example["prompt"], tools=tools_of(example))
            for name in _ANSWERS:
                if name in example:
                    _whole(example, name, template)
        except InvalidInputError as error:
            refusals.setdefault(str(error), []).append(last_asked(example))
        else:
            readable.append(example if _uses_tools(example) else _plain(example, template))
    for reason, prompts in refusals.items():
        first = printable(prompts[0], _SHOWN_CHARACTERS)
        logger.warning(
            "left out %d of %d %s, the first with the prompt %r: %s",
            *(len(prompts), len(rows), kind, first, reason),
        )
    if rows and not readable:
        reason = max(refusals, key=lambda reason: len(refusals[reason]))
        raise InvalidInputError(
            f"fine-tuning needs {kind} that the base model can read, got {len(rows)} of which it "
            f"can read none; {reason}"
        )
    return readable


def _plain(example: Example, template: ChatTemplate) -> Example:
    return {
        name: template.turns(value) if isinstance(value, list) else value
        for name, value in example.items()
    }


def token_lengths(rows: Sequence[Example], tokenizer: Any) -> list[int]:
    """Return how many tokens each example has, with the longer of its answers."""
    if not rows:
        return []
    longest = np.zeros(len(rows), dtype=np.int64)
    template = ChatTemplate(tokenizer)
    for name in _ANSWERS:
        if name not in rows[0]:
            continue
        texts = [
            _whole(example, name, template)
            if _uses_tools(example)
            else tokenizer.apply_chat_template(example["prompt"] + example[name], tokenize=False)
            for example in rows
        ]
        tokens = tokenizer(texts, add_special_tokens=False)["input_ids"]
        longest = np.maximum(longest, [len(ids) for ids in tokens])
    return [int(length) for length in longest]


def short_enough(
    rows: Sequence[Example], lengths: Sequence[int], most: int, *, kind: str = "examples"
) -> list[Example]:
    """Leave out what is longer than `most` tokens, since a cut would take the answer's end.

    Args:
        rows: Examples.
        lengths: Of each, from `token_lengths`.
        most: Tokens.
        kind: What they are called.

    Raises:
        InvalidInputError: Nothing is left.
    """
    if not rows:
        return []
    fitting = [example for example, length in zip(rows, lengths, strict=True) if length <= most]
    if not fitting:
        raise InvalidInputError(
            f"fine-tuning needs {kind} of at most maximum_tokens = {most} tokens, got "
            f"{len(rows)} that are all longer; raise maximum_tokens"
        )
    if len(fitting) < len(rows):
        left_out = len(rows) - len(fitting)
        logger.warning("left out %d of %d %s over %d tokens", left_out, len(rows), kind, most)
    return fitting


# On disk ------------------------------------------------------------------------------------------


def write_rows(rows: Sequence[Row], path: Path) -> None:
    """Write rows of one kind as JSON Lines; the processes of one training read them from there."""
    kind = kind_of(rows)
    lines = [json.dumps({"kind": kind} | row.canonical(), ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", "utf-8")


def read_rows(path: Path) -> list[Row]:
    """Read what `write_rows` wrote."""
    lines = [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]
    return [row_of(values["kind"], values) for values in lines]
