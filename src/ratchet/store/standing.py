"""Whether a store can be used now: its file is the one that was opened, and errors say why not.

A process that has a SQLite file open goes on reading and writing it when another file takes its
name, or none does: what it stores is then in no file that anybody finds again. So every transaction
looks whether the name still leads to the file that was opened first, when it begins and before it
commits. The file may be moved away and back; another one is opened by starting again.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import sqlalchemy as sa

from ratchet.errors import StoreReplacedError
from ratchet.store.sqlstates import sqlstate

Identity: TypeAlias = tuple[int, int]
"""Device and inode."""
_CONNECT_SECONDS = 5
_OF_DATA = ("22", "23")
"""Classes of PostgreSQL's errors: data exceptions and violated constraints."""


@dataclass(slots=True)
class FileGuard:
    """Knows a SQLite file again.

    Attributes:
        path: Its name.
        identity: Device and inode of the file that was opened; None before.
    """

    path: Path
    identity: Identity | None = None

    def opened(self) -> None:
        """Take the file that is there for the store's, where none was opened before."""
        if self.identity is None:
            self.identity = _identity(self.path)

    def check(self) -> None:
        """See that the name leads to the file that was opened.

        Raises:
            StoreReplacedError: It leads to another one, or to none.
        """
        if self.identity is None or (found := _identity(self.path)) == self.identity:
            return
        what = "none" if found is None else "another file"
        raise StoreReplacedError(
            f"the store must stay the file that was opened, got {what} under {self.path}; move the "
            "file back, or restore it from a backup and start again what uses it"
        )


def guard(engine: sa.Engine) -> FileGuard | None:
    """Let an engine connect to one file only; None where its store is no file.

    A connection to a name without a file would make an empty one.
    """
    path = _file(engine.url) if engine.dialect.name == "sqlite" else None
    if path is None:
        return None
    found = FileGuard(path)

    @sa.event.listens_for(engine, "do_connect")
    def _on_connect(_dialect: Any, _record: Any, _args: Any, _options: Any) -> None:
        found.check()

    @sa.event.listens_for(engine, "connect")
    def _on_connected(_connection: Any, _record: Any) -> None:
        found.opened()

    found.opened()
    return found


def file_of(url: str) -> Path | None:
    """Return the file of a SQLite store; None where a store is none."""
    parsed = sa.make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return None
    return _file(parsed)


def with_short_wait(url: str) -> str:
    """Return a URL of the store by which a server that is away is given up within seconds."""
    parsed = sa.make_url(url)
    if parsed.get_backend_name() != "postgresql" or "connect_timeout" in parsed.query:
        return url
    waiting = parsed.update_query_dict({"connect_timeout": str(_CONNECT_SECONDS)})
    return waiting.render_as_string(hide_password=False)


def is_bad_row(error: BaseException) -> bool:
    """Tell whether an error is about what was to be stored, not about the store."""
    if isinstance(error, sa.exc.DataError | sa.exc.IntegrityError):
        return True
    if (state := sqlstate(error)) is not None:  # of a driver where rows are copied
        return state.startswith(_OF_DATA)
    if isinstance(error, sa.exc.StatementError):  # a value that cannot be bound
        return not isinstance(error, sa.exc.DBAPIError)
    return isinstance(error, ValueError | TypeError | LookupError | ArithmeticError)


def sync_file(engine: sa.Engine) -> None:
    """Wait until what was committed survives a loss of power; PostgreSQL sees to it by itself.

    With `synchronous=NORMAL` SQLite syncs its write-ahead log only before it copies it to the
    database. On that file there are no locks that closing it would free.

    Raises:
        OSError: The disk fails.
    """
    if engine.dialect.name != "sqlite" or not engine.url.database:
        return
    try:
        file = os.open(f"{engine.url.database}-wal", os.O_RDONLY)
    except FileNotFoundError:
        return  # it was copied to the database, and synced with it
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _file(url: sa.URL) -> Path | None:
    database = url.database
    if not database or database.startswith((":", "file:")):
        return None
    return Path(database).absolute()


def _identity(path: Path) -> Identity | None:
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino
