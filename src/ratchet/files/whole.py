"""Write files so that a reader gets the old or the new one whole, even after a loss of power.

    write_whole(home / "home.json", content)
    file_digest(home / "home.json")              # whether two files hold the same

What is written lies beside its place under a hidden name first (`.NAME.HEX`, with 32 digits) and is
then renamed; a process that is killed in between leaves that draft behind, and the old file as it
was.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

OWNER_ALONE = 0o600
_NAME_CHARACTERS = 100


def write_whole(
    path: Path, content: bytes, *, mode: int | None = OWNER_ALONE, sync: bool = True
) -> None:
    """Write a file in one step, so that nobody reads half of it; make missing folders.

    Args:
        path: The file. One that is there is replaced at once.
        content: All of it.
        mode: Its permissions; None for what the process gives new files.
        sync: Whether it is on the disk on return. Without, it may be lost with the power.

    Raises:
        OSError: It cannot be written; the old one stays.
    """
    with writing_whole(path, mode=mode, sync=sync) as file:
        file.write(content)


@contextmanager
def writing_whole(
    path: Path, *, mode: int | None = OWNER_ALONE, sync: bool = True
) -> Iterator[BinaryIO]:
    """Yield a file to write to; it is in its place when the block ends without an error.

    Args:
        path: As of `write_whole`.
        mode: As of `write_whole`.
        sync: As of `write_whole`.

    Raises:
        OSError: It cannot be written; the old one stays.
    """
    new = _make_folder(path.parent)
    draft = path.with_name(f".{path.name[-_NAME_CHARACTERS:]}.{uuid4().hex}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    file = os.open(draft, flags, 0o666 if mode is None else OWNER_ALONE)
    try:
        with os.fdopen(file, "wb") as opened:
            if mode is not None:
                os.fchmod(file, mode)
            yield opened
            opened.flush()
            if sync:
                os.fsync(file)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    if sync:
        for folder in (path.parent, *new):
            sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def sync_folders(folder: Path) -> None:
    """Bring the names of all files below a folder to the disk."""
    for path in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        sync_folder(path)


def _make_folder(folder: Path) -> list[Path]:
    """Make a folder; return those that got a new name in them, which is to be synced too."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return [path.parent for path in missing]


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
