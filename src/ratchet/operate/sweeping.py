"""Take a user's texts out of the files of a home: artifacts, databases of Prefect and MLflow, logs.

    swept = sweep(home, texts, interaction_ids, leave=[...])

Every file is looked into, whoever wrote it: pages, tables, sheets and logs as text, Parquet by its
columns, what is packed by gzip or written as base64 unpacked first, SQLite row by row. Text is
replaced where it stands. What cannot be replaced (a table in Parquet, a result that Prefect keeps
packed) is deleted: it is made anew where it is needed. Weights are left alone.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import os
import re
import shutil
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ratchet.files.whole import write_whole
from ratchet.operate.sqlite_rows import erase_in_database, is_database
from ratchet.store.forget import holds_any
from ratchet.store.user_texts import UserTexts

_WEIGHTS = {".safetensors", ".gguf", ".bin", ".pt", ".png", ".lock"}
_LARGEST = 512_000_000
_GZIP = b"\x1f\x8b"
_PACKED = re.compile(rb"[A-Za-z0-9+/]{40,}={0,2}")
_COMPANIONS = ("-wal", "-shm", "-journal")


@dataclass(slots=True)
class Swept:
    """What was done to the files of a home.

    Attributes:
        files: Files in which texts were replaced.
        deleted: Files and folders that were deleted.
        rows: Rows of databases in which texts were replaced.
        left: What could not be looked into or written, with the reason.
    """

    files: int = 0
    deleted: int = 0
    rows: int = 0
    left: list[str] = field(default_factory=list)


def sweep(
    home: Path, texts: UserTexts, interaction_ids: Collection[str], *, leave: Collection[Path]
) -> Swept:
    """Take texts out of all files below a folder.

    Args:
        home: The folder.
        texts: What is looked for.
        interaction_ids: Tables that hold one of these interactions are deleted as a whole.
        leave: Folders and files that are erased otherwise.
    """
    swept = Swept()
    for path in _files(home, {item.resolve() for item in leave}):
        try:
            _sweep_file(home, path, texts, interaction_ids, swept)
        except FileNotFoundError:
            continue  # whoever made it took it away
        except Exception as error:  # of any reader: the other files are looked into all the same
            swept.left.append(f"{path.relative_to(home)}: {type(error).__name__}: {error}")
    return swept


def _files(home: Path, leave: set[Path]) -> Iterator[Path]:
    for folder, folders, names in os.walk(home):
        here = Path(folder)
        folders[:] = sorted(name for name in folders if (here / name).resolve() not in leave)
        for name in sorted(names):
            path = here / name
            if path.resolve() not in leave and path.suffix not in _WEIGHTS and path.is_file():
                yield path


def _sweep_file(
    home: Path, path: Path, texts: UserTexts, ids: Collection[str], swept: Swept
) -> None:
    if path.name.endswith(_COMPANIONS) or path.is_symlink():
        return
    if is_database(path):
        rows, left = erase_in_database(path, texts)
        swept.rows += rows
        swept.left += [f"{path.relative_to(home)}: {why}" for why in left]
    elif path.suffix == ".parquet":
        if holds_any(path, ids) or _in_columns(path, texts):
            # with what else tells of the same rows: the card of a set
            folder = path.parent if path.parent.name == "training_set" else None
            shutil.rmtree(folder) if folder else path.unlink()
            swept.deleted += 1
    elif path.stat().st_size > _LARGEST:
        swept.left.append(f"{path.relative_to(home)}: it is larger than {_LARGEST:,} bytes")
    else:
        _sweep_text(home, path, texts, swept)


def _sweep_text(home: Path, path: Path, texts: UserTexts, swept: Swept) -> None:
    written = path.read_bytes()
    is_gzip = written.startswith(_GZIP)
    content = gzip.decompress(written) if is_gzip else written
    said = content.decode("utf-8", "surrogateescape")
    if texts.are_in(said):
        left = texts.erased_in(said).encode("utf-8", "surrogateescape")
        if path.is_relative_to(home / "logs"):
            _write_over(path, content, left)
        else:
            mode = stat.S_IMODE(path.stat().st_mode)
            write_whole(path, gzip.compress(left) if is_gzip else left, mode=mode)
        swept.files += 1
        said = ""
    if any(texts.are_in(unpacked) for unpacked in _unpacked(content)):
        path.unlink()
        swept.deleted += 1


def _unpacked(content: bytes) -> Iterator[str]:
    """Yield what stands in base64, as Prefect keeps results."""
    for found in _PACKED.finditer(content):
        packed = found[0][: len(found[0]) // 4 * 4]
        try:
            yield base64.b64decode(packed).decode("utf-8", "replace")
        except (binascii.Error, ValueError):
            continue


def _write_over(path: Path, before: bytes, left: bytes) -> None:
    """Write a log over in its place, line by line: a server has it open and appends to it."""
    with path.open("r+b") as file:
        lengths = [len(line) for line in before.splitlines(keepends=True)]
        lines = left.splitlines(keepends=True)
        if len(lines) != len(lengths):  # a text of several lines went: all of it is one block
            lengths, lines = [len(before)], [left]
        for line, length in zip(lines, lengths, strict=True):
            end = b"\n" if line.endswith(b"\n") else b""
            file.write(line.removesuffix(b"\n")[: length - len(end)].ljust(length - len(end)) + end)
        file.flush()
        os.fsync(file.fileno())


def _in_columns(path: Path, texts: UserTexts) -> bool:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        kinds = {name: file.schema_arrow.field(name).type for name in file.schema_arrow.names}
        plain = [
            name
            for name, kind in kinds.items()
            if not (pa.types.is_primitive(kind) or pa.types.is_null(kind))
        ]
        for batch in file.iter_batches(1_000, columns=plain):
            if any(texts.are_in(_texts_of(row)) for row in batch.to_pylist()):
                return True
    return False


def _texts_of(value: object) -> object:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, dict):
        return {str(name): _texts_of(item) for name, item in value.items()}
    return [_texts_of(item) for item in value] if isinstance(value, list | tuple) else value
