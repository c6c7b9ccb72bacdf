"""Rows of training sets, in the shape that TRL's trainers take.

| kind | row | trainer |
|---|---|---|
| `sft` | prompt, completion (or messages) | `SFTTrainer` |
| `kto` | prompt, completion, label | `KTOTrainer` |
| `dpo` | prompt, chosen, rejected | `DPOTrainer` |

A row whose request had tools has these as `tools`. Calls in answers are text in the form of
`ratchet.records.tool_calls` here, and `tool_calls` of a message where rows are stored and trained
on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ratchet.errors import InvalidInputError
from ratchet.records import Message, digest, last_said
from ratchet.records.tool_calls import as_turn, written

TOOLS = "tools"
"""The column of what a model could call, as JSON."""
Tools = tuple[dict[str, Any], ...]
Arguments = Literal["objects", "text"]
RowKind = Literal["sft", "kto", "dpo"]
Source = Literal[
    "correction", "rated", "judge", "demonstration", "thumbs", "regenerate", "judge pair", "dataset"
]


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """A prompt with the answer to learn.

    Attributes:
        weight: Inverse of the chance that such an interaction gets feedback, 1 on average.
        user_id: Who wrote the prompt; never written to a training set.
        moment: Microseconds since 1970 of the interaction; never written to a training set.
        tools: What the model could call, as the request sent it; None where there was nothing.
    """

    interaction_id: str
    messages: tuple[Message, ...]
    target: str
    source: Source
    weight: float = 1.0
    user_id: str = ""
    moment: int = 0
    tools: Tools | None = None

    def canonical(self) -> dict[str, Any]:
        """Return the row as JSON-able values, as it is stored."""
        return _common(self) | {"completion": _answer(self.target)}


@dataclass(frozen=True, slots=True)
class LabelledRow:
    """A prompt with an answer that a user liked or did not."""

    interaction_id: str
    messages: tuple[Message, ...]
    answer: str
    desirable: bool
    source: Source
    weight: float = 1.0
    user_id: str = ""
    moment: int = 0
    tools: Tools | None = None

    def canonical(self) -> dict[str, Any]:
        """Return the row as JSON-able values, as it is stored."""
        return _common(self) | {"completion": _answer(self.answer), "label": self.desirable}


@dataclass(frozen=True, slots=True)
class PreferenceRow:
    """A prompt with a better and a worse answer.

    Attributes:
        interaction_id: The interaction with the worse answer.
        chosen_id: The interaction with the better answer; the same one for a correction.
    """

    interaction_id: str
    chosen_id: str
    messages: tuple[Message, ...]
    chosen: str
    rejected: str
    source: Source
    weight: float = 1.0
    user_id: str = ""
    moment: int = 0
    tools: Tools | None = None

    def canonical(self) -> dict[str, Any]:
        """Return the row as JSON-able values, as it is stored."""
        pair = {"chosen": _answer(self.chosen), "rejected": _answer(self.rejected)}
        return _common(self) | {"chosen_id": self.chosen_id} | pair


Row = TrainingRow | LabelledRow | PreferenceRow
ROW_TYPES: dict[RowKind, type[Row]] = {
    "sft": TrainingRow,
    "kto": LabelledRow,
    "dpo": PreferenceRow,
}
ANSWERS: dict[type[Row], tuple[str, ...]] = {
    TrainingRow: ("target",),
    LabelledRow: ("answer",),
    PreferenceRow: ("chosen", "rejected"),
}
"""Which fields hold answers."""
_COLUMNS: dict[type[Row], tuple[str, ...]] = {
    TrainingRow: ("prompt", "completion"),
    LabelledRow: ("prompt", "completion", "label"),
    PreferenceRow: ("prompt", "chosen", "rejected"),
}


def kind_of(rows: Sequence[Row]) -> RowKind:
    """Return the kind of rows.

    Raises:
        InvalidInputError: There are none, or they are of several kinds.
    """
    kinds = {type(row) for row in rows}
    if len(kinds) != 1:
        raise InvalidInputError(
            f"a training set holds rows of one kind, got {len(kinds)} kinds in {len(rows)} rows; "
            "write one set for each kind"
        )
    (row_type,) = kinds
    return next(kind for kind, row in ROW_TYPES.items() if row is row_type)


def question(row: Row) -> str:
    """Return the words of the user's last turn."""
    return last_said(row.messages)


