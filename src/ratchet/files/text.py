"""Texts of users and models made fit for a terminal and for Markdown."""

from __future__ import annotations

import textwrap

WIDTH = 88
INDENT = " " * 9
# As entities, these can neither end a cell nor start markup, whatever stands before them.
_MARKUP = str.maketrans({mark: f"&#{ord(mark)};" for mark in "&<>|`\\*_[]~#"})


def plain(name: str) -> str:
    """Return a name in words."""
    return name.replace("_", " ")


def one_line(text: str) -> str:
    """Return the text on one line, without what would steer a terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


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
    return one_line(text).translate(_MARKUP)
