"""Bytes of pictures, sound and files, each once, in files named by their digest.

    BlobFolder(path).keep(blob, content)            # by the gateway, with each record
    found = unreferred(store, history, gateway, before=now - a_while)
    gone = erase_files(found, before=now - a_while)

A file stays as long as a record refers to it: in the store, in history or in the gateway's log.
Whoever records an answer touches the file first and writes the record then. So a file is taken away
where no record refers to it and nobody has touched it for a while, and is looked at once more after
it was put aside: what a request touched meanwhile is put back.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ratchet.files.whole import write_whole
from ratchet.records import Blob
from ratchet.store import EventStore
from ratchet.store.blob_references import REFERENCE, referred_blobs
from ratchet.store.history import History

logger = logging.getLogger(__name__)

_NOTED = "blob-folders"
_NAME = re.compile(r"[0-9a-f]{64}")
_ASIDE = ".gone"
_BLOCK_BYTES = 4_000_000
_OVERLAP = 200


@dataclass(frozen=True, slots=True)
class BlobFolder:
    """A folder in which bytes are kept."""

    path: Path

    def keep(self, blob: Blob, content: bytes) -> None:
        """Write bytes, or touch them where they are; a disk that fails keeps no answer back."""
        place = self.path / blob.digest[:2] / blob.digest
        try:
            try:
                os.utime(place)
                return
            except FileNotFoundError:
                place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_whole(place, content, sync=False)
        except OSError as error:
            logger.warning("bytes that a client sent are not kept: %s", error)


def note_folder(gateway: Path, folder: Path) -> None:
    """Have a home remember where its gateway keeps bytes, so that they can be erased."""
    if folder in noted_folders(gateway):
        return
    gateway.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (gateway / _NOTED).open("a", encoding="utf-8") as file:
        file.write(f"{folder}\n")


def noted_folders(gateway: Path) -> tuple[Path, ...]:
    """Return the folders in which gateways of a home keep or kept bytes."""
    noted = gateway / _NOTED
    lines = noted.read_text("utf-8").splitlines() if noted.exists() else []
    return tuple(dict.fromkeys(Path(line) for line in lines if line))


@dataclass(frozen=True, slots=True)
class Unreferred:
    """Files that no record refers to.

    Attributes:
        files: Those that nobody has touched for a while.
        bytes: What they take.
        oldest: When the first of them was touched, in seconds since 1970.
        young: How many others there are, which somebody touched since.
    """

    files: tuple[Path, ...] = ()
    bytes: int = 0
    oldest: float | None = None
    young: int = 0


def unreferred(
    store: EventStore, history: History | None, gateway: Path, *, before: datetime
) -> Unreferred:
    """Find the files that no record refers to.

    Args:
        store: The store.
        history: Its history, where there is one.
        gateway: The home's folder of the gateway.
        before: Files that were touched since then are left alone.
    """
    there: dict[Path, os.stat_result] = {}
    for path in _files(gateway):
        with suppress(FileNotFoundError):  # another call erases it
            there[path] = path.stat()
    if not there:
        return Unreferred()
    # the log first: what is drained and deleted meanwhile is in the store by then
    used = _in_log(gateway / "wal") | referred_blobs(store)
    if history is not None and history.cursor() is not None:
        used |= history.blobs()
    loose = {path: stat for path, stat in there.items() if path.name not in used}
    old = [path for path, stat in loose.items() if stat.st_mtime < before.timestamp()]
    size = sum(loose[path].st_size for path in old)
    oldest = min((loose[path].st_mtime for path in old), default=None)
    return Unreferred(tuple(sorted(old)), size, oldest, len(loose) - len(old))


def erase_files(found: Unreferred, *, before: datetime) -> int:
    """Take files away unless somebody touched them since they were found; return how many went."""
    return sum(_erase(path, before.timestamp()) for path in found.files)


def _erase(path: Path, before: float) -> bool:
    aside = path.with_name(path.name + _ASIDE)
    try:
        path.replace(aside)
    except FileNotFoundError:
        return False
    if aside.stat().st_mtime >= before:  # a request touched it: its record refers to it
        aside.replace(path)
        return False
    aside.unlink()
    return True


def _files(gateway: Path) -> Iterator[Path]:
    for folder in noted_folders(gateway):
        for path in folder.glob("[0-9a-f][0-9a-f]/*"):
            if _NAME.fullmatch(path.name):
                yield path
            elif path.name.endswith(_ASIDE):  # by a call that was killed: a file like any other
                whole = path.with_name(path.name.removesuffix(_ASIDE))
                if whole.exists():  # a request wrote the same bytes since, and its time counts
                    path.unlink(missing_ok=True)
                    continue
                yield path.replace(whole)


def _in_log(folder: Path) -> set[str]:
    """Return what lines of the log refer to, drained or not."""
    found: set[str] = set()
    for path in folder.iterdir() if folder.is_dir() else ():
        with suppress(FileNotFoundError), path.open("rb") as file:
            held = b""
            while block := file.read(_BLOCK_BYTES):
                held = held[-_OVERLAP:] + block
                found |= {match[1].decode() for match in REFERENCE.finditer(held)}
    return found
