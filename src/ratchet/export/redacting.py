"""Personal data taken out of what is exported, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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


def redact_values(rows: Sequence[dict[str, Any]], names: Sequence[str], redact: Texts) -> None:
    """Take personal data out of columns of rows, also where it lies in lists and mappings."""
    texts: list[str] = []
    for row in rows:
        for name in names:
            _walk(row.get(name), texts.append)
    clean = iter(redact(texts))
    for row in rows:
        for name in names:
            if name in row:
                row[name] = _replaced(row[name], clean)


def _walk(value: Any, take: Callable[[str], None]) -> None:
    if isinstance(value, str):
        take(value)
    elif isinstance(value, Mapping):
        for inner in value.values():
            _walk(inner, take)
    elif isinstance(value, list):
        for inner in value:
            _walk(inner, take)


def _replaced(value: Any, clean: Any) -> Any:
    if isinstance(value, str):
        return next(clean)
    if isinstance(value, Mapping):
        return {name: _replaced(inner, clean) for name, inner in value.items()}
    return [_replaced(inner, clean) for inner in value] if isinstance(value, list) else value


def pseudonym(salt: str, name: str | None) -> str | None:
    """Return another name for a user or session: the same for the same one, of this store alone."""
    return None if name is None else derive_id("pseudonym", salt, name)
