"""Which conversation a request continues, where it names neither user nor session.

A chat sends all its turns every time. What was said so far, with the answer that was given, is
looked up here; so the next turn stays with the same user, session and version. All processes of a
gateway share one SQLite file; what is a day old is forgotten.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, TypeAlias

from filelock import FileLock
from pydantic_core import to_json

from ratchet.records.conversations import words_of

logger = logging.getLogger(__name__)

KEPT_SECONDS = 86_400.0
_PRUNED_EVERY = 10_000
_TOGETHER_SECONDS = 0.05
_TABLES = ("said", "answered")


_Row: TypeAlias = tuple[bytes, str, str, float]
"""What was said, the user, the session or the interaction, and when."""


class Conversations:
    """Users, sessions and answers by what was said."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._clock, self._added = clock, 0
        self._unwritten: dict[str, dict[bytes, _Row]] = {table: {} for table in _TABLES}
        try:
            with FileLock(path.with_suffix(".lock")):  # all processes open it at the same time
                self._file = self._opened_or_new(path)
        except (OSError, sqlite3.OperationalError) as error:  # locked, or a full disk
            logger.warning("conversations are known to this process alone: %s", error)
            self._file = self._opened(":memory:")

    def _opened_or_new(self, path: Path) -> sqlite3.Connection:
        try:
            return self._opened(path)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            logger.warning("conversations begin anew, their file is damaged: %s", error)
            for name in ("", "-wal", "-shm"):
                path.with_name(path.name + name).unlink(missing_ok=True)
            return self._opened(path)

    def _opened(self, path: Path | str) -> sqlite3.Connection:
        """Return the file.

        Raises:
            sqlite3.DatabaseError: It is damaged. A loss of power may do that, since nobody waits
                until it is on the disk: with it only the next turns' sessions are lost.
        """
        file = sqlite3.connect(path, timeout=1.0, isolation_level=None)
        try:
            file.execute("PRAGMA journal_mode=WAL")
            file.execute("PRAGMA synchronous=OFF")
            file.execute(
                "CREATE TABLE IF NOT EXISTS said "
                "(key BLOB PRIMARY KEY, user TEXT, session TEXT, at REAL) WITHOUT ROWID"
            )
            # a table of its own: a gateway of an earlier version writes to the other one
            file.execute(
                "CREATE TABLE IF NOT EXISTS answered "
                "(key BLOB PRIMARY KEY, user TEXT, interaction TEXT, at REAL) WITHOUT ROWID"
            )
            self._prune(file)
        except sqlite3.Error:
            file.close()
            raise
        return file

    def remember(self, said: bytes, user: str, session: str) -> None:
        """Keep whose conversation it is, up to its last answer, and what was not written yet.

        Other processes know it when this returns: the next turn may be theirs.
        """
        self._unwritten["said"][said] = (said, user, session, self._clock())
        self._write()

    def find(self, said: bytes) -> tuple[str, str] | None:
        """Return user and session of a conversation; None where it is not known."""
        return self._find("said", "session", said)

    def remember_answer(self, said: bytes, user: str, interaction: str) -> None:
        """Keep which interaction gave a conversation's last answer; other processes see it soon."""
        answers = self._unwritten["answered"]
        answers[said] = (said, user, interaction, self._clock())
        if len(answers) > 1:
            return
        try:
            asyncio.get_running_loop().call_later(_TOGETHER_SECONDS, self._write)
        except RuntimeError:  # nobody would write them later
            self._write()

    def find_answer(self, said: bytes) -> str | None:
        """Return the interaction that gave a conversation's last answer; None where unknown."""
        found = self._find("answered", "interaction", said)
        return None if found is None else found[1]

    def _write(self) -> None:
        """Write what was kept lately in one transaction, which takes as long as one row does."""
        if not any(self._unwritten.values()):
            return
        kept, self._unwritten = self._unwritten, {table: {} for table in _TABLES}
        try:
            self._file.execute("BEGIN")
            try:
                for table, rows in kept.items():
                    self._file.executemany(
                        f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?, ?)", rows.values()
                    )
            finally:
                self._file.execute("COMMIT")
            self._count(sum(map(len, kept.values())))
        except sqlite3.Error as error:
            logger.warning("the next turn of a conversation may begin a new session: %s", error)

    def _find(self, table: str, column: str, said: bytes) -> tuple[str, str] | None:
        if (held := self._unwritten[table].get(said)) is not None:
            return held[1], held[2]
        try:
            found = self._file.execute(f"SELECT user, {column} FROM {table} WHERE key = ?", (said,))
            row = found.fetchone()
        except sqlite3.Error as error:
            logger.warning("what was said before a turn cannot be read: %s", error)
            return None
        return None if row is None else (str(row[0]), str(row[1]))

    def close(self) -> None:
        """Close the file."""
        self._write()
        self._file.close()

    def _count(self, added: int) -> None:
        """Count rows, and forget old ones every so many."""
        self._added += added
        if self._added >= _PRUNED_EVERY:
            self._added = 0
            self._prune(self._file)

    def _prune(self, file: sqlite3.Connection) -> None:
        for table in _TABLES:
            file.execute(f"DELETE FROM {table} WHERE at < ?", (self._clock() - KEPT_SECONDS,))


