"""Where an export goes: a file, a folder, object storage or standard output; all of it or nothing.

A file is written beside its place and renamed at the end; what goes to object storage is made here
first and put there whole. Who stops an export leaves nothing half.
"""

from __future__ import annotations

import gzip
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, cast
from uuid import uuid4

from ratchet.errors import InvalidInputError
from ratchet.files.text import printable, printable_path
from ratchet.store.history.place import file_system

STANDARD_OUTPUT = "-"
_COPIED = 1 << 20


def is_remote(out: str) -> bool:
    """Whether an address is one of object storage."""
    return "://" in out and not out.startswith(("file://", "local://"))


@contextmanager
def open_file(out: str, *, keep: bool = False) -> Iterator[IO[bytes]]:
    """Open a file for writing, which appears when the block ends without an error.

    Args:
        out: A path, an address or `-`; one that ends in .gz is packed.
        keep: Whether a file that is there is refused instead of replaced.

    Raises:
        InvalidInputError: It is there and must be kept, is a folder, or its folder is missing.
    """
    if out == STANDARD_OUTPUT:
        stream = _Stream(sys.stdout.buffer)
        yield cast("IO[bytes]", stream)
        sys.stdout.buffer.flush()
        return
    with _whole(out, keep=keep) as path, path.open("wb") as file:
        if out.endswith(".gz"):
            with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
                yield cast("IO[bytes]", packed)
        else:
            yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def open_path(out: str) -> Iterator[Path]:
    """Yield where to write a file that others write, which appears when the block ends.

    Raises:
        InvalidInputError: It is a folder, or its folder is missing.
    """
    with _whole(out, keep=False) as path:
        yield path


@contextmanager
def open_folder(out: str) -> Iterator[Path]:
    """Open a new folder for writing, which appears when the block ends without an error.

    Raises:
        InvalidInputError: Something is there already.
    """
    if is_remote(out):
        files, root = file_system(out, "an export")
        if files.exists(root):
            raise _there(out)
        with tempfile.TemporaryDirectory(prefix="ratchet-export-") as made:
            yield Path(made)
            paths = sorted(path for path in Path(made).rglob("*") if path.is_file())
            # the card last: whoever finds it finds the rows that it names
            for path in sorted(paths, key=lambda path: path.name == "README.md"):
                files.put_file(str(path), f"{root}/{path.relative_to(made).as_posix()}")
        return
    folder = _local(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise _there(out)
    _check_parent(folder)
    beside = folder.with_name(f".{folder.name}.{uuid4().hex}.part")
    try:
        beside.mkdir()
        yield beside
        with suppress(FileNotFoundError):
            folder.rmdir()  # an empty one
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


@contextmanager
def _whole(out: str, *, keep: bool) -> Iterator[Path]:
    """Yield where to write; it is put into its place when the block ends without an error."""
    if is_remote(out):
        files, path = file_system(out, "an export")
        if keep and files.exists(path):
            raise _there(out)
        with tempfile.TemporaryDirectory(prefix="ratchet-export-") as made:
            here = Path(made, "export")
            yield here
            files.put_file(str(here), path)
        return
    place = _local(out)
    if place.is_dir():
        raise InvalidInputError(
            f"--out must be a file for this format, got the folder {printable_path(place)!r}; name "
            "a file in it"
        )
    if keep and place.exists():
        raise _there(out)
    _check_parent(place)
    beside = place.with_name(f".{place.name}.{uuid4().hex}.part")
    try:
        yield beside
        if keep:
            os.link(beside, place)  # fails where another one appeared meanwhile
        else:
            beside.replace(place)
    finally:
        beside.unlink(missing_ok=True)


def _local(out: str) -> Path:
    return Path(out.partition("://")[2] if "://" in out else out)


def _check_parent(place: Path) -> None:
    if not place.absolute().parent.is_dir():
        raise InvalidInputError(
            f"the folder of --out must be there, got {printable_path(place)!r}; make it first"
        )


def _there(out: str) -> InvalidInputError:
    return InvalidInputError(
        f"--out must be new here, got {printable(out)!r}, which is there; name another one"
    )


class _Stream(io.RawIOBase):
    """Standard output, of which Parquet asks how much was written, and which stays open."""

    def __init__(self, to: IO[bytes]) -> None:
        self._to, self._written = to, 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._written

    def write(self, content: Any) -> int:
        self._to.write(content)
        self._written += len(content)
        return len(content)
