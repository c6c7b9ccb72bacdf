"""A user's texts, looked for in what others made of them.

What quotes a text may be JSON, HTML, CSV or Markdown, in which quotes, line breaks and accents are
written otherwise, and may show its beginning only. So texts and what is searched are compared as
they read: escapes undone, white space as one space. What is taken out is the part as it was
written, so that JSON stays JSON and HTML stays HTML.
"""

from __future__ import annotations

import html
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ratchet.records import APPLICATION_ROLES, Message, called_in, spoken
from ratchet.records import texts as texts_of

ERASED = "[erased]"
_SHORTEST = 12
"""Shorter texts ("yes", "billing") are written by anybody and stay: they identify nobody."""
_FEW = 64
_CUT = ("…", "...", " …", " ...")
"""What stands where a text was cut."""
_WRITTEN = re.compile(
    r" ?(?:\\+[nrt]|[^\S ]|(?<= ) )(?:\\+[nrt]|\s)*"  # white space
    r"|\\+u[0-9a-fA-F]{4}"
    r"|(?:\\*\"|&quot;|&#34;|&#x22;)+"  # of a table too, which doubles them
    r"|\\+['/]?"
    r"|&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|amp|lt|gt|quot|apos);"
    r"|[\U00010000-\U0010ffff]"
)
_PLAIN_WORD = re.compile(r"[0-9A-Za-z]+")
"""Of characters that no format writes otherwise."""
_SPACE = ("n", "r", "t")
_WIDE = 0x10000


@dataclass(frozen=True, slots=True)
class UserTexts:
    """What a user said, was answered and corrected, and the user's id.

    Attributes:
        every: All of them, longest first.
        by_start: Those that are looked for, as they read, by their first 12 characters.
        words: One of these is in whatever quotes one of them, however it is written; None where
            that cannot be said, or they are many.
    """

    every: tuple[str, ...]
    by_start: Mapping[str, tuple[str, ...]]
    words: tuple[str, ...] | None = None

    @classmethod
    def of(cls, texts: Iterable[str]) -> UserTexts:
        """Make them ready to be looked for."""
        every = sorted(set(filter(None, texts)), key=lambda text: (-len(text), text))
        by_start: dict[str, list[str]] = {}
        for text in dict.fromkeys(_Read.of(text).text.strip(' "') for text in every):
            if len(text) >= _SHORTEST:
                by_start.setdefault(text[:_SHORTEST], []).append(text)
        words = tuple(max(_PLAIN_WORD.findall(start), key=len, default="") for start in by_start)
        few = len(words) <= _FEW and all(words)
        found = {start: tuple(same) for start, same in by_start.items()}
        return cls(tuple(every), found, words if few else None)

    def are_in(self, value: Any, *, cut: bool = False) -> bool:
        """Tell whether a JSON value quotes one of the texts, or its beginning before "...".

        Args:
            value: A text, or what JSON holds.
            cut: Whether a text may also be cut off where the value ends.
        """
        if isinstance(value, str):
            if self.words is not None and not any(word in value for word in self.words):
                return False
            return next(self._found(_Read.of(value).text, cut), None) is not None
        if isinstance(value, dict):
            return any(self.are_in(item, cut=cut) for pair in value.items() for item in pair)
        return isinstance(value, list) and any(self.are_in(item, cut=cut) for item in value)

    def erased_in(self, value: Any) -> Any:
        """Return a JSON value with the texts taken out."""
        if isinstance(value, str):
            return self._without(value)
        if isinstance(value, dict):
            return {self._without(name): self.erased_in(item) for name, item in value.items()}
        return [self.erased_in(item) for item in value] if isinstance(value, list) else value

    def _without(self, value: str) -> str:
        read = _Read.of(value)
        spans = sorted(self._found(read.text, False))
        if not spans:
            return value
        parts, done, written = [], 0, 0
        for start, end in spans:
            if start >= done:
                parts += [value[written : read.written(start)], ERASED]
            if end > done:
                done, written = end, read.written(end, is_end=True)
        return "".join([*parts, value[written:]])

    def _found(self, text: str, cut: bool) -> Iterator[tuple[int, int]]:
        """Yield where they stand in a text as it reads, each longest first."""
        for start in self._starts_in(text):
            at = text.find(start)
            while at >= 0:
                ends = (_end(text, at, mine, cut) for mine in self.by_start[start])
                if (end := max(ends)) > at:
                    yield at, end
                at = text.find(start, at + 1)

    def _starts_in(self, text: str) -> Iterable[str]:
        """Return the beginnings that are in a text; of many only those that a part of it is."""
        if len(self.by_start) <= _FEW:
            return [start for start in self.by_start if start in text]
        parts = (text[at : at + _SHORTEST] for at in range(len(text) - _SHORTEST + 1))
        return self.by_start.keys() & parts


