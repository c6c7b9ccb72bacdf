"""History: everything that the store ever took, as Parquet a day, read by DuckDB.

    history = History.open("s3://bucket/history")
    history.advance(store)
    history.connect().sql("SELECT day, count(*) FROM interactions GROUP BY day")

The store keeps what is needed day by day and may be pruned; history keeps the rest, in a folder or
on object storage, at a tenth of the size. It is written by position, so that nothing is copied
twice and nothing is left out. See docs/files.md.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from ratchet.records import Interaction
from ratchet.records.events import DEFINITION_KINDS
from ratchet.store.aliases import Said, Stored
from ratchet.store.blob_references import START, blobs_in_text
from ratchet.store.erasure import UserData
from ratchet.store.events import EventStore
from ratchet.store.history.erasing import (
    Dropped,
    ErasedHistory,
    drop_before,
    erase,
    erase_interactions,
    user_data,
)
from ratchet.store.history.layout import (
    COLUMNS,
    LATER,
    TABLES,
    Cursor,
    HistoryFile,
    HistoryTable,
)
from ratchet.store.history.layout import readable as readable_files
from ratchet.store.history.place import Place
from ratchet.store.history.writing import (
    Advanced,
    advance,
    check_same,
    check_there,
    histories_of,
)
from ratchet.store.permissions import RETAIN, is_over, not_before

if TYPE_CHECKING:
    import duckdb

__all__ = [
    "Advanced",
    "Cursor",
    "Dropped",
    "ErasedHistory",
    "History",
    "HistoryDay",
    "HistoryFile",
]

_JSON = ("messages", "metadata", "tool_calls")
_WAIT = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class HistoryDay:
    """What a table has of one day.

    Attributes:
        table: `interactions` or `feedback`.
        day: The day.
        rows: Its rows.
        files: The files they are in.
        bytes: Size of these.
    """

    table: HistoryTable
    day: date
    rows: int
    files: int
    bytes: int


class History:
    """See the module's text. One writer at a time, any number of readers."""

    def __init__(self, place: Place, memory: str, temporary: Path | None) -> None:
        self._place = place
        self._memory = memory
        self._temporary = temporary

    @classmethod
    def open(
        cls,
        url: str | Path,
        *,
        memory: str = "1GB",
        temporary: Path | None = None,
        wait: timedelta = _WAIT,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        of: EventStore | None = None,
    ) -> History:
        """Open a history; nothing is created before the first `advance`.

        Args:
            url: A folder, or an address of object storage: `s3://`, `gs://` or `az://`.
            memory: What DuckDB may take for queries, as it writes sizes.
            temporary: Where DuckDB puts what does not fit; a folder of the system's without it.
            wait: How long a writer waits for another one.
            clock: The time.
            of: The store whose history it is, where readers are not to take one that is gone for
                an empty one; as of `check_there`.

        Raises:
            InvalidInputError: No file system of that name is known, or its package is missing.
            ConflictError: As of `check_there`.
        """
        history = cls(Place.open(url, wait=wait, clock=clock), memory, temporary)
        if of is not None:
            history.check_there(of)
        return history

    def check_there(self, store: EventStore) -> None:
        """Refuse a history that the store knows of and that is gone, as when its mount is.

        Raises:
            ConflictError: It is.
        """
        check_there(self._place, histories_of(store))

    @property
    def address(self) -> str:
        """The folder, or the address of object storage."""
        return self._place.address

    @property
    def place(self) -> Place:
        """Where it lies, for what is derived from it."""
        return self._place

    def advance(
        self, store: EventStore, *, progress: Callable[[Advanced], None] | None = None
    ) -> Advanced:
        """Copy what is new in the store, by position.

        Memory and the length of each reading are bounded whatever there is to copy. Interrupted at
        any moment, the next call goes on behind the last files that count.

        Args:
            store: The store; always the same one.
            progress: Called with what was copied, after each step that counts.

        Raises:
            BusyError: Another writer was still at work after ten minutes.
            ConflictError: The history is one of another store, the store is behind it, or the
                history has lost its cursor, or is gone with it.
        """
        return advance(self._place, store, progress)

    def cursor(self) -> Cursor | None:
        """Return up to where history is written; None where nothing is."""
        return self._place.cursor()

    def cursor_of(self, store: EventStore) -> Cursor | None:
        """Return up to where this store's rows are written; None where nothing is.

        Raises:
            ConflictError: As of `advance`: the positions are those of other rows.
        """
        self.check_there(store)
        cursor = self.cursor()
        if cursor is not None:
            check_same(self._place, store, cursor)
        return cursor

    def covers(self, position_interactions: int, position_feedback: int) -> bool:
        """Tell whether history has every row up to these positions."""
        cursor = self.cursor()
        return (
            cursor is not None
            and cursor.interactions >= position_interactions
            and cursor.feedback >= position_feedback
        )

    def readable(self) -> list[HistoryFile]:
        """Return the files that count, in order."""
        cursor = self.cursor()  # read first: what is written meanwhile lies behind it
        return readable_files(self._place.listed(), cursor)

    def files(self, table: HistoryTable) -> list[str]:
        """Return the addresses of a table's files that count, in order."""
        return [self._place.url(item) for item in self.readable() if item.table == table]

    def connect(self) -> duckdb.DuckDBPyConnection:
        """Return a connection to DuckDB with the views `interactions` and `feedback`.

        They show what counted when it was made. Besides the columns of the store both have `day`.
        Close it after use.
        """
        import duckdb

        folder = self._temporary or Path(tempfile.gettempdir()) / f"ratchet-duckdb-{os.getpid()}"
        connection = duckdb.connect(
            config={
                "memory_limit": self._memory,
                "temp_directory": str(folder),
                "threads": 2,
                "preserve_insertion_order": False,  # what need not be ordered need not be kept
                "autoinstall_known_extensions": False,  # nothing is downloaded
                "autoload_known_extensions": False,
            }
        )
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET parquet_metadata_cache = true")
        # what is read once is kept, as a file that counts changes only where a user is forgotten
        connection.execute("SET validate_external_file_cache = 'NO_VALIDATION'")
        cursor = self.cursor()
        files = readable_files(self._place.listed(), cursor)
        if not self._place.is_local:
            connection.register_filesystem(self._place.as_listed())
        for table in TABLES:
            connection.execute(self._view(table, files, cursor))
        return connection

    def _view(
        self, table: HistoryTable, files: Sequence[HistoryFile], cursor: Cursor | None
    ) -> str:
        urls: dict[bool, list[str]] = {True: [], False: []}
        for item in files:
            if item.table == table and cursor is not None:
                urls[cursor.is_narrow(item)].append(self._place.url(item))
        parts = [_rows(table, found, is_narrow=narrow) for narrow, found in urls.items() if found]
        return f"CREATE VIEW {table} AS {' UNION ALL '.join(parts or [_no_rows(table)])}"

    def references(self) -> set[str]:
        """Return the digests of all definitions that interactions in history refer to."""
        found: set[str] = set()
        with self.connect() as connection:
            for name in DEFINITION_KINDS:
                query = f"SELECT DISTINCT {name} FROM interactions WHERE {name} IS NOT NULL"
                found.update(row[0] for row in connection.execute(query).fetchall())
        return found

    def blobs(self) -> set[str]:
        """Return the digests of all bytes that interactions in history refer to."""
        found: set[str] = set()
        with self.connect() as connection:
            for name in ("messages", "metadata"):
                query = f"SELECT {name} FROM interactions WHERE contains({name}, '{START}')"
                reader = connection.execute(query)
                while rows := reader.fetchmany(1_000):
                    found.update(*(blobs_in_text(row[0]) for row in rows))
        return found

    def erase(self, user_id: str, interaction_ids: Collection[str]) -> ErasedHistory:
        """Erase a user's rows, as `ratchet.store.erasure` does in the store, file by file.

        A reader that is at work sees each file as it was or as it is. Interrupted, it is called
        again with the same arguments.

        Args:
            user_id: As it was sent.
            interaction_ids: The user's interactions that the store had; those of history are found.

        Raises:
            BusyError: Another writer was still at work after ten minutes.
        """
        return erase(self._place, user_id, interaction_ids)

    def past_keeping(self, now: datetime) -> dict[str, date]:
        """Return the interactions that may be kept no longer, with the day they lie under."""
        said = 'regexp_extract(metadata, \'"retain_until": ?"([^"]*)"\', 1)'
        query = (
            f"SELECT id, day, metadata FROM interactions WHERE {said} <> '' AND "
            f"({said} < ? OR {said} NOT LIKE '____-__-__%')"
        )
        found: dict[str, date] = {}
        with self.connect() as connection:
            reader = connection.sql(query, params=[not_before(now)]).to_arrow_reader(10_000)
            for batch in reader:
                for row in batch.to_pylist():
                    if is_over(json.loads(row["metadata"]).get(RETAIN), now):
                        found[row["id"]] = row["day"]
        return found

    def erase_interactions(self, ids: Mapping[str, date]) -> ErasedHistory:
        """Erase interactions, and the texts of feedback on them, as `erase` does.

        Args:
            ids: The interactions, at least one, with the days (UTC) on which they were created.

        Raises:
            BusyError: Another writer was still at work after ten minutes.
        """
        return erase_interactions(self._place, ids)

    def user_data(self, user_id: str) -> UserData:
        """Return the ids of a user's interactions in history, and the texts in them."""
        return user_data(self._place, user_id)

    def drop_before(self, day: date) -> Dropped:
        """Delete what is of days before this one.

        Interactions go by the day they were created on, feedback by the day it was received on.

        Raises:
            BusyError: Another writer was still at work after ten minutes.
        """
        return drop_before(self._place, day)

    def days(self) -> tuple[HistoryDay, ...]:
        """Return what is there of each day, in order; no rows are read to count them."""
        found = []
        files = self.readable()
        with self.connect() as connection:
            for table in TABLES:
                counted = connection.sql(f"SELECT day, count(*) FROM {table} GROUP BY day")
                for day, rows in sorted(counted.fetchall()):
                    mine = [f for f in files if f.table == table and f.day == day]
                    size = sum(file.size for file in mine)
                    found.append(HistoryDay(table, day, rows, len(mine), size))
        return tuple(found)

    def stored_at(
        self, days: Collection[date], seconds: Collection[int], ids: Collection[str]
    ) -> list[Stored]:
        """Return interactions of some days that were answered in some seconds or have some ids.

        Args:
            days: No other day's files are opened.
            seconds: Since 1970.
            ids: Also those with one of these ids, whenever on these days.
        """
        names = ", ".join(Stored._fields).replace("created_at", "epoch_us(created_at)")
        query = (
            f"SELECT {names} FROM interactions WHERE day IN (SELECT unnest(?::DATE[])) AND "
            "(epoch_us(created_at) // 1000000 IN (SELECT unnest(?::BIGINT[])) "
            "OR id IN (SELECT unnest(?::VARCHAR[])))"
        )
        with self.connect() as connection:
            given = [sorted(days), sorted(seconds), sorted(ids)]
            return [Stored(*row) for row in connection.execute(query, given).fetchall()]

    def said_in(self, ids: Sequence[str]) -> dict[str, Said]:
        """Return the conversation and the answer of those of the interactions that are here."""
        query = (
            "SELECT id, messages, response, tool_calls, refusal FROM interactions "
            "WHERE id IN (SELECT unnest(?))"
        )
        with self.connect() as connection:
            rows = connection.execute(query, [list(ids)]).fetchall()
        return {
            key: Said(json.loads(messages), response, calls and json.loads(calls), refusal)
            for key, messages, response, calls, refusal in rows
        }

    def fetch_interactions(self, ids: Sequence[str]) -> dict[str, Interaction]:
        """Return those of the interactions with these ids that history has, by id."""
        names = list(Interaction.model_fields)
        query = f"SELECT {', '.join(names)} FROM interactions WHERE id IN (SELECT unnest(?))"
        found: dict[str, Interaction] = {}
        with self.connect() as connection:
            for batch in connection.sql(query, params=[list(ids)]).to_arrow_reader(1_000):
                for row in batch.to_pylist():
                    said = {name: value for name, value in row.items() if value is not None}
                    parsed = {name: json.loads(said[name]) for name in _JSON if name in said}
                    found[row["id"]] = Interaction.model_validate(said | parsed)
        return found


def _no_rows(table: HistoryTable) -> str:
    empty = [f"NULL::{kind} AS {name}" for name, kind in COLUMNS[table].items()]
    return f"SELECT {', '.join(empty)}, NULL::DATE AS day WHERE false"


def _rows(table: HistoryTable, urls: Sequence[str], *, is_narrow: bool) -> str:
    """Return the query for the rows of files; narrow ones may lack columns, which are null then."""
    columns = [
        f"NULL::{kind} AS {name}" if is_narrow and name in LATER else name
        for name, kind in COLUMNS[table].items()
    ]
    listed = ", ".join("'" + url.replace("'", "''") + "'" for url in urls)
    return (
        f"SELECT {', '.join(columns)}, day FROM read_parquet([{listed}], "
        "hive_partitioning = true, hive_types = {'day': DATE})"
    )
