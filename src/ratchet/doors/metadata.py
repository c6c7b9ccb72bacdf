"""Metadata of other tools as that of an interaction: text by name."""

from __future__ import annotations

import json
from collections.abc import Mapping

_LONGEST = 2_000
_MOST = 50


def texts_of(value: object) -> dict[str, str]:
    """Return what an object holds as texts: what is no text as JSON, nulls and empty ones not.

    At most 50 fields of 2,000 characters are kept.
    """
    if isinstance(value, list):  # a map of Parquet
        value = dict(pair for pair in value if isinstance(pair, tuple) and len(pair) == 2)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    if not isinstance(value, Mapping):
        return {}
    found: dict[str, str] = {}
    for name, given in value.items():
        if given is None or given == "" or given == [] or given == {}:
            continue
        text = given if isinstance(given, str) else json.dumps(given, default=str)
        found[str(name)] = text[:_LONGEST]
        if len(found) == _MOST:
            break
    return found
