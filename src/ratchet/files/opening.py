"""Open a file of rows: what it is, packed or not, in which encoding; one error where it is none.

What a file is shows in its first bytes, not in its name: gzip, zstd, Parquet, Arrow, UTF-16 and
UTF-32 (by the byte order mark; UTF-16 without one where every other byte is NUL), else UTF-8. A
picture, an archive, a spreadsheet or other binary content is refused at once.
"""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from ratchet.errors import InvalidInputError
from ratchet.files.text import printable, printable_path, unreadable

SAMPLE = 4_096
GZIP, ZSTD, PARQUET = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1"
ARROW = (b"ARROW1\x00\x00", b"\xff\xff\xff\xff")
"""How a file of Arrow begins, and a stream, as data sets of Hugging Face are."""
_MARKS = (  # UTF-32 first: its mark begins as that of UTF-16 does
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
    (b"\xef\xbb\xbf", "utf-8-sig"),
)
_FOREIGN = (
    (b"PK\x03\x04", "a zip archive or an .xlsx spreadsheet; save the sheet as CSV"),
    (b"\xd0\xcf\x11\xe0", "an .xls spreadsheet; save the sheet as CSV"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"GIF8", "a picture"),
    (b"%PDF", "a PDF document"),
    (b"SQLite format 3\x00", "an SQLite database; export its table as CSV"),
    (b"BZh", "packed with bzip2; unpack it or pack it with gzip"),
    (b"\xfd7zXZ", "packed with xz; unpack it or pack it with gzip"),
)
_ORDINARY_CONTROLS = b"\t\n\r\f\v\x1b"
_CONTROLS = bytes(set(range(32)) - set(_ORDINARY_CONTROLS)) + b"\x7f"


@dataclass(frozen=True, slots=True)
class OpenFile:
    """An open file of rows.

    Attributes:
        path: The file.
        content: Its bytes, unpacked, from the start.
        encoding: Of a text; None for Parquet and Arrow.
        sample: The first bytes, at most 4,096; none where the file is empty.
    """

    path: Path
    content: IO[bytes]
    encoding: str | None
    sample: bytes

    def text(self) -> IO[str]:
        r"""Return the text, lines ending at \n, \r or \r\n, which are kept.

        Bytes that are no UTF-8, and halves of pairs in UTF-16, come as surrogates, so that they
        cost a row and not the file.
        """
        utf_8 = self.encoding in ("utf-8", "utf-8-sig")
        errors = "surrogateescape" if utf_8 else "surrogatepass"
        return io.TextIOWrapper(self.content, self.encoding, errors, newline="")


@contextmanager
def open_file(path: Path) -> Iterator[OpenFile]:
    """Open a file of rows. What fails while it is read is told by `readable`.

    Raises:
        InvalidInputError: It is not there, a folder, damaged, or binary.
    """
    with ExitStack() as stack:
        with readable(path):
            content, sample = _unpacked(stack.enter_context(path.open("rb")))
        if sample.startswith((PARQUET, *ARROW)):
            yield OpenFile(path, content, None, sample)
            return
        _refuse_foreign(path, sample)
        encoding = _encoding(sample)
        _refuse_binary(path, sample, encoding)
        yield OpenFile(path, content, encoding, sample)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Make one clear error of what fails while a file is read.

    Raises:
        InvalidInputError: It cannot be read, is cut off, or is not in its encoding.
    """
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InvalidInputError(
            f"a compressed file must be whole, got {printable_path(path)!r} ({error}); fetch it "
            "again: what was stored is not stored twice"
        ) from error
    except UnicodeError as error:  # of UTF-16 and UTF-32: a byte too few, a character too large
        raise InvalidInputError(
            f"a file must be text in UTF-8 or UTF-16, got {printable_path(path)!r} "
            f"({printable(str(error))}); save it as UTF-8"
        ) from error
    except OSError as error:
        raise unreadable(path, error) from error


def _unpacked(file: IO[bytes]) -> tuple[IO[bytes], bytes]:
    """Return the content from its start, and its first bytes; `file` may be a pipe."""
    sample = file.read(SAMPLE)
    whole = _rejoined(sample, file)
    if not sample.startswith((GZIP, ZSTD)):
        return whole, sample
    unpacked = (
        cast("IO[bytes]", gzip.GzipFile(fileobj=whole))
        if sample.startswith(GZIP)
        else _of_zstd(whole)
    )
    first = unpacked.read(SAMPLE)
    return _rejoined(first, unpacked), first


def _of_zstd(packed: IO[bytes]) -> IO[bytes]:
    import pyarrow as pa

    return cast("IO[bytes]", pa.CompressedInputStream(pa.PythonFile(packed, mode="r"), "zstd"))


def _rejoined(start: bytes, rest: IO[bytes]) -> IO[bytes]:
    if rest.seekable() and isinstance(rest, io.BufferedReader):
        rest.seek(0)
        return rest
    return io.BufferedReader(_Rejoined(start, rest), 1 << 16)


class _Rejoined(io.RawIOBase):
    """A stream whose first bytes were read already, since a pipe cannot be rewound."""

    def __init__(self, start: bytes, rest: IO[bytes]) -> None:
        self._start, self._rest = start, rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        content = self._start[: len(buffer)] or self._rest.read(len(buffer))
        self._start = self._start[len(content) :]
        buffer[: len(content)] = content
        return len(content)


def _encoding(sample: bytes) -> str:
    marked = next((name for mark, name in _MARKS if sample.startswith(mark)), None)
    if marked is not None:
        return marked
    pairs = len(sample) // 2
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    if pairs >= 4 and max(even, odd) > 0.7 * pairs and min(even, odd) < 0.05 * pairs:
        return "utf-16-le" if odd > even else "utf-16-be"
    return "utf-8"


def _refuse_foreign(path: Path, sample: bytes) -> None:
    what = next((what for mark, what in _FOREIGN if sample.startswith(mark)), None)
    if what is not None:
        raise _not_rows(path, what)


def _refuse_binary(path: Path, sample: bytes, encoding: str) -> None:
    few = max(4, len(sample) // 20)
    controls = len(sample) - len(sample.translate(None, _CONTROLS))
    binary = sample.count(0) > few or (controls > few and not _is_utf_8(sample))
    if encoding.startswith("utf-8") and binary:
        raise _not_rows(path, "binary content")


def _is_utf_8(sample: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample)  # the last character may be cut
    except UnicodeDecodeError:
        return False
    return True


def _not_rows(path: Path, what: str) -> InvalidInputError:
    way_out = "" if ";" in what else "; name another file"
    return InvalidInputError(
        "a file must hold rows as CSV, JSON Lines, JSON, Parquet or Arrow, packed with gzip or "
        f"zstd or not, got {printable_path(path)!r}, which is {what}{way_out}"
    )
