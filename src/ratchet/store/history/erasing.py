"""Forgetting a user in history, and what retention takes away: the only changes to its files.

A row is changed as `ratchet.store.erasure` changes it in the store. Each file with such a row is
written anew and put in the place of the old one.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from ratchet.records import Interaction
from ratchet.records.signals import TEXT_KINDS
from ratchet.store.erasure import ERASED_INTERACTION, FORGOTTEN, UserData
from ratchet.store.history.layout import HistoryFile, HistoryTable
from ratchet.store.history.place import Place
from ratchet.store.history.writing import parquet, read_parquet
from ratchet.store.user_texts import ERASED, said_by_user

if TYPE_CHECKING:
    import pyarrow as pa


_JSON = ("messages", "metadata", "tool_calls")


@dataclass(frozen=True, slots=True)
class ErasedHistory:
    """What was erased in history.

    Attributes:
        interactions: Rows of the user.
        feedback: Rows of the user, and those about the user's interactions.
        files: Files that were written anew.
    """

    interactions: int
    feedback: int
    files: int


@dataclass(frozen=True, slots=True)
class Dropped:
    """What retention took away, in files and bytes."""

    files: int
    bytes: int


def erase(place: Place, user_id: str, interaction_ids: Collection[str]) -> ErasedHistory:
    """Erase a user's rows. See `History.erase`."""
    with place.writing():
        place.delete_unfinished()
        files = place.listed()  # also those that do not count yet: they hold texts too
        ids, mine = {*interaction_ids}, []
        for item in (item for item in files if item.table == "interactions"):
            found = _ids_of(place, item, user_id)
            ids.update(found)
            mine += [item] if found else []
        counts = {"interactions": 0, "feedback": 0}
        written = 0
        # feedback first: stopped between the two, the next call finds the interactions again
        for item in [*(item for item in files if item.table == "feedback"), *mine]:
            rows, changed = _without(read_parquet(place, item), item.table, user_id, ids)
            if changed:
                place.delete_derived([item])
                place.put(item.path, parquet(rows))
                counts[item.table] += changed
                written += 1
    return ErasedHistory(**counts, files=written)


def erase_interactions(place: Place, ids: Mapping[str, date]) -> ErasedHistory:
    """Erase interactions by id. See `History.erase_interactions`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    days = set(ids.values())
    values = pa.array(sorted(ids), pa.string())
    counts = {"interactions": 0, "feedback": 0}
    written = 0
    with place.writing():
        place.delete_unfinished()
        # feedback first: stopped between the two, the next call finds the interactions again
        for item in sorted(place.listed(), key=lambda item: item.table):
            mine = item.table == "interactions"
            if mine and item.day not in days:
                continue  # feedback lies under the day on which it was received, whichever that is
            name = "id" if mine else "interaction_id"
            found = pc.is_in(read_parquet(place, item, [name])[name], value_set=values)
            changed = pc.sum(found).as_py() or 0
            if changed:
                rows = read_parquet(place, item)
                erased = _erased(rows, found) if mine else _without_texts(rows, found)
                place.delete_derived([item])
                place.put(item.path, parquet(erased))
                counts[item.table] += changed
                written += 1
    return ErasedHistory(**counts, files=written)


def user_data(place: Place, user_id: str) -> UserData:
    """Return what there is of a user. See `History.user_data`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    texts: set[str] = set()
    files, found = place.listed(), []
    for item in (item for item in files if item.table == "interactions"):
        if _ids_of(place, item, user_id):
            rows = read_parquet(place, item)
            found += rows.filter(pc.equal(rows["user_id"], user_id)).to_pylist()
    found.sort(key=lambda row: row["position"])
    # a file and the larger one that replaced it may both be there
    ids = tuple(dict.fromkeys(row["id"] for row in found))
    for row in found:
        interaction = _interaction(row)
        texts |= said_by_user(interaction.messages, interaction.answer)
    values = pa.array(ids, pa.string())
    for item in (item for item in files if item.table == "feedback" and ids):
        if pc.any(
            pc.is_in(read_parquet(place, item, ["interaction_id"])[0], value_set=values)
        ).as_py():
            rows = read_parquet(place, item, ["interaction_id", "kind", "text"])
            about = pc.is_in(rows["interaction_id"], value_set=values)
            texts.update(rows.filter(pc.and_(about, _holds_text(rows)))["text"].to_pylist())
    return UserData(ids, frozenset(texts))


