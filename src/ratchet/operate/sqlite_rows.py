"""Take a user's texts out of a database of SQLite that another program owns, row by row.

Prefect and MLflow keep what they were told in many tables: artifacts, logs, parameters, states,
traces. All columns of all tables are read, a few hundred rows at a time, and rows that hold a text
are written anew in transactions of their own, so that the program goes on meanwhile. What is
replaced is overwritten in the file, and so is what was deleted there earlier, by writing the file
anew once it is found to hold a text still.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from ratchet.store.user_texts import UserTexts

_HEADER = b"SQLite format 3\x00"
_PAGE = 300
_WAIT_SECONDS = 20.0
_BLOCK, _OVERLAP = 4_000_000, 20_000


def is_database(path: Path) -> bool:
    """Tell whether a file is one of SQLite."""
    with path.open("rb") as file:
        return file.read(len(_HEADER)) == _HEADER


def erase_in_database(path: Path, texts: UserTexts) -> tuple[int, list[str]]:
    """Replace texts in all rows; return how many rows held one, and what could not be erased."""
    left: list[str] = []
    with closing(sqlite3.connect(path, timeout=_WAIT_SECONDS, isolation_level=None)) as file:
        file.execute("PRAGMA secure_delete=ON")
        file.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
        changed = 0
        for table, key, columns in _tables(file):
            try:
                changed += _erase_in_table(file, table, key, columns, texts)
            except sqlite3.Error as error:
                left.append(f"table {table}: {error}")
        _write_back(file)
        if stands_in(path, texts) and not write_anew(path):
            left.append("deleted rows still stand in it: run `ratchet prune --compact`")
    return changed, left


def stands_in(path: Path, texts: UserTexts) -> bool:
    """Tell whether the bytes of a database, or of its log, hold a text: in a row or beside one."""
    return any(
        texts.are_in(block)
        for name in ("", "-wal", "-journal")
        for block in _blocks(path.with_name(path.name + name))
    )


def _blocks(path: Path) -> Iterator[str]:
    if not path.exists():
        return
    with path.open("rb") as file:
        before = b""
        while block := file.read(_BLOCK):
            yield (before + block).decode("utf-8", "replace")
            before = block[-_OVERLAP:]


def _tables(file: sqlite3.Connection) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield each table with what names its rows, and its columns."""
    query = (
        "SELECT name, wr FROM pragma_table_list WHERE schema = 'main' AND type = 'table' "
        "AND name NOT LIKE 'sqlite^_%' ESCAPE '^'"
    )
    for table, without_rowid in file.execute(query).fetchall():
        about = file.execute("SELECT name, pk FROM pragma_table_info(?)", (table,)).fetchall()
        key = [name for name, place in sorted(about, key=lambda row: row[1]) if place]
        yield table, key if without_rowid else ["rowid"], [name for name, _ in about]


def _erase_in_table(
    file: sqlite3.Connection,
    table: str,
    key: Sequence[str],
    columns: Sequence[str],
    texts: UserTexts,
) -> int:
    changed, last = 0, None
    names = ", ".join(map(_quoted, (*key, *columns)))
    order = ", ".join(map(_quoted, key))
    place = f"({order}) > ({', '.join('?' * len(key))})"
    while True:
        where, given = ("", ()) if last is None else (f"WHERE {place}", last)
        query = f"SELECT {names} FROM {_quoted(table)} {where} ORDER BY {order} LIMIT {_PAGE}"
        rows = file.execute(query, given).fetchall()
        held = [row for row in rows if any(map(texts.are_in, map(_text, row[len(key) :])))]
        if held:
            changed += _rewrite(file, table, key, columns, held, texts)
        if len(rows) < _PAGE:
            return changed
        last = rows[-1][: len(key)]


def _rewrite(
    file: sqlite3.Connection,
    table: str,
    key: Sequence[str],
    columns: Sequence[str],
    rows: Sequence[tuple[object, ...]],
    texts: UserTexts,
) -> int:
    same = " AND ".join(f"{_quoted(name)} = ?" for name in key)
    file.execute("BEGIN IMMEDIATE")
    try:
        for row in rows:
            names = [
                (name, _erased(value, texts))
                for name, value in zip(columns, row[len(key) :], strict=True)
                if texts.are_in(_text(value))
            ]
            sets = ", ".join(f"{_quoted(name)} = ?" for name, _ in names)
            given = (*(value for _, value in names), *row[: len(key)])
            file.execute(f"UPDATE {_quoted(table)} SET {sets} WHERE {same}", given)
        file.execute("COMMIT")
    except BaseException:
        file.execute("ROLLBACK")
        raise
    return len(rows)


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return value if isinstance(value, str) else ""


def _erased(value: object, texts: UserTexts) -> object:
    left: str = texts.erased_in(_text(value))
    raw = left.encode("utf-8", "surrogateescape")
    if isinstance(value, bytes):
        return raw
    return left if raw.isascii() or _is_text(raw) else raw


def _is_text(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _write_back(file: sqlite3.Connection) -> None:
    file.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def write_anew(path: Path) -> bool:
    """Write a file anew without what was deleted; False where others write to it all the time."""
    with closing(sqlite3.connect(path, timeout=_WAIT_SECONDS, isolation_level=None)) as file:
        try:
            file.execute("VACUUM")
            _write_back(file)
        except sqlite3.OperationalError:
            return False
    return True


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
