"""Texts as a person reads them: no zero-width characters, no full width, no %-escapes.

    plain, places = reading("ｊｏｈｎ%40example.com")

What recognisers find in such a reading is taken out of the text where it is written.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

DISGUISED = r"[^\x00-\x7f]|%[0-9a-fA-F]{2}"
"""What a text must hold for its reading to be another one."""
_ESCAPES = re.compile(r"(?:%[0-9a-fA-F]{2})+")
_DASHES = dict.fromkeys(map(chr, (*range(0x2010, 0x2016), 0x2212, 0xFE58, 0xFE63)), "-")


def reading(text: str) -> tuple[str, Sequence[int]] | None:
    """Return a text as it is read; None where that is as it is written.

    Returns:
        The text, and where each of its characters is written, with the end of the text last.
    """
    characters: list[str] = []
    places: list[int] = []
    at = 0
    for found in _ESCAPES.finditer(text):
        _take(text, at, found.start(), characters, places)
        if (said := _unescaped(found[0])) is None:
            _take(text, found.start(), found.end(), characters, places)
        else:
            for character, place in said:
                characters.append(_plain(character))
                places += [found.start() + place] * len(characters[-1])
        at = found.end()
    _take(text, at, len(text), characters, places)
    read = "".join(characters)
    return None if read == text else (read, (*places, len(text)))


def _take(text: str, start: int, end: int, characters: list[str], places: list[int]) -> None:
    for at in range(start, end):
        plain = _plain(text[at])
        characters.append(plain)
        places += [at] * len(plain)


def _unescaped(escapes: str) -> list[tuple[str, int]] | None:
    """Return what escapes stand for, each character with its place; None where they are none."""
    raw = bytes.fromhex(escapes.replace("%", ""))
    try:
        said = raw.decode()
    except UnicodeDecodeError:
        return None
    found, place = [], 0
    for character in said:
        found.append((character, place))
        place += 3 * len(character.encode())
    return found


@lru_cache(maxsize=4096)
def _plain(character: str) -> str:
    """Return what a character is read as: one character, or none where nobody sees it."""
    if character < "\x7f":
        return character
    if unicodedata.category(character) == "Cf":
        return ""
    plain = _DASHES.get(character) or unicodedata.normalize("NFKC", character)
    return plain if len(plain) == 1 and plain.isascii() else character
