"""Texts of users and models made fit for where they are shown: one escaping for each medium.

| medium | function |
|---|---|
| terminal, log line | `shown_line`, `shown_lines` of several; `clipped`, `wrapped` to a width |
| message of an error | `printable`, `printable_path`; `finding`, what pydantic found |
| Markdown of MLflow, Prefect and files | `cell`, `fenced` |
| cell of a CSV file | `harmless_cell`, read back by `restored_cell` |

Pages escape by themselves (`ratchet.views.pages.rendering`), logs by `ratchet.files.logs`.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ratchet.errors import InvalidInputError

if TYPE_CHECKING:
    from pydantic import ValidationError  # the sandbox takes this module where pydantic is not

WIDTH = 88
INDENT = " " * 9
# As entities, these can neither end a cell nor start markup, whatever stands before them.
_MARKUP = str.maketrans({mark: f"&#{ord(mark)};" for mark in "&<>|`\\*_[]~#@"})
# Where these stand, some readers of Markdown make a link of a text that has no markup.
_LINKS = re.compile(r"(:)(?=//)|(?<=www)(\.)", re.IGNORECASE)


def plain(name: str) -> str:
    """Return a name in words."""
    return name.replace("_", " ")


def counted(number: int, one: str, many: str = "") -> str:
    """Say how many there are of something.

    Args:
        number: How many.
        one: The word for one of them; of several words the last one is a noun.
        many: The word for several, where it is not that noun with an s.

    >>> counted(1, "row"), counted(1234, "more row"), counted(2, "copy", "copies")
    ('1 row', '1,234 more rows', '2 copies')
    """
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def one_line(text: str) -> str:
    """Return the text on one line, without what would steer a terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def first_line(error: object) -> str:
    r"""Return the first line of what an error says, or its type where it says nothing.

    >>> first_line(ValueError(" a\nb")), first_line(ValueError())
    ('a', 'ValueError')
    """
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def clipped(text: str, width: int) -> str:
    """Return the text on one line of at most `width` characters."""
    line = one_line(text)
    return line if len(line) <= width else f"{line[: width - 1]}…"


def wrapped(first: str, text: str = "", *, indent: str = INDENT) -> list[str]:
    """Break a text over lines, the later ones below the end of `first` where `text` follows it."""
    hang = " " * len(first) if text else ""
    return textwrap.wrap(
        one_line(text or first),
        WIDTH,
        initial_indent=indent + (first if text else ""),
        subsequent_indent=indent + hang,
    )


def cell(text: str) -> str:
    """Make user text safe in Markdown, inside a table too."""
    return _LINKS.sub(lambda found: f"&#{ord(found[0])};", one_line(text).translate(_MARKUP))


def fenced(text: str) -> str:
    """Return a text of several lines as a block of code, which nothing in it can end."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{shown_text(text)}\n{fence}"


def shown_line(text: str) -> str:
    r"""Return the text on one line, as wide as it is, with escapes for what is not printable.

    >>> shown_line("a  b\n\x1b[2J")
    'a  b\\n\\x1b[2J'
    """
    return text if text.isprintable() else "".join(map(_shown, text))


def shown_lines(lines: Iterable[str]) -> str:
    """Return lines as a text, each of them one line whatever it holds."""
    return "\n".join(map(shown_line, lines))


def shown_text(text: str) -> str:
    """Return a text whose own line breaks stay, and nothing else that steers a terminal."""
    return shown_lines(text.split("\n"))


SPREADSHEET_MARK = "\ufeff"
"""First in a CSV text, it tells spreadsheets that the text is UTF-8."""
_RECEIVED_CHARACTERS = 80
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠", "'")
"""How a cell begins that a spreadsheet runs, and the mark that keeps it from doing so."""


def printable(text: str, limit: int = _RECEIVED_CHARACTERS) -> str:
    r"""Return `text` as valid Unicode on one line, at most `limit` characters long.

    Control characters, unpaired surrogates and undecodable bytes are shown as escapes.

    >>> printable("a\nb\udce9")
    'a\\nb\\xe9'
    """
    if len(text) <= limit and text.isascii() and text.isprintable():
        return text
    shown = "".join(map(_shown, text[: limit + 1]))
    return shown if len(shown) <= limit and len(text) <= limit else shown[: limit - 3] + "..."


def finding(error: ValidationError, limit: int = _RECEIVED_CHARACTERS, *, whole: str = "") -> str:
    """Return the first thing that pydantic found: the field, the rule, the value received.

    Args:
        error: What it raised.
        limit: Characters of the value.
        whole: What the field is called where it is the whole value.
    """
    first = error.errors(include_url=False)[0]
    where = printable(".".join(map(str, first["loc"])) or whole)
    return f"{where}: {first['msg']}, got {printable(repr(first['input']), limit)}"


def printable_path(path: Path, limit: int = _RECEIVED_CHARACTERS) -> str:
    """Return a path like `printable`; a long one keeps its end, which names the file.

    >>> printable_path(Path("a" * 50) / "messages.csv", 20)
    '...aaaa/messages.csv'
    """
    shown = printable(str(path), 10 * limit)
    return shown if len(shown) <= limit else "..." + shown[-(limit - 3) :]


def harmless_cell(text: str) -> str:
    """Return a text as a cell that no spreadsheet takes for a formula; `restored_cell` undoes it.

    >>> harmless_cell("=1+1"), harmless_cell("'tis"), harmless_cell("plain")
    ("'=1+1", "''tis", 'plain')
    """
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def restored_cell(cell: str) -> str:
    """Return the text that `harmless_cell` made a cell of.

    >>> restored_cell("'=1+1"), restored_cell("''tis"), restored_cell("plain")
    ('=1+1', "'tis", 'plain')
    """
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(FORMULA_STARTS) else cell


def unreadable(path: Path, error: OSError) -> InvalidInputError:
    """Return the error for a file that the system does not let us read."""
    return InvalidInputError(
        f"input must be a readable file, got {printable_path(path)!r} "
        f"({error.strerror or error}); check the path"
    )


def _shown(character: str) -> str:
    if character.isprintable():
        return character
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")
