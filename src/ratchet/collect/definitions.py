"""Tools, forms of answers and documents that lie in a row: each is stored once, by its digest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from ratchet.errors import InvalidInputError
from ratchet.files.rows import parse_json
from ratchet.files.text import printable
from ratchet.records import Definition
from ratchet.records.events import DEFINITION_KINDS


def take_definitions(fields: Mapping[str, Any], found: dict[str, Definition]) -> Mapping[str, Any]:
    """Return a row with digests in the place of what it defines, which is added to `found`.

    A digest stays as it is. In a table what is defined is JSON text.

    Raises:
        InvalidInputError: What is defined cannot be stored.
    """
    taken: dict[str, str] = {}
    for kind in DEFINITION_KINDS:
        body = fields.get(kind)
        if isinstance(body, str) and body[:1] in ("[", "{"):
            body = parse_json(body, finite=True)
        if isinstance(body, list | dict):
            try:
                definition = Definition.of(kind, body)
            except (ValidationError, ValueError, RecursionError) as error:
                raise InvalidInputError(
                    f"{kind} must be JSON that can be stored, got "
                    f"{printable(json.dumps(body, default=str)[:80])!r}; correct it"
                ) from error
            found[definition.id] = definition
            taken[kind] = definition.id
    return {**fields, **taken} if taken else fields