def _interaction(row: Mapping[str, Any]) -> Interaction:
    said = {name: row[name] for name in Interaction.model_fields if row.get(name) is not None}
    parsed = {name: json.loads(said[name]) for name in _JSON if name in said}
    return Interaction.model_validate(said | parsed)


def drop_before(place: Place, day: date) -> Dropped:
    """Delete the files of earlier days. See `History.drop_before`."""
    with place.writing():
        old = [item for item in place.listed() if item.day < day]
        place.delete(old)
    return Dropped(len(old), sum(item.size for item in old))


def _ids_of(place: Place, item: HistoryFile, user_id: str) -> list[str]:
    import pyarrow.compute as pc

    users = read_parquet(place, item, ["user_id"])["user_id"]
    if not pc.any(pc.equal(users, user_id)).as_py():
        return []
    ids: list[str] = (
        read_parquet(place, item, ["id"])["id"].filter(pc.equal(users, user_id)).to_pylist()
    )
    return ids


def _without(
    rows: pa.Table, table: HistoryTable, user_id: str, ids: set[str]
) -> tuple[pa.Table, int]:
    """Return a file's rows with a user's erased, and how many were."""
    if table == "interactions":
        return _without_interactions(rows, user_id)
    return _without_feedback(rows, user_id, ids)


def _without_interactions(rows: pa.Table, user_id: str) -> tuple[pa.Table, int]:
    import pyarrow.compute as pc

    mine = pc.equal(rows["user_id"], user_id)
    return _erased(rows, mine), pc.sum(mine).as_py() or 0


def _erased(rows: pa.Table, where: Any) -> pa.Table:
    """Return interactions with some of them erased."""
    import pyarrow.compute as pc

    for name, value in ERASED_INTERACTION.items():
        text = value if value is None or isinstance(value, str) else json.dumps(value)
        rows = _replaced(rows, name, where, text)
    failed = pc.and_(where, pc.is_valid(rows["error"]))
    return _replaced(rows, "error", failed, ERASED)


def _without_texts(rows: pa.Table, where: Any) -> pa.Table:
    """Return feedback without the texts of some of it."""
    import pyarrow.compute as pc

    return _replaced(rows, "text", pc.and_(where, _holds_text(rows)), ERASED)


def _without_feedback(rows: pa.Table, user_id: str, ids: set[str]) -> tuple[pa.Table, int]:
    import pyarrow as pa
    import pyarrow.compute as pc

    mine = pc.fill_null(pc.equal(rows["user_id"], user_id), False)
    about = pc.is_in(rows["interaction_id"], value_set=pa.array(sorted(ids), pa.string()))
    done = pc.fill_null(pc.equal(rows["user_id"], FORGOTTEN), False)
    affected = pc.or_(mine, pc.and_not(about, done))
    # a correction of an erased answer is none: it must not be trained on
    rows = _without_texts(rows, affected)
    return _replaced(rows, "user_id", mine, FORGOTTEN), pc.sum(affected).as_py() or 0


def _holds_text(rows: pa.Table) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.is_in(rows["kind"], value_set=pa.array(sorted(TEXT_KINDS), pa.string()))


def _replaced(rows: pa.Table, name: str, where: Any, value: str | None) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    place = rows.schema.get_field_index(name)
    field = rows.schema.field(place)
    return rows.set_column(
        place, field, pc.if_else(where, pa.scalar(value, field.type), rows[name])
    )
