"""Copying what is new in the store into history: by position, in files of bounded size.

Rows are read a few megabytes at a time, each time in a short reading of its own. So many as fill a
file are divided by day, written, and made to count by the cursor.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import TYPE_CHECKING

import numpy as np
import sqlalchemy as sa

from ratchet.errors import ConflictError
from ratchet.files.text import counted
from ratchet.store.arrivals import last_position
from ratchet.store.events import EventStore
from ratchet.store.facts import made_at, note_history, read_histories
from ratchet.store.history.layout import (
    DAY_OF,
    LATER,
    STORED,
    TABLES,
    Cursor,
    HistoryFile,
    HistoryTable,
    readable,
    schema_of,
    stored_columns,
)
from ratchet.store.history.place import Place
from ratchet.store.tables import APPLIED, FACTS

if TYPE_CHECKING:
    import pyarrow as pa

FILE_ROWS = 65_536
"""The most rows that a file holds."""
FILE_BYTES = 32 * 2**20
"""A file is written with fewer rows where they take so many bytes in memory."""
_READ_ROWS, _READ_BYTES = 5_000, 8 * 2**20
_FETCH_ROWS = 250
_DAY = timedelta(days=1)
_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class Advanced:
    """What was copied into history, in rows."""

    interactions: int
    feedback: int


def identity_of(store: EventStore) -> str:
    """Return what tells a store from every other one: when its first table was made.

    It stays with the data through a move of the file or a dump of the database.
    """
    with store.reading() as connection:
        return made_at(connection, APPLIED)


def advance(
    place: Place, store: EventStore, progress: Callable[[Advanced], None] | None
) -> Advanced:
    """Copy what is new. See `History.advance`."""
    known = histories_of(store)
    check_there(place, known)
    with place.writing():
        writer = _Writer(place, _cursor(place, store))
        check_same(place, store, writer.cursor)
        if place.address not in known and place.cursor() is not None:
            with store.atomic() as connection:
                note_history(connection, FACTS, place.address)
        writer.clean()
        until = last_position(store)
        copied = {"interactions": 0, "feedback": 0}
        for table in TABLES:
            end = until.interactions if table == "interactions" else until.feedback
            for batch in _batches(store, table, writer.cursor.of(table), end):
                writer.write(table, batch)
                copied[table] += batch.num_rows
                del batch  # before the next one is read
                if progress is not None:
                    progress(Advanced(**copied))
    return Advanced(**copied)


def _cursor(place: Place, store: EventStore) -> Cursor:
    """Return the cursor to go on from; the first one is written before any file.

    Raises:
        ConflictError: The cursor of a history was lost: its files would be taken for those that a
            killed writer left.
    """
    cursor = place.cursor()
    if cursor is not None:
        wide = cursor.narrow is not None
        return cursor if wide else cursor.model_copy(update={"narrow": cursor.interactions})
    if files := place.listed():
        raise ConflictError(
            f"a history must have its cursor.json, got {counted(len(files), 'file')} without "
            "one; restore it, "
            "or set RATCHET_HISTORY to a new folder"
        )
    cursor = Cursor(store=identity_of(store), written_at=place.clock(), narrow=0)
    if last_position(store).both != (0, 0):
        place.put_cursor(cursor)
    return cursor


def histories_of(store: EventStore) -> frozenset[str]:
    """Return the addresses that history of a store was written to."""
    with store.reading() as connection:
        return read_histories(connection, FACTS)


def check_there(place: Place, known: Collection[str]) -> None:
    """Refuse a place that history was written to and that has lost it: a mount that is gone.

    Taken for a place without history it would be read as empty, begun anew with what the store has
    left, and what a user is to be forgotten in would come back with the mount.

    Args:
        place: Where history is looked for.
        known: The addresses that history of the store was written to.

    Raises:
        ConflictError: There is no cursor.
    """
    if place.address in known and place.cursor() is None:
        raise ConflictError(
            f"history lies in {place.address}, which has no cursor.json now; mount it again or "
            "restore it, or set RATCHET_HISTORY to a new folder to begin another one without it"
        )


def check_same(place: Place, store: EventStore, cursor: Cursor) -> None:
    """Refuse a store that is not the one whose rows history has.

    Raises:
        ConflictError: History belongs to another store, or this one went back behind it, as after
            a backup was restored: its next rows would be taken for copied ones.
    """
    identity = identity_of(store)
    if cursor.store != identity:
        raise ConflictError(
            f"a history belongs to one store, got one that store {cursor.store} wrote and not "
            f"{identity}; set RATCHET_HISTORY to a folder of its own"
        )
    _check_not_behind(cursor, *(store.last_taken_position(STORED[table]) for table in TABLES))
    for item in readable(place.listed(), cursor):
        at = cursor.of(item.table)
        if item.last == at:
            column = STORED[item.table].c
            with store.reading() as connection:
                query = sa.select(column.id).where(column.position == at)
                here = connection.execute(query).scalar()
            there = read_parquet(place, item, ["id"])["id"][-1].as_py()
            if here not in (None, there):  # None: it was pruned
                raise ConflictError(
                    f"the store must hold every row that history does, got {item.table} with "
                    f"another row at position {at}, as after a backup was restored; "
                    "set RATCHET_HISTORY to a new folder"
                )


@dataclass
class _Writer:
    """Writes batches, each so that it counts as a whole.

    Attributes:
        place: Where to.
        cursor: Up to where history is written.
        files: Those that count.
    """

    place: Place
    cursor: Cursor
    files: list[HistoryFile] = field(default_factory=list)

    def clean(self) -> None:
        """Delete what a killed writer left, and what larger files replaced before this run."""
        listed = self.place.listed()
        self.files = readable(listed, self.cursor)
        counted = set(self.files)
        self.place.delete([item for item in listed if item not in counted])
        self.place.delete_unfinished()

    def write(self, table: HistoryTable, batch: pa.Table) -> None:
        """Write rows, which follow those that are there."""
        import pyarrow as pa

        written = []
        for item, rows in _by_day(table, batch):
            whole, content = self._with_small_ones(item, rows)
            self.place.put(whole.path, content)
            written.append(replace(whole, size=len(content)))
        pa.default_memory_pool().release_unused()
        last = int(batch["position"][-1].as_py())
        cursor = self.cursor.model_copy(update={table: last, "written_at": self.place.clock()})
        self.place.put_cursor(cursor)
        self.cursor, self.files = cursor, readable([*self.files, *written], cursor)

    def _with_small_ones(self, item: HistoryFile, rows: pa.Table) -> tuple[HistoryFile, bytes]:
        """Join a file with the last ones of its day that are not much larger.

        Many small advances so make few files, and a row is written again a few times at most. The
        files that were joined stay until the next writer deletes them: readers may be at them.
        """
        import pyarrow as pa

        content = parquet(rows)
        parts, size, first = [rows], len(content), item.first
        of_day = [f for f in self.files if (f.table, f.day) == (item.table, item.day)]
        for small in reversed(of_day):
            if small.size > 2 * size:
                break
            joined = [read_parquet(self.place, small), *parts]
            if (
                sum(part.num_rows for part in joined) > FILE_ROWS
                or sum(part.nbytes for part in joined) > FILE_BYTES
            ):
                break
            parts = joined
            size, first = size + small.size, small.first
        if len(parts) > 1:
            content = parquet(pa.concat_tables(parts))
        return replace(item, first=first), content


def _check_not_behind(cursor: Cursor, interactions: int, feedback: int) -> None:
    """Refuse a store with fewer rows than history: the next ones would be taken for copied ones.

    A store in which every row was pruned is none.
    """
    for table, last in (("interactions", interactions), ("feedback", feedback)):
        written = cursor.interactions if table == "interactions" else cursor.feedback
        if 0 < last < written:
            raise ConflictError(
                f"the store must hold every row that history does, got {table} up to position "
                f"{last} where history has {written}, as after a backup was restored; "
                "set RATCHET_HISTORY to a new folder"
            )


def _batches(store: EventStore, table: HistoryTable, after: int, until: int) -> Iterator[pa.Table]:
    """Yield rows with positions in (after, until] in order, so many as make a file."""
    import pyarrow as pa

    parts: list[pa.RecordBatch] = []
    rows = size = 0
    while after < until:
        found = _read(store, table, after, until, min(_READ_ROWS, FILE_ROWS - rows))
        parts += found
        rows += sum(part.num_rows for part in found)
        size += sum(part.nbytes for part in found)
        after = found[-1]["position"][-1].as_py() if found else until
        if parts and (rows >= FILE_ROWS or size >= FILE_BYTES or after >= until):
            yield pa.Table.from_batches(parts)
            parts, rows, size = [], 0, 0


def _read(
    store: EventStore, table: HistoryTable, after: int, until: int, limit: int
) -> list[pa.RecordBatch]:
    """Return the next rows: at most `limit`, and no more once they take a few megabytes."""
    import pyarrow as pa

    stored, schema = STORED[table], schema_of(table)
    query = (
        sa.select(*stored_columns(table))
        .where(stored.c.position > after, stored.c.position <= until)
        .order_by(stored.c.position)
        .limit(limit)
    )
    parts: list[pa.RecordBatch] = []
    with store.reading() as connection:
        result = connection.execute(query, execution_options={"yield_per": _FETCH_ROWS})
        for rows in result.partitions():
            arrays = [
                pa.array(values, field.type)
                for values, field in zip(zip(*rows, strict=True), schema, strict=True)
            ]
            parts.append(pa.RecordBatch.from_arrays(arrays, schema=schema))
            if sum(part.nbytes for part in parts) >= _READ_BYTES:
                result.close()
                break
    return parts


def _by_day(table: HistoryTable, rows: pa.Table) -> Iterator[tuple[HistoryFile, pa.Table]]:
    """Divide rows by the day that they belong to; each part keeps their order."""
    import pyarrow as pa

    moments = rows[DAY_OF[table]].cast(pa.int64()).to_numpy()
    days = moments // (_DAY // timedelta(microseconds=1))
    found = np.unique(days)
    for number in found:
        part = rows if found.size == 1 else rows.filter(pa.array(days == number))
        first, last = (part["position"][place].as_py() for place in (0, -1))
        yield HistoryFile(table, _EPOCH + timedelta(days=int(number)), first, last), part


def read_parquet(place: Place, item: HistoryFile, columns: Sequence[str] | None = None) -> pa.Table:
    """Return a file's rows with all columns of its table, or these columns of it."""
    import pyarrow.parquet as pq

    with place.files.open(f"{place.root}/{item.path}", "rb") as file:
        rows = pq.ParquetFile(file).read(columns=columns)
    return rows if item.table == "feedback" else _widened(rows, columns)


def _widened(rows: pa.Table, columns: Sequence[str] | None) -> pa.Table:
    """Return interactions with those of the columns `LATER` that an old file lacks."""
    import pyarrow as pa

    schema = schema_of("interactions")
    names = schema.names if columns is None else columns
    for name in names:
        if name in LATER and name not in rows.column_names:
            field = schema.field(name)
            rows = rows.append_column(field, pa.nulls(rows.num_rows, field.type))
    return rows.select(names)


def parquet(rows: pa.Table) -> bytes:
    """Return rows as a Parquet file."""
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(rows, buffer, compression="zstd", row_group_size=FILE_ROWS)
    return buffer.getvalue()
