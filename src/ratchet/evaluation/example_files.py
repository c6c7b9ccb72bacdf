"""Evaluation examples from a file, for a gate on its own or a set of one's own (safety).

JSON Lines, or CSV with a header. Each row has `id`, `prompt` or `messages` (in CSV as JSON),
`target` or `tests` (Python that must run after the answer's code, for `pass@k`), and optionally
`entry_point` (the name of what is tested), `system`, `user_id` and `cluster`. A row that breaks a
rule makes the whole file unusable: a gate does not decide on what is left.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ratchet.errors import InvalidInputError
from ratchet.records import Example

ERRORS_SHOWN = 10
COLUMNS = (
    "id",
    "prompt",
    "messages",
    "system",
    "target",
    "user_id",
    "cluster",
    "tests",
    "entry_point",
)


def read_examples(path: Path) -> tuple[Example, ...]:
    """Read examples: JSON Lines where the name ends in .jsonl or .ndjson, else CSV.

    Columns of other names are left out of account.

    Raises:
        InvalidInputError: The file is not there, is empty, or has rows that break a rule; the first
            of them are named with their lines.
    """
    if not path.is_file():
        raise InvalidInputError(f"examples must be in a file, got no {path.name}")
    is_json = path.suffix.lower() in (".jsonl", ".ndjson")
    examples: dict[str, Example] = {}
    wrong: list[str] = []
    try:
        for line, row in _json_rows(path) if is_json else _csv_rows(path):
            try:
                example = _example(row)
                if example.id in examples:
                    raise InvalidInputError(f"id {example.id!r} is there before; each goes once")
                examples[example.id] = example
            except InvalidInputError as error:
                wrong.append(f"line {line}: {error}")
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidInputError(
            f"{path.name} must be CSV or JSON Lines in UTF-8: {error}"
        ) from error
    if wrong:
        more = f"; and {len(wrong) - ERRORS_SHOWN} more" if len(wrong) > ERRORS_SHOWN else ""
        raise InvalidInputError(f"{path.name}: " + "; ".join(wrong[:ERRORS_SHOWN]) + more)
    if not examples:
        raise InvalidInputError(
            f"{path.name} must hold at least 1 example, got none; each row has id, prompt, target"
        )
    return tuple(examples.values())


def _json_rows(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except (ValueError, RecursionError):
                    yield number, None


def _csv_rows(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        for row in reader:
            yield reader.line_num, {key: value for key, value in row.items() if value}


def _example(row: Any) -> Example:
    if not isinstance(row, Mapping):
        raise InvalidInputError("a row must be an object with id, prompt and target")
    found = {name: row[name] for name in COLUMNS if row.get(name) is not None}
    if ("prompt" in found) == ("messages" in found):
        raise InvalidInputError(
            f"a row must have one of prompt and messages, got {', '.join(map(str, row)) or 'none'}"
        )
    messages = _messages(found)
    if "tests" in found:
        found = {"target": ""} | found
    elif "entry_point" in found:
        raise InvalidInputError("entry_point goes with tests, got it alone; add tests")
    for name in ("id", "user_id", "cluster"):
        if isinstance(found.get(name), int):
            found[name] = str(found[name])
    try:
        return Example(
            id=found.get("id", ""),
            messages=messages,
            target=found["target"],
            user_id=found.get("user_id"),
            cluster=found.get("cluster"),
            tests=found.get("tests"),
            entry_point=found.get("entry_point"),
        )
    except KeyError as error:
        raise InvalidInputError("a row must have a target or tests, got none") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InvalidInputError(f"{where}: {first['msg']}") from error


def _messages(found: Mapping[str, Any]) -> Any:
    given = found.get("messages")
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except (ValueError, RecursionError) as error:
            raise InvalidInputError(
                f"messages must be JSON, got {found['messages'][:40]!r}"
            ) from error
    if given is None:
        given = [{"role": "user", "content": found["prompt"]}]
    if "system" in found and isinstance(given, list):
        given = [{"role": "system", "content": found["system"]}, *given]
    return given
