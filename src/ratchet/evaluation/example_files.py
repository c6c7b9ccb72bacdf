"""Evaluation examples from a file, for a gate on its own or a set of one's own (safety).

CSV, JSON Lines, JSON or Parquet (see `ratchet.files.rows`). Each row has `id`, `prompt` or
`messages` (in a table as JSON), and optionally

- `target`: the right answer, where there is one; an empty one is none. `tool_calls`: the calls that
  are right, as a list in JSON.
- `tools`, `response_format`: as a request to OpenAI's API has them, in JSON.
- `tests` (Python that must run after the answer's code, for `pass@k`) and `entry_point` (the name
  of what is tested).
- `system`, `user_id`, `group` and `cluster`. Examples of one group belong together, as those of one
  user do; where both are given, the group counts.

A row that breaks a rule makes the whole file unusable: a gate does not decide on what is left.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ratchet.errors import InvalidInputError
from ratchet.files.rows import read_rows
from ratchet.files.text import printable
from ratchet.records import Example, Message
from ratchet.records.tool_calls import written

ERRORS_SHOWN = 10
COLUMNS = (
    "id",
    "prompt",
    "messages",
    "system",
    "target",
    "user_id",
    "group",
    "cluster",
    "tests",
    "entry_point",
    "tools",
    "tool_calls",
    "response_format",
)
AS_JSON = ("messages", "tools", "tool_calls", "response_format")
NEEDS = (("id",), ("prompt", "messages"))


def read_examples(path: Path) -> tuple[Example, ...]:
    """Read examples. Columns of other names are left out of account.

    Raises:
        InvalidInputError: The file is not there, is empty, or has rows that break a rule; the first
            of them are named with their lines.
    """
    examples: dict[str, Example] = {}
    wrong: list[str] = []
    with read_rows(path, needs=NEEDS, names=COLUMNS) as rows:
        for row in rows:
            try:
                example = _example(row.given(as_json=AS_JSON))
                if example.id in examples:
                    raise InvalidInputError(
                        f"id {printable(example.id)!r} is there before; each goes once"
                    )
                examples[example.id] = example
            except InvalidInputError as error:
                wrong.append(f"{row.position}: {error}")
    if wrong:
        more = f"; and {len(wrong) - ERRORS_SHOWN} more" if len(wrong) > ERRORS_SHOWN else ""
        raise InvalidInputError(f"{path.name}: " + "; ".join(wrong[:ERRORS_SHOWN]) + more)
    if not examples:
        raise InvalidInputError(
            f"{path.name} must hold at least 1 example, got none; each row has id and prompt"
        )
    return tuple(examples.values())


def _example(row: Mapping[str, Any]) -> Example:
    fields = {name: row[name] for name in COLUMNS if row.get(name) is not None}
    if ("prompt" in fields) == ("messages" in fields):
        raise InvalidInputError(
            f"a row must have one of prompt and messages, got {', '.join(map(str, row)) or 'none'}"
        )
    messages = _messages(fields)
    if "tests" not in fields and "entry_point" in fields:
        raise InvalidInputError("entry_point goes with tests, got it alone; add tests")
    for name in ("id", "user_id", "group", "cluster"):
        if isinstance(fields.get(name), int):
            fields[name] = str(fields[name])
    try:
        return Example(
            id=fields.get("id", ""),
            messages=messages,
            target=_target(fields),
            user_id=fields.get("group", fields.get("user_id")),
            cluster=fields.get("cluster"),
            tests=fields.get("tests"),
            entry_point=fields.get("entry_point"),
            tools=fields.get("tools"),
            response_format=fields.get("response_format"),
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InvalidInputError(f"{where}: {first['msg']}") from error


def _target(fields: Mapping[str, Any]) -> Any:
    """Return the right answer: words, calls, or both as an answer of text has them."""
    target = fields.get("target") or None
    if "tool_calls" in fields:
        answer = {"role": "assistant", "content": target, "tool_calls": fields["tool_calls"]}
        return written(Message.model_validate(answer))
    return "" if target is None and "tests" in fields else target


def _messages(fields: Mapping[str, Any]) -> Any:
    given = fields.get("messages")
    if given is None:
        given = [{"role": "user", "content": fields["prompt"]}]
    if "system" in fields and isinstance(given, list):
        given = [{"role": "system", "content": fields["system"]}, *given]
    return given