def said_by_user(
    messages: Sequence[Message], answer: Message, *, shortest_answer: int = 0
) -> set[str]:
    """Return what may identify a user in a conversation: words, arguments, results, names of files.

    Each turn is in it as it was written and as people and judges were shown it. What the
    application wrote is nobody's.

    Args:
        messages: The turns up to the answer.
        answer: The answer.
        shortest_answer: Shorter texts of the model and of tools are left out: anybody is answered
            so.
    """
    texts: set[str] = set()
    turns = [turn for turn in (*messages, answer) if turn.role not in APPLICATION_ROLES]
    called = called_in(turns)
    for turn in turns:
        found = {*texts_of(turn), turn.text, spoken(turn, called)}
        shortest = 0 if turn.role == "user" else shortest_answer
        texts.update(text for text in found if len(text) >= shortest)
    return texts - {""}


class Elsewhere(Protocol):
    """Erases texts outside the store."""

    def __call__(self, texts: UserTexts, /, *, interaction_ids: tuple[str, ...]) -> None:
        """Erase the texts, and what holds one of the interactions as a whole."""
        ...


def nowhere(texts: UserTexts, /, *, interaction_ids: tuple[str, ...]) -> None:
    """Erase nothing: there is nothing outside the store."""


def _end(text: str, at: int, mine: str, cut: bool) -> int:
    """Return where one of the user's texts ends that begins at a place; the place if none does."""
    if text.startswith(mine, at):
        return at + len(mine)
    low, high = _SHORTEST, min(len(mine), len(text) - at)
    while low < high:  # how far they are the same
        half = (low + high + 1) // 2
        low, high = (half, high) if text.startswith(mine[:half], at) else (low, half - 1)
    end = at + low
    return end if text.startswith(_CUT, end) or (cut and end == len(text)) else at


@dataclass(frozen=True, slots=True)
class _Read:
    """A text as it reads, and where each part of it is written.

    Attributes:
        text: As it reads.
        starts: Where parts begin in it: one after each escape.
        places: Where the same parts begin as written.
    """

    text: str
    starts: tuple[int, ...]
    places: tuple[int, ...]

    @classmethod
    def of(cls, written: str) -> _Read:
        """Read a text."""
        parts, starts, places = [], [0], [0]
        length = end = 0
        for token in _WRITTEN.finditer(written):
            plain, means = written[end : token.start()], _meaning(token[0])
            parts += [plain, means]
            starts += [length + len(plain), length + len(plain) + len(means)]
            places += [token.start(), token.end()]
            length, end = starts[-1], token.end()
        return cls("".join([*parts, written[end:]]), tuple(starts), tuple(places))

    def written(self, at: int, *, is_end: bool = False) -> int:
        """Return where a character is written, or where what ends before it ends."""
        part = bisect_right(self.starts, at - is_end) - 1
        inside = at - self.starts[part]
        if part % 2:  # an escape, which is one character or two
            return self.places[part + 1] if is_end else self.places[part]
        return self.places[part] + inside


def _meaning(token: str) -> str:
    """Return what an escape stands for."""
    if token[0] == "&":
        return html.unescape(token)[:1].replace("\\", "")
    if ord(token[0]) >= _WIDE:
        high, low = divmod(ord(token) - _WIDE, 0x400)
        return chr(0xD800 + high) + chr(0xDC00 + low)
    if token[-1] == '"':
        return '"'
    named = token.lstrip("\\")
    if token[0] != "\\" or named[:1] in _SPACE:
        return " "
    return chr(int(named[1:], 16)) if named[:1] == "u" else named  # a backslash by itself: nothing