def forget_user(path: Path, user: str) -> None:
    """Take a user out of the file of conversations; processes that have it open go on."""
    if not path.exists():
        return
    with closing(sqlite3.connect(path, timeout=10.0, isolation_level=None)) as file:
        file.execute("PRAGMA secure_delete=ON")
        for table in _TABLES:
            with suppress(sqlite3.OperationalError):  # made a moment ago, it has no table yet
                file.execute(f"DELETE FROM {table} WHERE user = ?", (user,))
        file.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def digest_of(messages: Sequence[Mapping[str, Any]], caller: str) -> bytes | None:
    """Return the digest of a conversation up to its last answer; None before the first.

    System prompts and tools are left out, since an application may write them anew every time.

    Args:
        messages: The turns.
        caller: Whose key or address: conversations of others are never continued.
    """
    said = [
        (str(message["role"]), _words(message))
        for message in messages
        if message.get("role") in ("user", "assistant")
    ]
    while said and said[-1][0] != "assistant":
        said.pop()
    if not said:
        return None
    return hashlib.sha256(to_json([caller, said])).digest()


def answer_of(messages: Sequence[Mapping[str, Any]], whose: str) -> bytes | None:
    """Return what tells the last answer of a conversation from every other one; None without one.

    Like `digest_of`, but with the calls of tools: an agent's turns may hold nothing else.

    Args:
        messages: The turns.
        whose: The caller and the user.
    """
    last = next(
        (n for n in range(len(messages) - 1, -1, -1) if messages[n].get("role") == "assistant"),
        None,
    )
    if last is None:
        return None
    said = [
        (str(message["role"]), _words(message), *_calls(message))
        for message in messages[: last + 1]
        if message.get("role") in ("user", "assistant")
    ]
    return hashlib.sha256(to_json([whose, said])).digest()


def _calls(message: Mapping[str, Any]) -> list[Any]:
    """Return ids, tools and arguments of a turn's calls, which clients send back unchanged."""
    calls = message.get("tool_calls")
    if not calls or not isinstance(calls, list):
        return []
    called = [
        (call.get("id"), call.get("function") or call.get("custom"))
        for call in calls
        if isinstance(call, Mapping)
    ]
    return [
        (key, inner.get("name"), inner.get("arguments", inner.get("input")))
        for key, inner in called
        if isinstance(inner, Mapping)
    ]


def opening_of(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the first thing said and the first answer, by which a lost conversation is told."""
    found: dict[str, str] = {}
    for message in messages:
        if message.get("role") in ("user", "assistant"):
            found.setdefault(str(message["role"]), _words(message))
    return [found.get("user", ""), found.get("assistant", "")]


def _words(message: Mapping[str, Any]) -> str:
    """Return the text of a turn without the space around it, which clients trim."""
    return words_of(message.get("content")).strip()
