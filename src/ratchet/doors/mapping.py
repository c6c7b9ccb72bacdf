"""The mapping file (`--map`): the kind of feedback of each score, the column of each field.

scores:
correctness: dimension
columns:
id: request_id
created_at: ts
user_id: customer.id
model_version: {value: gpt-4o}
prompt: question
response: answer
feedback:
- {kind: thumbs, column: rating, values: {good: up, bad: down}}
- {kind: comment, column: remarks}
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from ratchet.collect.rejecting import explain
from ratchet.errors import InvalidInputError
from ratchet.files.text import printable
from ratchet.files.yaml import read_yaml
from ratchet.records import FEEDBACK_KINDS


def _known_kind(kind: str) -> str:
    if kind not in FEEDBACK_KINDS:
        raise ValueError(f"a kind of feedback must be one of {', '.join(FEEDBACK_KINDS)}")
    return kind


Kind = Annotated[str, AfterValidator(_known_kind)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Constant(_Strict):
    """The same value for every row."""

    value: str | float | bool


Column = Annotated[str, Field(min_length=1)]
"""A column's name, or the way to what is nested in it: `customer.id`."""


class FeedbackColumn(_Strict):
    """A column that holds feedback.

    Attributes:
        kind: The kind of feedback.
        column: Where its value is.
        values: What stands in the column, and what it means.
        name: Of a dimension, a judge or a source.
        created_at: The column with its time; without it the answer's.
    """

    kind: Kind
    column: Column
    values: dict[str, str | float | bool] = Field(default_factory=dict)
    name: str | None = None
    created_at: Column | None = None


class Columns(_Strict):
    """Which column holds what; see `ratchet.records.events.Interaction`.

    Attributes:
        prompt: One question as text, in the place of `messages`.
        system: The application's instructions, beside `prompt`.
        metadata: Columns that are kept as they are.
    """

    response: Column
    id: Column | None = None
    messages: Column | None = None
    prompt: Column | None = None
    system: Column | Constant | None = None
    created_at: Column | None = None
    user_id: Column | Constant | None = None
    session_id: Column | None = None
    model_version: Column | Constant | None = None
    latency_seconds: Column | None = None
    segment: Column | Constant | None = None
    error: Column | None = None
    metadata: tuple[Column, ...] = ()
    feedback: tuple[FeedbackColumn, ...] = ()


class ImportMap(_Strict):
    """A file of `--map`; see the module's text."""

    scores: dict[str, Kind] = Field(default_factory=dict)
    columns: Columns | None = None


def read_map(path: Path) -> ImportMap:
    """Return what a file of `--map` says.

    Raises:
        InvalidInputError: It cannot be read, or a line of it breaks a rule.
    """
    content = read_yaml(path, what="a mapping", holds="scores or columns")
    try:
        return ImportMap.model_validate(content)
    except ValidationError as error:
        raise InvalidInputError(f"{printable(path.name)}: {explain(error)}") from error


def held_at(fields: Mapping[str, Any], column: str) -> Any:
    """Return what a column holds, or what is nested in it; None where there is nothing."""
    if column in fields:
        return fields[column]
    found: Any = fields
    for name in column.split("."):
        if not isinstance(found, Mapping) or name not in found:
            return None
        found = found[name]
    return found
