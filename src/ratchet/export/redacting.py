"""Personal data taken out of what is exported, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from ratchet.export.parts import Tally
from ratchet.records import derive_id
from ratchet.safety.redaction import RedactionConfig, redactor

Texts = Callable[[Sequence[str]], list[str]]
"""Takes personal data out of texts."""


def texts_redactor(tally: Tally) -> Texts:
    """Return what takes personal data out of texts and counts it in the tally."""
    found = redactor(RedactionConfig(sample=0))

    def redact(texts: Sequence[str]) -> list[str]:
        redacted = found.redact(list(texts))
        tally.redacted.update(redacted.counts)
        return list(redacted.texts)

    return redact


def redact_values(
    rows: Sequence[dict[str, Any]],
    names: Sequence[str],
    redact: Texts,
    *,
    keep: Collection[str] = (),
) -> None:
    """Take personal data out of columns of rows, also where it lies in lists and mappings.

    Args:
        rows: The rows, which are changed.
        names: The columns.
        redact: Takes it out of texts.
        keep: What stands in a mapping under one of these names stays, where it is no mapping.
    """
    texts: list[str] = []

    def take(text: str) -> str:
        texts.append(text)
        return text

    for row in rows:
        for name in names:
            _changed(row.get(name), take, keep)
    clean = iter(redact(texts))
    for row in rows:
        for name in names:
            if name in row:
                row[name] = _changed(row[name], lambda _: next(clean), keep)


def _changed(value: Any, change: Callable[[str], str], keep: Collection[str]) -> Any:
    """Return a copy of a JSON value with a function applied to each text, in order."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {
            name: inner
            if name in keep and not isinstance(inner, Mapping)
            else _changed(inner, change, keep)
            for name, inner in value.items()
        }
    return [_changed(inner, change, keep) for inner in value] if isinstance(value, list) else value


def pseudonym(salt: str, name: str | None) -> str | None:
    """Return another name for a user or session: the same for the same one, of this store alone."""
    return None if name is None else derive_id("pseudonym", salt, name)
