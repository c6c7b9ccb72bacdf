"""Tables of one's own: which column holds what is said by `columns` of `--map`.

CSV, JSON Lines, Parquet and Arrow files, folders of a Hugging Face data set (`save_to_disk`), and
tables of a database. See `ratchet.doors.mapping` for the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ratchet.doors.door import UNKNOWN_MODEL, UNKNOWN_USER, Door, Given, Translation, door_id
from ratchet.doors.mapping import held_at
from ratchet.doors.metadata import texts_of
from ratchet.doors.times import utc
from ratchet.doors.turns import answer, conversation
from ratchet.errors import InvalidInputError
from ratchet.files.text import printable
from ratchet.records import digest

NAME = "table"
_DETAILS = {"judge_score": "judge_version", "dimension": "name", "safety_violation": "source"}


def check_columns(columns: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a mapping that names columns which no row has.

    Raises:
        InvalidInputError: There is one, or there is no mapping.
    """
    if not columns:
        raise InvalidInputError(
            "a table needs a file that says which column holds what, got none; pass --map FILE "
            "with `columns:`, see docs/import.md"
        )
    named = [name for key, value in columns.items() for name in _names(key, value)]
    missing = [name for name in named if rows and all(held_at(row, name) is None for row in rows)]
    there = {str(name) for row in rows for name in row}
    unknown = [name for name in missing if name.partition(".")[0] not in there]
    if unknown:
        raise InvalidInputError(
            f"columns of --map must be in the table, got {printable(', '.join(unknown), 100)} "
            f"among {printable(', '.join(sorted(there)), 200)}; correct the file"
        )


def _names(key: str, value: Any) -> list[str]:
    if key == "feedback":
        return [one["column"] for one in value]
    if key == "metadata":
        return list(value)
    return [value] if isinstance(value, str) else []


def _translate(row: Mapping[str, Any], given: Given) -> Iterator[Translation]:
    columns = given.columns

    def held(name: str) -> Any:
        column = columns.get(name)
        return column["value"] if isinstance(column, Mapping) else column and held_at(row, column)

    asked = held("messages")
    key = held("id")
    made: dict[str, Any] = {
        "id": door_id(NAME, key if key is not None else digest(repr(sorted(row.items(), key=str)))),
        "user_id": str(_or(held("user_id"), UNKNOWN_USER)),
        "created_at": utc(_or(held("created_at"), given.at)),
        "model_version": str(_or(held("model_version"), UNKNOWN_MODEL)),
        "messages": conversation(asked if asked is not None else held("prompt")),
    }
    made["session_id"] = str(_or(held("session_id"), made["id"]))
    if system := held("system"):
        made["messages"] = [{"role": "system", "content": str(system)}, *made["messages"]]
    error = held("error")
    made |= {"response": "", "error": str(error)} if error else answer(held("response")).fields()
    for name, kind in (("latency_seconds", float), ("segment", str)):
        if (value := held(name)) is not None:
            made[name] = kind(value)
    if metadata := texts_of({name: held_at(row, name) for name in columns.get("metadata", ())}):
        made["metadata"] = metadata
    yield made
    for one in columns.get("feedback", ()):
        if (value := held_at(row, one["column"])) is not None:
            yield _feedback(row, one, value, made)


def _feedback(
    row: Mapping[str, Any], one: Mapping[str, Any], value: Any, answered: Mapping[str, Any]
) -> dict[str, Any]:
    kind, at = one["kind"], one.get("created_at")
    made = {
        "id": door_id(answered["id"], kind, one["column"]),
        "interaction_id": answered["id"],
        "created_at": utc(_or(at and held_at(row, at), answered["created_at"])),
        "user_id": answered["user_id"],
        "kind": kind,
        "value": one.get("values", {}).get(_written(value), value),
    }
    if kind == "judge_score" and isinstance(made["value"], int):
        made["value"] = float(made["value"])
    detail = _DETAILS.get(kind)
    return made | {detail: one.get("name") or one["column"]} if detail else made


def _written(value: Any) -> str:
    """Return a value as a file of --map names it: 1.0 as 1, true as true."""
    if isinstance(value, bool):
        return str(value).lower()
    whole = isinstance(value, float) and value.is_integer()
    return str(int(value) if whole else value)


def _or(value: Any, otherwise: Any) -> Any:
    return otherwise if value is None or value == "" else value


DOOR = Door(
    name=NAME,
    holds="a table, by the columns of --map",
    recognises=lambda _: False,
    translate=_translate,
    mapping={"every field": "the column that --map names"},
    is_timeless=True,
)