def for_trainer(
    rows: Sequence[Row], *, as_messages: bool = False, arguments: Arguments = "objects"
) -> list[dict[str, Any]]:
    """Return rows with the columns that TRL's trainer of their kind takes, and no others.

    Where a row has tools, all have the column `tools`: JSON, or None.

    Args:
        rows: Of one kind.
        as_messages: SFT rows as whole conversations (`messages`), for a chat template that marks
            what the assistant says, instead of `prompt` and `completion`.
        arguments: Whether arguments of calls are objects, as chat templates take them, or text, as
            they were sent.
    """
    change = _as_object if arguments == "objects" else _as_text
    with_tools = any(row.tools for row in rows)
    columns = [
        {name: _for_template(stored[name], change) for name in _COLUMNS[type(row)]}
        | ({TOOLS: stored.get(TOOLS)} if with_tools else {})
        for row in rows
        for stored in [row.canonical()]
    ]
    if as_messages and kind_of(rows) == "sft":
        return [{"messages": row.pop("prompt") + row.pop("completion")} | row for row in columns]
    return columns


def learnt_digest(train: Sequence[Row], validation: Sequence[Row]) -> str:
    """Return the digest of what a trainer reads of rows: the same digest, the same training."""
    return digest({"train": for_trainer(train), "validation": for_trainer(validation)})


def of_trainer(turn: Mapping[str, Any]) -> Message:
    """Return a turn of `for_trainer`'s columns as a message."""
    calls = turn.get("tool_calls")
    if not calls:
        return Message.model_validate(turn)
    called = {"content": turn.get("content") or None, "tool_calls": _calls(calls, _as_text)}
    return Message.model_validate({**turn, **called})


def answer_of_trainer(turns: Sequence[Mapping[str, Any]]) -> str:
    """Return the text of an answer of `for_trainer`'s columns."""
    return written(of_trainer(turns[0]))


def row_of(kind: RowKind, stored: dict[str, Any]) -> Row:
    """Return the row that `canonical` gave."""
    common = {
        "interaction_id": stored["interaction_id"],
        "messages": tuple(Message(**message) for message in stored["prompt"]),
        "source": stored["source"],
        "weight": float(stored["weight"]),
        "tools": tuple(json.loads(stored[TOOLS])) if stored.get(TOOLS) else None,
    }
    if kind == "sft":
        return TrainingRow(target=_text(stored["completion"]), **common)
    if kind == "kto":
        label = bool(stored["label"])
        return LabelledRow(answer=_text(stored["completion"]), desirable=label, **common)
    return PreferenceRow(
        chosen_id=stored["chosen_id"],
        chosen=_text(stored["chosen"]),
        rejected=_text(stored["rejected"]),
        **common,
    )


def _common(row: Row) -> dict[str, Any]:
    return {
        "interaction_id": row.interaction_id,
        "source": row.source,
        "weight": row.weight,
        "prompt": [message.canonical() for message in row.messages],
    } | ({TOOLS: json.dumps(row.tools, ensure_ascii=False)} if row.tools else {})


def _answer(text: str) -> list[dict[str, Any]]:
    return [as_turn(text).canonical()]


def _text(messages: Any) -> str:
    return written(Message.model_validate(messages[0]))


def _for_template(value: Any, change: Callable[[Any], Any]) -> Any:
    """Return a column of a stored row as chat templates take it."""
    if not isinstance(value, list):
        return value
    return [
        turn
        | {"content": turn.get("content") or ""}
        | ({"tool_calls": _calls(turn["tool_calls"], change)} if "tool_calls" in turn else {})
        for turn in value
    ]


def _calls(calls: Sequence[Mapping[str, Any]], change: Callable[[Any], Any]) -> list[Any]:
    called = [(call, call["function"]) for call in calls]
    return [
        {**call, "function": {**function, "arguments": change(function["arguments"])}}
        for call, function in called
    ]


def _as_object(arguments: str) -> Any:
    try:
        found = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        return arguments
    return found if isinstance(found, dict) else arguments


def _as_text(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
