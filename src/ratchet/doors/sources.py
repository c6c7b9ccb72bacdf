"""What SOURCE names: a file, a folder or a pattern, here or on object storage, or a table."""

from __future__ import annotations

import glob
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from ratchet.errors import InvalidInputError
from ratchet.files.text import printable
from ratchet.store.foreign_tables import is_database
from ratchet.store.history.place import file_system

SUFFIXES = (".csv", ".tsv", ".tab", ".jsonl", ".ndjson", ".json", ".parquet", ".arrow")
PACKED = (".gz", ".zst")
_BESIDE = frozenset({"dataset_info.json", "dataset_dict.json", "state.json"})
"""What Hugging Face writes beside the rows of a data set."""
_MARKS = ("size", "ETag", "etag", "md5Hash", "last_modified", "mtime")
_REMOTE = "://"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of a source.

    Attributes:
        address: Where it lies.
        name: What people are told; empty where the source is this one file.
        mark: Another one means other content.
        at: The time of what has no time of its own; None where the file's rows have times.
    """

    address: str
    name: str
    mark: str
    at: datetime | None = None

    @property
    def is_table(self) -> bool:
        """Whether it is a table of a database."""
        return is_database(self.address)

    @property
    def is_remote(self) -> bool:
        """Whether it has to be fetched."""
        return _REMOTE in self.address and not self.is_table

    def dated(self, at: datetime | None) -> SourceFile:
        """Return the file with a time for what has none."""
        return replace(self, at=at)


def files_of(source: str) -> list[SourceFile]:
    """Return the files that a source names, in the order of their names.

    Raises:
        InvalidInputError: It names none.
    """
    if is_database(source):
        return [SourceFile(source, "", "")]
    found = _remote(source) if _REMOTE in source else _local(source)
    if not found:
        raise InvalidInputError(
            f"a source must name files of rows ({', '.join(SUFFIXES)}, packed with gzip or zstd or "
            f"not), got none in {printable(source)!r}; name a file, a folder or a pattern"
        )
    return found


def name_of(source: str) -> str:
    """Return what people are told of a source: the last part of it, and never a password."""
    return (
        source.partition("#")[2] if is_database(source) else Path(source.rstrip("/")).name or source
    )


@contextmanager
def opened(file: SourceFile) -> Iterator[Path]:
    """Yield the file's path on this machine, where what lies elsewhere is fetched to meanwhile."""
    if not file.is_remote:
        yield Path(file.address)
        return
    files, path = file_system(file.address, "a source")
    with tempfile.TemporaryDirectory(prefix="ratchet-import-") as folder:
        local = Path(folder, PurePosixPath(path).name)
        try:
            files.get_file(path, str(local))
        except OSError as error:
            raise InvalidInputError(
                f"a source must be readable, got {printable(file.address)!r} "
                f"({printable(str(error))}); check address and credentials"
            ) from error
        yield local


def _local(source: str) -> list[SourceFile]:
    path = Path(source)
    if path.is_dir():
        inside = (below for below in path.rglob("*") if below.is_file())
        return [
            _of_path(below, below.relative_to(path).as_posix())
            for below in sorted(inside)
            if _holds_rows(below.relative_to(path).as_posix())
        ]
    if not path.exists() and glob.has_magic(source):
        matching = (Path(found) for found in glob.glob(source, recursive=True))  # noqa: PTH207
        return [_of_path(found, found.name) for found in sorted(matching) if found.is_file()]
    return [_of_path(path, "")]


def _of_path(path: Path, name: str) -> SourceFile:
    try:
        there = path.stat()
        mark = f"{there.st_size}:{there.st_mtime_ns}"
    except OSError:  # told by whoever opens it
        mark = ""
    return SourceFile(str(path), name, mark)


def _holds_rows(name: str) -> bool:
    parts = PurePosixPath(name).parts
    if any(part.startswith((".", "_")) for part in parts) or parts[-1] in _BESIDE:
        return False
    lower = parts[-1].lower()
    for ending in PACKED:
        lower = lower.removesuffix(ending)
    return lower.endswith(SUFFIXES)


def _remote(source: str) -> list[SourceFile]:
    files, root = file_system(source, "a source")
    try:
        if glob.has_magic(root):
            below: dict[str, Any] = files.glob(root, detail=True)
            base = ""
        else:
            below, base = files.find(root, detail=True), root.rstrip("/") + "/"
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InvalidInputError(
            f"a source must be readable, got {printable(source)!r} ({printable(str(error))}); "
            "check address and credentials"
        ) from error
    found = []
    for path, info in sorted(below.items()):
        name = path.removeprefix(base) if path != root else ""
        if info.get("type", "file") == "file" and (not name or _holds_rows(name)):
            mark = ":".join(str(info[key]) for key in _MARKS if key in info)
            found.append(SourceFile(str(files.unstrip_protocol(path)), name, mark))
    return found
