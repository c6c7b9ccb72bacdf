"""A user's texts, looked for in what others made of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

ERASED = "[erased]"
_SHORTEST = 12
"""Shorter texts ("yes", "billing") are written by anybody and stay: they identify nobody."""
_FEW = 64


@dataclass(frozen=True, slots=True)
class UserTexts:
    """What a user said, was answered and corrected, and the user's id.

    Attributes:
        every: All of them, longest first.
        by_start: Those that are looked for, longest first, by their first 12 characters.
    """

    every: tuple[str, ...]
    by_start: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, texts: Iterable[str]) -> UserTexts:
        """Make them ready to be looked for."""
        every = sorted(set(filter(None, texts)), key=lambda text: (-len(text), text))
        by_start: dict[str, list[str]] = {}
        for text in every:
            if len(text.strip()) >= _SHORTEST:
                by_start.setdefault(text[:_SHORTEST], []).append(text)
        return cls(tuple(every), {start: tuple(found) for start, found in by_start.items()})

    def are_in(self, value: Any) -> bool:
        """Tell whether a JSON value quotes one of the texts."""
        if isinstance(value, str):
            return bool(self._found(value))
        if isinstance(value, dict):
            return any(self.are_in(item) for item in value.values())
        return isinstance(value, list) and any(self.are_in(item) for item in value)

    def erased_in(self, value: Any) -> Any:
        """Return a JSON value with the texts taken out."""
        if isinstance(value, str):
            for text in sorted(self._found(value), key=len, reverse=True):
                value = value.replace(text, ERASED)
            return value
        if isinstance(value, dict):
            return {name: self.erased_in(item) for name, item in value.items()}
        return [self.erased_in(item) for item in value] if isinstance(value, list) else value

    def _found(self, value: str) -> list[str]:
        """Return those in a text; of many only those that begin as a part of it does."""
        if len(self.by_start) <= _FEW:
            starts = {start for start in self.by_start if start in value}
        else:
            parts = (value[at : at + _SHORTEST] for at in range(len(value) - _SHORTEST + 1))
            starts = self.by_start.keys() & parts
        return [text for start in starts for text in self.by_start[start] if text in value]
