"""Rows of a JSON text: an object a line, or one document (an array, an object over many lines)."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

from ratchet.errors import InvalidInputError
from ratchet.files.text import printable
from ratchet.strict_json import no_number

LARGEST_DOCUMENT = 500_000_000
"""Characters of an array, which is read whole; an object a line may be as many as there are."""
NOT_JSON = "write one JSON object a line, or an array of objects"
_SPACE = re.compile(r"[\s,]*")


class Line(NamedTuple):
    """A row of a JSON text: its value, or why there is none.

    Attributes:
        line: Where it begins, from 1.
        item: Its place in an array, from 1; None where each row has lines of its own.
        raw: The text as it stands in the file.
    """

    line: int
    value: Any
    raw: str
    problem: str | None = None
    item: int | None = None


def parse_json(text: str | bytes, *, finite: bool = False) -> Any:
    """Return the value of a JSON text.

    Args:
        text: JSON; bytes are UTF-8.
        finite: Whether NaN and Infinity, which Python and pandas write, are refused.

    Raises:
        InvalidInputError: It is no JSON or no UTF-8, an object holds a key twice, it nests too
            deep, or it holds a number that is not finite.
    """
    try:
        decoded = text.decode() if isinstance(text, bytes) else text
        if decoded.startswith("{"):
            value, end = _decoder(finite).raw_decode(decoded)
            if end == len(decoded):  # no space around it, as most rows are
                return value
        return _decoder(finite).decode(decoded.removeprefix("\ufeff"))
    except UnicodeDecodeError as error:
        raise InvalidInputError(
            f"a row must be UTF-8, got the byte 0x{error.object[error.start]:02X}; "
            "save the file as UTF-8"
        ) from error
    except InvalidInputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(_explained(error)) from error


def json_lines(text: IO[str], longest: int, *, finite: bool = False) -> Iterator[Line]:
    """Yield the rows of a JSON text, which is a document where its first line is none by itself.

    Args:
        text: Open text that keeps its line ends.
        longest: Bytes in UTF-8 that a row on a line of its own may have.
        finite: See `parse_json`.

    Raises:
        InvalidInputError: A document is no JSON, or too large to be read whole.
    """
    number, first = _first(text, longest)
    opened = first.lstrip("\ufeff \t")[:1]
    if opened == "[" or (opened == "{" and len(first) <= longest and not _is_json(first)):
        whole = first + text.read(LARGEST_DOCUMENT + 1)
        if _is_document(whole):
            yield from _elements(whole, number, finite)
            return
        text = io.StringIO(whole, newline="")
        first = text.readline(longest + 1)
    while first:
        if first.strip():
            yield _line(first, number, text, longest, finite)
        first, number = text.readline(longest + 1), number + 1


def _is_document(text: str) -> bool:
    """Whether a text is an array or objects over many lines: its first element can be read.

    Where it cannot, or where lines follow an array that its line closes, the text is lines, of
    which the first is a bad row.
    """
    position = _skipped(text, 0)
    if text[position] == "[":
        line = text[position:].partition("\n")[0]
        if _is_json(line):
            return not text[position + len(line) :].strip()
        position = _skipped(text, position + 1)
    return text[position : position + 1] == "]" or _end(text, position) is not None


def _elements(text: str, number: int, finite: bool) -> Iterator[Line]:
    """Yield the elements of an array, or the objects that follow each other."""
    if len(text) > LARGEST_DOCUMENT:
        raise InvalidInputError(
            f"a JSON array must have at most {LARGEST_DOCUMENT:,} characters, got more; write one "
            "object a line, which is read row by row"
        )
    decoder = _decoder(finite)
    position = _skipped(text, 0)
    is_array = text[position] == "["
    seen, position, item = 0, _skipped(text, position + is_array), 0
    while position < len(text) and not (is_array and text[position] == "]"):
        number, seen = number + text.count("\n", seen, position), position
        item += 1
        value, problem = None, None
        try:
            value, end = decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            problem, skipped = _explained(error), _end(text, position)
            if skipped is None:  # where the next one begins is not known
                line = number + text.count("\n", position, getattr(error, "pos", position))
                raise InvalidInputError(f"line {line}: {problem}") from error
            end = skipped
        yield Line(number, value, text[position:end], problem, item if is_array else None)
        position = _skipped(text, end)
    if is_array and (position >= len(text) or text[position + 1 :].strip()):
        raise InvalidInputError(
            f"a JSON array must be closed once and end the file, got {item:,} elements and then "
            f"{printable(text[position:].strip(), 20)!r}; correct the end of the file"
        )


def _line(first: str, number: int, text: IO[str], longest: int, finite: bool) -> Line:
    raw = first.rstrip("\r\n")
    size = len(first)
    if 4 * size > longest:
        ended, size = first, _bytes(first)
        while not ended.endswith(("\n", "\r")) and (ended := text.readline(longest)):
            size += _bytes(ended)
        if size > longest:
            reason = f"a row must have at most {longest:,} bytes, got {size:,}; split or shorten it"
            return Line(number, None, raw[:1_000], reason)
    try:
        return Line(number, parse_json(raw, finite=finite), raw)
    except InvalidInputError as error:
        return Line(number, None, raw, str(error))


def _first(text: IO[str], longest: int) -> tuple[int, str]:
    """Return number and content of the first line that is not blank."""
    number, line = 1, text.readline(longest + 1)
    while line and not line.strip():
        number, line = number + 1, text.readline(longest + 1)
    return number, line


def _is_json(text: str) -> bool:
    try:
        _LENIENT.decode(text.lstrip("\ufeff"))
    except (ValueError, RecursionError):
        return False
    return True


def _end(text: str, position: int) -> int | None:
    """Return where the value at a place ends; None where it is no JSON."""
    try:
        return _LENIENT.raw_decode(text, position)[1]
    except (ValueError, RecursionError):
        return None


def _skipped(text: str, position: int) -> int:
    space = _SPACE.match(text, position)
    return position if space is None else space.end()


def _explained(error: ValueError | RecursionError) -> str:
    if isinstance(error, InvalidInputError):
        return str(error)
    if isinstance(error, RecursionError):
        return "a row must be flat JSON, got too many levels; nest less"
    if isinstance(error, json.JSONDecodeError):
        shown = printable(error.doc[error.pos : error.pos + 40], 40)
        return (
            f"a row must be JSON, got {shown!r} at character {error.colno} ({error.msg}); "
            f"{NOT_JSON}"
        )
    return f"a row must be JSON, got {printable(str(error))}; {NOT_JSON}"  # 5,000 digits


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidInputError(
            f"an object must hold a key once, got {printable(twice)!r} "
            f"{names.count(twice)} times; keep one of them"
        )
    return fields


def _decoder(finite: bool) -> json.JSONDecoder:
    return _FINITE if finite else _PLAIN


_PLAIN = json.JSONDecoder(object_pairs_hook=_once)
_FINITE = json.JSONDecoder(object_pairs_hook=_once, parse_constant=no_number)
_LENIENT = json.JSONDecoder(parse_int=len)  # numbers of any length, to find where a row ends


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
